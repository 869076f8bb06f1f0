//! One line per request: opened before its work begins, settled when it ends.

use super::price::price_of;
use super::{Store, StoreError, Usd, now_ms};
use perilune_chat::model::Usage;
use rusqlite::{Connection, Row, params};
use std::future::Future;

/// How a request stands in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// At work, or the process died with it.
    Open,
    /// Answered in full.
    Done,
    /// The client went away or read too slowly; what was generated until then is charged.
    Cancelled,
    /// The server failed; nothing is charged.
    Failed,
    /// Open when an earlier process ended; nothing is charged.
    Lost,
}

impl Status {
    /// As the database spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }

    fn from_name(name: &str) -> Self {
        [Self::Done, Self::Cancelled, Self::Failed, Self::Lost]
            .into_iter()
            .find(|status| status.name() == name)
            .unwrap_or(Self::Open)
    }

    fn is_charged(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

/// A request as it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Id that the client got.
    pub request_id: String,
    /// Id of the key that asked; `None` where the server needs none.
    pub key_id: Option<i64>,
    /// Model id as served.
    pub model: String,
    /// Service class: `latency`, `throughput` or `upstream`.
    pub class: &'static str,
    /// Path of the endpoint.
    pub route: &'static str,
}

/// A request as it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended; not [`Status::Open`].
    pub status: Status,
    /// Tokens that it used, of all choices together.
    pub usage: Usage,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Id that the client got.
    pub request_id: String,
    /// Id of the key that asked; `None` where the server needed none.
    pub key_id: Option<i64>,
    /// Model id as served.
    pub model: String,
    /// Service class: `latency`, `throughput` or `upstream`.
    pub class: String,
    /// Path of the endpoint.
    pub route: String,
    /// When it was opened: Unix time, milliseconds.
    pub opened_ms: i64,
    /// When it was settled: Unix time, milliseconds; `None` while it is open.
    pub settled_ms: Option<i64>,
    /// How it stands.
    pub status: Status,
    /// Tokens that it used; zero while it is open.
    pub usage: Usage,
    /// What it cost; zero while it is open.
    pub cost: Usd,
}

/// Which lines are meant; `None` means all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// Opened at this Unix time (milliseconds) or later.
    pub from_ms: Option<i64>,
    /// Opened before it.
    pub until_ms: Option<i64>,
    /// Of the key with this id.
    pub key_id: Option<i64>,
}

/// Sums over lines of one key, model and day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Id of the key that asked; `None` where the server needed none.
    pub key_id: Option<i64>,
    /// Model id as served.
    pub model: String,
    /// Day (UTC), `2025-11-24`.
    pub day: String,
    /// Number of lines.
    pub n_requests: u64,
    /// Tokens that they used.
    pub usage: Usage,
    /// What they cost.
    pub cost: Usd,
}

const WHERE: &str = "opened_ms >= COALESCE(?1, opened_ms) AND opened_ms < COALESCE(?2, opened_ms + 1) \
                     AND (?3 IS NULL OR key_id = ?3)";

fn tokens(row: &Row<'_>, at: usize) -> rusqlite::Result<Usage> {
    let count = |at: usize| row.get::<_, i64>(at).map(|n| u64::try_from(n).unwrap_or(0));
    Ok(Usage {
        prompt_tokens: count(at)?,
        cached_tokens: count(at + 1)?,
        completion_tokens: count(at + 2)?,
        reasoning_tokens: count(at + 3)?,
    })
}

fn line(row: &Row<'_>) -> rusqlite::Result<Line> {
    let status: String = row.get(7)?;
    Ok(Line {
        request_id: row.get(0)?,
        key_id: row.get(1)?,
        model: row.get(2)?,
        class: row.get(3)?,
        route: row.get(4)?,
        opened_ms: row.get(5)?,
        settled_ms: row.get(6)?,
        status: Status::from_name(&status),
        usage: tokens(row, 8)?,
        cost: Usd { nano: row.get(12)? },
    })
}

fn total(row: &Row<'_>) -> rusqlite::Result<Totals> {
    Ok(Totals {
        key_id: row.get(0)?,
        model: row.get(1)?,
        day: row.get(2)?,
        n_requests: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
        usage: tokens(row, 4)?,
        cost: Usd { nano: row.get(8)? },
    })
}

/// Settles a line that is open and takes its cost off the key's balance, both or neither.
fn settle(connection: &mut Connection, request_id: &str, outcome: Outcome) -> Result<Usd, StoreError> {
    let transaction = connection.transaction()?;
    let Outcome { status, usage } = outcome;
    let sql = "SELECT model FROM ledger WHERE request_id = ?1 AND status = 'open'";
    let Ok(model) = transaction.query_row(sql, [request_id], |row| row.get::<_, String>(0)) else {
        return Ok(Usd::default());
    };
    let price = price_of(&transaction, &model)?.filter(|_| status.is_charged());
    let cost = price.map_or(Usd::default(), |p| {
        p.cost(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    });
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let sql = "UPDATE ledger SET status = ?2, settled_ms = ?3, prompt_tokens = ?4, cached_tokens = ?5, \
               completion_tokens = ?6, reasoning_tokens = ?7, cost_nano = ?8 WHERE request_id = ?1";
    let row = params![
        request_id,
        status.name(),
        now_ms(),
        count(usage.prompt_tokens),
        count(usage.cached_tokens),
        count(usage.completion_tokens),
        count(usage.reasoning_tokens),
        cost.nano
    ];
    transaction.execute(sql, row)?;
    let sql = "UPDATE keys SET balance_nano = balance_nano - ?2 \
               WHERE id = (SELECT key_id FROM ledger WHERE request_id = ?1)";
    transaction.execute(sql, params![request_id, cost.nano])?;
    transaction.commit()?;
    Ok(cost)
}

impl Store {
    /// Hands a request's line over to be written, before anything that it may be charged for; the future waits for it.
    ///
    /// # Errors
    /// When the database fails: then the work must not go on.
    pub fn open_line(&self, opened: Opened) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.run(move |connection| {
            let sql = "INSERT INTO ledger (request_id, key_id, model, class, route, opened_ms, status) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'open')";
            let Opened { request_id, key_id, model, class, route } = opened;
            connection.prepare_cached(sql)?.execute(params![
                request_id,
                key_id,
                model,
                class,
                route,
                now_ms()
            ])?;
            Ok(())
        })
    }

    /// Settles a request's line and takes its cost, at the model's price of that moment, off the key's balance. Does
    /// not wait for it, as it is called where an answer is dropped: a failure is logged.
    pub fn settle_line(&self, request_id: String, outcome: Outcome) {
        let job = move |connection: &mut Connection| {
            if let Err(error) = settle(connection, &request_id, outcome) {
                tracing::error!(%request_id, %error, ?outcome, "a request could not be settled in the ledger");
            }
        };
        if let Err(error) = self.post(job) {
            tracing::error!(%error, "a request could not be settled in the ledger");
        }
    }

    /// Waits until everything handed over so far is written.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.run(|_| Ok(())).await
    }

    /// Marks the lines that an ended process left open as lost; returns their number. Call it once, before serving, as
    /// the only server of the file.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn recover(&self) -> Result<usize, StoreError> {
        self.run(|connection| {
            let sql = "UPDATE ledger SET status = 'lost', settled_ms = ?1 WHERE status = 'open'";
            Ok(connection.execute(sql, [now_ms()])?)
        })
        .await
    }

    /// The latest `n_max` lines of a period, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lines(&self, period: Period, n_max: u32) -> Result<Vec<Line>, StoreError> {
        self.run(move |connection| {
            let sql = format!(
                "SELECT request_id, key_id, model, class, route, opened_ms, settled_ms, status, prompt_tokens, \
                 cached_tokens, completion_tokens, reasoning_tokens, cost_nano FROM ledger WHERE {WHERE} \
                 ORDER BY id DESC LIMIT ?4"
            );
            let row = params![period.from_ms, period.until_ms, period.key_id, n_max];
            let lines = connection.prepare_cached(&sql)?.query_map(row, line)?.collect::<Result<_, _>>()?;
            Ok(lines)
        })
        .await
    }

    /// Sums of a period by key, model and day (UTC), oldest day first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn totals(&self, period: Period) -> Result<Vec<Totals>, StoreError> {
        self.run(move |connection| {
            let sql = format!(
                "SELECT key_id, model, date(opened_ms / 1000, 'unixepoch') AS day, count(*), sum(prompt_tokens), \
                 sum(cached_tokens), sum(completion_tokens), sum(reasoning_tokens), sum(cost_nano) \
                 FROM ledger WHERE {WHERE} GROUP BY key_id, model, day ORDER BY day, key_id, model"
            );
            let row = params![period.from_ms, period.until_ms, period.key_id];
            let totals = connection.prepare_cached(&sql)?.query_map(row, total)?.collect::<Result<_, _>>()?;
            Ok(totals)
        })
        .await
    }
}
