//! The endpoints, one file a family, and what they share: reading a request, answering in events.

mod chat;
mod completions;
mod house;
mod messages;
mod openapi;
mod vendor;

use crate::app::{App, BODY_BYTES_MAX, Client};
use crate::error::{ApiError, Shape, standing_headers};
use crate::job::Ask;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{FutureExt, Stream};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use std::convert::Infallible;
use std::fmt::Write;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

pub use openapi::document;

/// Time that a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Quiet time in a stream after which a comment keeps the connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Pages to mount beside the endpoints; they share the app. [`crate::console::Console::routes`] makes them.
pub type Pages = Router<App>;

/// All endpoints, with `pages` mounted beside them.
///
/// # Panics
/// When a page has the path of an endpoint.
pub fn router(app: App, pages: Pages) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count))
        .route("/v1/models", get(vendor::models))
        .route("/v1/models/{id}", get(vendor::model))
        .route("/v1/tokenizers/estimate-token-count", post(vendor::estimate))
        .route("/v1/users/me/balance", get(vendor::balance))
        .route("/health", get(house::health))
        .route("/ready", get(house::ready))
        .route("/metrics", get(house::metrics))
        .route("/openapi.json", get(openapi::serve))
        .merge(pages)
        .fallback(house::not_found)
        .method_not_allowed_fallback(house::wrong_method)
        .layer(from_fn_with_state(app.clone(), note))
        .with_state(app)
}

/// Id of a request, made when it comes in.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// When a request's head had come.
#[derive(Clone, Copy)]
struct Arrived(Instant);

/// Names every request, catches what panics, counts and logs what was answered.
async fn note(
    axum::extract::State(app): axum::extract::State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    let (method, path, since) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let id = match request_id() {
        Ok(id) => id,
        Err(error) => return error.into_response(),
    };
    request.extensions_mut().insert(RequestId(id.clone()));
    let route =
        request.extensions().get::<axum::extract::MatchedPath>().map(|route| route.as_str().to_owned());
    request.extensions_mut().insert(Arrived(since));
    // In this task, not in one of its own: each change of tasks waits for a processor where the engine uses all.
    let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => ApiError::internal(&"a handler panicked").into_response(),
    };
    let status = response.status().as_u16();
    app.metrics().request(route.as_deref().unwrap_or("other"), status);
    let elapsed_ms = since.elapsed().as_millis() as u64;
    tracing::info!(request_id = %id, %method, path = %path.chars().take(200).collect::<String>(), status, elapsed_ms, "answered");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn request_id() -> Result<String, ApiError> {
    Ok(format!("req-{}", random_hex()?))
}

/// 96 random bits in hexadecimal.
pub(crate) fn random_hex() -> Result<String, ApiError> {
    let mut bytes = [0_u8; 12];
    getrandom::fill(&mut bytes).map_err(|error| ApiError::internal(&error))?;
    let mut text = String::with_capacity(24);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
    }
    Ok(text)
}

/// Who asks and what they sent: the key is looked at before the body is read.
pub(crate) async fn read(
    app: App,
    request: Request,
    route: &'static str,
) -> Result<(Ask, Vec<u8>), ApiError> {
    let (parts, body) = request.into_parts();
    let client = app.client(&parts.headers).await?;
    check_type(&parts.headers)?;
    let waits = Instant::now();
    let body = read_body(&parts.headers, body).await?;
    let waited = waits.elapsed();
    let request_id = match parts.extensions.get::<RequestId>() {
        Some(id) => id.0.clone(),
        None => request_id()?,
    };
    let n_bytes = body.len();
    // The head came before the body's last byte: what was waited for the body is not the server's share.
    let since = parts.extensions.get::<Arrived>().map_or(waits, |head| head.0) + waited;
    Ok((Ask { app, client, request_id, route, since, n_bytes }, body))
}

/// JSON only, where a type is named: a web form of elsewhere cannot send it unasked.
fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body must be JSON; send the header `Content-Type: application/json`";
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message))
}

async fn read_body(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("the body is larger than {BODY_BYTES_MAX} bytes; shorten the conversation");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    };
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|n| n > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes().into()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_large()),
        Ok(Err(error)) => Err(ApiError::invalid(None, format!("the body broke off: {error}; send it again"))),
        Err(_) => {
            let message = "the body took too long to come; send it again";
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message))
        }
    }
}

/// A JSON answer with the key's standing.
pub(crate) fn json(body: &impl Serialize, standing: &crate::limits::Standing) -> Response {
    let mut response = Json(body).into_response();
    standing_headers(standing, response.headers_mut());
    response
}

/// A stream of events with the key's standing.
pub(crate) fn events(
    stream: impl Stream<Item = Event> + Send + 'static,
    standing: &crate::limits::Standing,
) -> Response {
    use futures_util::StreamExt;
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(stream.map(Ok::<_, Infallible>)).keep_alive(keep_alive).into_response();
    // Proxies that collect a response before they pass it on would make a stream of it no more.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    standing_headers(standing, response.headers_mut());
    response
}

/// One event without a name.
pub(crate) fn event(data: &impl Serialize) -> Event {
    filled(Event::default(), data)
}

/// An event with its data; what cannot be written as JSON is told as a sentence.
pub(crate) fn filled(event: Event, data: &impl Serialize) -> Event {
    match serde_json::to_string(data) {
        Ok(text) => event.data(text),
        Err(error) => event.data(ApiError::internal(&error).message),
    }
}

/// A result as a response, its error in the given shape.
pub(crate) fn reply(result: Result<Response, ApiError>, shape: Shape) -> Response {
    result.unwrap_or_else(|error| error.response(shape))
}

/// The client alone, for endpoints without a body.
pub(crate) async fn client(app: &App, headers: &HeaderMap) -> Result<Client, ApiError> {
    app.client(headers).await
}
