//! Output within bounds: the beginning and the end are kept, the middle is counted.

use std::collections::VecDeque;

/// What is kept of a stream: as much of its beginning as of its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    most_bytes: usize,
    total_bytes: u64,
}

impl Captured {
    /// Nothing yet; at most `most_bytes` bytes will be kept.
    pub fn new(most_bytes: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), most_bytes, total_bytes: 0 }
    }

    /// Add what the stream gave next.
    pub fn push(&mut self, piece: &[u8]) {
        self.total_bytes += piece.len() as u64;
        let n_head = (self.most_bytes / 2).saturating_sub(self.head.len()).min(piece.len());
        let (head, rest) = piece.split_at(n_head);
        self.head.extend_from_slice(head);
        let n_tail = self.most_bytes - self.most_bytes / 2;
        let rest = &rest[rest.len().saturating_sub(n_tail)..];
        let over = (self.tail.len() + rest.len()).saturating_sub(n_tail);
        self.tail.drain(..over);
        self.tail.extend(rest);
    }

    /// Number of bytes that the stream gave.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Number of bytes that were not kept.
    pub fn dropped_bytes(&self) -> u64 {
        self.total_bytes - (self.head.len() + self.tail.len()) as u64
    }

    /// As text: what is no UTF-8 becomes U+FFFD, and a line stands for what was dropped.
    pub fn text(&self) -> String {
        let tail: Vec<u8> = self.tail.iter().copied().collect();
        if self.dropped_bytes() == 0 {
            return String::from_utf8_lossy(&[self.head.as_slice(), &tail].concat()).into_owned();
        }
        let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&tail));
        format!("{head}\n[... {} bytes not kept ...]\n{tail}", self.dropped_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_keeps_the_same() {
        let bytes: Vec<u8> = (0..200).collect();
        for most in [0, 1, 7, 64, 199, 200, 300] {
            let mut whole = Captured::new(most);
            whole.push(&bytes);
            assert_eq!(whole.total_bytes() - whole.dropped_bytes(), most.min(200) as u64);
            for step in [1, 3, 50, 199] {
                let mut pieces = Captured::new(most);
                bytes.chunks(step).for_each(|piece| pieces.push(piece));
                assert_eq!(pieces, whole, "most {most}, step {step}");
            }
        }
    }

    #[test]
    fn text_says_what_is_gone() {
        let mut captured = Captured::new(4);
        captured.push("añb".as_bytes());
        assert_eq!(captured.text(), "añb");
        captured.push(b"cd");
        assert!(captured.text().ends_with("\n[... 2 bytes not kept ...]\ncd"), "{}", captured.text());
    }
}
