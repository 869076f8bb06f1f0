//! The cuts the published tokenizer makes in very long texts before it encodes; merges never cross them.

/// Longest slice encoded at once, in code points.
const SLICE_CHARS: usize = 400_000;
/// Longest run of only white space, or of only anything else, in code points.
const RUN_CHARS: usize = 25_000;

/// The parts of `text` that are encoded independently; a text of at most `RUN_CHARS` bytes is one part.
pub(super) fn parts(text: &str) -> Parts<'_> {
    Parts { rest: text, chars_left: SLICE_CHARS }
}

/// Iterator over the parts of one text.
pub(super) struct Parts<'t> {
    rest: &'t str,
    /// Code points left in the slice that `rest` begins in.
    chars_left: usize,
}

impl<'t> Iterator for Parts<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        if self.rest.is_empty() {
            return None;
        }
        let (part, rest) = self.rest.split_at(self.end_of_part());
        self.rest = rest;
        Some(part)
    }
}

impl Parts<'_> {
    /// Byte length of the next part; updates the count of code points left in the slice.
    fn end_of_part(&mut self) -> usize {
        if self.rest.len() <= RUN_CHARS.min(self.chars_left) {
            return self.rest.len();
        }
        let (mut run_chars, mut run_is_space) = (0, false);
        for (at, c) in self.rest.char_indices() {
            if self.chars_left == 0 {
                self.chars_left = SLICE_CHARS;
                return at;
            }
            let is_space = is_python_space(c);
            if run_chars == 0 || is_space != run_is_space {
                (run_chars, run_is_space) = (1, is_space);
            } else if run_chars == RUN_CHARS {
                return at;
            } else {
                run_chars += 1;
            }
            self.chars_left -= 1;
        }
        self.rest.len()
    }
}

/// Python's `str.isspace` of one character: Unicode white space and the four information separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}
