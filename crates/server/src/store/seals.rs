//! What endpoints elsewhere sealed their thinking with: they take it back under that seal alone, so a later process
//! needs it too.

use super::{Store, StoreError};
use rusqlite::{Connection, params};

/// SHA-256 of a thinking block's text.
pub(crate) type TextDigest = [u8; 32];

impl Store {
    /// The seals of an endpoint by the text that they are for, oldest first; of more than `n_max` the oldest are
    /// forgotten.
    ///
    /// # Errors
    /// When the database fails.
    pub(crate) async fn seals(
        &self,
        endpoint: &str,
        n_max: usize,
    ) -> Result<Vec<(TextDigest, String)>, StoreError> {
        let (endpoint, n_max) = (endpoint.to_owned(), i64::try_from(n_max).unwrap_or(i64::MAX));
        self.run(move |connection| {
            let sql = "DELETE FROM seals WHERE endpoint = ?1 AND id NOT IN \
                       (SELECT id FROM seals WHERE endpoint = ?1 ORDER BY id DESC LIMIT ?2)";
            connection.execute(sql, params![endpoint, n_max])?;
            let sql = "SELECT digest, seal FROM seals WHERE endpoint = ?1 ORDER BY id";
            let mut statement = connection.prepare(sql)?;
            let seal = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let seals = statement.query_map([&endpoint], seal)?.collect::<Result<_, _>>()?;
            Ok(seals)
        })
        .await
    }

    /// Keeps an endpoint's seal of the text with this digest, and forgets that of `oldest`. Does not wait for it, as
    /// it is called where an answer is read: a failure is logged.
    pub(crate) fn keep_seal(
        &self,
        endpoint: &str,
        digest: TextDigest,
        seal: String,
        oldest: Option<TextDigest>,
    ) {
        let endpoint = endpoint.to_owned();
        let failed = |error: StoreError| {
            tracing::error!(%error, "a seal could not be kept: a later process cannot send this thinking back");
        };
        let job = move |connection: &mut Connection| {
            keep(connection, &endpoint, &digest, &seal, oldest).unwrap_or_else(failed);
        };
        self.post(job).unwrap_or_else(failed);
    }
}

fn keep(
    connection: &mut Connection,
    endpoint: &str,
    digest: &TextDigest,
    seal: &str,
    oldest: Option<TextDigest>,
) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    let sql = "INSERT OR REPLACE INTO seals (endpoint, digest, seal) VALUES (?1, ?2, ?3)";
    transaction.execute(sql, params![endpoint, digest.as_slice(), seal])?;
    if let Some(oldest) = oldest {
        let sql = "DELETE FROM seals WHERE endpoint = ?1 AND digest = ?2";
        transaction.execute(sql, params![endpoint, oldest.as_slice()])?;
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_keeps_its_newest_seals_in_order() {
        let store = Store::in_memory().expect("memory");
        for n in 0..6 {
            store.keep_seal("a", [n; 32], format!("seal {n}"), (n == 5).then_some([0; 32]));
        }
        store.keep_seal("a", [2; 32], "again".to_owned(), None);
        store.keep_seal("b", [9; 32], "other".to_owned(), None);
        let kept = |digest: u8, seal: &str| ([digest; 32], seal.to_owned());
        let newest = [kept(4, "seal 4"), kept(5, "seal 5"), kept(2, "again")];
        assert_eq!(store.seals("a", 3).await.expect("seals"), newest);
        assert_eq!(store.seals("a", 99).await.expect("seals"), newest, "the others are gone from the file");
        assert_eq!(store.seals("b", 99).await.expect("seals"), [kept(9, "other")]);
    }
}
