//! All runs of a folder, and where each stands. What was read of a journal is not read again.

use super::inbox::is_answered;
use super::sqlite::{JOURNAL_FILE, is_worked_on, read_after};
use super::{Entry, How, JournalError, Summary, genesis, read};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// The runs in a folder.
pub struct Runs {
    folder: PathBuf,
    known: Mutex<HashMap<String, Known>>,
}

/// Which file a journal is, and when it was changed last: another run of the same name may be as old to the tick.
type Version = (u64, SystemTime);

/// A journal as far as it was read.
#[derive(Clone)]
struct Known {
    summary: Summary,
    hash: [u8; 32],
    changed: Option<Version>,
}

/// A run in a list.
#[derive(Debug)]
pub struct Listed {
    /// Name of its folder.
    pub name: String,
    /// What it is, or why it cannot be read.
    pub state: Result<(Summary, Stand), JournalError>,
}

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// A process works on it.
    Running,
    /// A process waits for a person's answer.
    Waiting,
    /// No process works on it; it can be resumed.
    Paused,
    /// It is over.
    Ended(How),
}

impl Stand {
    /// Its name, as lists show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Ended(How::Answer) => "done",
            Self::Ended(How::Budget) => "stopped",
            Self::Ended(How::Stuck) => "stuck",
        }
    }
}

/// A name for a run that begins now: the Unix time `now_ms` in hexadecimal, a hyphen and this process's number.
#[must_use]
pub fn fresh_name(now_ms: u64) -> String {
    format!("{now_ms:x}-{}", std::process::id())
}

impl Runs {
    /// The runs in this folder; it need not be there yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), known: Mutex::default() }
    }

    /// The folder of a run, whether it is there or not. A name has ASCII letters, digits, `-`, `_` and `.`, and does not
    /// begin with a dot.
    ///
    /// # Errors
    /// [`JournalError::BadName`]: another name.
    pub fn folder(&self, name: &str) -> Result<PathBuf, JournalError> {
        let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(is_legal) {
            return Err(JournalError::BadName { name: name.to_owned(), runs: self.folder.clone() });
        }
        Ok(self.folder.join(name))
    }

    /// All, newest first; what cannot be read comes first, with its reason.
    ///
    /// # Errors
    /// [`JournalError::Io`]: the folder is there and cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, JournalError> {
        let failed = |error: std::io::Error| JournalError::Io {
            path: self.folder.clone(),
            problem: error.to_string(),
        };
        let folders = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            folders => folders.map_err(failed)?,
        };
        let mut listed = Vec::new();
        for entry in folders {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if self.folder(&name).is_ok_and(|folder| folder.join(JOURNAL_FILE).exists()) {
                listed.push(Listed { state: self.summary(&name), name });
            }
        }
        let age = |it: &Listed| it.state.as_ref().map_or(u64::MAX, |(run, _)| run.opened_at_ms);
        listed.sort_by_key(|it| std::cmp::Reverse(age(it)));
        Ok(listed)
    }

    /// Where a run stands.
    ///
    /// # Errors
    /// There is no such run, or its journal cannot be read.
    pub fn summary(&self, name: &str) -> Result<(Summary, Stand), JournalError> {
        let folder = self.folder(name)?;
        // Before the journal is read: a run that ends in between is over, not paused.
        let is_worked_on = is_worked_on(&folder);
        let known = self.lock().get(name).cloned();
        let changed = folder.join(JOURNAL_FILE).metadata().and_then(|it| Ok((it.ino(), it.modified()?))).ok();
        let known = match known {
            // What is over stays as it is, unless a limit ended it: a larger one may take it up again.
            Some(known) if known.is_over() && known.changed == changed => known,
            Some(known) => match known.go_on(&folder, changed) {
                Ok(known) => known,
                // Another journal stands there now.
                Err(_) => Known::default().go_on(&folder, changed)?,
            },
            None => Known::default().go_on(&folder, changed)?,
        };
        let mut summary = known.summary.clone();
        // What was answered and not yet taken up waits no more.
        summary.waiting = summary.waiting.filter(|waiting| !is_answered(&folder, &waiting.id));
        self.lock().insert(name.to_owned(), known);
        let stand = match &summary.ended {
            Some((how, _)) => Stand::Ended(*how),
            None if !is_worked_on => Stand::Paused,
            None if summary.waiting.is_some() => Stand::Waiting,
            None => Stand::Running,
        };
        Ok((summary, stand))
    }

    /// All events of a run.
    ///
    /// # Errors
    /// There is no such run, or its journal cannot be read.
    pub fn entries(&self, name: &str) -> Result<Vec<Entry>, JournalError> {
        read(&self.folder(name)?)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Known {
    fn default() -> Self {
        Self { summary: Summary::default(), hash: genesis(), changed: None }
    }
}

impl Known {
    fn is_over(&self) -> bool {
        self.summary.ended.as_ref().is_some_and(|(how, _)| *how != How::Budget)
    }

    fn go_on(mut self, folder: &Path, changed: Option<Version>) -> Result<Self, JournalError> {
        let seq = self.summary.n_events;
        let tail = read_after(folder, seq)?;
        if tail.before != self.hash || seq == 0 && tail.entries.is_empty() {
            let (path, problem) = (folder.join(JOURNAL_FILE), "it holds no event".to_owned());
            return Err(JournalError::Corrupt { path, seq: 1, problem });
        }
        tail.entries.iter().for_each(|entry| self.summary.apply(entry));
        (self.hash, self.changed) = (tail.hash, changed);
        Ok(self)
    }
}
