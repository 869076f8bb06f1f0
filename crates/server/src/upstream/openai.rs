//! OpenAI's shape: a request out, chunks or a whole answer in.

use super::body::{Out, broken};
use super::{Came, Choices, refusal};
use perilune_chat::message::Request;
use perilune_chat::model::{ModelError, Usage};
use perilune_chat::scanner::{Closing, Delta, Finish};
use perilune_chat::wire::openai::{
    ChatChunk, ChatRequest, ChatResponse, Choice, ChunkChoice, ChunkDelta, FinishReason, FunctionDelta,
    StreamOptions, ToolCallDelta,
};
use serde_json::Value;

/// A request as it is sent.
pub(super) fn request(request: &Request, model: &str, choices: Choices) -> ChatRequest {
    ChatRequest {
        model: Some(model.to_owned()),
        stream: Some(true),
        stream_options: Some(StreamOptions { include_usage: true }),
        n: (choices.n > 1).then_some(i64::from(choices.n)),
        logprobs: choices.top_logprobs.map(|_| true),
        top_logprobs: choices.top_logprobs.map(i64::from),
        ..ChatRequest::from(request)
    }
}

/// What has come so far.
pub(super) struct Reader {
    choices: Vec<Open>,
    usage: Option<Usage>,
}

/// One choice.
#[derive(Default)]
struct Open {
    /// The endpoint's index of the open call.
    open_call: Option<u32>,
    n_calls: usize,
    finish: Option<Finish>,
    usage: Option<Usage>,
}

impl Reader {
    pub(super) fn new(n_choices: u32) -> Self {
        Self { choices: (0..n_choices).map(|_| Open::default()).collect(), usage: None }
    }

    /// Takes the data of one event; whether the stream is over.
    pub(super) fn event(&mut self, text: &str, out: &mut Out) -> bool {
        if text == "[DONE]" {
            return self.close(out);
        }
        match serde_json::from_str::<ChatChunk>(text) {
            Ok(chunk) => self.chunk(chunk, out),
            Err(error) => {
                out.push(Err(unreadable("a chunk", text.as_bytes(), &error)));
                true
            }
        }
    }

    /// Takes an answer that came whole.
    pub(super) fn whole(&mut self, body: &[u8], out: &mut Out) {
        match serde_json::from_slice::<ChatResponse>(body) {
            Ok(ChatResponse { choices, usage, .. }) => {
                self.usage = usage.map(Into::into);
                if !choices.into_iter().any(|choice| self.choice(chunked(choice), out)) {
                    self.close(out);
                }
            }
            Err(error) => out.push(Err(unreadable("the answer", body, &error))),
        }
    }

    /// The stream ended; a choice without a reason broke off.
    pub(super) fn close(&mut self, out: &mut Out) -> bool {
        if self.choices.iter().any(|choice| choice.finish.is_none()) {
            out.push(Err(broken("the endpoint's stream broke off")));
            return true;
        }
        let own = self.choices.iter().filter_map(|choice| choice.usage);
        let usage = self.usage.or_else(|| own.reduce(joined));
        out.extend(usage.map(|usage| Ok(Came::Usage(usage))));
        for (choice, open) in (0..).zip(&self.choices) {
            let Some(finish) = open.finish else { continue };
            out.push(Ok(Came::Finish { choice, finish, stop_string: None, usage: open.usage }));
        }
        true
    }

    fn chunk(&mut self, chunk: ChatChunk, out: &mut Out) -> bool {
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage.into());
        }
        chunk.choices.into_iter().any(|choice| self.choice(choice, out))
    }

    /// Takes what one choice grew by; whether it was more than was asked for, which ends the stream.
    fn choice(&mut self, sent: ChunkChoice, out: &mut Out) -> bool {
        let (index, n) = (sent.index, self.choices.len());
        let Some(open) = self.choices.get_mut(index as usize) else {
            let message = format!("a chunk belongs to choice {index}, but {n} were asked for");
            out.push(Err(ModelError::Protocol { message }));
            return true;
        };
        if let Some(usage) = sent.usage {
            open.usage = Some(usage.into());
        }
        let is_wrong = open.delta(index, sent.delta, out);
        let logprobs = sent.logprobs.and_then(|logprobs| logprobs.content).unwrap_or_default();
        out.extend(logprobs.into_iter().map(|logprob| Ok(Came::Logprob(index, logprob))));
        if let Some(reason) = sent.finish_reason {
            let finish = match reason {
                FinishReason::Stop | FinishReason::ContentFilter => Finish::Stop,
                FinishReason::Length => Finish::Length,
                FinishReason::ToolCalls => Finish::ToolCalls,
            };
            let closing = if finish == Finish::Length { Closing::Cut } else { Closing::Marker };
            open.close_call(index, closing, out);
            open.finish = Some(finish);
        }
        is_wrong
    }
}

/// Two choices' counts as one: they share a prompt.
fn joined(a: Usage, b: Usage) -> Usage {
    Usage {
        completion_tokens: a.completion_tokens + b.completion_tokens,
        reasoning_tokens: a.reasoning_tokens + b.reasoning_tokens,
        ..a
    }
}

/// A choice that came whole, as the one chunk that brings all of it.
fn chunked(choice: Choice) -> ChunkChoice {
    let Choice { index, message, logprobs, finish_reason } = choice;
    let call = |(index, call): (u32, perilune_chat::wire::openai::ToolCall)| ToolCallDelta {
        index,
        id: call.id,
        kind: call.kind,
        function: FunctionDelta {
            name: Some(call.function.name),
            arguments: Some(match call.function.arguments {
                Value::String(text) => text,
                object => object.to_string(),
            }),
        },
    };
    let calls = message.tool_calls.map(|calls| (0..).zip(calls).map(call).collect());
    let delta = ChunkDelta {
        content: message.content,
        reasoning_content: message.reasoning_content,
        tool_calls: calls,
        ..ChunkDelta::default()
    };
    ChunkChoice { index, delta, logprobs, finish_reason, usage: None }
}

/// What is not of the published shape: an error that was sent in its place, or a broken format.
fn unreadable(what: &str, text: &[u8], error: &serde_json::Error) -> ModelError {
    let value: Option<Value> = serde_json::from_slice(text).ok();
    match value.as_ref().and_then(|value| value.get("error")).filter(|error| !error.is_null()) {
        Some(error) => refusal::in_stream(error),
        None => ModelError::Protocol { message: format!("{what} is not of the published shape ({error})") },
    }
}

impl Open {
    /// Takes a delta; whether it broke the format.
    fn delta(&mut self, choice: u32, delta: ChunkDelta, out: &mut Out) -> bool {
        let mut push = |delta| out.push(Ok(Came::Delta(choice, delta)));
        if let Some(text) = delta.reasoning_content.filter(|text| !text.is_empty()) {
            push(Delta::Reasoning(text));
        }
        if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
            push(Delta::Content(text));
        }
        delta.tool_calls.unwrap_or_default().into_iter().any(|call| self.call(choice, call, out))
    }

    fn call(&mut self, choice: u32, call: ToolCallDelta, out: &mut Out) -> bool {
        if self.open_call != Some(call.index) {
            self.close_call(choice, Closing::Marker, out);
            let Some(name) = call.function.name else {
                let message = "a tool call began without a name".to_owned();
                out.push(Err(ModelError::Protocol { message }));
                return true;
            };
            let index = self.n_calls;
            let id = call.id.unwrap_or_else(|| format!("functions.{name}:{index}"));
            out.push(Ok(Came::Delta(choice, Delta::ToolCallBegin { index, id, name })));
            self.open_call = Some(call.index);
            self.n_calls += 1;
        }
        if let Some(text) = call.function.arguments.filter(|text| !text.is_empty()) {
            let index = self.n_calls - 1;
            out.push(Ok(Came::Delta(choice, Delta::ToolCallArguments { index, text })));
        }
        false
    }

    fn close_call(&mut self, choice: u32, closing: Closing, out: &mut Out) {
        if self.open_call.take().is_some() {
            let index = self.n_calls - 1;
            out.push(Ok(Came::Delta(choice, Delta::ToolCallEnd { index, closing })));
        }
    }
}
