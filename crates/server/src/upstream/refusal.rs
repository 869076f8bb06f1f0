//! What an endpoint says when it refuses, as an error that says what to do; its key is in none of them.

use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use perilune_chat::model::ModelError;
use serde_json::Value;
use std::sync::Arc;

/// Bytes of a failed response that are read for its sentence.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// Characters of it that are passed on.
const ERROR_CHARS_MAX: usize = 500;
/// Anthropic's status for an endpoint with too much to do.
const OVERLOADED: u16 = 529;

/// A failed response as an error.
pub(super) async fn of(response: http::Response<Incoming>) -> ModelError {
    let (status, retry_after_ms) = (response.status(), retry_after_ms(response.headers()));
    let body = Limited::new(response.into_body(), ERROR_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let message = sentence(&body).unwrap_or_else(|| status.to_string());
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ModelError::Unauthorized { message },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            ModelError::Busy { retry_after_ms, message }
        }
        _ if status.as_u16() == OVERLOADED => ModelError::Busy { retry_after_ms, message },
        _ if status.is_client_error() => ModelError::Refused { status: Some(status.as_u16()), message },
        _ => ModelError::Transport { message: format!("{status}: {message}") },
    }
}

/// An error inside a stream, by its class.
pub(super) fn in_stream(error: &Value) -> ModelError {
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
    let message = cut(match text("message") {
        "" => "the endpoint's stream failed without a reason",
        said => said,
    });
    match text("type") {
        "overloaded_error" | "rate_limit_error" | "rate_limit_reached_error" | "engine_overloaded_error" => {
            ModelError::Busy { retry_after_ms: None, message }
        }
        "authentication_error" | "permission_error" => ModelError::Unauthorized { message },
        "invalid_request_error" | "not_found_error" | "request_too_large" => {
            ModelError::Refused { status: None, message }
        }
        _ => ModelError::Transport { message },
    }
}

/// The sentence of a body: both formats keep it at `error.message`; gateways also at `message` or as plain text.
fn sentence(body: &[u8]) -> Option<String> {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let said = value.as_ref().and_then(|value| {
        let error = value.get("error");
        let places = [error.and_then(|error| error.get("message")), error, value.get("message")];
        places.into_iter().flatten().find_map(Value::as_str)
    });
    let text = said.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    Some(cut(text.trim())).filter(|text| !text.is_empty())
}

fn cut(text: &str) -> String {
    text.chars().take(ERROR_CHARS_MAX).collect()
}

fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let number =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok());
    let ms = number("retry-after-ms").or_else(|| Some(number(header::RETRY_AFTER.as_str())? * 1000.0))?;
    ms.is_finite().then_some(ms.max(0.0).ceil() as u64)
}

/// Takes the endpoint's key out of what it says, which goes to logs and clients.
#[derive(Clone)]
pub(super) struct Hider(Option<Arc<str>>);

impl Hider {
    pub(super) fn new(key: Option<String>) -> Self {
        Self(key.filter(|key| !key.is_empty()).map(Into::into))
    }

    pub(super) fn error(&self, mut error: ModelError) -> ModelError {
        let Some(key) = &self.0 else { return error };
        match &mut error {
            ModelError::Refused { message, .. }
            | ModelError::Unauthorized { message }
            | ModelError::Busy { message, .. }
            | ModelError::Transport { message }
            | ModelError::Protocol { message } => *message = message.replace(&**key, "[key]"),
            ModelError::ContextTooLong { .. } | ModelError::Cancelled => {}
        }
        error
    }
}
