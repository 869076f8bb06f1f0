//! What all endpoints share: the models on offer, the store, the limits, the figures.

use crate::answer::local::LocalModel;
use crate::answer::served::ServedModel;
use crate::console::Sessions;
use crate::error::ApiError;
use crate::limits::Limiter;
use crate::metrics::Metrics;
use crate::store::{Key, Store, digest, now_ms};
use crate::upstream::Upstream;
use http::{HeaderMap, header};
use perilune_engine::request::Class;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest body of a request, bytes (16 MiB); a longer one is answered with status 413.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Most messages of a dialogue; more are answered with status 400.
pub const MESSAGES_MAX: usize = 5_000;
/// The vendor's id of its standard model, served here in the throughput class.
pub const STANDARD_ID: &str = "kimi-k2-thinking";
/// The vendor's id of its fast model, served here in the latency class.
pub const TURBO_ID: &str = "kimi-k2-thinking-turbo";

/// What an id is served by.
#[derive(Clone)]
pub enum Served {
    /// The engine of this process.
    Local(ServedModel),
    /// An endpoint elsewhere.
    Upstream(Arc<Upstream>),
}

impl Served {
    /// Its service class, as the ledger names it: `latency`, `throughput` or `upstream`.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Local(ServedModel { class: Class::Latency, .. }) => "latency",
            Self::Local(ServedModel { class: Class::Throughput, .. }) => "throughput",
            Self::Upstream(_) => "upstream",
        }
    }

    /// Tokens of prompt and answer together; `None` for an endpoint elsewhere, whose context is not known.
    #[must_use]
    pub fn context_tokens_max(&self) -> Option<u64> {
        match self {
            Self::Local(served) => Some(served.model.context_tokens_max() as u64),
            Self::Upstream(_) => None,
        }
    }
}

/// Everything the endpoints share; clones are the same.
#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    limiter: Limiter,
    metrics: Metrics,
    sessions: Sessions,
    models: BTreeMap<String, Served>,
    default_id: Option<String>,
    is_loopback: bool,
    is_draining: AtomicBool,
    started_s: u64,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Client {
    /// The key; `None` where the server needs none.
    pub key: Option<Key>,
}

impl App {
    /// An app that serves nothing yet. `is_loopback` says that only this machine can reach it, so that it may do
    /// without keys as long as none was ever made.
    ///
    /// # Errors
    /// When the figures of [`Metrics`] cannot be registered.
    pub fn new(store: Store, is_loopback: bool) -> Result<Self, prometheus::Error> {
        let inner = Inner {
            store,
            limiter: Limiter::default(),
            metrics: Metrics::new()?,
            sessions: Sessions::default(),
            models: BTreeMap::new(),
            default_id: None,
            is_loopback,
            is_draining: AtomicBool::new(false),
            started_s: u64::try_from(now_ms() / 1000).unwrap_or(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Serves a model of this process under both of the vendor's ids, one for each service class.
    ///
    /// # Panics
    /// When the app was cloned already.
    #[must_use]
    pub fn with_local(self, model: LocalModel) -> Self {
        let served = |name: &str, class| {
            Served::Local(ServedModel { name: name.to_owned(), model: model.clone(), class })
        };
        let turbo = served(TURBO_ID, Class::Latency);
        self.with(STANDARD_ID, served(STANDARD_ID, Class::Throughput)).with(TURBO_ID, turbo)
    }

    /// Serves `id` by an endpoint elsewhere.
    ///
    /// # Panics
    /// When the app was cloned already.
    #[must_use]
    pub fn with_upstream(self, id: &str, upstream: Upstream) -> Self {
        self.with(id, Served::Upstream(Arc::new(upstream)))
    }

    fn with(mut self, id: &str, served: Served) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("the app is built before its first clone is made");
        inner.models.insert(id.to_owned(), served);
        inner.default_id.get_or_insert_with(|| id.to_owned());
        self
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The buckets of the keys' limits.
    #[must_use]
    pub fn limiter(&self) -> &Limiter {
        &self.inner.limiter
    }

    /// The figures that `/metrics` tells.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Who is logged in to the console.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.inner.sessions
    }

    /// The ids on offer, each with what serves it.
    #[must_use]
    pub fn models(&self) -> &BTreeMap<String, Served> {
        &self.inner.models
    }

    /// Unix time at which this app was made, seconds.
    #[must_use]
    pub fn started_s(&self) -> u64 {
        self.inner.started_s
    }

    /// The model of this process, where there is one.
    #[must_use]
    pub fn local(&self) -> Option<&LocalModel> {
        self.inner.models.values().find_map(|served| match served {
            Served::Local(served) => Some(&served.model),
            Served::Upstream(_) => None,
        })
    }

    /// What serves `id`, with the id itself; a missing id means the one that was put on offer first.
    ///
    /// # Errors
    /// Status 404: an id that is not on offer.
    pub fn served(&self, id: Option<&str>) -> Result<(String, Served), ApiError> {
        let wanted = id.or(self.inner.default_id.as_deref()).unwrap_or_default();
        match self.inner.models.get(wanted) {
            Some(served) => Ok((wanted.to_owned(), served.clone())),
            None => {
                let ids = self.inner.models.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                Err(ApiError::unknown_model(wanted, &ids))
            }
        }
    }

    /// From now on requests are refused with status 503; those at work go on.
    pub fn drain(&self) {
        self.inner.is_draining.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.inner.is_draining.load(Ordering::Relaxed)
    }

    /// Who sent these headers: the key in `Authorization: Bearer` or `x-api-key`, or else a console session's.
    ///
    /// # Errors
    /// Status 401: no key where one is needed, an unknown or a revoked one. Status 403: a server without keys, asked
    /// by another host's name or from another site's page. Status 500: the database fails.
    pub async fn client(&self, headers: &HeaderMap) -> Result<Client, ApiError> {
        let digest = match (secret(headers), self.sessions().of_script(headers)) {
            (Some(secret), _) => digest(secret),
            (None, Some(session)) => session.key_digest,
            (None, None) => return self.keyless(headers).await,
        };
        match self.store().key(digest).await? {
            Some(key) if key.revoked_ms.is_none() => Ok(Client { key: Some(key) }),
            Some(_) => Err(ApiError::wrong_key("was revoked")),
            None if self.is_open().await? => Ok(Client { key: None }),
            None => Err(ApiError::wrong_key("is not known here")),
        }
    }

    /// Whether no key is needed: on loopback, as long as none for the APIs was ever made. Admin keys do not count:
    /// the first is made unasked.
    async fn is_open(&self) -> Result<bool, ApiError> {
        Ok(self.inner.is_loopback && !self.store().has_api_keys().await?)
    }

    /// A web page may make its reader's browser ask this machine: without keys, only this machine's pages may.
    async fn keyless(&self, headers: &HeaderMap) -> Result<Client, ApiError> {
        if !self.is_open().await? {
            return Err(ApiError::no_key());
        }
        let is_foreign =
            |name| headers.get(name).is_some_and(|value| !names_loopback(value.to_str().unwrap_or("")));
        if is_foreign(header::HOST) || is_foreign(header::ORIGIN) {
            let message = "without API keys this server answers this machine only; ask it as http://127.0.0.1, or \
                           make a key with `perilune keys create` and send it";
            return Err(ApiError::new(http::StatusCode::FORBIDDEN, "permission_denied_error", message));
        }
        Ok(Client { key: None })
    }
}

/// Whether `127.0.0.1:8080`, `http://localhost` and the like name this machine.
fn names_loopback(value: &str) -> bool {
    let host = value.split_once("://").map_or(value, |(_, rest)| rest);
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The key in `Authorization: Bearer` or `x-api-key`; an empty one is none.
fn secret(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).map(|value| match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key,
        _ => value,
    });
    let plain = text(http::HeaderName::from_static("x-api-key"));
    bearer.or(plain).map(str::trim).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_lookalikes() {
        for host in
            ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]:80", "http://127.1.2.3", "https://[::1]"]
        {
            assert!(names_loopback(host), "{host}");
        }
        for host in
            ["", "null", "127.0.0.1.example.com", "localhost.example.com:80", "http://10.0.0.1", "[::2]"]
        {
            assert!(!names_loopback(host), "{host}");
        }
    }
}
