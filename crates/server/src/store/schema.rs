//! The tables, and how an older file becomes a newer one.

use super::StoreError;
use rusqlite::Connection;

/// One entry per version; a file at version `n` has run the first `n`. Entries are never changed, only added.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE keys (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('api', 'admin')),
        prefix TEXT NOT NULL,
        digest BLOB NOT NULL UNIQUE,
        created_ms INTEGER NOT NULL,
        revoked_ms INTEGER,
        requests_per_min INTEGER,
        tokens_per_min INTEGER,
        concurrency INTEGER,
        balance_nano INTEGER
    ) STRICT;
    CREATE TABLE ledger (
        id INTEGER PRIMARY KEY,
        request_id TEXT NOT NULL UNIQUE,
        key_id INTEGER REFERENCES keys (id),
        model TEXT NOT NULL,
        class TEXT NOT NULL,
        route TEXT NOT NULL,
        opened_ms INTEGER NOT NULL,
        settled_ms INTEGER,
        status TEXT NOT NULL,
        prompt_tokens INTEGER NOT NULL DEFAULT 0,
        cached_tokens INTEGER NOT NULL DEFAULT 0,
        completion_tokens INTEGER NOT NULL DEFAULT 0,
        reasoning_tokens INTEGER NOT NULL DEFAULT 0,
        cost_nano INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX ledger_by_key ON ledger (key_id, opened_ms);
    CREATE INDEX ledger_by_time ON ledger (opened_ms);
    CREATE INDEX ledger_open ON ledger (status) WHERE status = 'open';
    CREATE TABLE prices (
        model TEXT PRIMARY KEY,
        input_nano INTEGER NOT NULL,
        cached_nano INTEGER NOT NULL,
        output_nano INTEGER NOT NULL
    ) STRICT;
    INSERT INTO prices VALUES ('kimi-k2-thinking', 1100, 1100, 4400);
    INSERT INTO prices VALUES ('kimi-k2-thinking-turbo', 2200, 2200, 15950);
"];

/// Sets the connection up and runs the migrations that the file lacks, each in a transaction of its own.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // In WAL mode this survives a killed process; a power cut may cost the last lines, never the file.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let known = MIGRATIONS.len() as i64;
    loop {
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found > known {
            return Err(StoreError::TooNew { found, known });
        }
        let Some(migration) = usize::try_from(found).ok().and_then(|done| MIGRATIONS.get(done)) else {
            return Ok(());
        };
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", found + 1)?;
        transaction.commit()?;
    }
}
