//! Lexical limits of generated JSON that a schema cannot express: white space, digits of a number, depth.
//!
//! A model that loops writes `0.3333…` or `[[[[…` until its tokens run out; these limits end both. They only ever
//! remove tokens while others remain, so they cannot lead into a dead end.

use toktrie::TokTrie;

/// White space between the parts of a JSON text: up to four blanks, or one line break with its indent.
pub(super) const SPACE_PATTERN: &str = r"(\x20{1,4}|\r?\n[\x20\t]{0,40})";
/// Most bytes that [`SPACE_PATTERN`] matches.
pub(super) const SPACE_BYTES_MAX: u64 = 42;
/// Most digits of a number before its point, and again after it.
pub const DIGITS_MAX: u32 = 40;
/// Most digits of an exponent.
pub const EXPONENT_DIGITS_MAX: u32 = 2;
/// Deepest nesting of generated objects and arrays, in levels.
pub const VALUE_DEPTH_MAX: u32 = 100;
/// Most bytes of a number: sign, digits, point, digits, `e`, sign, exponent.
pub(super) const NUMBER_BYTES_MAX: u64 = 4 + 2 * DIGITS_MAX as u64 + EXPONENT_DIGITS_MAX as u64;

/// Where in a JSON text the bytes so far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    InString,
    InEscape,
    InNumber { n_digits: u32, in_exponent: bool },
}

/// Follows the bytes of a JSON text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    place: Place,
    depth: u32,
}

impl Position {
    pub(super) fn start() -> Self {
        Self { place: Place::Between, depth: 0 }
    }

    /// Goes on by `bytes`; false if they pass a limit.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> bool {
        let mut within = true;
        for byte in bytes {
            within &= self.step(*byte);
        }
        within
    }

    fn step(&mut self, byte: u8) -> bool {
        match self.place {
            Place::InEscape => self.place = Place::InString,
            Place::InString if byte == b'\\' => self.place = Place::InEscape,
            Place::InString if byte == b'"' => self.place = Place::Between,
            Place::InString => {}
            Place::InNumber { n_digits, in_exponent } => return self.in_number(byte, n_digits, in_exponent),
            Place::Between => return self.between(byte),
        }
        true
    }

    fn in_number(&mut self, byte: u8, n_digits: u32, in_exponent: bool) -> bool {
        match byte {
            b'0'..=b'9' => {
                let n_digits = n_digits + 1;
                self.place = Place::InNumber { n_digits, in_exponent };
                n_digits <= if in_exponent { EXPONENT_DIGITS_MAX } else { DIGITS_MAX }
            }
            b'.' => {
                self.place = Place::InNumber { n_digits: 0, in_exponent };
                true
            }
            b'e' | b'E' => {
                self.place = Place::InNumber { n_digits: 0, in_exponent: true };
                true
            }
            b'+' | b'-' => true,
            _ => self.between(byte),
        }
    }

    fn between(&mut self, byte: u8) -> bool {
        self.place = match byte {
            b'"' => Place::InString,
            b'-' => Place::InNumber { n_digits: 0, in_exponent: false },
            b'0'..=b'9' => Place::InNumber { n_digits: 1, in_exponent: false },
            _ => Place::Between,
        };
        match byte {
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth <= VALUE_DEPTH_MAX
    }
}

/// The tokens of a vocabulary that can pass a limit.
pub(super) struct Guard {
    /// Tokens that can lengthen a number.
    numeric: Vec<u32>,
    /// Tokens that open an object or an array, and the most that one token opens.
    opening: Vec<u32>,
    n_opened_max: u32,
    /// Tokens that hold a number beyond the limits by themselves.
    overlong: Vec<u32>,
}

impl Guard {
    /// Sorts the ordinary tokens `0..n_ranks` of `trie`.
    pub(super) fn new(trie: &TokTrie, n_ranks: u32) -> Self {
        let mut guard = Self { numeric: vec![], opening: vec![], n_opened_max: 0, overlong: vec![] };
        for id in 0..n_ranks {
            let bytes = trie.token(id);
            let n_numeric = bytes.iter().take_while(|byte| b"0123456789.eE+-".contains(byte)).count();
            if bytes[..n_numeric].iter().any(u8::is_ascii_digit) {
                guard.numeric.push(id);
            }
            let n_opened = bytes.iter().filter(|byte| b"[{".contains(byte)).count() as u32;
            if n_opened > 0 {
                guard.opening.push(id);
                guard.n_opened_max = guard.n_opened_max.max(n_opened);
            }
            if !Position::start().advance(bytes) {
                guard.overlong.push(id);
            }
        }
        guard
    }

    /// Clears the tokens of `mask` that pass a limit at `position`, unless no other token remains.
    pub(super) fn apply(&self, position: Position, trie: &TokTrie, mask: &mut [u32]) {
        let mut cleared = Vec::new();
        let mut clear = |ids: &[u32]| {
            for &id in ids {
                let mut ahead = position;
                if is_set(mask, id) && !ahead.advance(trie.token(id)) {
                    mask[id as usize / 32] &= !(1 << (id % 32));
                    cleared.push(id);
                }
            }
        };
        if matches!(position.place, Place::InNumber { .. }) {
            clear(&self.numeric);
        }
        if position.depth + self.n_opened_max > VALUE_DEPTH_MAX {
            clear(&self.opening);
        }
        clear(&self.overlong);
        if !cleared.is_empty() && mask.iter().all(|word| *word == 0) {
            cleared.into_iter().for_each(|id| set(mask, id));
        }
    }
}

/// Allows `id` in `mask`.
pub(super) fn set(mask: &mut [u32], id: u32) {
    mask[id as usize / 32] |= 1 << (id % 32);
}

/// Whether `mask` allows `id`.
pub(super) fn is_set(mask: &[u32], id: u32) -> bool {
    mask[id as usize / 32] >> (id % 32) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::{Position, VALUE_DEPTH_MAX};

    #[test]
    fn numbers_and_depth_have_limits() {
        let within = |text: &str| Position::start().advance(text.as_bytes());
        assert!(within(&format!("[-{}.{}e-99]", "1".repeat(40), "2".repeat(40))));
        assert!(!within(&"1".repeat(41)));
        assert!(!within(&format!("0.{}", "3".repeat(41))));
        assert!(!within("1e100"));
        assert!(within(&format!("\"{}[[[\\\"1e999\"", "1".repeat(99))));
        let depth = VALUE_DEPTH_MAX as usize;
        assert!(within(&"[".repeat(depth)));
        assert!(!within(&"[".repeat(depth + 1)));
        assert!(within(&"[]".repeat(depth * 2)));
    }
}
