//! The eight-alternative pre-tokenisation pattern of K2, written out by hand.
//!
//! The alternatives, tried in this order at each position (source: the model's published tokenizer code):
//!
//! ```text
//! 1  [\p{Han}]+
//! 2  [^\r\n\p{L}\p{N}]?[UPPER]*[LOWER]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//! 3  [^\r\n\p{L}\p{N}]?[UPPER]+[LOWER]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//! 4  \p{N}{1,3}
//! 5   ?[^\s\p{L}\p{N}]+[\r\n]*
//! 6  \s*[\r\n]+
//! 7  \s+(?!\S)
//! 8  \s+
//! ```
//!
//! A regex engine needs look-ahead for 7 and is slow on mixed Unicode; the scanner below is linear.

use super::classes::{CLASSES, ClassTable, HAN, LETTER, LOWER, NEWLINE, NUMBER, SPACE, UPPER};

/// Splits `text` into the pieces inside which merging happens; their concatenation is `text`.
pub(super) fn pieces(text: &str) -> Pieces<'_> {
    Pieces { text: text.as_bytes(), at: 0, classes: &CLASSES }
}

/// Iterator over the pieces of one text.
pub(super) struct Pieces<'t> {
    /// Whole UTF-8.
    text: &'t [u8],
    at: usize,
    classes: &'static ClassTable,
}

impl<'t> Iterator for Pieces<'t> {
    type Item = &'t [u8];

    #[inline]
    fn next(&mut self) -> Option<&'t [u8]> {
        if self.at == self.text.len() {
            return None;
        }
        let start = self.at;
        self.at = self.end_of_piece(start);
        Some(&self.text[start..self.at])
    }
}

impl Pieces<'_> {
    fn end_of_piece(&self, start: usize) -> usize {
        let (class, len) = self.peek(start);
        if class & HAN != 0 {
            return self.run(start, HAN);
        }
        if let Some(end) = self.word(start, class, len) {
            return self.contraction(end);
        }
        if class & NUMBER != 0 {
            return self.number(start);
        }
        self.symbols(start).unwrap_or_else(|| self.spaces(start))
    }

    /// Alternatives 2 and 3 without the contraction; `class` and `len` are those of the first character.
    fn word(&self, start: usize, class: u8, len: usize) -> Option<usize> {
        let prefixed = (class & (LETTER | NUMBER | NEWLINE) == 0).then_some(start + len);
        let plain = (class & (UPPER | LOWER) != 0).then_some(start);
        let try_both = |word: fn(&Self, usize) -> Option<usize>| {
            prefixed.and_then(|at| word(self, at)).or_else(|| plain.and_then(|at| word(self, at)))
        };
        try_both(Self::lower_word).or_else(|| try_both(Self::upper_word))
    }

    /// `[UPPER]*[LOWER]+`: when no lower-only letter follows the greedy run, it gives back to its last letter in both sets.
    fn lower_word(&self, start: usize) -> Option<usize> {
        let mut at = start;
        let mut end_of_last_in_both = None;
        loop {
            let (class, len) = self.peek(at);
            if class & UPPER == 0 {
                return if class & LOWER != 0 {
                    Some(self.run(at + len, LOWER))
                } else {
                    end_of_last_in_both
                };
            }
            at += len;
            if class & LOWER != 0 {
                end_of_last_in_both = Some(at);
            }
        }
    }

    /// `[UPPER]+[LOWER]*`.
    fn upper_word(&self, start: usize) -> Option<usize> {
        let at = self.run(start, UPPER);
        (at > start).then(|| self.run(at, LOWER))
    }

    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)?` after a word that ends at `end`; case folding also makes `ſ` an `s`.
    fn contraction(&self, end: usize) -> usize {
        let Some((b'\'', rest)) = self.text[end..].split_first() else { return end };
        let len = match *rest {
            [b's' | b'S' | b't' | b'T' | b'm' | b'M' | b'd' | b'D', ..] => 2,
            [b'r' | b'R' | b'v' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..] => 3,
            [0xC5, 0xBF, ..] => 3,
            _ => 0,
        };
        end + len
    }

    /// `\p{N}{1,3}`, the first known to match.
    fn number(&self, start: usize) -> usize {
        let mut at = start;
        for _ in 0..3 {
            let (class, len) = self.peek(at);
            if class & NUMBER == 0 {
                break;
            }
            at += len;
        }
        at
    }

    /// ` ?[^\s\p{L}\p{N}]+[\r\n]*`.
    fn symbols(&self, start: usize) -> Option<usize> {
        let first = start + usize::from(self.text[start] == b' ');
        let mut at = first;
        while at < self.text.len() {
            let (class, len) = self.peek(at);
            if class & (SPACE | LETTER | NUMBER) != 0 {
                break;
            }
            at += len;
        }
        (at > first).then(|| self.run(at, NEWLINE))
    }

    /// Alternatives 6 to 8: up to the last line break of the run, else all but the run's last character when
    /// something follows, else the run.
    fn spaces(&self, start: usize) -> usize {
        let (mut at, mut last, mut end_of_newline) = (start, start, None);
        loop {
            let (class, len) = self.peek(at);
            if class & SPACE == 0 {
                break;
            }
            last = at;
            at += len;
            if class & NEWLINE != 0 {
                end_of_newline = Some(at);
            }
        }
        match end_of_newline {
            Some(end) => end,
            None if at < self.text.len() && last > start => last,
            None => at,
        }
    }

    /// End of the run of characters with any bit of `bits`, from `at`.
    #[inline]
    fn run(&self, mut at: usize, bits: u8) -> usize {
        loop {
            let (class, len) = self.peek(at);
            if class & bits == 0 {
                return at;
            }
            at += len;
        }
    }

    /// Set bits and byte length of the character at `at`; (0, 0) at the end of the text.
    #[inline(always)]
    fn peek(&self, at: usize) -> (u8, usize) {
        match self.text.get(at) {
            None => (0, 0),
            Some(&lead) => match self.classes.ascii(lead) {
                Some(class) => (class, 1),
                None => self.peek_wide(at, lead),
            },
        }
    }

    /// [`Self::peek`] of a character of two to four bytes.
    fn peek_wide(&self, at: usize, lead: u8) -> (u8, usize) {
        let low = |i: usize| u32::from(self.text[at + i] & 0x3F);
        let lead = u32::from(lead);
        let (code_point, len) = match lead {
            0..0xE0 => ((lead & 0x1F) << 6 | low(1), 2),
            0xE0..0xF0 => ((lead & 0x0F) << 12 | low(1) << 6 | low(2), 3),
            _ => ((lead & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4),
        };
        (self.classes.get(code_point), len)
    }
}
