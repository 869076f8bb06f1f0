//! The file: SQLite in WAL mode, one writer.

use super::chain::{Entry, Journal, Row, Store, genesis, verify_after, verify_rows};
use super::{Event, JournalError, Opened};
use crate::mutant::{Mutant, is};
use rusqlite::{Connection, OpenFlags, params};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the journal in a run's folder.
pub const JOURNAL_FILE: &str = "journal.sqlite";
/// Name of a journal that is not yet whole.
const PARTIAL_FILE: &str = "journal.sqlite.partial";
/// Name of the lock beside it.
const LOCK_FILE: &str = "lock";
/// Newest schema of the file, as `user_version` counts it.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;
/// Marks the file as a journal (`PLJ1`).
const APPLICATION_ID: u32 = 0x504c_4a31;
/// Longest wait for a reader's lock.
const BUSY_MS: u64 = 5_000;
/// Memory for pages of the file, KiB: the newest are written and none is read again.
const CACHE_KIB: i32 = 256;
/// Looks at a lock that may be held for an instant by [`is_worked_on`], and how far apart they are.
const N_LOCK_LOOKS: u32 = 100;
const LOCK_LOOK_MS: u64 = 5;

/// From each schema to the next; `user_version` counts those that were applied.
const MIGRATIONS: [&str; 1] = ["CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    body TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;"];

/// The file of a run.
struct Sqlite {
    connection: Connection,
    path: PathBuf,
    is_synced: bool,
    _lock: File,
}

/// Opens a new run in `folder` at the Unix time `at_ms` (milliseconds); its first event is on the disk when this
/// returns.
///
/// # Errors
/// [`JournalError::Exists`] where a run is there already, [`JournalError::Locked`] where another process makes one,
/// [`JournalError::Io`] where the folder cannot be written.
pub fn create(folder: &Path, at_ms: u64, opened: Opened) -> Result<(Journal, Entry), JournalError> {
    let path = folder.join(JOURNAL_FILE);
    let failed = |problem: String| JournalError::Io { path: path.clone(), problem };
    std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    let lock = lock(folder)?;
    if path.exists() {
        return Err(JournalError::Exists { path });
    }
    // A process that dies here leaves no journal rather than one that opened nothing.
    let partial = folder.join(PARTIAL_FILE);
    for left in ["", "-journal", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.join(format!("{PARTIAL_FILE}{left}")));
    }
    begin(&partial, lock.try_clone().map_err(|error| failed(error.to_string()))?, at_ms, opened)?;
    let moved = std::fs::rename(&partial, &path).and_then(|()| File::open(folder)?.sync_all());
    moved.map_err(|error| failed(error.to_string()))?;
    let (journal, mut entries) = open(&path, lock)?;
    let entry = entries.pop().ok_or_else(|| failed("the first event was not kept".to_owned()))?;
    Ok((journal.opened_here(), entry))
}

/// A whole file with its first event, closed again.
fn begin(path: &Path, lock: File, at_ms: u64, opened: Opened) -> Result<(), JournalError> {
    let connection = Connection::open(path).map_err(|error| explain(path, &error))?;
    let marked = connection.pragma_update(None, "application_id", APPLICATION_ID);
    marked.map_err(|error| explain(path, &error))?;
    let store = Sqlite::new(connection, path, lock)?;
    let (mut journal, _) = Journal::over(Box::new(store), path, &[])?;
    journal.append(at_ms, Event::Opened(opened), true).map(drop)
}

/// Takes a run up again, as its only writer; the whole chain is verified first.
///
/// # Errors
/// [`JournalError::Missing`], [`JournalError::Locked`] where another process works on it, or why it cannot be read as a
/// journal: then nothing in it is changed.
pub fn resume(folder: &Path) -> Result<(Journal, Vec<Entry>), JournalError> {
    let path = folder.join(JOURNAL_FILE);
    if !path.exists() {
        return Err(JournalError::Missing { path });
    }
    let lock = lock(folder)?;
    open(&path, lock)
}

/// Verifies a journal, then opens it to write.
fn open(path: &Path, lock: File) -> Result<(Journal, Vec<Entry>), JournalError> {
    let rows = rows(path)?;
    verify_rows(path, &rows)?;
    if rows.is_empty() {
        let problem = "it holds no event".to_owned();
        return Err(JournalError::Corrupt { path: path.to_owned(), seq: 1, problem });
    }
    let explained = |error: rusqlite::Error| explain(path, &error);
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(explained)?;
    Journal::over(Box::new(Sqlite::new(connection, path, lock)?), path, &rows)
}

/// The events of a run, whoever works on it; the whole chain is verified.
///
/// # Errors
/// [`JournalError::Missing`], or why it cannot be read as a journal.
pub fn read(folder: &Path) -> Result<Vec<Entry>, JournalError> {
    let path = folder.join(JOURNAL_FILE);
    verify_rows(&path, &rows(&path)?)
}

/// The events of a run up to the first that is damaged, and what is wrong there.
///
/// # Errors
/// [`JournalError`]: not even the first event can be read.
pub fn read_whole_part(folder: &Path) -> Result<(Vec<Entry>, Option<JournalError>), JournalError> {
    let path = folder.join(JOURNAL_FILE);
    let (mut rows, mut entries) = (Vec::new(), Vec::new());
    let unread = read_rows(&path, 1, &mut rows);
    let damage = verify_after(&path, 0, &genesis(), &rows, &mut entries).and(unread).err();
    match damage {
        Some(damage) if entries.is_empty() => Err(damage),
        damage => Ok((entries, damage)),
    }
}

/// The later part of a chain.
#[derive(Debug, Clone)]
pub struct Tail {
    /// Hash of the event before it; [`genesis`] where it begins with the first.
    pub before: [u8; 32],
    /// Its events.
    pub entries: Vec<Entry>,
    /// Hash of its last event; `before` where it has none.
    pub hash: [u8; 32],
}

/// The events after number `seq`, held to the hash that the journal has there.
///
/// # Errors
/// [`JournalError::Corrupt`] where there is no event `seq`, or why it cannot be read as a journal.
pub fn read_after(folder: &Path, seq: u64) -> Result<Tail, JournalError> {
    let path = folder.join(JOURNAL_FILE);
    let mut rows = Vec::new();
    read_rows(&path, seq.max(1), &mut rows)?;
    let before = match (seq, rows.first()) {
        (0, _) => genesis(),
        (_, Some(first)) if first.seq == seq => rows.remove(0).hash,
        _ => {
            let problem = "an event is missing".to_owned();
            return Err(JournalError::Corrupt { path, seq, problem });
        }
    };
    let mut entries = Vec::with_capacity(rows.len());
    verify_after(&path, seq, &before, &rows, &mut entries)?;
    let hash = rows.last().map_or(before, |row| row.hash);
    Ok(Tail { before, entries, hash })
}

/// Whether a process works on the run in this folder.
#[must_use]
pub fn is_worked_on(folder: &Path) -> bool {
    let file = File::open(folder.join(LOCK_FILE));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// The stored rows of a run, unverified.
fn rows(path: &Path) -> Result<Vec<Row>, JournalError> {
    let mut rows = Vec::new();
    read_rows(path, 1, &mut rows)?;
    Ok(rows)
}

/// Adds the stored rows from `seq` on, unverified, up to the first that cannot be read.
fn read_rows(path: &Path, seq: u64, rows: &mut Vec<Row>) -> Result<(), JournalError> {
    if !path.exists() {
        return Err(JournalError::Missing { path: path.to_owned() });
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| explain(path, &error))?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS)).map_err(|error| explain(path, &error))?;
    known_schema(&connection, path)?;
    let mut read = || -> rusqlite::Result<()> {
        let select = "SELECT seq, at_ms, body, hash FROM events WHERE seq >= ?1 ORDER BY seq";
        let mut statement = connection.prepare(select)?;
        let found = statement.query_map([seq.cast_signed()], |row| {
            let number = |idx| row.get::<_, i64>(idx).map(i64::cast_unsigned);
            Ok(Row { seq: number(0)?, at_ms: number(1)?, body: row.get(2)?, hash: row.get(3)? })
        })?;
        for row in found {
            rows.push(row?);
        }
        Ok(())
    };
    read().map_err(|error| explain(path, &error))
}

fn known_schema(connection: &Connection, path: &Path) -> Result<u32, JournalError> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
    let explained = |error| explain(path, &error);
    if number("application_id").map_err(explained)? != APPLICATION_ID {
        let problem = "it is not a journal of a run".to_owned();
        return Err(JournalError::Corrupt { path: path.to_owned(), seq: 1, problem });
    }
    let found = number("user_version").map_err(explained)?;
    if found > SCHEMA_VERSION {
        return Err(JournalError::Newer { path: path.to_owned(), found, known: SCHEMA_VERSION });
    }
    Ok(found)
}

/// One process a run. The system frees the lock of a process that dies.
fn lock(folder: &Path) -> Result<File, JournalError> {
    let path = folder.join(LOCK_FILE);
    let failed = |problem: String| JournalError::Io { path: path.clone(), problem };
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| failed(error.to_string()))?;
    for _ in 0..N_LOCK_LOOKS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if is(Mutant::LoseLock) => return Ok(file),
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(LOCK_LOOK_MS)),
            Err(TryLockError::Error(error)) => return Err(failed(error.to_string())),
        }
    }
    Err(JournalError::Locked { folder: folder.to_owned() })
}

impl Sqlite {
    fn new(mut connection: Connection, path: &Path, lock: File) -> Result<Self, JournalError> {
        let explained = |error: rusqlite::Error| explain(path, &error);
        connection.busy_timeout(Duration::from_millis(BUSY_MS)).map_err(explained)?;
        let n_applied = known_schema(&connection, path)? as usize;
        // A new file is still without its name here: a process that died while it switched a named one would leave a
        // journal that nobody can read.
        connection.pragma_update(None, "journal_mode", "wal").map_err(explained)?;
        let migration = connection.transaction().map_err(explained)?;
        for step in &MIGRATIONS[n_applied..] {
            migration.execute_batch(step).map_err(explained)?;
        }
        migration.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(explained)?;
        migration.commit().map_err(explained)?;
        connection.pragma_update(None, "synchronous", "normal").map_err(explained)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(explained)?;
        Ok(Self { connection, path: path.to_owned(), is_synced: false, _lock: lock })
    }
}

impl Store for Sqlite {
    /// In WAL mode a commit under `synchronous = full` syncs the log with all that stands before it.
    fn append(&mut self, row: &Row, is_synced: bool) -> Result<(), JournalError> {
        let explained = |error: rusqlite::Error| explain(&self.path, &error);
        if self.is_synced != is_synced {
            let level = if is_synced { "full" } else { "normal" };
            self.connection.pragma_update(None, "synchronous", level).map_err(explained)?;
            self.is_synced = is_synced;
        }
        let insert = "INSERT INTO events (seq, at_ms, body, hash) VALUES (?1, ?2, ?3, ?4)";
        let mut statement = self.connection.prepare_cached(insert).map_err(explained)?;
        let kept =
            statement.execute(params![row.seq.cast_signed(), row.at_ms.cast_signed(), row.body, row.hash]);
        kept.map(drop).map_err(explained)
    }
}

fn explain(path: &Path, error: &rusqlite::Error) -> JournalError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => {
            JournalError::Corrupt { path, seq: 1, problem: error.to_string() }
        }
        _ => JournalError::Io { path, problem: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SQLite keeps of the file does not grow with it.
    #[test]
    fn pages_of_the_file_in_memory_are_limited_from_the_first_event_on() {
        let folder = tempfile::tempdir().unwrap();
        for is_new in [true, false] {
            let path = folder.path().join(JOURNAL_FILE);
            let connection = Connection::open(&path).unwrap();
            if is_new {
                connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
            }
            let store = Sqlite::new(connection, &path, lock(folder.path()).unwrap()).unwrap();
            let number = |name: &str| {
                store.connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0)).unwrap()
            };
            assert_eq!(number("cache_size"), -CACHE_KIB);
            assert!(CACHE_KIB * 1024 >= 4 * number("page_size"), "a few pages are needed for one insert");
        }
    }
}
