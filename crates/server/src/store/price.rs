//! Money: whole billionths of a dollar, so sums are exact.

use super::{Store, StoreError};
use rusqlite::{Connection, OptionalExtension, params};

/// An amount in billionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd {
    /// Billionths of a dollar.
    pub nano: i64,
}

impl Usd {
    /// From dollars, to the nearest billionth; beyond nine billion dollars it saturates, and NaN is zero.
    #[must_use]
    pub fn from_dollars(dollars: f64) -> Self {
        Self { nano: (dollars * 1e9).round() as i64 }
    }

    /// In dollars.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.nano as f64 / 1e9
    }
}

/// Dollars with six decimals.
impl std::fmt::Display for Usd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.6}", self.dollars())
    }
}

/// What one token of a model costs: a dollar per million tokens is 1,000 billionths a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// A prompt token that had to be computed.
    pub input: Usd,
    /// A prompt token read from the prefix cache.
    pub cached: Usd,
    /// A generated token, reasoning included.
    pub output: Usd,
}

/// Highest price that may be typed, dollars per million tokens; [`Price`] itself does not check it.
pub const PRICE_DOLLARS_MAX: f64 = 1e6;

impl Price {
    /// From dollars per million tokens, as price lists print them, to the nearest thousandth.
    #[must_use]
    pub fn per_million(input: f64, cached: f64, output: f64) -> Self {
        let token = |dollars: f64| Usd::from_dollars(dollars / 1e6);
        Self { input: token(input), cached: token(cached), output: token(output) }
    }

    /// Dollars per million tokens: input, cached input, output.
    #[must_use]
    pub fn dollars_per_million(&self) -> [f64; 3] {
        [self.input, self.cached, self.output].map(|token| token.nano as f64 / 1e3)
    }

    /// Cost of a request; `cached_tokens` are part of `prompt_tokens`.
    #[must_use]
    pub fn cost(&self, prompt_tokens: u64, cached_tokens: u64, completion_tokens: u64) -> Usd {
        let of =
            |tokens: u64, price: Usd| i64::try_from(tokens).unwrap_or(i64::MAX).saturating_mul(price.nano);
        let computed = prompt_tokens.saturating_sub(cached_tokens);
        let nano = of(computed, self.input)
            .saturating_add(of(cached_tokens.min(prompt_tokens), self.cached))
            .saturating_add(of(completion_tokens, self.output));
        Usd { nano }
    }
}

pub(super) fn price_of(connection: &Connection, model: &str) -> Result<Option<Price>, StoreError> {
    let sql = "SELECT input_nano, cached_nano, output_nano FROM prices WHERE model = ?1";
    let usd = |nano| Usd { nano };
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Price { input: usd(row.get(0)?), cached: usd(row.get(1)?), output: usd(row.get(2)?) })
    };
    Ok(connection.prepare_cached(sql)?.query_row([model], read).optional()?)
}

impl Store {
    /// Sets what a model's tokens cost from now on; lines that are settled keep their cost.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_price(&self, model: &str, price: Price) -> Result<(), StoreError> {
        let model = model.to_owned();
        self.run(move |connection| {
            let sql = "INSERT OR REPLACE INTO prices VALUES (?1, ?2, ?3, ?4)";
            let row = params![model, price.input.nano, price.cached.nano, price.output.nano];
            connection.execute(sql, row)?;
            Ok(())
        })
        .await
    }

    /// What a model's tokens cost; `None` means nothing is charged.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn price(&self, model: &str) -> Result<Option<Price>, StoreError> {
        let model = model.to_owned();
        self.run(move |connection| price_of(connection, &model)).await
    }

    /// All prices by model.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn prices(&self) -> Result<Vec<(String, Price)>, StoreError> {
        self.run(|connection| {
            let sql = "SELECT model, input_nano, cached_nano, output_nano FROM prices ORDER BY model";
            let usd = |nano| Usd { nano };
            let read = |row: &rusqlite::Row<'_>| {
                let price =
                    Price { input: usd(row.get(1)?), cached: usd(row.get(2)?), output: usd(row.get(3)?) };
                Ok((row.get(0)?, price))
            };
            let prices = connection.prepare_cached(sql)?.query_map([], read)?.collect::<Result<_, _>>()?;
            Ok(prices)
        })
        .await
    }

    /// Takes a model's price away: its tokens cost nothing from now on.
    ///
    /// # Errors
    /// When none is set, or the database fails.
    pub async fn remove_price(&self, model: &str) -> Result<(), StoreError> {
        let model = model.to_owned();
        self.run(move |connection| {
            match connection.execute("DELETE FROM prices WHERE model = ?1", [&model])? {
                0 => Err(StoreError::NoSuchPrice { model }),
                _ => Ok(()),
            }
        })
        .await
    }
}
