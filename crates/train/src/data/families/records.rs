//! Files of keys and values.

use crate::data::names::{Names, NumberKind};
use crate::data::rng::Rng;

/// A list of records, one a line, all written alike.
pub(super) struct Records {
    pub(super) lines: Vec<(String, String)>,
    pub(super) sign: &'static str,
}

/// What stands between a key and its value.
const SIGNS: &[&str] = &[": ", "=", " = ", ",", " "];

impl Records {
    /// Between `n_min` and `n_max` records with numbers as values.
    pub(super) fn numbers(names: &mut Names<'_>, rng: &mut Rng, n_min: usize, n_max: usize) -> Self {
        let kind = NumberKind::random(rng);
        let lines = (0..rng.within(n_min, n_max)).map(|_| (names.key(rng), kind.number(rng))).collect();
        Self { lines, sign: *rng.pick(SIGNS) }
    }

    /// The line of a record.
    pub(super) fn line(&self, idx: usize) -> String {
        format!("{}{}{}", self.lines[idx].0, self.sign, self.lines[idx].1)
    }

    /// The line of a record as a search of its file shows it.
    pub(super) fn found(&self, path: &str, idx: usize) -> String {
        format!("{path}:{}: {}", idx + 1, self.line(idx))
    }

    /// Puts a record at a random place, and tells which.
    pub(super) fn put(&mut self, key: &str, value: &str, rng: &mut Rng) -> usize {
        let at = rng.below(self.lines.len() + 1);
        self.lines.insert(at, (key.to_owned(), value.to_owned()));
        at
    }

    /// Lines that a search for a word would find.
    pub(super) fn n_holding(&self, word: &str) -> usize {
        let word = word.to_lowercase();
        (0..self.lines.len()).filter(|&idx| self.line(idx).to_lowercase().contains(&word)).count()
    }

    /// The file's text.
    pub(super) fn text(&self) -> String {
        (0..self.lines.len()).map(|idx| self.line(idx) + "\n").collect()
    }
}
