//! The tables, and how an older file becomes a newer one.

use super::StoreError;
use rusqlite::Connection;

/// One entry per version; a file at version `n` has run the first `n`. Entries are never changed, only added.
///
/// The prices of a new file are placeholders, so that its ledger and its balances mean something before the operator
/// has set any: what the vendor's own service asked, in US dollars per million tokens (input, cached input, output),
/// by lava.so's page on the vendor. `kimi-k2-thinking`: 0.60, 0.15, 2.50; `kimi-k2-thinking-turbo`: 1.15, 0.15, 8.00,
/// listed there for `kimi-k2-turbo-preview` and taken to be the same. What a machine of one's own costs they do not
/// say. The first version had others, of no list; a file in which requests stand keeps what they were charged by.
const MIGRATIONS: &[&str] = &[
    "
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
",
    "
    UPDATE prices SET input_nano = 600, cached_nano = 150, output_nano = 2500
        WHERE model = 'kimi-k2-thinking' AND (input_nano, cached_nano, output_nano) = (1100, 1100, 4400)
        AND NOT EXISTS (SELECT 1 FROM ledger);
    UPDATE prices SET input_nano = 1150, cached_nano = 150, output_nano = 8000
        WHERE model = 'kimi-k2-thinking-turbo' AND (input_nano, cached_nano, output_nano) = (2200, 2200, 15950)
        AND NOT EXISTS (SELECT 1 FROM ledger);
",
    "
    CREATE TABLE seals (
        id INTEGER PRIMARY KEY,
        endpoint TEXT NOT NULL,
        digest BLOB NOT NULL,
        seal TEXT NOT NULL,
        UNIQUE (endpoint, digest)
    ) STRICT;
",
];

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

#[cfg(test)]
mod tests {
    use super::*;

    /// The prices of a file of the first version, opened by this program after `change`; billionths of a dollar a
    /// token.
    fn prices_after(change: &str) -> Vec<(String, [i64; 3])> {
        let mut connection = Connection::open_in_memory().expect("memory");
        connection.execute_batch(MIGRATIONS[0]).expect("the first version");
        connection.pragma_update(None, "user_version", 1).expect("its number");
        connection.execute_batch(change).expect("what was done with it");
        prepare(&mut connection).expect("the newest version");
        let sql = "SELECT model, input_nano, cached_nano, output_nano FROM prices ORDER BY model";
        let mut statement = connection.prepare(sql).expect("prices");
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?]));
        statement.query_map([], read).expect("rows").collect::<Result<_, _>>().expect("whole rows")
    }

    #[test]
    fn only_a_file_without_requests_or_prices_of_its_own_gets_the_published_ones() {
        let (standard, turbo) = ("kimi-k2-thinking".to_owned(), "kimi-k2-thinking-turbo".to_owned());
        let fresh = [(standard.clone(), [600, 150, 2500]), (turbo.clone(), [1150, 150, 8000])];
        assert_eq!(prices_after(""), fresh);
        let set = prices_after("UPDATE prices SET cached_nano = 7 WHERE model = 'kimi-k2-thinking'");
        assert_eq!(set, [(standard.clone(), [1100, 7, 4400]), fresh[1].clone()]);
        assert!(prices_after("DELETE FROM prices").is_empty());
        let line = "INSERT INTO ledger (request_id, model, class, route, opened_ms, status) \
                    VALUES ('r', 'kimi-k2-thinking', 'throughput', '/v1/messages', 1, 'done')";
        assert_eq!(prices_after(line), [(standard, [1100, 1100, 4400]), (turbo, [2200, 2200, 15950])]);
    }
}
