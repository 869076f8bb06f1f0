//! The cuts the published tokenizer makes in very long texts before it encodes; merges never cross them.

/// Longest slice encoded at once, in code points.
const SLICE_CHARS: usize = 400_000;
/// Longest run of only white space, or of only anything else, in code points.
const RUN_CHARS: usize = 25_000;

/// The parts of `text` that are encoded independently; a text of at most `RUN_CHARS` bytes is one part.
pub(super) fn parts(text: &str) -> impl Iterator<Item = &str> {
    chop(text, end_of_slice).flat_map(|slice| chop(slice, end_of_part))
}

/// Cuts `text` at each end that `end` gives for what is left of it.
fn chop(mut text: &str, end: fn(&str) -> usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (part, rest) = text.split_at(end(text));
        text = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// Byte length of the first `SLICE_CHARS` code points.
fn end_of_slice(text: &str) -> usize {
    if text.len() <= SLICE_CHARS {
        return text.len();
    }
    let mut chars = text.chars();
    chars.nth(SLICE_CHARS - 1);
    text.len() - chars.as_str().len()
}

/// Byte length up to the first place where a run gets longer than `RUN_CHARS`, or of the whole slice.
fn end_of_part(slice: &str) -> usize {
    let mut run_start = 0;
    while slice.len() - run_start > RUN_CHARS {
        run_start = match last_run_in_window(slice, run_start) {
            Some(later_run) => later_run,
            None => match end_of_run(slice, run_start) {
                RunEnd::TooLong(at) => return at,
                RunEnd::Before(next_run) => next_run,
            },
        };
    }
    slice.len()
}

/// Start of the last run that begins within `RUN_CHARS` bytes after `run_start`: runs before it are short enough.
fn last_run_in_window(slice: &str, run_start: usize) -> Option<usize> {
    let window = &slice[run_start..slice.floor_char_boundary(run_start + RUN_CHARS)];
    let is_space = window.chars().next_back().map(is_python_space)?;
    let run_len: usize =
        window.chars().rev().take_while(|&c| is_python_space(c) == is_space).map(char::len_utf8).sum();
    (run_len < window.len()).then(|| run_start + window.len() - run_len)
}

/// How a run ends.
enum RunEnd {
    /// It must be cut at this byte.
    TooLong(usize),
    /// It ends before this byte, by the other kind or the end of the slice.
    Before(usize),
}

fn end_of_run(slice: &str, run_start: usize) -> RunEnd {
    let mut chars = slice[run_start..].char_indices();
    let is_space = chars.next().is_some_and(|(_, c)| is_python_space(c));
    for (n_before, (at, c)) in (1..).zip(chars) {
        if is_python_space(c) != is_space {
            return RunEnd::Before(run_start + at);
        }
        if n_before == RUN_CHARS {
            return RunEnd::TooLong(run_start + at);
        }
    }
    RunEnd::Before(slice.len())
}

/// Python's `str.isspace` of one character: Unicode white space and the four information separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}
