//! A model at another endpoint: the vendor, a gateway, another engine, spoken to in OpenAI's or in Anthropic's shape.
//!
//! The client implements `ChatModel`, so the server forwards an id to it and the agent drives it alike. A request goes
//! out as `body`, what comes back is read by `openai` or `anthropic`, streamed or whole, and what fails by `refusal`.

mod anthropic;
mod body;
mod openai;
mod refusal;
mod sse;

use crate::answer::{End, Piece, Progress};
use crate::error::ApiError;
use body::read;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, Method, Uri, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use perilune_chat::message::Request;
use perilune_chat::model::{ChatModel, Event, EventStream, ModelError, Usage};
use perilune_chat::scanner::{Delta, Finish};
use perilune_chat::wire::openai::TokenLogprob;
use refusal::Hider;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of an endpoint.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Which API an endpoint speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's Chat Completions: `POST /chat/completions`, key in `Authorization: Bearer`.
    #[default]
    OpenAi,
    /// Anthropic's Messages: `POST /messages`, key in `x-api-key`, `anthropic-version: 2023-06-01`.
    Anthropic,
}

/// Where a model is and how it is asked.
#[derive(Clone)]
pub struct Endpoint {
    /// Base address, such as `https://api.example.com/v1`; `/chat/completions` or `/messages` is added.
    pub base_url: String,
    /// The server's own key there; `None` sends none.
    pub api_key: Option<String>,
    /// The model's id there.
    pub model: String,
    /// The API that it speaks.
    pub dialect: Dialect,
}

/// A client of one endpoint; clones share its connections. It gives up after ten seconds without a connection, or
/// five minutes in which nothing comes.
#[derive(Clone)]
pub struct Upstream {
    model: Arc<str>,
    dialect: Dialect,
    uri: Uri,
    key: Option<HeaderValue>,
    hider: Hider,
    seals: Arc<anthropic::Seals>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// The pieces of several choices, each with its choice's number.
pub(crate) type NumberedPieces = Pin<Box<dyn Stream<Item = (u32, Result<Piece, ApiError>)> + Send>>;

/// What an endpoint sends, with the number of its choice where it belongs to one.
enum Came {
    Delta(u32, Delta),
    Logprob(u32, TokenLogprob),
    /// Counts of all choices together; comes before the first [`Came::Finish`].
    Usage(Usage),
    Finish {
        choice: u32,
        finish: Finish,
        stop_string: Option<String>,
        /// This choice's own counts, where the endpoint says them.
        usage: Option<Usage>,
    },
}

type CameStream = Pin<Box<dyn Stream<Item = Result<Came, ModelError>> + Send>>;

/// How many choices, with how many alternatives a token.
#[derive(Debug, Clone, Copy)]
struct Choices {
    n: u32,
    top_logprobs: Option<u32>,
}

impl Upstream {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// One sentence: an address that is not HTTP or HTTPS with a host, or a key that no header can carry.
    pub fn new(endpoint: Endpoint) -> Result<Self, String> {
        let Endpoint { base_url, api_key, model, dialect } = endpoint;
        let path = match dialect {
            Dialect::OpenAi => "chat/completions",
            Dialect::Anthropic => "messages",
        };
        let text = format!("{}/{path}", base_url.trim_end_matches('/'));
        let uri: Uri = text.parse().map_err(|error| format!("{text:?} is no address: {error}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
            return Err(format!("{text:?} is no address; write it as https://host/v1"));
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self {
            model: model.into(),
            dialect,
            key: api_key.as_deref().map(|key| key_header(dialect, key)).transpose()?,
            hider: Hider::new(api_key),
            uri,
            seals: Arc::default(),
            client: Client::builder(TokioExecutor::new()).build(https),
        })
    }

    /// Whether the endpoint's format can carry this request.
    ///
    /// # Errors
    /// The first field that it has no place for.
    pub(crate) fn check(&self, request: &Request, n: u32, top_logprobs: Option<u32>) -> Result<(), ApiError> {
        match self.dialect {
            Dialect::OpenAi => Ok(()),
            Dialect::Anthropic => anthropic::check(request, n, top_logprobs)
                .map_err(|(field, message)| ApiError::invalid(Some(field), message)),
        }
    }

    /// The answers of as many choices as there are `progress`es, counting into them. Where the endpoint counts all
    /// choices together, the first one's counts hold the sum.
    pub(crate) fn pieces(
        &self,
        request: Request,
        top_logprobs: Option<u32>,
        progress: Vec<Arc<Progress>>,
    ) -> NumberedPieces {
        let choices = Choices { n: progress.len() as u32, top_logprobs };
        let mut counts = Counts::new(progress);
        let piece = move |came: Result<Came, ModelError>| match came {
            Ok(came) => counts.piece(came),
            Err(error) => Some((0, Err(error.into()))),
        };
        Box::pin(self.came(request, choices).map(piece).filter_map(std::future::ready))
    }

    fn came(&self, request: Request, choices: Choices) -> CameStream {
        let this = self.clone();
        let begin = async move {
            match this.send(&request, choices).await {
                Ok(response) => read(response, &this, choices.n).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            }
        };
        let hider = self.hider.clone();
        let hidden = move |came: Result<Came, ModelError>| came.map_err(|error| hider.error(error));
        Box::pin(stream::once(begin).flatten().map(hidden))
    }

    fn body(&self, request: &Request, choices: Choices) -> Result<Bytes, ModelError> {
        let body = match self.dialect {
            Dialect::OpenAi => serde_json::to_vec(&openai::request(request, &self.model, choices)),
            Dialect::Anthropic => {
                anthropic::check(request, choices.n, choices.top_logprobs)
                    .map_err(|(_, message)| ModelError::Refused { status: None, message })?;
                serde_json::to_vec(&anthropic::request(request, &self.model, &self.seals))
            }
        };
        body.map(Bytes::from).map_err(|error| ModelError::Protocol { message: error.to_string() })
    }

    /// Sends a request and waits for the head of its answer.
    async fn send(
        &self,
        request: &Request,
        choices: Choices,
    ) -> Result<http::Response<Incoming>, ModelError> {
        let mut builder = http::Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream, application/json");
        if self.dialect == Dialect::Anthropic {
            builder = builder.header("anthropic-version", anthropic::VERSION);
        }
        if let Some(key) = self.key.clone() {
            let name = match self.dialect {
                Dialect::OpenAi => header::AUTHORIZATION,
                Dialect::Anthropic => http::HeaderName::from_static("x-api-key"),
            };
            builder = builder.header(name, key);
        }
        let broken = |message: String| ModelError::Transport { message };
        let sent =
            builder.body(Full::new(self.body(request, choices)?)).map_err(|e| broken(e.to_string()))?;
        let answered = tokio::time::timeout(SILENCE_MAX, self.client.request(sent)).await;
        let response = answered.map_err(|_| broken("the endpoint did not answer in time".to_owned()))?;
        let response = response
            .map_err(|error| broken(format!("{} cannot be reached: {}", self.uri, root_of(&error))))?;
        if response.status().is_success() { Ok(response) } else { Err(refusal::of(response).await) }
    }
}

/// What the layers of a client wrap: the system's own words.
fn root_of(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// The header's value that carries the key; it is marked so that no log shows it.
fn key_header(dialect: Dialect, key: &str) -> Result<HeaderValue, String> {
    let text = match dialect {
        Dialect::OpenAi => format!("Bearer {key}"),
        Dialect::Anthropic => key.to_owned(),
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| "the endpoint's key holds characters that no header can carry; copy it again")?;
    value.set_sensitive(true);
    Ok(value)
}

/// What the choices of one request have used.
struct Counts {
    progress: Vec<Arc<Progress>>,
    n_deltas: Vec<u64>,
}

impl Counts {
    fn new(progress: Vec<Arc<Progress>>) -> Self {
        Self { n_deltas: vec![0; progress.len()], progress }
    }

    fn piece(&mut self, came: Came) -> Option<(u32, Result<Piece, ApiError>)> {
        match came {
            Came::Delta(choice, delta) => {
                self.delta(choice as usize);
                Some((choice, Ok(Piece::Delta(delta))))
            }
            Came::Logprob(choice, logprob) => Some((choice, Ok(Piece::Logprob(logprob)))),
            Came::Usage(usage) => {
                self.progress.iter().for_each(|one| one.set(Usage::default()));
                self.progress.first()?.set(usage);
                None
            }
            Came::Finish { choice, finish, stop_string, usage } => {
                let counted = || self.progress.get(choice as usize).map(|one| one.usage());
                let usage = usage.or_else(counted).unwrap_or_default();
                Some((choice, Ok(Piece::End(End { finish, stop_string, left_open: None, usage }))))
            }
        }
    }

    /// Until the endpoint counts, a delta counts as a token: what a client leaves behind is charged.
    fn delta(&mut self, choice: usize) {
        let Some((n, progress)) = self.n_deltas.get_mut(choice).zip(self.progress.get(choice)) else {
            return;
        };
        *n += 1;
        progress.set(Usage { completion_tokens: *n, ..Usage::default() });
    }
}

impl ChatModel for Upstream {
    fn name(&self) -> &str {
        &self.model
    }

    fn answer(&self, request: Request) -> EventStream {
        let event = |came| match came {
            Ok(Came::Delta(_, delta)) => Some(Ok(Event::Delta(delta))),
            Ok(Came::Logprob(..)) => None,
            Ok(Came::Usage(usage)) => Some(Ok(Event::Usage(usage))),
            Ok(Came::Finish { finish, .. }) => Some(Ok(Event::Finish { finish, left_open: None })),
            Err(error) => Some(Err(error)),
        };
        let came = self.came(request, Choices { n: 1, top_logprobs: None });
        Box::pin(came.map(event).filter_map(std::future::ready))
    }
}
