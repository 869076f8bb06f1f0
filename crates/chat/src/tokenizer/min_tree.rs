//! The lowest of many ranks, kept while single ones change.

use super::ranks::NO_RANK;

/// Children of a node.
const FAN: usize = 16;

/// A tree of minima over a list of ranks: finding and changing cost `log n`.
#[derive(Default)]
pub(super) struct MinTree {
    /// The ranks first, then the minima of every `FAN` of the level before, up to one node of `FAN`; each level is
    /// filled up with `NO_RANK` to whole nodes.
    levels: Vec<Vec<u32>>,
}

impl MinTree {
    /// Starts again with these ranks.
    pub(super) fn fill(&mut self, ranks: impl Iterator<Item = u32>) {
        let mut height = 0;
        self.level(height).extend(ranks);
        loop {
            let level = &mut self.levels[height];
            level.resize(level.len().next_multiple_of(FAN).max(FAN), NO_RANK);
            if level.len() == FAN {
                break;
            }
            let minima: Vec<u32> = level.chunks_exact(FAN).map(lowest_of).collect();
            height += 1;
            *self.level(height) = minima;
        }
        self.levels.truncate(height + 1);
    }

    /// The level at `height`, emptied, made when missing.
    fn level(&mut self, height: usize) -> &mut Vec<u32> {
        if self.levels.len() == height {
            self.levels.push(Vec::new());
        }
        self.levels[height].clear();
        &mut self.levels[height]
    }

    /// Changes the rank at `idx`.
    pub(super) fn set(&mut self, mut idx: usize, mut rank: u32) {
        for level in &mut self.levels {
            if level[idx] == rank {
                return;
            }
            level[idx] = rank;
            idx /= FAN;
            rank = lowest_of(&level[idx * FAN..][..FAN]);
        }
    }

    /// Lowest rank and its first index, `None` when every rank is `NO_RANK`.
    pub(super) fn lowest(&self) -> Option<(u32, usize)> {
        let lowest = lowest_of(self.levels.last()?);
        let into_node = |node: usize, level: &Vec<u32>| {
            let ranks = &level[node * FAN..][..FAN];
            node * FAN + ranks.iter().position(|&rank| rank == lowest).unwrap_or_default()
        };
        (lowest != NO_RANK).then(|| (lowest, self.levels.iter().rev().fold(0, into_node)))
    }
}

#[inline]
fn lowest_of(ranks: &[u32]) -> u32 {
    ranks.iter().fold(NO_RANK, |lowest, &rank| lowest.min(rank))
}
