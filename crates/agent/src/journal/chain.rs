//! Events in a chain: each carries the hash of everything before it.

use super::{Event, JournalError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Number, from 1 without gaps.
    pub seq: u64,
    /// When it was kept: Unix time, milliseconds.
    pub at_ms: u64,
    /// The event as JSON: the bytes that were hashed.
    pub body: String,
    /// Its [`link()`] to everything before.
    pub hash: [u8; 32],
}

/// An event as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number, from 1 without gaps.
    pub seq: u64,
    /// When it was kept: Unix time, milliseconds.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Where rows are kept. Implemented by the file and by the simulator.
pub trait Store: Send {
    /// Keeps a row after those before it. When this returns, it outlives the process; if `is_synced`, the
    /// machine as well, with every row before it.
    ///
    /// # Errors
    /// [`JournalError::Io`], or [`JournalError::Corrupt`] where the file is damaged: the row is not kept.
    fn append(&mut self, row: &Row, is_synced: bool) -> Result<(), JournalError>;
}

/// An open journal: the one writer of a run.
pub struct Journal {
    store: Box<dyn Store>,
    path: PathBuf,
    n_events: u64,
    hash: [u8; 32],
    is_resumed: bool,
}

impl Journal {
    /// A journal over the `rows` that a store holds already, with their events; `path` names it in errors.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`]: the chain is broken.
    pub fn over(
        store: Box<dyn Store>,
        path: &Path,
        rows: &[Row],
    ) -> Result<(Self, Vec<Entry>), JournalError> {
        let entries = verify_rows(path, rows)?;
        let hash = rows.last().map_or_else(genesis, |row| row.hash);
        let (path, n_events) = (path.to_owned(), rows.len() as u64);
        Ok((Self { store, path, n_events, hash, is_resumed: n_events > 0 }, entries))
    }

    /// The same as the journal of the process that opened the run.
    pub(super) fn opened_here(mut self) -> Self {
        self.is_resumed = false;
        self
    }

    /// Whether another process opened the run.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Keeps an event; if `is_synced`, it outlives the machine when this returns.
    ///
    /// # Errors
    /// As [`Store::append`]: it was not kept; what it announces must not happen.
    pub fn append(&mut self, at_ms: u64, event: Event, is_synced: bool) -> Result<Entry, JournalError> {
        let body = serde_json::to_string(&event)
            .map_err(|error| JournalError::Io { path: self.path.clone(), problem: error.to_string() })?;
        let seq = self.n_events + 1;
        let hash = link(&self.hash, seq, at_ms, &body);
        self.store.append(&Row { seq, at_ms, body, hash }, is_synced)?;
        self.n_events = seq;
        self.hash = hash;
        Ok(Entry { seq, at_ms, event })
    }

    /// Path of its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The hash before the first event: SHA-256 of `perilune journal 1`.
#[must_use]
pub fn genesis() -> [u8; 32] {
    Sha256::digest(b"perilune journal 1").into()
}

/// The hash of an event: SHA-256 of the hash before, number, time (both as eight bytes, little-endian) and body.
#[must_use]
pub fn link(before: &[u8; 32], seq: u64, at_ms: u64, body: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update(seq.to_le_bytes());
    hasher.update(at_ms.to_le_bytes());
    hasher.update(body.as_bytes());
    hasher.finalize().into()
}

/// The events of a whole chain, from its first; `path` names it in errors.
///
/// # Errors
/// [`JournalError::Corrupt`] at the first row that does not fit.
pub fn verify_rows(path: &Path, rows: &[Row]) -> Result<Vec<Entry>, JournalError> {
    let mut entries = Vec::with_capacity(rows.len());
    verify_after(path, 0, &genesis(), rows, &mut entries)?;
    Ok(entries)
}

/// Adds the events of rows that follow event `n_before`, whose hash is `before`.
///
/// # Errors
/// [`JournalError::Corrupt`] at the first row that does not fit; the events before it are in `entries`.
pub(super) fn verify_after(
    path: &Path,
    n_before: u64,
    before: &[u8; 32],
    rows: &[Row],
    entries: &mut Vec<Entry>,
) -> Result<(), JournalError> {
    let mut before = *before;
    for (seq, row) in (n_before + 1..).zip(rows) {
        let corrupt =
            |problem: &str| JournalError::Corrupt { path: path.to_owned(), seq, problem: problem.to_owned() };
        if row.seq != seq {
            return Err(corrupt("an event is missing"));
        }
        if link(&before, seq, row.at_ms, &row.body) != row.hash {
            return Err(corrupt("its hash does not fit"));
        }
        let event: Event = serde_json::from_str(&row.body).map_err(|error| corrupt(&error.to_string()))?;
        if matches!(event, Event::Opened(_)) != (seq == 1) {
            return Err(corrupt("it is not where a run opens"));
        }
        entries.push(Entry { seq, at_ms: row.at_ms, event });
        before = row.hash;
    }
    Ok(())
}
