//! One question to a search engine, whichever is configured; all answer alike.

use super::fetch::{FetchError, Fetcher, parse, read};
use super::{Corpus, CorpusError};
use http::{Method, Request, header};
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use url::Url;

/// One result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Address of the page.
    pub url: String,
    /// Title of the page.
    pub title: String,
    /// A few words of it.
    pub extract: String,
}

/// What is asked.
#[derive(Clone)]
pub enum Engine {
    /// A SearXNG instance with its JSON format switched on: `GET /search?format=json`.
    Searxng {
        /// Base address of the instance.
        url: String,
    },
    /// Brave's search API: `GET /res/v1/web/search`, key in `X-Subscription-Token`.
    Brave {
        /// Base address; the vendor's is `https://api.search.brave.com`.
        url: String,
        /// The operator's key.
        key: String,
    },
    /// Tavily's search API: `POST /search`, key in `Authorization: Bearer`.
    Tavily {
        /// Base address; the vendor's is `https://api.tavily.com`.
        url: String,
        /// The operator's key.
        key: String,
    },
    /// Documents on this machine.
    Corpus(Arc<Corpus>),
}

/// Why there are no results. The sentence is for the model.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The engine cannot be asked.
    #[error("the search failed: {0}")]
    Fetch(#[from] FetchError),
    /// The collection cannot be read.
    #[error(transparent)]
    Corpus(#[from] CorpusError),
    /// The engine answered in another form.
    #[error("the search engine's answer has another form than expected")]
    Form,
}

/// Asks one engine.
#[derive(Clone)]
pub struct Searcher {
    engine: Engine,
    fetcher: Fetcher,
}

impl Searcher {
    /// Asks `engine` through `fetcher`. An engine on this machine needs a fetcher that may reach it.
    #[must_use]
    pub fn new(engine: Engine, fetcher: Fetcher) -> Self {
        Self { engine, fetcher }
    }

    /// The host that is asked; `None` for a collection on this machine.
    #[must_use]
    pub fn host(&self) -> Option<String> {
        let (Engine::Searxng { url } | Engine::Brave { url, .. } | Engine::Tavily { url, .. }) = &self.engine
        else {
            return None;
        };
        let parsed = Url::parse(url).ok();
        Some(parsed.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| url.clone()))
    }

    /// The best results, at most `n_max`, in the engine's order.
    ///
    /// # Errors
    /// [`SearchError`]: the engine cannot be asked within 30 s, or answers in another form.
    pub async fn search(&self, query: &str, n_max: usize) -> Result<Vec<Hit>, SearchError> {
        let with = |base: &str, path: &str, pairs: &[(&str, &str)]| -> Result<Url, SearchError> {
            let mut url = parse(&format!("{}{path}", base.trim_end_matches('/')))?;
            url.query_pairs_mut().extend_pairs(pairs);
            Ok(url)
        };
        let (answer, list, extract) = match &self.engine {
            Engine::Corpus(corpus) => return Ok(corpus.search(query, n_max)?),
            Engine::Searxng { url } => {
                let url = with(url, "/search", &[("q", query), ("format", "json")])?;
                (self.ask(&url, None, None).await?, "/results", "content")
            }
            Engine::Brave { url, key } => {
                let url = with(url, "/res/v1/web/search", &[("q", query)])?;
                (
                    self.ask(&url, Some(("X-Subscription-Token", key)), None).await?,
                    "/web/results",
                    "description",
                )
            }
            Engine::Tavily { url, key } => {
                let mut url = with(url, "/search", &[])?;
                url.set_query(None);
                let (body, bearer) = (json!({"query": query, "max_results": n_max}), format!("Bearer {key}"));
                (self.ask(&url, Some(("Authorization", &bearer)), Some(body)).await?, "/results", "content")
            }
        };
        let list = answer.pointer(list).and_then(Value::as_array).ok_or(SearchError::Form)?;
        let text = |hit: &Value, key: &str| hit[key].as_str().unwrap_or_default().to_owned();
        let hit = |hit: &Value| Hit {
            url: text(hit, "url"),
            title: text(hit, "title"),
            extract: text(hit, extract),
        };
        Ok(list.iter().map(hit).filter(|hit| !hit.url.is_empty()).take(n_max).collect())
    }

    async fn ask(
        &self,
        url: &Url,
        key: Option<(&str, &str)>,
        body: Option<Value>,
    ) -> Result<Value, SearchError> {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request =
            Request::builder().method(method).uri(url.as_str()).header(header::ACCEPT, "application/json");
        if let Some((name, value)) = key {
            request = request.header(name, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let asked = async {
            let response = self.fetcher.send(url, request, body).await?;
            let status = response.status();
            if !status.is_success() {
                return Err(FetchError::Status { status });
            }
            read(response, url.host_str().unwrap_or_default()).await
        };
        let asked = tokio::time::timeout(super::fetch::FETCH_TIMEOUT, asked).await;
        let body = asked.unwrap_or(Err(FetchError::Timeout))?;
        serde_json::from_slice(&body).map_err(|_| SearchError::Form)
    }
}
