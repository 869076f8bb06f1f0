//! Stop strings: over the answer's text, however it is cut into deltas.
//!
//! The match that ends first wins, and of several that end there the longest; text that may still become one is held.

/// Watches an answer for its stop strings.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    held: String,
}

impl StopStrings {
    /// Watches for these; none may be empty, or the answer ends before its first character.
    #[must_use]
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), held: String::new() }
    }

    /// Takes more text; gives what is certain to be answer, and the stop string that was met. After one, no more
    /// text may be pushed.
    pub fn push(&mut self, text: &str) -> (String, Option<String>) {
        self.held.push_str(text);
        let found = |stop: &String| {
            self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, stop.clone()))
        };
        if let Some((_, start, stop)) = self.stops.iter().filter_map(found).min() {
            let mut certain = std::mem::take(&mut self.held);
            certain.truncate(start);
            return (certain, Some(stop));
        }
        let rest = self.held.split_off(self.n_certain());
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// The text that was held: call it where no more of the answer follows.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the front that no stop string can begin in.
    fn n_certain(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let first = self.held.len().saturating_sub(longest);
        let may_begin = |at: &usize| {
            let tail = &self.held.as_bytes()[*at..];
            self.stops.iter().any(|stop| stop.as_bytes().starts_with(tail))
        };
        (first..self.held.len()).find(may_begin).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All the text that came through, and the stop string met.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let (mut watch, mut out) = (StopStrings::new(&stops), String::new());
        for piece in pieces {
            let (text, stop) = watch.push(piece);
            out.push_str(&text);
            if stop.is_some() {
                return (out, stop);
            }
        }
        out.push_str(&watch.flush());
        (out, None)
    }

    #[test]
    fn a_stop_string_ends_the_text_before_itself() {
        assert_eq!(run(&["END"], &["one END two"]), ("one ".to_owned(), Some("END".to_owned())));
        assert_eq!(run(&["END"], &["one EN", "d EN"]), ("one ENd EN".to_owned(), None));
        assert_eq!(run(&["b", "abc"], &["abc"]), ("a".to_owned(), Some("b".to_owned())));
        assert_eq!(run(&["bc", "abc"], &["abc"]), (String::new(), Some("abc".to_owned())));
        assert_eq!(run(&["é"], &["caf", "é!"]), ("caf".to_owned(), Some("é".to_owned())));
    }

    #[test]
    fn every_split_gives_the_same() {
        let alphabet = ['a', 'b', 'é'];
        let mut state = 7_u64;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        for _ in 0..2000 {
            let mut word = |n: usize| (0..n).map(|_| alphabet[below(3)]).collect::<String>();
            let (text, stops) = (word(12), [word(3), word(2), word(4)]);
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let whole = run(&stops, &[&text]);
            let cuts: Vec<usize> = text.char_indices().map(|(at, _)| at).filter(|_| below(2) == 0).collect();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text[from..cut]);
                from = cut;
            }
            assert_eq!(run(&stops, &pieces), whole, "{text:?} cut as {pieces:?} with {stops:?}");
        }
    }
}
