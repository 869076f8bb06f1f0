//! Top-p (nucleus sampling): the heaviest candidates whose share first reaches `top_p`, heaviest first.
//!
//! [`plain`] is the definition. [`Buckets`] gives the same candidates in the same order, and so the same draws: it
//! parts them by the leading bits of their weights, and sorts bucket after bucket until the share is reached.

/// A candidate: token id, and weight in [0, 1] (its probability over the likeliest one's, which has 1).
pub type Candidate = (u32, f64);

/// Candidates sorted first by [`plain`].
const FIRST: usize = 256;
/// Candidates up to which [`plain`] is as fast.
const FEW: usize = 1_024;
/// Bits of a weight's mantissa that tell its bucket: 64 buckets for each halving.
const BUCKET_BITS: u32 = 6;
/// Halvings that have buckets of their own; the last bucket holds all below.
const HALVINGS: usize = 32;
const N_BUCKETS: usize = (HALVINGS << BUCKET_BITS) + 1;
/// Bits below those that tell the bucket.
const REST_BITS: u32 = f64::MANTISSA_DIGITS - 1 - BUCKET_BITS;
/// Bits left for an id in a sort key.
const ID_BITS: u32 = u64::BITS - REST_BITS;
/// More mass than asked for is gathered by this share, far above what roundings can move.
const SLACK: f64 = 1e-9;

/// Orders candidates: heavier first, then the lower id.
pub fn by_weight(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Keep the nucleus of `candidates`, which come in order of id, and leave it heaviest first. `top_p` is in (0, 1]:
/// the share of their mass.
pub fn plain(candidates: &mut Vec<Candidate>, top_p: f64) {
    let target = target(candidates, top_p);
    let mut n_sorted = FIRST;
    loop {
        let n = n_sorted.min(candidates.len());
        if n < candidates.len() {
            candidates.select_nth_unstable_by(n - 1, by_weight);
        }
        candidates[..n].sort_unstable_by(by_weight);
        match reached(&candidates[..n], &mut 0.0, target) {
            Some(last) => return candidates.truncate(last + 1),
            None if n == candidates.len() => return,
            None => n_sorted *= 8,
        }
    }
}

/// The mass to be reached: a share of the sum in order of id.
fn target(candidates: &[Candidate], top_p: f64) -> f64 {
    candidates.iter().map(|(_, w)| w).sum::<f64>() * top_p
}

/// Adds the weights to `mass` in order; where it reaches `target`.
fn reached(candidates: &[Candidate], mass: &mut f64, target: f64) -> Option<usize> {
    candidates.iter().position(|(_, w)| {
        *mass += w;
        *mass >= target
    })
}

/// Buffers of the fast way, kept between draws.
#[derive(Default)]
pub struct Buckets {
    masses: Vec<f64>,
    /// Candidates of each bucket, then the place of its next key.
    places: Vec<usize>,
    keys: Vec<u64>,
}

impl Buckets {
    /// Keep the nucleus of `candidates`, which come in order of id, as [`plain`] does: the same candidates in the
    /// same order.
    pub fn keep(&mut self, candidates: &mut Vec<Candidate>, top_p: f64) {
        let is_wide = candidates.last().is_some_and(|(id, _)| u64::from(*id) >> ID_BITS != 0);
        if candidates.len() <= FEW || is_wide {
            return plain(candidates, top_p);
        }
        let target = target(candidates, top_p);
        match self.gather(candidates, target) {
            Some(n_buckets) => {
                if let Some(nucleus) = self.sorted(n_buckets, target) {
                    *candidates = nucleus;
                    return;
                }
                plain(candidates, top_p);
            }
            None => plain(candidates, top_p),
        }
    }

    /// Puts the keys of the heaviest buckets that hold `target` in order of bucket; how many buckets they are, or
    /// `None` where the last one is needed, whose weights have no keys.
    fn gather(&mut self, candidates: &[Candidate], target: f64) -> Option<usize> {
        self.masses.clear();
        self.masses.resize(N_BUCKETS, 0.0);
        self.places.clear();
        self.places.resize(N_BUCKETS, 0);
        for (_, weight) in candidates {
            let bucket = bucket(*weight);
            self.masses[bucket] += weight;
            self.places[bucket] += 1;
        }
        let mut mass = 0.0;
        let last = self.masses.iter().position(|more| {
            mass += more;
            mass >= target * (1.0 + SLACK)
        });
        let n_buckets = last.filter(|last| *last + 1 < N_BUCKETS)? + 1;
        let mut n_keys = 0;
        for place in &mut self.places[..n_buckets] {
            n_keys += std::mem::replace(place, n_keys);
        }
        self.keys.clear();
        self.keys.resize(n_keys, 0);
        for (id, weight) in candidates {
            let bucket = bucket(*weight);
            if bucket < n_buckets {
                self.keys[self.places[bucket]] = key(*id, *weight);
                self.places[bucket] += 1;
            }
        }
        Some(n_buckets)
    }

    /// The nucleus out of the first `n_buckets`; `None` where they do not hold `target` after all.
    fn sorted(&mut self, n_buckets: usize, target: f64) -> Option<Vec<Candidate>> {
        let mut nucleus = Vec::with_capacity(self.keys.len());
        let (mut begin, mut mass) = (0, 0.0);
        for bucket in 0..n_buckets {
            let keys = &mut self.keys[begin..self.places[bucket]];
            keys.sort_unstable();
            let n_before = nucleus.len();
            nucleus.extend(keys.iter().map(|key| candidate(bucket, *key)));
            if let Some(last) = reached(&nucleus[n_before..], &mut mass, target) {
                nucleus.truncate(n_before + last + 1);
                return Some(nucleus);
            }
            begin = self.places[bucket];
        }
        None
    }
}

/// How far a weight's bits are below those of 1: more for lighter ones.
fn depth(weight: f64) -> u64 {
    1.0f64.to_bits().saturating_sub(weight.to_bits())
}

fn bucket(weight: f64) -> usize {
    ((depth(weight) >> REST_BITS) as usize).min(N_BUCKETS - 1)
}

/// Orders the candidates of one bucket: the heavier, then the lower id, has the lower key.
fn key(id: u32, weight: f64) -> u64 {
    (depth(weight) << ID_BITS) | u64::from(id)
}

/// The candidate of a key in its bucket.
fn candidate(bucket: usize, key: u64) -> Candidate {
    let depth = ((bucket as u64) << REST_BITS) | (key >> ID_BITS);
    ((key & ((1 << ID_BITS) - 1)) as u32, f64::from_bits(1.0f64.to_bits() - depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// Weights of one of several kinds: flat, peaked, with ties, with zeros, all alike.
    fn weights(seed: u64) -> Vec<Candidate> {
        let mut state = seed;
        let n = FEW + 1 + next(&mut state) as usize % 20_000;
        let (kind, spread) =
            (next(&mut state) % 5, [0.0, 0.5, 4.0, 30.0, 2_000.0][next(&mut state) as usize % 5]);
        let stride = 1 + next(&mut state) as u32 % 9;
        let mut candidates: Vec<Candidate> = (0..n as u32)
            .map(|i| {
                let uniform = (next(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
                let logit = match kind {
                    0 => uniform * spread,
                    1 => uniform.powi(8) * spread,
                    2 => (uniform * 16.0).floor() / 16.0 * spread,
                    _ => spread * (uniform + 1e-300).ln().abs(),
                };
                (i * stride, (-logit).exp())
            })
            .collect();
        let heaviest = next(&mut state) as usize % n;
        candidates[heaviest].1 = 1.0;
        candidates
    }

    #[test]
    fn buckets_keep_what_the_definition_keeps() {
        let mut buckets = Buckets::default();
        for seed in 0..60 {
            let candidates = weights(seed);
            for top_p in [1e-9, 0.1, 0.5, 0.9, 0.95, 0.999, 1.0 - 1e-12] {
                let (mut expect, mut got) = (candidates.clone(), candidates.clone());
                plain(&mut expect, top_p);
                buckets.keep(&mut got, top_p);
                let bits = |kept: &[Candidate]| -> Vec<(u32, u64)> {
                    kept.iter().map(|(id, w)| (*id, w.to_bits())).collect()
                };
                assert!(
                    bits(&expect) == bits(&got),
                    "seed {seed}, top_p {top_p}: {} for {}",
                    got.len(),
                    expect.len()
                );
            }
        }
    }

    #[test]
    fn keys_give_their_candidates_back() {
        let mut state = 3;
        for _ in 0..10_000 {
            let (id, weight) = (
                next(&mut state) as u32 >> (32 - ID_BITS),
                (next(&mut state) >> 11) as f64 / (1u64 << 53) as f64,
            );
            if bucket(weight) + 1 < N_BUCKETS {
                assert_eq!(candidate(bucket(weight), key(id, weight)), (id, weight));
            }
        }
        assert_eq!((bucket(1.0), bucket(0.5), bucket(0.0)), (0, 64, N_BUCKETS - 1));
    }
}
