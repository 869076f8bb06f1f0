//! A model at another endpoint: the vendor, a gateway, another engine, spoken to in OpenAI's shape.
//!
//! The client implements `ChatModel`, so the server forwards an id to it and the agent drives it alike.

mod read;
mod sse;

use crate::answer::{End, Piece, Pieces, Progress};
use crate::error::ApiError;
use futures_util::{Stream, StreamExt, stream};
use http::{Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use perilune_chat::message::Request;
use perilune_chat::model::{ChatModel, Event, EventStream, ModelError, Usage};
use perilune_chat::wire::openai;
use read::Reader;
use sse::Lines;
use std::sync::Arc;
use std::time::Duration;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of an endpoint.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// Bytes of a failed response that are read for its sentence.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Where a model is and how it is asked.
#[derive(Clone)]
pub struct Endpoint {
    /// Base address, such as `https://api.example.com/v1`; `/chat/completions` is added.
    pub base_url: String,
    /// The server's own key there.
    pub api_key: Option<String>,
    /// The model's id there.
    pub model: String,
}

/// A client of one endpoint.
#[derive(Clone)]
pub struct Upstream {
    endpoint: Arc<Endpoint>,
    uri: Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Upstream {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// An address that is none.
    pub fn new(endpoint: Endpoint) -> Result<Self, String> {
        let text = format!("{}/chat/completions", endpoint.base_url.trim_end_matches('/'));
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
        let client = Client::builder(TokioExecutor::new()).build(https);
        Ok(Self { endpoint: Arc::new(endpoint), uri, client })
    }

    /// An answer as the server's pieces, counting into `progress`.
    pub(crate) fn pieces(&self, request: Request, progress: Arc<Progress>) -> Pieces {
        let mut usage = Usage::default();
        let mut n_deltas = 0;
        let piece = move |event: Result<Event, ModelError>| -> Option<Result<Piece, ApiError>> {
            match event {
                Ok(Event::Delta(delta)) => {
                    // Until the endpoint counts, a delta counts as a token: what a client leaves behind is charged.
                    n_deltas += 1;
                    progress.set(Usage { completion_tokens: n_deltas, ..Usage::default() });
                    Some(Ok(Piece::Delta(delta)))
                }
                Ok(Event::Usage(counted)) => {
                    usage = counted;
                    progress.set(counted);
                    None
                }
                Ok(Event::Finish { finish, left_open }) => {
                    Some(Ok(Piece::End(End { finish, stop_string: None, left_open, usage })))
                }
                Err(error) => Some(Err(error.into())),
            }
        };
        Box::pin(self.answer(request).map(piece).filter_map(std::future::ready))
    }

    fn body(&self, request: &Request) -> Result<Bytes, ModelError> {
        let body = openai::ChatRequest {
            model: Some(self.endpoint.model.clone()),
            stream: Some(true),
            stream_options: Some(openai::StreamOptions { include_usage: true }),
            ..openai::ChatRequest::from(request)
        };
        serde_json::to_vec(&body)
            .map(Bytes::from)
            .map_err(|error| ModelError::Protocol { message: error.to_string() })
    }

    /// Sends a request and waits for the head of its answer.
    async fn send(&self, request: &Request) -> Result<Incoming, ModelError> {
        let mut builder = http::Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "text/event-stream");
        if let Some(key) = &self.endpoint.api_key {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let broken = |message: String| ModelError::Transport { message };
        let sent = builder.body(Full::new(self.body(request)?)).map_err(|error| broken(error.to_string()))?;
        let answered = tokio::time::timeout(SILENCE_MAX, self.client.request(sent)).await;
        let response = answered.map_err(|_| broken("the endpoint did not answer in time".to_owned()))?;
        let response =
            response.map_err(|error| broken(format!("{} cannot be reached: {error}", self.uri)))?;
        if response.status().is_success() { Ok(response.into_body()) } else { Err(refusal(response).await) }
    }
}

/// A failed response as an error that says what to do.
async fn refusal(response: http::Response<Incoming>) -> ModelError {
    let status = response.status();
    let wait = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let body = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let message = match serde_json::from_slice::<openai::ErrorBody>(&body) {
        Ok(body) => body.error.message,
        Err(_) => String::from_utf8_lossy(&body).chars().take(500).collect(),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ModelError::Unauthorized { message },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            ModelError::Busy { retry_after_ms: wait.map(|seconds| seconds.saturating_mul(1000)), message }
        }
        _ if status.is_client_error() => ModelError::Refused { status: Some(status.as_u16()), message },
        _ => ModelError::Transport { message: format!("{status}: {message}") },
    }
}

impl ChatModel for Upstream {
    fn name(&self) -> &str {
        &self.endpoint.model
    }

    fn answer(&self, request: Request) -> EventStream {
        let this = self.clone();
        let begin = async move {
            match this.send(&request).await {
                Ok(body) => read(body).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            }
        };
        Box::pin(stream::once(begin).flatten())
    }
}

/// The events of a body, as it comes.
fn read(body: Incoming) -> impl Stream<Item = Result<Event, ModelError>> + Send {
    let state = Some((body, Lines::default(), Reader::default()));
    let step = |state| async move {
        let (mut body, mut lines, mut reader): (Incoming, Lines, Reader) = state?;
        let mut events = Vec::new();
        let is_over = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                frame.into_data().is_ok_and(|data| reader.take(lines.push(&data), &mut events))
            }
            Ok(Some(Err(error))) => reader.broken(&error.to_string(), &mut events),
            Ok(None) => reader.close(&mut events),
            Err(_) => reader.broken("the endpoint fell silent", &mut events),
        };
        Some((stream::iter(events), (!is_over).then_some((body, lines, reader))))
    };
    stream::unfold(state, step).flatten()
}
