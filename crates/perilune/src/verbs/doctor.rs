//! `doctor`: what this machine gives Perilune, and what to do where it gives less.

mod confined;
mod hardware;
mod places;

use super::data::DataArgs;
use super::run::Exit;
use crate::settings;
use crate::terminal::{folded, has_colour, print, print_json};
use serde::Serialize;
use std::fmt::Write;
use std::io::stdout;
use std::net::SocketAddr;

/// Columns before the words of a line.
const WORDS_COLUMN: usize = 11;

/// Look at this machine: processor, memory, sandbox, Python, keys, folders, disk, port; each with its remedy.
///
/// A line is `ok`; or a `limit`: something works less well, or a tool is left out; or a `problem`: a verb would fail;
/// or `unknown`: it could not be found out, and the line says why. Exit status: 0 no problem was found; 1 there is one.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Do not measure the memory, which takes 256 MiB for a second
    #[arg(long)]
    quick: bool,
    /// Address to try [default: the setting `listen`, else 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT", value_parser = settings::parse_listen)]
    listen: Option<SocketAddr>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Something works less well, or is left out.
    Limit,
    /// A verb would fail.
    Problem,
    /// It could not be found out.
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Line {
    area: &'static str,
    name: String,
    state: State,
    /// What was found; of an unknown thing, why it is unknown.
    found: String,
    /// What to do, where there is something to do.
    remedy: Option<String>,
}

impl Line {
    fn ok(area: &'static str, name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { area, name: name.into(), state: State::Ok, found: found.into(), remedy: None }
    }

    fn limit(
        area: &'static str,
        name: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { state: State::Limit, remedy: Some(remedy.into()), ..Self::ok(area, name, found) }
    }

    fn problem(
        area: &'static str,
        name: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { state: State::Problem, remedy: Some(remedy.into()), ..Self::ok(area, name, found) }
    }

    fn unknown(area: &'static str, name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { state: State::Unknown, ..Self::ok(area, name, why) }
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut lines = hardware::look(args.quick);
    lines.extend(confined::look()?);
    lines.extend(places::look(&args.data, settings::get().listen.or_flag(args.listen).value));
    let n_problems = count(&lines, State::Problem);
    if args.json {
        print_json(&serde_json::json!({"problems": n_problems, "lines": lines}))?;
    } else {
        print(&shown(&lines, has_colour(&stdout())))?;
    }
    if n_problems > 0 { Err(Exit(1).into()) } else { Ok(()) }
}

fn count(lines: &[Line], state: State) -> usize {
    lines.iter().filter(|line| line.state == state).count()
}

fn shown(lines: &[Line], has_colour: bool) -> String {
    let mut out = String::new();
    let mut area = "";
    for line in lines {
        if line.area != area {
            let apart = if area.is_empty() { "" } else { "\n" };
            area = line.area;
            out.push_str(&format!("{apart}{area}\n"));
        }
        let text = folded(&format!("  {:<7}  {}: {}", word(line.state), line.name, line.found), WORDS_COLUMN);
        out.push_str(&coloured(&text, line.state, has_colour));
        if let Some(remedy) = &line.remedy {
            out.push_str(&folded(&format!("{:WORDS_COLUMN$}remedy: {remedy}", ""), WORDS_COLUMN));
        }
    }
    let [limits, problems, unknown] =
        [State::Limit, State::Problem, State::Unknown].map(|state| count(lines, state));
    // Writing to a string cannot fail.
    let _ = writeln!(out, "\nproblems {problems}, limits {limits}, unknown {unknown}");
    out
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Limit => "limit",
        State::Problem => "problem",
        State::Unknown => "unknown",
    }
}

/// A line with its state's word in colour; cut into lines before, because what colours has no width.
fn coloured(text: &str, state: State, has_colour: bool) -> String {
    let code = match state {
        State::Ok => "32",
        State::Limit => "33",
        State::Problem => "31",
        State::Unknown => "35",
    };
    let word = word(state);
    if has_colour { text.replacen(word, &format!("\x1b[{code}m{word}\x1b[0m"), 1) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_beneath_their_area_with_remedies_and_counts() {
        let lines = [
            Line::ok("memory", "size", "24 GB"),
            Line::problem("port", "listen", "taken", "take another"),
            Line::unknown("port", "other", "nobody says"),
        ];
        let expect = "memory\n  ok       size: 24 GB\n\nport\n  problem  listen: taken\n           remedy: take another\n  \
                      unknown  other: nobody says\n\nproblems 1, limits 0, unknown 1\n";
        // Cutting at the terminal's width changes blanks alone.
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&shown(&lines, false)), words(expect));
        assert!(shown(&lines, true).contains("\x1b[31mproblem\x1b[0m  listen"));
    }
}
