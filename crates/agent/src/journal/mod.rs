//! What happened? The only truth about a run: events in order, chained by hashes, in one SQLite file a run.
//!
//! An effect on the world is written twice: its intent before the attempt, its outcome after it. What a crash
//! leaves between the two is settled by the tool's effect class. Loop state, audit log, replay and what people
//! see are all read from here.
//!
//! Reading order: the events, the chain, the file; then what is read from it: the summary of a run, all runs of a
//! folder, the steps of one, a copy for others, a fork; and the ways in for a person's answers and
//! for a person who stops it.

mod chain;
mod event;
mod export;
mod fork;
mod inbox;
mod redact;
mod runs;
mod sqlite;
mod stop;
mod summary;
#[cfg(test)]
mod tests;
mod trace;

pub use chain::{Entry, Journal, Row, Store, genesis, link, verify_rows};
pub use event::{CallText, Event, How, Opened, TokenUse};
pub use export::{lines, markdown, said};
pub use fork::fork;
pub use inbox::{Answer, Inbox, give, redact_answers};
pub use runs::{Listed, Runs, Stand, fresh_name};
pub use sqlite::{
    JOURNAL_FILE, SCHEMA_VERSION, Tail, create, is_worked_on, read, read_after, read_whole_part, resume,
};
pub use stop::{ask_to_stop, forget_stop, stop_asked};
pub(crate) use summary::ASK_USER;
pub use summary::{Asked, Summary, Waiting};
pub use trace::{Note, Settled, Step, Trace, TracedCall};

use std::path::{Path, PathBuf};

/// The run's own folder in the folder of its journal: whole results, artefacts, diffs.
#[must_use]
pub fn own_folder(folder: &Path) -> PathBuf {
    folder.join("own")
}

/// Why a journal cannot be used. The sentence is for the person.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A run of this name is there already.
    #[error("{path} exists already; give the run another name or resume it")]
    Exists {
        /// The journal.
        path: PathBuf,
    },
    /// There is no journal.
    #[error("{path} does not exist; `perilune runs list` shows the runs that do")]
    Missing {
        /// The journal.
        path: PathBuf,
    },
    /// No run can have this name.
    #[error("{name:?} is no name of a run; it is a folder's name in {runs}")]
    BadName {
        /// The name.
        name: String,
        /// The folder of all runs.
        runs: PathBuf,
    },
    /// Another process works on the run.
    #[error("another process works on the run in {folder}; wait for it or stop it")]
    Locked {
        /// The run's folder.
        folder: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "{path} was written by a newer version (schema {found}, this program knows {known}); use that version"
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema known here.
        known: u32,
    },
    /// The chain is broken: an event was changed, lost or added.
    #[error(
        "{path} is corrupt at event {seq}: {problem}; nothing was changed in it, keep a copy and start from a fork of an earlier step"
    )]
    Corrupt {
        /// The journal.
        path: PathBuf,
        /// First event that is wrong.
        seq: u64,
        /// What is wrong.
        problem: String,
    },
    /// The step to fork at is not there.
    #[error("the run has {n_steps} whole steps; fork at 0 to {n_steps}")]
    NoSuchStep {
        /// Steps of the run whose calls are all settled.
        n_steps: u64,
    },
    /// The step to fork at lies behind the damage.
    #[error("{n_steps} whole steps stand before the damage, so fork at 0 to {n_steps}: {damage}")]
    StepIsDamaged {
        /// Whole steps before it.
        n_steps: u64,
        /// What is wrong.
        damage: Box<JournalError>,
    },
    /// Reading or writing failed.
    #[error("{path}: {problem}; check the disk and the permissions")]
    Io {
        /// The journal.
        path: PathBuf,
        /// The system's words.
        problem: String,
    },
}
