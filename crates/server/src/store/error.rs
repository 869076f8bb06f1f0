//! Why the store could not answer.

use std::path::{Path, PathBuf};

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("{path}: cannot be opened as a database ({problem}); check the folder's permissions and the disk", path = path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        problem: String,
    },
    /// The disk is full.
    #[error("the disk of the data folder is full; make room there")]
    Full,
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
    Sqlite(rusqlite::Error),
    /// The system gives no thread for the database.
    #[error("the system gives no thread for the database: {0}")]
    Thread(std::io::Error),
    /// The system gives no random bytes for a key.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The database's thread has ended.
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
        /// Id of the key.
        id: i64,
    },
    /// Nothing can be added to what has no end.
    #[error("key {id} has no balance to add to: it may spend without end; give it one with `--balance`")]
    NoBalance {
        /// Id of the key.
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
        /// Number of keys that fit.
        n: usize,
    },
}

impl StoreError {
    pub(super) fn at(path: &Path, source: &rusqlite::Error) -> Self {
        Self::Open { path: path.to_owned(), problem: source.to_string() }
    }

    /// The same, with the file's name where the file is what is wrong.
    pub(super) fn of_file(self, path: &Path) -> Self {
        match self {
            Self::Sqlite(source) => Self::at(path, &source),
            Self::Full => Self::Open { path: path.to_owned(), problem: "its disk is full".to_owned() },
            other => other,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sqlite(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_the_file_that_found_no_room() {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let full = || StoreError::from(rusqlite::Error::SqliteFailure(code, None));
        assert!(full().to_string().contains("disk of the data folder is full"));
        let told = full().of_file(Path::new("data/perilune.db")).to_string();
        assert!(told.contains("data/perilune.db") && told.contains("full"), "{told}");
    }
}
