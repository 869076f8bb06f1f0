//! A result as the model is shown it: labelled by where it comes from, cut to its budget.

use super::{Policy, TokenCounter, words};
use crate::tools::{OWN_FOLDER, Origin, Output};

/// A result for the model, and the text of the call's own file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What the model reads.
    pub text: String,
    /// What its file under [`call_file`] holds: the call in its first line, then the whole result.
    pub file: String,
    /// Whether something is left out.
    pub is_cut: bool,
}

/// Path, as the model writes it, of the file that keeps call `number` (from 1) and its whole result.
#[must_use]
pub fn call_file(number: u64) -> String {
    format!("{OWN_FOLDER}/calls/{number}.txt")
}

/// The result of call `number` (from 1) as the model is shown it: at most [`Policy::result_tokens_max`] tokens.
#[must_use]
pub fn show(
    number: u64,
    name: &str,
    arguments: &str,
    output: &Output,
    policy: &Policy,
    counter: &dyn TokenCounter,
) -> Shown {
    let label = match &output.origin {
        Origin::Tool => String::new(),
        Origin::Files => words::DATA_FILES.to_owned(),
        Origin::Web { url } => words::data_web(url),
    };
    let file = format!("{name} {arguments}\n{label}{}\n", output.text);
    let whole = label + &output.text;
    if counter.text(&whole) <= policy.result_tokens_max {
        return Shown { text: whole, file, is_cut: false };
    }
    Shown { text: cut(&whole, number, policy.result_tokens_max, counter), file, is_cut: true }
}

/// As many whole lines as fit; of a single long line, as much as fits.
fn cut(text: &str, number: u64, tokens_max: usize, counter: &dyn TokenCounter) -> String {
    let file = call_file(number);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    // The file's first line is the call.
    let with =
        |n_lines: usize| lines[..n_lines].concat().trim_end().to_owned() + &words::cut(&file, n_lines + 2);
    let n_lines = last_that(lines.len(), |n_lines| counter.text(&with(n_lines)) <= tokens_max);
    if n_lines > 1 || lines.len() > 1 && n_lines == 1 && !lines[0].starts_with('[') {
        return with(n_lines);
    }
    let at = |n_bytes: usize| {
        let end = text.floor_char_boundary(n_bytes);
        let line = text[..end].matches('\n').count() + 2;
        text[..end].to_owned() + &words::cut(&file, line)
    };
    at(last_that(text.len(), |n_bytes| counter.text(&at(n_bytes)) <= tokens_max))
}

/// The largest `n` up to `n_max` for which `fits` holds, where it holds for all below; 0 where it never does.
pub(super) fn last_that(n_max: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, n_max);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Bytes;

    fn policy(result_tokens_max: usize) -> Policy {
        Policy { budget_tokens: 1000, low_water_tokens: 500, result_tokens_max, reply_tokens_max: 100 }
    }

    #[test]
    fn whole_lines_are_kept_and_the_rest_is_named() {
        let output = Output::files((1..=100).map(|n| format!("{n}: line\n")).collect::<String>());
        let shown = show(7, "read_file", "{}", &output, &policy(40), &Bytes);
        assert!(shown.is_cut);
        let (kept, mark) = shown.text.rsplit_once('\n').unwrap();
        let last: usize = kept.lines().last().unwrap().split(':').next().unwrap().parse().unwrap();
        assert_eq!(mark, format!("(cut; .perilune/calls/7.txt goes on from {})", last + 3));
        assert_eq!(shown.file.lines().nth(last + 2).unwrap(), format!("{}: line", last + 1));
        assert!(Bytes.text(&shown.text) <= 40);
    }

    #[test]
    fn one_long_line_is_cut_between_characters() {
        let output = Output::done("ä".repeat(1000));
        let shown = show(1, "shell", "{}", &output, &policy(50), &Bytes);
        assert!(shown.is_cut && Bytes.text(&shown.text) <= 50, "{}", shown.text);
        assert!(
            shown.text.starts_with("ää")
                && shown.text.ends_with("(cut; .perilune/calls/1.txt goes on from 2)")
        );
    }

    #[test]
    fn web_text_says_where_it_comes_from() {
        let origin = Origin::Web { url: "https://example.org/a".to_owned() };
        let output = Output { origin, ..Output::done("text") };
        let shown = show(1, "fetch_url", "{}", &output, &policy(50), &Bytes);
        assert_eq!(shown.text, "[data from https://example.org/a]\ntext");
    }
}
