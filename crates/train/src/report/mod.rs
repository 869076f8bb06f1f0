//! Runs on one page: what was learned, how, and what it can do.

mod page;
pub mod plot;
mod sweep;

use crate::log::{self, Record};
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
pub use sweep::{Verdict, verdicts};

/// A run as its folder tells it.
#[derive(Clone, Debug)]
pub struct Run {
    /// The folder's name.
    pub name: String,
    /// The records of its log, a step each.
    pub records: Vec<Record>,
    /// Its evaluations (the JSON files in its folder), by name.
    pub evals: Vec<Eval>,
}

/// Exactness of calls by their place in the episode.
#[derive(Clone, Debug)]
pub struct Eval {
    /// Name of the file, without its ending.
    pub name: String,
    /// What it says.
    pub tally: Tally,
}

/// What an evaluation's JSON says.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Tally {
    /// Number of episodes played.
    pub episodes: u64,
    /// Of these, solved.
    pub solved: u64,
    /// Calls made, and calls that were due and not made.
    pub calls: u64,
    /// Of these, as the expert would have made them.
    pub exact_calls: u64,
    /// Both counts by place in the episode, the first call's first.
    #[serde(default)]
    pub exactness_by_call: Vec<AtIndex>,
}

/// Counts at one place of the episodes.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct AtIndex {
    /// Calls made or due at this place.
    pub calls: u64,
    /// Of these, exact ones.
    pub exact_calls: u64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No log there.
    #[error(
        "{folder} holds no log of a run ({}, or folders that do): train first, with --out {folder}",
        log::FILE
    )]
    NoLog {
        /// The folder.
        folder: String,
    },
    /// A file that cannot be read.
    #[error("{path}: cannot be read ({cause})")]
    Read {
        /// The file.
        path: String,
        /// Why.
        cause: io::Error,
    },
}

/// The runs in `folder`: itself, or the folders of a sweep, by name.
///
/// # Errors
/// [`ReportError`]: a folder without a log, or a file that cannot be read.
pub fn read(folder: &Path) -> Result<Vec<Run>, ReportError> {
    let inner: Vec<PathBuf> = if folder.join(log::FILE).is_file() {
        vec![folder.to_owned()]
    } else {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut runs: Vec<PathBuf> = entries.filter(|path| path.join(log::FILE).is_file()).collect();
        runs.sort();
        runs
    };
    let runs: Vec<Run> = inner.iter().map(|path| read_one(path)).collect::<Result<_, _>>()?;
    if runs.iter().all(|run| run.records.is_empty()) {
        return Err(ReportError::NoLog { folder: folder.display().to_string() });
    }
    Ok(runs.into_iter().filter(|run| !run.records.is_empty()).collect())
}

fn read_one(folder: &Path) -> Result<Run, ReportError> {
    let path = folder.join(log::FILE);
    let records =
        log::read(&path).map_err(|cause| ReportError::Read { path: path.display().to_string(), cause })?;
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut evals: Vec<Eval> = entries.filter_map(|path| read_eval(&path)).collect();
    evals.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Run { name, records, evals })
}

/// An evaluation: a JSON file that has its counts.
fn read_eval(path: &Path) -> Option<Eval> {
    let name = path.file_name()?.to_str()?.strip_suffix(".json")?;
    let tally = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    Some(Eval { name: name.to_owned(), tally })
}

/// One HTML page about `runs`, complete in itself: no script, no file beside it.
pub fn html(runs: &[Run]) -> String {
    page::page(runs).into_string()
}
