//! `POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's shape.

use super::chat::check_count;
use super::{events, json, random_hex, read, reply};
use crate::answer::{End, Folded, Piece};
use crate::app::{App, Served};
use crate::error::{ApiError, Shape};
use crate::job::{Answers, blocking, sized};
use crate::limits::Standing;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::{Stream, StreamExt, stream};
use perilune_chat::message::Envelope;
use perilune_chat::model::Usage;
use perilune_chat::scanner::{Delta, Finish};
use perilune_chat::wire;
use perilune_chat::wire::anthropic::{
    Block, BlockDelta, CountTokensResponse, MessageEnd, MessagesRequest, MessagesResponse, StopReason,
    StreamEvent,
};
use serde_json::{Map, Value};

/// Answers a conversation.
pub(crate) async fn create(State(app): State<App>, request: Request) -> Response {
    reply(answer(app, request).await, Shape::Anthropic)
}

/// Counts a conversation's tokens.
pub(crate) async fn count(State(app): State<App>, request: Request) -> Response {
    reply(count_tokens(app, request).await, Shape::Anthropic)
}

async fn answer(app: App, request: Request) -> Result<Response, ApiError> {
    let (ask, body) = read(app, request, "/v1/messages").await?;
    let envelope = sized(body.len(), move || envelope(&body, true)).await?;
    let mut answers = ask.chat(envelope.model.as_deref(), envelope.request, 1, None).await?;
    let (id, standing) = (format!("msg_{}", random_hex()?), answers.standing());
    if envelope.stream {
        return Ok(events(stream_events(id, answers), &standing));
    }
    let mut choices = answers.whole().await?;
    let folded = choices.pop().ok_or_else(|| ApiError::internal(&"an answer without a choice"))?;
    Ok(json(&message(id, answers.model(), folded), &standing))
}

async fn count_tokens(app: App, request: Request) -> Result<Response, ApiError> {
    let (ask, body) = read(app, request, "/v1/messages/count_tokens").await?;
    let input_tokens = blocking(move || {
        let envelope = envelope(&body, false)?;
        count_prompt(&ask.app, &envelope)
    })
    .await?;
    Ok(json(&CountTokensResponse { input_tokens }, &Standing::default()))
}

/// Tokens of a request's prompt, by the model of this process.
pub(super) fn count_prompt(app: &App, envelope: &Envelope) -> Result<u64, ApiError> {
    match app.served(envelope.model.as_deref())?.1 {
        Served::Local(served) => Ok(served.model.prompt(&envelope.request).0.len() as u64),
        Served::Upstream(_) => {
            let message = "this model is served by another endpoint, whose tokens cannot be counted here";
            Err(ApiError::invalid(Some("model"), message))
        }
    }
}

fn envelope(body: &[u8], needs_limit: bool) -> Result<Envelope, ApiError> {
    let sent: MessagesRequest = wire::from_json(body)?;
    check_count(sent.messages.len())?;
    if needs_limit && sent.max_tokens.is_none() {
        return Err(ApiError::invalid(Some("max_tokens"), "max_tokens: the field is missing; add it"));
    }
    Ok(Envelope::try_from(sent)?)
}

fn message(id: String, model: &str, folded: Folded) -> MessagesResponse {
    let mut content = Vec::new();
    if !folded.reply.reasoning.is_empty() {
        content.push(Block { signature: Some(String::new()), ..Block::thinking(folded.reply.reasoning) });
    }
    if !folded.reply.content.is_empty() {
        content.push(Block::text(folded.reply.content));
    }
    for call in folded.reply.tool_calls {
        // What was cut off is no JSON; the text is kept so that nothing is lost.
        let input = serde_json::from_str(&call.arguments).unwrap_or(Value::String(call.arguments));
        content.push(Block::tool_use(call.id, call.name, input));
    }
    let (stop_reason, stop_sequence) = stop(&folded.end);
    MessagesResponse { content, stop_reason, stop_sequence, ..empty(id, model, folded.end.usage) }
}

fn empty(id: String, model: &str, usage: Usage) -> MessagesResponse {
    MessagesResponse {
        id,
        kind: "message".to_owned(),
        role: "assistant".to_owned(),
        model: model.to_owned(),
        content: Vec::new(),
        stop_reason: None,
        stop_sequence: None,
        usage: usage.into(),
    }
}

fn stop(end: &End) -> (Option<StopReason>, Option<String>) {
    match (&end.stop_string, end.finish) {
        (Some(stop), Finish::Stop) => (Some(StopReason::StopSequence), Some(stop.clone())),
        (_, finish) => (Some(finish.into()), None),
    }
}

/// Which block of the content is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    Call,
}

/// Writes pieces as events: blocks open and close as the kind of text changes.
#[derive(Default)]
struct Writer {
    open: Option<Kind>,
    n_blocks: u32,
}

impl Writer {
    fn close(&mut self, out: &mut Vec<StreamEvent>) {
        let Some(kind) = self.open.take() else { return };
        let index = self.n_blocks - 1;
        if kind == Kind::Thinking {
            let delta = BlockDelta::SignatureDelta { signature: String::new() };
            out.push(StreamEvent::ContentBlockDelta { index, delta });
        }
        out.push(StreamEvent::ContentBlockStop { index });
    }

    fn begin(&mut self, kind: Kind, content_block: Block, out: &mut Vec<StreamEvent>) {
        self.close(out);
        out.push(StreamEvent::ContentBlockStart { index: self.n_blocks, content_block });
        self.n_blocks += 1;
        self.open = Some(kind);
    }

    fn grow(&self, delta: BlockDelta, out: &mut Vec<StreamEvent>) {
        out.push(StreamEvent::ContentBlockDelta { index: self.n_blocks.saturating_sub(1), delta });
    }

    fn delta(&mut self, delta: Delta, out: &mut Vec<StreamEvent>) {
        match delta {
            Delta::Reasoning(thinking) => {
                if self.open != Some(Kind::Thinking) {
                    let block = Block { signature: Some(String::new()), ..Block::thinking("") };
                    self.begin(Kind::Thinking, block, out);
                }
                self.grow(BlockDelta::ThinkingDelta { thinking }, out);
            }
            Delta::Content(text) => {
                if self.open != Some(Kind::Text) {
                    self.begin(Kind::Text, Block::text(""), out);
                }
                self.grow(BlockDelta::TextDelta { text }, out);
            }
            Delta::ToolCallBegin { id, name, .. } => {
                self.begin(Kind::Call, Block::tool_use(id, name, Value::Object(Map::new())), out);
            }
            Delta::ToolCallArguments { text, .. } => {
                self.grow(BlockDelta::InputJsonDelta { partial_json: text }, out);
            }
            Delta::ToolCallEnd { .. } => self.close(out),
        }
    }

    fn piece(&mut self, piece: Piece, out: &mut Vec<StreamEvent>) {
        match piece {
            Piece::Delta(delta) => self.delta(delta, out),
            Piece::Logprob(_) => {}
            Piece::End(end) => {
                self.close(out);
                let (stop_reason, stop_sequence) = stop(&end);
                let delta = MessageEnd { stop_reason, stop_sequence };
                out.push(StreamEvent::MessageDelta { delta, usage: end.usage.into() });
                out.push(StreamEvent::MessageStop);
            }
        }
    }
}

fn stream_events(id: String, answers: Answers) -> impl Stream<Item = Event> + Send + 'static {
    let start = StreamEvent::MessageStart { message: empty(id, answers.model(), answers.usage()) };
    let rest = stream::unfold(Some((Writer::default(), answers)), |state| async move {
        let (mut writer, mut answers) = state?;
        let mut out = Vec::new();
        match answers.next().await? {
            (_, Ok(piece)) => writer.piece(piece, &mut out),
            (_, Err(error)) => {
                out.push(StreamEvent::Error { error: error.anthropic() });
                return Some((out, None));
            }
        }
        Some((out, Some((writer, answers))))
    });
    stream::iter([start]).chain(rest.flat_map(stream::iter)).map(|event| named(&event))
}

/// An event under the name that its type has.
fn named(event: &StreamEvent) -> Event {
    let name = match event {
        StreamEvent::MessageStart { .. } => "message_start",
        StreamEvent::ContentBlockStart { .. } => "content_block_start",
        StreamEvent::ContentBlockDelta { .. } => "content_block_delta",
        StreamEvent::ContentBlockStop { .. } => "content_block_stop",
        StreamEvent::MessageDelta { .. } => "message_delta",
        StreamEvent::MessageStop => "message_stop",
        StreamEvent::Ping => "ping",
        StreamEvent::Error { .. } => "error",
    };
    super::filled(Event::default().event(name), event)
}
