//! Why the store could not answer.

use std::path::{Path, PathBuf};

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("{path}: cannot be opened as a database ({source}); check the folder's permissions and the disk", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A later version wrote the file.
    #[error(
        "the database has schema version {found}, this program knows {known}: use the newer program, or another data folder"
    )]
    TooNew {
        /// Version in the file.
        found: i64,
        /// Version of this program.
        known: i64,
    },
    /// SQLite failed.
    #[error("the database failed: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// No thread.
    #[error("the system gives no thread for the database: {0}")]
    Thread(std::io::Error),
    /// No random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The thread has ended.
    #[error("the database's thread has ended; restart the server")]
    Closed,
    /// No key fits what was named.
    #[error("no key has the id or prefix {named:?}; `perilune keys list` shows them")]
    NoSuchKey {
        /// What was named.
        named: String,
    },
    /// A revoked key stays as it was.
    #[error(
        "key {id} is revoked, so nothing of it can change; make another with `perilune keys create NAME`"
    )]
    Revoked {
        /// Its id.
        id: i64,
    },
    /// Nothing can be added to what has no end.
    #[error("key {id} has no balance to add to: it may spend without end; give it one with `--balance`")]
    NoBalance {
        /// Its id.
        id: i64,
    },
    /// No price is set.
    #[error("no price is set for {model:?}; `perilune prices list` shows those that are")]
    NoSuchPrice {
        /// Id of the model.
        model: String,
    },
    /// Several keys fit.
    #[error("{n} keys begin with {named:?}: give the id instead")]
    ManyKeys {
        /// What was named.
        named: String,
        /// How many.
        n: usize,
    },
}

impl StoreError {
    pub(super) fn at(path: &Path, source: rusqlite::Error) -> Self {
        Self::Open { path: path.to_owned(), source }
    }
}
