//! How figures are shown and read, how long work is watched.

use crate::settings::{self, Colour};
use crate::verbs::interrupt::{self, Interrupt};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use perilune_kernels::cpu::Cpu;
use perilune_model::watch::Watch;
pub(crate) use perilune_server::console::count;
use std::io::{IsTerminal, Write, stdout};

/// Columns below which nothing can be laid out.
const COLUMNS_MIN: usize = 20;
/// How far in a cut line goes on where its own column is too far right.
const HANG_NARROW: usize = 4;

/// Write a finished answer to standard output.
///
/// # Errors
/// Standard output takes no more, as a pipe whose reader has gone.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("standard output")
}

/// Write a value as JSON to standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Whether what is written to a stream may have colours.
pub(crate) fn has_colour(stream: &impl IsTerminal) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    match settings::get().colour.value {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => stream.is_terminal() && !is_set("NO_COLOR") && !is_dumb(),
    }
}

/// Columns of the reader's terminal: what COLUMNS says, else standard output's own; `None` where it is no terminal.
pub(crate) fn columns() -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    let own = || terminal_size::terminal_size_of(stdout()).map(|(width, _)| usize::from(width.0));
    said.or_else(own).filter(|columns| *columns >= COLUMNS_MIN)
}

/// Lines cut at blanks to what the terminal is wide; what follows a cut stands `hang` columns in.
pub(crate) fn folded(text: &str, hang: usize) -> String {
    fold(text, hang, columns().unwrap_or(usize::MAX))
}

/// The same for a width that is known.
pub(crate) fn fold(text: &str, hang: usize, columns: usize) -> String {
    // A quarter of the width is no place for words.
    let hang = if hang > columns - columns / 4 { HANG_NARROW } else { hang };
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut rest = line.to_owned();
        while rest.chars().count() > columns {
            let indent = rest.chars().take_while(|c| *c == ' ').count();
            let limit = rest.char_indices().nth(columns).map_or(rest.len(), |(at, _)| at);
            // A word that is longer than the line stays whole, for whoever copies it.
            let end = limit + usize::from(rest.as_bytes()[limit] == b' ');
            let cut = rest[..end].rfind(' ').filter(|at| *at > indent);
            let Some(cut) = cut.or_else(|| rest[limit..].find(' ').map(|at| limit + at)) else { break };
            out.push_str(rest[..cut].trim_end());
            out.push('\n');
            rest = format!("{}{}", " ".repeat(hang), rest[cut..].trim_start());
        }
        out.push_str(&rest);
        out.push('\n');
    }
    out
}

/// A byte count with a decimal unit: `594.2 GB`.
pub(crate) fn bytes(n: u64) -> String {
    scaled(n, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// A count with a decimal unit: `1.026 T`.
pub(crate) fn short_count(n: u64) -> String {
    scaled(n, &["", "k", "M", "B", "T", "Q"]).trim_end().to_owned()
}

fn scaled(n: u64, units: &[&str]) -> String {
    let (mut value, mut unit_idx) = (n as f64, 0);
    while value >= 999.95 && unit_idx + 1 < units.len() {
        value /= 1000.0;
        unit_idx += 1;
    }
    let unit = units[unit_idx];
    match (unit_idx, value) {
        (0, _) => format!("{n} {unit}"),
        (_, value) if value < 9.9995 => format!("{value:.3} {unit}"),
        (_, value) if value < 99.995 => format!("{value:.2} {unit}"),
        _ => format!("{value:.1} {unit}"),
    }
}

/// `1 file`, `2 files`.
pub(crate) fn files(n: usize) -> String {
    format!("{n} {}", if n == 1 { "file" } else { "files" })
}

/// Read a size in bytes: a number and an optional unit, decimal (`64GB`, `64G`) or binary (`64GiB`, `64Gi`).
///
/// # Errors
/// One sentence: what is no size, or beyond 1 byte to 2^60.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let expected = || format!("`{text}` is not a size; write one like 64GB, 64GiB or 500MB");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| expected())?;
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (letter, base) = unit.strip_suffix('i').map_or((unit, 1000u64), |letter| (letter, 1024));
    let power = match letter {
        "" if base == 1000 => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(expected()),
    };
    let size = number * base.pow(power) as f64;
    if size < 1.0 || size > (1u64 << 60) as f64 { Err(expected()) } else { Ok(size as u64) }
}

/// The number of threads where no flag says it.
pub(crate) fn default_threads() -> usize {
    let set = settings::get().threads.value;
    set.unwrap_or_else(Cpu::n_available)
}

/// Where progress is drawn: standard error, if that is a terminal.
fn draw_target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

/// A bar that counts `unit`s of the work `name`.
pub(crate) fn bar(name: &'static str, unit: &'static str) -> ProgressBar {
    let template = format!("{name} {{wide_bar}} {{pos}}/{{len}} {unit} {{eta}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(0), draw_target()).with_style(style)
}

/// Long work on files: a bar on a terminal's standard error, stopped by Ctrl-C.
pub(crate) struct Work {
    bar: ProgressBar,
    stopped: Interrupt,
}

impl Work {
    /// Work on `n_bytes` bytes, called `name`. From now on the first Ctrl-C asks the work to stop, the second ends the
    /// process.
    pub(crate) fn new(name: &'static str, n_bytes: u64) -> anyhow::Result<Work> {
        let stopped = interrupt::flag();
        let bar = ProgressBar::with_draw_target(Some(n_bytes), draw_target());
        let template = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
        bar.set_style(ProgressStyle::with_template(template)?);
        bar.set_message(name);
        Ok(Work { bar, stopped })
    }

    /// Take the bar away.
    pub(crate) fn finish(self) {
        self.bar.finish_and_clear();
    }
}

impl Watch for Work {
    fn advance(&self, n_bytes: u64) {
        self.bar.inc(n_bytes);
    }

    fn stopped(&self) -> bool {
        self.stopped.is_set()
    }
}

/// Text without the characters that would steer the terminal, or show it in another order than it has.
pub(crate) fn harmless(text: &str) -> String {
    let is_mark = |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}');
    let turns = |c: char| is_mark(c) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || turns(*c))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_keep_four_digits() {
        let shown: Vec<String> = [0, 999, 1_000, 70_272, 15_500_000_000, 594_200_000_000, u64::MAX]
            .into_iter()
            .map(bytes)
            .collect();
        assert_eq!(shown, ["0 B", "999 B", "1.000 kB", "70.27 kB", "15.50 GB", "594.2 GB", "18446.7 PB"]);
        assert_eq!(short_count(1_026_408_232_448), "1.026 T");
    }

    #[test]
    fn lines_are_cut_at_blanks_and_hang() {
        assert_eq!(fold("name  one two three\nb\n", 6, 14), "name  one two\n      three\nb\n");
        assert_eq!(fold("name  one two three", 12, 14), "name  one two\n    three\n");
        let link = "https://example.org/a/long/link";
        assert_eq!(fold(&format!("{link} it is"), 2, 14), format!("{link}\n  it is\n"));
        assert_eq!(fold(link, 2, 14), format!("{link}\n"));
        assert_eq!(fold("  ééééé ééééé", 2, 9), "  ééééé\n  ééééé\n");
    }

    #[test]
    fn sizes_are_decimal_unless_they_say_binary() {
        let read = |text| parse_size(text).unwrap();
        assert_eq!(
            [read("1500"), read("64GB"), read("64g"), read("1.5 MB")],
            [1500, 64e9 as u64, 64e9 as u64, 1_500_000]
        );
        assert_eq!([read("2GiB"), read("2gi"), read("1KiB")], [2 << 30, 2 << 30, 1024]);
        for text in ["", "GB", "-1", "1.2.3", "5 parsecs", "0", "1e300", "99999PB", "1i"] {
            assert!(parse_size(text).unwrap_err().contains("64GiB"), "{text}");
        }
    }
}
