//! API keys: made once, shown once, kept as a digest.

use super::{Store, StoreError, Usd, now_ms};
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Random bytes in a key: 256 bits, so a fast digest is enough.
const KEY_BYTES: usize = 32;
/// Characters of a key that are kept to recognise it by, `sk-` included.
const PREFIX_CHARS: usize = 10;

/// What a key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// The APIs.
    Api,
    /// The console, and the APIs.
    Admin,
}

impl KeyKind {
    /// As the database spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Admin => "admin",
        }
    }
}

/// What a key may use; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Requests a minute.
    pub requests_per_min: Option<u32>,
    /// Tokens a minute, prompt and generated.
    pub tokens_per_min: Option<u32>,
    /// Requests at once.
    pub concurrency: Option<u32>,
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Number in the database.
    pub id: i64,
    /// Its name, for people; several keys may have one.
    pub name: String,
    /// What it opens.
    pub kind: KeyKind,
    /// Its first ten characters, `sk-` included, to recognise it by.
    pub prefix: String,
    /// Unix time of its making, milliseconds.
    pub created_ms: i64,
    /// Unix time of its revocation, milliseconds.
    pub revoked_ms: Option<i64>,
    /// What it may use.
    pub limits: KeyLimits,
    /// What it may still spend; `None` is without end. Below zero when the last requests cost more than was left.
    pub balance: Option<Usd>,
}

/// What is to change of a key; `None` leaves a limit as it is, `Some(None)` takes it away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyChange {
    /// Requests a minute.
    pub requests_per_min: Option<Option<u32>>,
    /// Tokens a minute.
    pub tokens_per_min: Option<Option<u32>>,
    /// Requests at once.
    pub concurrency: Option<Option<u32>>,
    /// What it may still spend.
    pub balance: Option<BalanceChange>,
}

/// What is to change of a balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BalanceChange {
    /// It becomes this, whatever it was; `None` is without end.
    Set(Option<Usd>),
    /// This is added (or taken, below zero) to what is left at that moment.
    Add(Usd),
}

/// A key just made.
#[derive(Debug)]
pub struct NewKey {
    /// The key itself, which is kept nowhere: `sk-` and 64 hexadecimal digits.
    pub secret: String,
    /// What is kept.
    pub key: Key,
}

/// SHA-256 of a key's bytes: what the database keeps of it.
#[must_use]
pub fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// A fresh key: `sk-` and 64 hexadecimal digits.
fn generate() -> Result<String, StoreError> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Random(error.to_string()))?;
    let mut secret = "sk-".to_owned();
    for byte in bytes {
        write!(secret, "{byte:02x}").expect("writing to a string cannot fail");
    }
    Ok(secret)
}

const COLUMNS: &str = "id, name, kind, prefix, created_ms, revoked_ms, requests_per_min, tokens_per_min, concurrency, \
                       balance_nano";

fn read(row: &Row<'_>) -> rusqlite::Result<Key> {
    let kind: String = row.get(2)?;
    Ok(Key {
        id: row.get(0)?,
        name: row.get(1)?,
        kind: if kind == "admin" { KeyKind::Admin } else { KeyKind::Api },
        prefix: row.get(3)?,
        created_ms: row.get(4)?,
        revoked_ms: row.get(5)?,
        limits: KeyLimits {
            requests_per_min: row.get(6)?,
            tokens_per_min: row.get(7)?,
            concurrency: row.get(8)?,
        },
        balance: row.get::<_, Option<i64>>(9)?.map(|nano| Usd { nano }),
    })
}

fn all(connection: &Connection) -> Result<Vec<Key>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM keys ORDER BY id"))?;
    let keys = statement.query_map([], read)?.collect::<Result<_, _>>()?;
    Ok(keys)
}

/// The one key with this id, or whose first characters these are.
fn named(connection: &Connection, text: &str) -> Result<Key, StoreError> {
    let is_meant = |key: &Key| match text.parse::<i64>() {
        Ok(id) => key.id == id,
        Err(_) => text.len() >= PREFIX_CHARS && text.starts_with(&key.prefix),
    };
    let mut keys: Vec<Key> = all(connection)?.into_iter().filter(is_meant).collect();
    match keys.len() {
        1 => Ok(keys.remove(0)),
        0 => Err(StoreError::NoSuchKey { named: text.chars().take(PREFIX_CHARS).collect() }),
        n => Err(StoreError::ManyKeys { named: text.chars().take(PREFIX_CHARS).collect(), n }),
    }
}

impl Store {
    /// Makes a key; `balance` is what it may spend, `None` without end.
    ///
    /// # Errors
    /// When the database fails, or the system gives no random bytes.
    pub async fn create_key(
        &self,
        name: &str,
        kind: KeyKind,
        limits: KeyLimits,
        balance: Option<Usd>,
    ) -> Result<NewKey, StoreError> {
        let (name, secret) = (name.to_owned(), generate()?);
        self.run(move |connection| {
            let prefix: String = secret.chars().take(PREFIX_CHARS).collect();
            let created_ms = now_ms();
            let sql = "INSERT INTO keys (name, kind, prefix, digest, created_ms, requests_per_min, tokens_per_min, \
                       concurrency, balance_nano) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            let KeyLimits { requests_per_min, tokens_per_min, concurrency } = limits;
            let nano = balance.map(|balance| balance.nano);
            let kept = digest(&secret).to_vec();
            connection.execute(
                sql,
                params![
                    name, kind.name(), prefix, kept, created_ms, requests_per_min, tokens_per_min, concurrency, nano
                ],
            )?;
            let id = connection.last_insert_rowid();
            let key = Key { id, name, kind, prefix, created_ms, revoked_ms: None, limits, balance };
            Ok(NewKey { secret, key })
        })
        .await
    }

    /// The key with this digest, revoked ones included. A balance is read behind the settlements handed over so far.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key(&self, digest: [u8; 32]) -> Result<Option<Key>, StoreError> {
        let find = move |connection: &Connection| {
            let sql = format!("SELECT {COLUMNS} FROM keys WHERE digest = ?1");
            Ok(connection.prepare_cached(&sql)?.query_row([digest.to_vec()], read).optional()?)
        };
        match self.read(find).await? {
            Some(key) if key.balance.is_some() => self.run(move |connection| find(connection)).await,
            key => Ok(key),
        }
    }

    /// All keys, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keys(&self) -> Result<Vec<Key>, StoreError> {
        self.run(|connection| all(connection)).await
    }

    /// Whether any key for the APIs was ever made, revoked ones included; admin keys do not count.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_api_keys(&self) -> Result<bool, StoreError> {
        self.read(|connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM keys WHERE kind = 'api')";
            Ok(connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
        })
        .await
    }

    /// Whether a key of this kind is in force.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_key(&self, kind: KeyKind) -> Result<bool, StoreError> {
        self.run(move |connection| {
            let sql = "SELECT EXISTS (SELECT 1 FROM keys WHERE kind = ?1 AND revoked_ms IS NULL)";
            Ok(connection.prepare_cached(sql)?.query_row([kind.name()], |row| row.get(0))?)
        })
        .await
    }

    /// Ends a key, named by its id, its shown prefix or the key itself. Ending it twice changes nothing.
    ///
    /// # Errors
    /// When no key, or more than one, is meant, or the database fails.
    pub async fn revoke_key(&self, text: &str) -> Result<Key, StoreError> {
        let text = text.to_owned();
        self.run(move |connection| {
            let key = named(connection, &text)?;
            let sql = "UPDATE keys SET revoked_ms = COALESCE(revoked_ms, ?2) WHERE id = ?1";
            connection.execute(sql, params![key.id, now_ms()])?;
            named(connection, &key.id.to_string())
        })
        .await
    }

    /// Changes a key's limits and balance, named as for [`Store::revoke_key`]; a running server follows with its next
    /// request.
    ///
    /// # Errors
    /// When no key, or more than one, is meant; a revoked one; a sum for a key that has no balance; or when the
    /// database fails.
    pub async fn change_key(&self, text: &str, change: KeyChange) -> Result<Key, StoreError> {
        let text = text.to_owned();
        self.run(move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let key = named(&transaction, &text)?;
            if key.revoked_ms.is_some() {
                return Err(StoreError::Revoked { id: key.id });
            }
            let balance = match change.balance {
                None => key.balance,
                Some(BalanceChange::Set(balance)) => balance,
                Some(BalanceChange::Add(sum)) => {
                    let left = key.balance.ok_or(StoreError::NoBalance { id: key.id })?;
                    Some(Usd { nano: left.nano.saturating_add(sum.nano) })
                }
            };
            let limits = KeyLimits {
                requests_per_min: change.requests_per_min.unwrap_or(key.limits.requests_per_min),
                tokens_per_min: change.tokens_per_min.unwrap_or(key.limits.tokens_per_min),
                concurrency: change.concurrency.unwrap_or(key.limits.concurrency),
            };
            let KeyLimits { requests_per_min, tokens_per_min, concurrency } = limits;
            let nano = balance.map(|balance| balance.nano);
            let sql = "UPDATE keys SET requests_per_min = ?2, tokens_per_min = ?3, concurrency = ?4, \
                       balance_nano = ?5 WHERE id = ?1";
            transaction.execute(sql, params![key.id, requests_per_min, tokens_per_min, concurrency, nano])?;
            transaction.commit()?;
            Ok(Key { limits, balance, ..key })
        })
        .await
    }
}
