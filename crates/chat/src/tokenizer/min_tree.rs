//! The lowest of many ranks, kept while single ones change.

use super::ranks::NO_RANK;

/// Children of a node.
const FAN: usize = 16;

/// No rank.
const NONE: f32 = f32::INFINITY;

/// A tree of minima over a list of ranks: finding and changing cost `log n`.
#[derive(Default)]
pub(super) struct MinTree {
    /// The ranks first, then the minima of every `FAN` of the level before, up to one node of `FAN`; each level is
    /// filled up with `NONE` to whole nodes.
    ///
    /// Ranks stand as `f32`, exact below 2^24, because that is the one minimum every x86-64 takes in one instruction.
    levels: Vec<Vec<f32>>,
}

impl MinTree {
    /// Starts again with these ranks.
    pub(super) fn fill(&mut self, ranks: impl Iterator<Item = u32>) {
        let mut height = 0;
        self.level(height).extend(ranks.map(stored));
        loop {
            let level = &mut self.levels[height];
            level.resize(level.len().next_multiple_of(FAN).max(FAN), NONE);
            if level.len() == FAN {
                break;
            }
            let minima: Vec<f32> = level.chunks_exact(FAN).map(lowest_of).collect();
            height += 1;
            *self.level(height) = minima;
        }
        self.levels.truncate(height + 1);
    }

    /// The level at `height`, emptied, made when missing.
    fn level(&mut self, height: usize) -> &mut Vec<f32> {
        if self.levels.len() == height {
            self.levels.push(Vec::new());
        }
        self.levels[height].clear();
        &mut self.levels[height]
    }

    /// Changes the rank at `idx`.
    pub(super) fn set(&mut self, mut idx: usize, rank: u32) {
        let mut rank = stored(rank);
        for height in 0..self.levels.len() {
            let (below, above) = self.levels.split_at_mut(height + 1);
            let level = &mut below[height];
            let old = std::mem::replace(&mut level[idx], rank);
            let Some(&minimum) = above.first().and_then(|above| above.get(idx / FAN)) else { return };
            let (first, end) = (idx / FAN * FAN, (idx / FAN + 1) * FAN);
            if rank >= minimum {
                // In a run of equal ranks the next one is mostly the same: then nothing changes above.
                let stays = rank == minimum || old > minimum;
                if stays || level[idx..end].contains(&minimum) || level[first..idx].contains(&minimum) {
                    return;
                }
                rank = lowest_of(&level[first..end]);
            }
            idx /= FAN;
        }
    }

    /// Lowest rank and its first index, `None` when every rank is `NO_RANK`.
    pub(super) fn lowest(&self) -> Option<(u32, usize)> {
        let lowest = lowest_of(self.levels.last()?);
        let into_node = |node: usize, level: &Vec<f32>| {
            let ranks = &level[node * FAN..][..FAN];
            node * FAN + ranks.iter().position(|&rank| rank == lowest).unwrap_or_default()
        };
        (lowest != NONE).then(|| (lowest as u32, self.levels.iter().rev().fold(0, into_node)))
    }
}

/// A rank as it stands in the tree.
#[inline]
fn stored(rank: u32) -> f32 {
    if rank == NO_RANK { NONE } else { rank as f32 }
}

#[inline]
fn lowest_of(ranks: &[f32]) -> f32 {
    let mut lanes = [NONE; 4];
    for four in ranks.as_chunks::<4>().0 {
        for (lane, &rank) in lanes.iter_mut().zip(four) {
            *lane = if rank < *lane { rank } else { *lane };
        }
    }
    lanes.into_iter().fold(NONE, |lowest, rank| if rank < lowest { rank } else { lowest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_that_of_a_plain_list() {
        for seed in 1..200u64 {
            let mut state = seed;
            let mut next = move |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % below
            };
            let n = 1 + next(600) as usize;
            let mut rank = move || if next(4) == 0 { NO_RANK } else { next(5) as u32 };
            let mut list: Vec<u32> = (0..n).map(|_| rank()).collect();
            let mut tree = MinTree::default();
            tree.fill(list.iter().copied());
            for step in 0..300 {
                let lowest = list.iter().copied().enumerate().min_by_key(|&(_, rank)| rank);
                let expected = lowest.filter(|&(_, rank)| rank != NO_RANK).map(|(idx, rank)| (rank, idx));
                assert_eq!(tree.lowest(), expected, "seed {seed}, step {step}");
                let idx = (step * 7919 + rank() as usize) % n;
                list[idx] = rank();
                tree.set(idx, list[idx]);
            }
        }
    }
}
