//! What a failed request gets: the vendor's shape, or Anthropic's, with the same sentence and its hint.

use crate::limits::{Left, Refusal, Standing};
use crate::store::StoreError;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use perilune_chat::grammar::GrammarError;
use perilune_chat::message::Invalid;
use perilune_chat::model::ModelError;
use perilune_chat::wire::{WireError, anthropic, openai};
use perilune_engine::request::{Failure, SubmitError};
use std::time::Duration;

/// Code of [`ApiError::slow_reader`].
const SLOW_READER: &str = "slow_reader";

/// A request that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Class in the vendor's spelling, such as `invalid_request_error`.
    pub kind: &'static str,
    /// Finer class, such as `context_length_exceeded`.
    pub code: Option<&'static str>,
    /// One sentence that names the next step.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// When asking again may succeed; sent as `Retry-After` in whole seconds, rounded up, one at least.
    pub retry_after: Option<Duration>,
    /// What is left of the key's limits, where one of them was met.
    pub standing: Option<Box<Standing>>,
}

/// Whose API an error is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// OpenAI's Chat Completions, which the vendor's follows: `{"error": {"message", "type", "code", "param"}}`.
    OpenAi,
    /// Anthropic's Messages: `{"type": "error", "error": {"type", "message"}}`.
    Anthropic,
}

impl ApiError {
    /// An error with nothing but status, class and sentence.
    #[must_use]
    pub fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let standing = None;
        Self { status, kind, code: None, message: message.into(), param: None, retry_after: None, standing }
    }

    /// Status 400: the request is wrong, in the field `param` where one can be named.
    #[must_use]
    pub fn invalid(param: Option<&str>, message: impl Into<String>) -> Self {
        let param = param.map(str::to_owned);
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message) }
    }

    /// Status 401: no key where one is needed.
    #[must_use]
    pub fn no_key() -> Self {
        let message = "no API key was sent; send the header `Authorization: Bearer sk-...` (or `x-api-key`); \
                       the server's operator makes keys with `perilune keys create`";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_authentication_error", message)
    }

    /// Status 401: a key that is unknown or revoked; `why` follows the words "the API key".
    #[must_use]
    pub fn wrong_key(why: &str) -> Self {
        let message =
            format!("the API key {why}; check that it was copied whole, or ask the operator for a new one");
        let code = Some("invalid_api_key");
        Self { code, ..Self::new(StatusCode::UNAUTHORIZED, "incorrect_api_key_error", message) }
    }

    /// Status 429: a key with nothing left to spend.
    #[must_use]
    pub fn exhausted() -> Self {
        let message = "this API key's balance is used up; ask the operator to raise it";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "exceeded_current_quota_error", message)
    }

    /// Status 404: an id that is not served; `served` lists those that are.
    #[must_use]
    pub fn unknown_model(id: &str, served: &str) -> Self {
        let id: String = id.chars().take(100).collect();
        let message = format!("the model {id:?} is not served here; use one of: {served}");
        let code = Some("model_not_found");
        let param = Some("model".to_owned());
        Self { code, param, ..Self::new(StatusCode::NOT_FOUND, "resource_not_found_error", message) }
    }

    /// Status 429: more work than fits; worth another try after a second.
    #[must_use]
    pub fn overloaded(message: impl Into<String>) -> Self {
        let retry_after = Some(Duration::from_secs(1));
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, "engine_overloaded_error", message) }
    }

    /// Status 503: the server stops; worth another try after five seconds.
    #[must_use]
    pub fn stopping() -> Self {
        let message = "the server is stopping; send the request again in a moment";
        let retry_after = Some(Duration::from_secs(5));
        Self { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message) }
    }

    /// Status 408: a reader so slow that more than `n_unread_max` events of its answer waited for it.
    #[must_use]
    pub fn slow_reader(n_unread_max: usize) -> Self {
        let message = format!(
            "more than {n_unread_max} tokens of this answer were waiting to be read, so its work was stopped; read \
             faster, or lower max_tokens"
        );
        let code = Some(SLOW_READER);
        Self { code, ..Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message) }
    }

    /// Whether this is [`Self::slow_reader`], the one failure whose tokens are charged.
    #[must_use]
    pub fn is_slow_reader(&self) -> bool {
        self.code == Some(SLOW_READER)
    }

    /// Status 500: something broke here; the cause goes to the log, not to the client.
    #[must_use]
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed inside the server");
        let message = "the server failed on this request; try again, and tell the operator the x-request-id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The body in OpenAI's shape.
    #[must_use]
    pub fn openai(&self) -> openai::ErrorBody {
        openai::ErrorBody {
            error: openai::ErrorDetail {
                message: self.message.clone(),
                kind: self.kind.to_owned(),
                code: self.code.map(str::to_owned),
                param: self.param.clone(),
            },
        }
    }

    /// The detail in Anthropic's shape, whose classes follow the status.
    #[must_use]
    pub fn anthropic(&self) -> anthropic::ErrorDetail {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 | 529 => "overloaded_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        anthropic::ErrorDetail { kind: kind.to_owned(), message: self.message.clone() }
    }

    /// The whole response: status, body, `Retry-After` and `x-ratelimit-*` where they are known.
    #[must_use]
    pub fn response(&self, shape: Shape) -> Response {
        let mut headers = HeaderMap::new();
        if let Some(standing) = &self.standing {
            standing_headers(standing, &mut headers);
        }
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, number(wait.as_secs_f64().ceil().max(1.0) as u64));
        }
        match shape {
            Shape::OpenAi => (self.status, headers, axum::Json(self.openai())).into_response(),
            Shape::Anthropic => {
                let body = anthropic::ErrorBody {
                    kind: "error".to_owned(),
                    error: self.anthropic(),
                    request_id: None,
                };
                (self.status, headers, axum::Json(body)).into_response()
            }
        }
    }
}

fn number(value: u64) -> HeaderValue {
    HeaderValue::from(value)
}

/// Writes the `x-ratelimit-*` headers of the limits that a key has; `reset` in whole seconds, rounded up.
pub fn standing_headers(standing: &Standing, headers: &mut HeaderMap) {
    let mut put = |what: &str, left: Option<Left>| {
        let Some(left) = left else { return };
        let fields = [
            ("limit", u64::from(left.limit)),
            ("remaining", u64::from(left.remaining)),
            ("reset", left.reset.as_secs_f64().ceil() as u64),
        ];
        for (field, value) in fields {
            let name = HeaderName::from_bytes(format!("x-ratelimit-{field}{what}").as_bytes());
            headers.insert(name.expect("the name is lower-case letters and hyphens"), number(value));
        }
    };
    // The vendor names no unit and means requests; OpenAI's names follow.
    put("", standing.requests);
    put("-requests", standing.requests);
    put("-tokens", standing.tokens);
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.response(Shape::OpenAi)
    }
}

impl From<WireError> for ApiError {
    fn from(error: WireError) -> Self {
        Self::invalid(Some(&error.path), error.to_string())
    }
}

impl From<Invalid> for ApiError {
    fn from(error: Invalid) -> Self {
        Self::invalid(Some(&error.path), error.to_string())
    }
}

impl From<GrammarError> for ApiError {
    fn from(error: GrammarError) -> Self {
        Self::invalid(None, error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { what, limit, retry_after, standing } = refusal;
        let message = format!("this API key's limit of {limit} {what} is reached; wait and try again");
        let base = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_reached_error", message);
        Self { retry_after: Some(retry_after), standing: Some(Box::new(standing)), ..base }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull { .. } => Self::overloaded(format!(
                "The engine is currently overloaded, please try again later ({error})"
            )),
            SubmitError::Stopping => Self::stopping(),
            SubmitError::ContextTooLong { .. } => {
                let code = Some("context_length_exceeded");
                Self { code, ..Self::invalid(Some("messages"), error.to_string()) }
            }
            _ => Self::invalid(None, error.to_string()),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NothingAllowed => Self::invalid(None, failure.to_string()),
            Failure::NonFinite { .. } => {
                let message =
                    format!("{failure}; send it again, and tell the operator if that does not help");
                Self { code: Some("non_finite"), message, ..Self::internal(&failure) }
            }
            _ => Self::internal(&failure),
        }
    }
}

impl From<ModelError> for ApiError {
    /// What an upstream endpoint said, as this server says it.
    fn from(error: ModelError) -> Self {
        let gateway = |message: String| Self::new(StatusCode::BAD_GATEWAY, "server_error", message);
        match error {
            ModelError::Refused { .. } | ModelError::ContextTooLong { .. } => {
                Self::invalid(None, error.to_string())
            }
            ModelError::Busy { retry_after_ms, .. } => {
                let retry_after = Some(Duration::from_millis(retry_after_ms.unwrap_or(1000)));
                Self { retry_after, ..Self::overloaded(error.to_string()) }
            }
            ModelError::Unauthorized { .. } => {
                tracing::error!(%error, "an upstream endpoint did not accept its key");
                gateway(
                    "the endpoint behind this model refused the server's own key; tell the operator"
                        .to_owned(),
                )
            }
            ModelError::Transport { .. } | ModelError::Protocol { .. } => gateway(error.to_string()),
            ModelError::Cancelled => Self::stopping(),
        }
    }
}
