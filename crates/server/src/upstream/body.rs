//! The body of an answer, streamed or whole, to what came.

use super::sse::Lines;
use super::{Came, Dialect, SILENCE_MAX, Upstream, anthropic, openai};
use futures_util::{Stream, StreamExt, stream};
use http::header;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use perilune_chat::model::ModelError;
use std::sync::Arc;

/// Largest answer that comes whole, bytes.
const WHOLE_BYTES_MAX: usize = 32 << 20;

pub(super) type Out = Vec<Result<Came, ModelError>>;

/// Reads events of one dialect.
enum Reader {
    OpenAi(openai::Reader),
    Anthropic(anthropic::Reader),
}

impl Reader {
    fn new(upstream: &Upstream, n_choices: u32) -> Self {
        match upstream.dialect {
            Dialect::OpenAi => Self::OpenAi(openai::Reader::new(n_choices)),
            Dialect::Anthropic => Self::Anthropic(anthropic::Reader::new(Arc::clone(&upstream.seals))),
        }
    }

    /// Takes the data of some events; whether the stream is over.
    fn take(&mut self, data: Vec<String>, out: &mut Out) -> bool {
        data.into_iter().any(|text| match self {
            Self::OpenAi(reader) => reader.event(&text, out),
            Self::Anthropic(reader) => reader.event(&text, out),
        })
    }

    /// Takes an answer that came whole.
    fn whole(&mut self, body: &[u8], out: &mut Out) {
        match self {
            Self::OpenAi(reader) => reader.whole(body, out),
            Self::Anthropic(reader) => reader.whole(body, out),
        }
    }

    /// The stream ended; without a reason it broke off.
    fn close(&mut self, out: &mut Out) -> bool {
        match self {
            Self::OpenAi(reader) => reader.close(out),
            Self::Anthropic(reader) => reader.close(out),
        }
    }
}

/// A failure of the connection.
pub(super) fn broken(message: &str) -> ModelError {
    ModelError::Transport { message: message.to_owned() }
}

/// What comes in a response: events where it is a stream of them, one JSON value where it is that.
pub(super) fn read(
    response: http::Response<Incoming>,
    upstream: &Upstream,
    n_choices: u32,
) -> impl Stream<Item = Result<Came, ModelError>> + Send + use<> {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (reader, body) = (Reader::new(upstream, n_choices), response.into_body());
    match kind.as_str() {
        "" | "text/event-stream" => streamed(body, reader).left_stream().left_stream(),
        "application/json" => {
            stream::once(whole(body, reader)).flat_map(stream::iter).right_stream().left_stream()
        }
        _ => {
            let message =
                format!("the endpoint answered with {kind:?} instead of events or JSON; check its address");
            stream::iter([Err(ModelError::Protocol { message })]).right_stream()
        }
    }
}

async fn whole(body: Incoming, mut reader: Reader) -> Out {
    let mut out = Vec::new();
    match http_body_util::Limited::new(body, WHOLE_BYTES_MAX).collect().await {
        Ok(body) => reader.whole(&body.to_bytes(), &mut out),
        Err(error) => out.push(Err(broken(&format!("the endpoint's answer broke off: {error}")))),
    }
    out
}

fn streamed(body: Incoming, reader: Reader) -> impl Stream<Item = Result<Came, ModelError>> + Send {
    let step = |state| async move {
        let (mut body, mut lines, mut reader): (Incoming, Lines, Reader) = state?;
        let mut out = Vec::new();
        let failed = |message: &str, out: &mut Out| {
            out.push(Err(broken(message)));
            true
        };
        let is_over = match tokio::time::timeout(SILENCE_MAX, body.frame()).await {
            Ok(Some(Ok(frame))) => {
                frame.into_data().is_ok_and(|data| reader.take(lines.push(&data), &mut out))
            }
            Ok(Some(Err(error))) => failed(&error.to_string(), &mut out),
            Ok(None) => reader.close(&mut out),
            Err(_) => failed("the endpoint fell silent", &mut out),
        };
        Some((stream::iter(out), (!is_over).then_some((body, lines, reader))))
    };
    stream::unfold(Some((body, Lines::default(), reader)), step).flatten()
}
