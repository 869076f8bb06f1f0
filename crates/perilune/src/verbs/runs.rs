//! `runs`: the journals of the agent's runs.

use super::data::DataArgs;
use super::run::View;
use crate::table::{Table, figures, words};
use crate::terminal::{count, folded, harmless, print, print_json};
use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use perilune_agent::journal::{self, Asked, Listed, Runs, Stand, Summary, fresh_name};
use perilune_agent::run::{Clock, Listener, SystemClock};
use perilune_server::console::time;
use serde_json::{Value, json};
use std::fmt::Write;
use std::io::{BufWriter, stdout};
use std::path::PathBuf;

/// Characters of a task in the list.
const TASK_CHARS: usize = 60;
/// How far in a folded line goes on.
const HANG: usize = 2;

/// List, show, verify, export and fork the agent's runs.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

/// Where the journals lie.
#[derive(clap::Args)]
pub(super) struct RunsArgs {
    /// Folder of the journals [default: runs in the data folder]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
}

impl RunsArgs {
    /// The folder; it need not be there yet.
    pub(super) fn folder(&self) -> anyhow::Result<PathBuf> {
        match &self.runs {
            Some(runs) => Ok(runs.clone()),
            None => Ok(self.data.folder()?.join("runs")),
        }
    }
}

#[derive(Subcommand)]
enum What {
    /// All runs, newest first, and where each stands.
    List {
        /// Answer in JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: RunsArgs,
    },
    /// Where a run stands, and what happened in it.
    Show {
        /// Name of the run
        run: String,
        /// Only where it stands, in JSON; for its events see `export`
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: RunsArgs,
    },
    /// Check the chain of a run's journal from the first event to the last.
    Verify {
        /// Name of the run
        run: String,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: RunsArgs,
    },
    /// Write a run to standard output.
    Export {
        /// Name of the run
        run: String,
        /// One event a line, or a page to read
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        format: Format,
        #[command(flatten)]
        place: RunsArgs,
    },
    /// Make a new run that starts with the first steps of another; `run --resume` goes on from there.
    ///
    /// Effects on the workspace are not taken back. Of a damaged journal, steps before the damage can be taken.
    Fork {
        /// Name of the run
        run: String,
        /// Steps to keep, from the first
        #[arg(long, value_name = "STEP")]
        at: u64,
        /// Answer in JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: RunsArgs,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Jsonl,
    Markdown,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::List { json, place } => list(&place.folder()?, *json),
        What::Show { run, json, place } => show(&Runs::new(&place.folder()?), run, *json),
        What::Verify { run, json, place } => verify(&Runs::new(&place.folder()?), run, *json),
        What::Export { run, format, place } => export(&Runs::new(&place.folder()?), run, *format),
        What::Fork { run, at, json, place } => fork(&Runs::new(&place.folder()?), run, *at, *json),
    }
}

fn list(folder: &std::path::Path, as_json: bool) -> anyhow::Result<()> {
    let listed = Runs::new(folder).list()?;
    if as_json {
        return print_json(&listed.iter().map(row).collect::<Vec<_>>());
    }
    if listed.is_empty() {
        return print(&format!("No run in {}.\n", folder.display()));
    }
    let mut table = Table::new([
        words("state"),
        words("run"),
        words("begun (UTC)"),
        figures("steps"),
        figures("tokens"),
        figures("cost"),
        words("task"),
    ])
    .cutting_last();
    let mut unreadable = String::new();
    for it in &listed {
        match &it.state {
            Ok((run, stand)) => table.push(cells(&it.name, run, *stand)),
            Err(error) => writeln!(unreadable, "unreadable: {}: {error}", it.name)?,
        }
    }
    print(&format!("{}{}", table.text(), folded(&unreadable, HANG)))
}

fn cells(name: &str, run: &Summary, stand: Stand) -> [String; 7] {
    let tokens = count(run.ledger.tokens.prompt + run.ledger.tokens.completion);
    let cost =
        run.cost_micros().map_or_else(|| "-".to_owned(), |micros| format!("{:.4}", micros as f64 / 1e6));
    let task: Vec<&str> = run.opened.task.split_whitespace().collect();
    let task: String = harmless(&task.join(" ")).chars().take(TASK_CHARS).collect();
    let begun = time(run.opened_at_ms.cast_signed());
    [stand.name().to_owned(), name.to_owned(), begun, run.ledger.n_steps.to_string(), tokens, cost, task]
}

fn row(listed: &Listed) -> Value {
    match &listed.state {
        Ok((run, stand)) => facts(&listed.name, run, *stand),
        Err(error) => json!({"run": listed.name, "state": "unreadable", "error": error.to_string()}),
    }
}

fn facts(name: &str, run: &Summary, stand: Stand) -> Value {
    let question = run.waiting.as_ref().map(|waiting| match &waiting.asked {
        Asked::Approval(question) => json!({"call": waiting.call, "approval": question}),
        Asked::Words(words) => json!({"call": waiting.call, "words": words}),
    });
    json!({
        "run": name,
        "state": stand.name(),
        "task": run.opened.task,
        "model": run.opened.model,
        "workspace": run.opened.workspace,
        "forked_from": run.opened.forked_from,
        "opened_at_ms": run.opened_at_ms,
        "last_at_ms": run.last_at_ms,
        "events": run.n_events,
        "steps": run.ledger.n_steps,
        "calls": run.n_calls,
        "tokens": run.ledger.tokens,
        "wall_ms": run.ledger.wall_ms,
        "cost_usd": run.cost_micros().map(|micros| micros as f64 / 1e6),
        "question": question,
        "text": run.ended.as_ref().map(|(_, text)| text),
    })
}

fn show(runs: &Runs, name: &str, as_json: bool) -> anyhow::Result<()> {
    let (summary, stand) = runs.summary(name)?;
    if as_json {
        return print_json(&facts(name, &summary, stand));
    }
    let opened = &summary.opened;
    let mut head = format!("run       {name}, {}\n", stand.name());
    writeln!(head, "task      {}", harmless(&opened.task))?;
    writeln!(head, "model     {}\nworkspace {}", opened.model, opened.workspace)?;
    if let Some(from) = &opened.forked_from {
        writeln!(head, "fork of   {from}")?;
    }
    print(&head)?;
    let view = View::new(false);
    runs.entries(name)?.iter().for_each(|entry| view.event(entry));
    let mut end = match (&summary.ended, &summary.waiting) {
        (Some((_, text)), _) => format!("\n{}: {}\n", stand.name(), harmless(text)),
        (None, Some(_)) => {
            "\na question waits for its answer, in the console or where the run was started\n".to_owned()
        }
        (None, None) => String::new(),
    };
    if stand == Stand::Paused {
        writeln!(
            end,
            "\npaused; go on with `run --resume {name}`, and the model and the flags that it was begun with"
        )?;
    }
    print(&end)
}

fn verify(runs: &Runs, name: &str, as_json: bool) -> anyhow::Result<()> {
    let tail = journal::read_after(&runs.folder(name)?, 0)?;
    let Some(last) = tail.entries.last() else {
        bail!(
            "the journal of {name} holds no event; it was damaged, take a copy of its folder from a backup"
        );
    };
    let hash: String = tail.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    if as_json {
        return print_json(&json!({"run": name, "events": last.seq, "hash": hash}));
    }
    print(&format!("{name} is whole: {} events, the last with the hash {hash}\n", last.seq))
}

fn export(runs: &Runs, name: &str, format: Format) -> anyhow::Result<()> {
    let entries = runs.entries(name)?;
    match format {
        Format::Markdown => print(&journal::markdown(&entries)),
        Format::Jsonl => {
            let mut out = BufWriter::new(stdout().lock());
            let written = journal::lines(&entries, &mut out);
            written.and_then(|()| std::io::Write::flush(&mut out)).context("standard output")
        }
    }
}

fn fork(runs: &Runs, name: &str, at: u64, as_json: bool) -> anyhow::Result<()> {
    let new = fresh_name(SystemClock.now_ms());
    journal::fork(&runs.folder(name)?, &runs.folder(&new)?, &new, at)?;
    if as_json {
        return print_json(&json!({"run": new, "forked_from": name, "steps": at}));
    }
    print(&format!("{new} starts with {at} steps of {name}; go on with `run --resume {new}` and a model\n"))
}
