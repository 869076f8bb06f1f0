//! Choices from a seed: the same worlds on every machine, for ever.

use crate::rng;

/// Random choices over the crate's one source of numbers.
#[derive(Debug, Clone)]
pub struct Rng(rng::Rng);

impl Rng {
    /// The stream of one index under a seed: a pure function of both.
    #[must_use]
    pub fn at(seed: u64, index: u64) -> Self {
        Self(rng::Rng::new(rng::Rng::mixed(seed, index)))
    }

    /// A number in `0..n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.below(n as u64) as usize
    }

    /// A number in `low..=high`; `low` may not be above `high`.
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True once in `n` times on average.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// True `percent` times of a hundred on average.
    pub fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of `options`.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'o, T>(&mut self, options: &'o [T]) -> &'o T {
        &options[self.below(options.len())]
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
