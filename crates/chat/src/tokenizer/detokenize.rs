//! Bytes to text, piece by piece, never half a character.

/// Incremental UTF-8 decoder with replacement; the concatenation of its outputs equals decoding the
/// concatenated input at once (Python's `bytes.decode(errors="replace")`, Rust's `from_utf8_lossy`).
#[derive(Debug, Clone, Default)]
pub struct Detokenizer {
    /// An unfinished but so far valid character: at most 3 bytes.
    pending: Vec<u8>,
}

impl Detokenizer {
    /// A decoder with nothing pending.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes of the next token and returns the text that is now certain; a character cut at the
    /// end is held back until its last byte comes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(
                        std::str::from_utf8(valid).expect("the decoder just found this part valid"),
                    );
                    let Some(n_bad) = error.error_len() else {
                        self.pending = after.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[n_bad..];
                }
            }
        }
    }

    /// Ends the text: one replacement character when a character was left cut, else nothing.
    pub fn finish(&mut self) -> String {
        let cut = !std::mem::take(&mut self.pending).is_empty();
        if cut { char::REPLACEMENT_CHARACTER.into() } else { String::new() }
    }
}
