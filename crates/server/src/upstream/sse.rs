//! Server-sent events to the data of each.

/// Longest line that is kept, bytes.
const LINE_BYTES_MAX: usize = 8 << 20;

/// Collects bytes into lines and gives the text after `data:`.
#[derive(Default)]
pub(super) struct Lines {
    kept: Vec<u8>,
}

impl Lines {
    /// Takes more bytes; gives the data of the lines that are whole now.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.kept.len() + part.len() > LINE_BYTES_MAX {
                self.kept.clear();
            }
            self.kept.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.kept).into_owned();
                self.kept.clear();
                found.extend(line.strip_prefix("data:").map(|data| data.trim().to_owned()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = ": hello\r\nevent: x\r\ndata: {\"a\":\"é\"}\r\n\r\ndata:[DONE]\n\n".as_bytes();
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut found = lines.push(&text[..cut]);
            found.extend(lines.push(&text[cut..]));
            assert_eq!(found, ["{\"a\":\"é\"}", "[DONE]"], "cut at {cut}");
        }
    }
}
