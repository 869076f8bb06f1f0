//! Whole turns right under teacher forcing: a fast measure while training.

use perilune_model::train::Batch;

/// Turns, and those of them whose every token was the most probable one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    /// Turns that carry weight.
    pub n_turns: u64,
    /// Turns without a wrong token.
    pub n_exact: u64,
}

impl Turns {
    /// Counts the turns of a batch: runs of targets that carry weight, between targets and sequences that do not.
    /// `argmax` `[T]` is the id of the largest logit behind each of the batch's tokens.
    ///
    /// # Panics
    /// When `argmax` has fewer ids than the batch.
    #[must_use]
    pub fn count(batch: &Batch, argmax: &[u32]) -> Self {
        let mut turns = Self::default();
        let mut first = 0;
        for length in &batch.lengths {
            let places = first..first + length;
            let right =
                argmax[places.clone()].iter().zip(&batch.targets[places.clone()]).map(|(a, b)| a == b);
            let mut is_exact = None;
            for (weight, is_right) in batch.weights[places].iter().zip(right) {
                if *weight == 0.0 {
                    turns.close(is_exact.take());
                } else {
                    is_exact = Some(is_exact.unwrap_or(true) && is_right);
                }
            }
            turns.close(is_exact);
            first += length;
        }
        turns
    }

    /// The sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { n_turns: self.n_turns + other.n_turns, n_exact: self.n_exact + other.n_exact }
    }

    fn close(&mut self, is_exact: Option<bool>) {
        if let Some(is_exact) = is_exact {
            self.n_turns += 1;
            self.n_exact += u64::from(is_exact);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_token_spoils_one_turn() {
        let batch = Batch {
            ids: vec![0; 8],
            targets: vec![1, 2, 3, 4, 5, 6, 7, 8],
            weights: vec![0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0],
            lengths: vec![6, 2],
        };
        let count = |argmax: [u32; 8]| Turns::count(&batch, &argmax);
        assert_eq!(count([1, 2, 3, 4, 5, 6, 7, 8]), Turns { n_turns: 3, n_exact: 3 });
        assert_eq!(count([9, 2, 3, 9, 5, 6, 7, 8]), Turns { n_turns: 3, n_exact: 3 });
        assert_eq!(count([1, 2, 9, 4, 5, 6, 7, 8]), Turns { n_turns: 3, n_exact: 2 });
        assert_eq!(count([1, 2, 3, 4, 5, 9, 9, 8]), Turns { n_turns: 3, n_exact: 1 });
    }
}
