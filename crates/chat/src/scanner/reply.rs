//! A whole reply, put together from deltas.

use super::{Closing, Delta, Ending, Finish, Scanner, ScannerOptions, Summary};
use crate::message::{Arguments, Assistant, ToolCall};
use crate::tokenizer::{SpecialText, Tokenizer};
use crate::wire::{anthropic, openai};
use serde_json::Value;
use std::sync::Arc;

/// The sum of a reply's deltas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// All thinking.
    pub reasoning: String,
    /// All answer text.
    pub content: String,
    /// The calls in order.
    pub tool_calls: Vec<Call>,
}

/// A call of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The id as the model wrote it.
    pub id: String,
    /// Tool name.
    pub name: String,
    /// Argument text; it may be no JSON.
    pub arguments: String,
    /// How it was closed; `None` while it is open.
    pub closing: Option<Closing>,
}

impl Reply {
    /// Takes one more delta. A delta of a call that never began is dropped.
    pub fn add(&mut self, delta: Delta) {
        match delta {
            Delta::Reasoning(text) => self.reasoning.push_str(&text),
            Delta::Content(text) => self.content.push_str(&text),
            Delta::ToolCallBegin { id, name, .. } => {
                self.tool_calls.push(Call { id, name, arguments: String::new(), closing: None });
            }
            Delta::ToolCallArguments { index, text } => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.arguments.push_str(&text);
                }
            }
            Delta::ToolCallEnd { index, closing } => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.closing = Some(closing);
                }
            }
        }
    }
}

impl FromIterator<Delta> for Reply {
    fn from_iter<I: IntoIterator<Item = Delta>>(deltas: I) -> Self {
        let mut reply = Self::default();
        deltas.into_iter().for_each(|delta| reply.add(delta));
        reply
    }
}

impl From<Reply> for Assistant {
    /// The reply as a message of the history.
    fn from(reply: Reply) -> Self {
        let call = |call: Call| ToolCall {
            id: call.id,
            name: call.name,
            arguments: Arguments::Text(call.arguments),
        };
        Assistant {
            name: None,
            reasoning: reply.reasoning,
            content: reply.content,
            tool_calls: reply.tool_calls.into_iter().map(call).collect(),
        }
    }
}

impl From<Reply> for openai::ResponseMessage {
    /// The reply as an OpenAI-shaped message. Content is null beside calls alone, as OpenAI's is: clients take null
    /// for no answer and ask again.
    fn from(reply: Reply) -> Self {
        let call = |call: Call| openai::ToolCall {
            id: Some(call.id),
            kind: Some("function".to_owned()),
            function: openai::FunctionCall { name: call.name, arguments: Value::String(call.arguments) },
        };
        let some = |text: String| Some(text).filter(|text| !text.is_empty());
        let is_words = reply.tool_calls.is_empty() || !reply.content.is_empty();
        openai::ResponseMessage {
            role: "assistant".to_owned(),
            content: is_words.then_some(reply.content),
            reasoning_content: some(reply.reasoning),
            tool_calls: Some(reply.tool_calls.into_iter().map(call).collect::<Vec<_>>())
                .filter(|calls| !calls.is_empty()),
        }
    }
}

impl Delta {
    /// The delta as a piece of an OpenAI-shaped chunk; the end of a call has none.
    #[must_use]
    pub fn to_openai(&self) -> Option<openai::ChunkDelta> {
        let call = |index: usize, id: Option<&String>, name: Option<&String>, arguments: &str| {
            let function =
                openai::FunctionDelta { name: name.cloned(), arguments: Some(arguments.to_owned()) };
            let kind = id.map(|_| "function".to_owned());
            let piece = openai::ToolCallDelta { index: index as u32, id: id.cloned(), kind, function };
            openai::ChunkDelta { tool_calls: Some(vec![piece]), ..openai::ChunkDelta::default() }
        };
        let delta = match self {
            Self::Reasoning(text) => {
                openai::ChunkDelta { reasoning_content: Some(text.clone()), ..openai::ChunkDelta::default() }
            }
            Self::Content(text) => {
                openai::ChunkDelta { content: Some(text.clone()), ..openai::ChunkDelta::default() }
            }
            Self::ToolCallBegin { index, id, name } => call(*index, Some(id), Some(name), ""),
            Self::ToolCallArguments { index, text } => call(*index, None, None, text),
            Self::ToolCallEnd { .. } => return None,
        };
        Some(delta)
    }
}

impl From<Finish> for openai::FinishReason {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop => Self::Stop,
            Finish::ToolCalls => Self::ToolCalls,
            Finish::Length => Self::Length,
        }
    }
}

impl From<Finish> for anthropic::StopReason {
    fn from(finish: Finish) -> Self {
        match finish {
            Finish::Stop => Self::EndTurn,
            Finish::ToolCalls => Self::ToolUse,
            Finish::Length => Self::MaxTokens,
        }
    }
}

/// Scans a whole list of ids, `ending` saying whether the reply was cut.
#[must_use]
pub fn scan(
    tokenizer: &Arc<Tokenizer>,
    ids: &[u32],
    options: ScannerOptions,
    ending: Ending,
) -> (Reply, Summary) {
    let mut deltas = Vec::new();
    let mut scanner = Scanner::new(Arc::clone(tokenizer), options);
    scanner.push_all(ids, &mut deltas);
    let summary = scanner.finish(ending, &mut deltas);
    (deltas.into_iter().collect(), summary)
}

/// Scans text from elsewhere with its marker names taken as markers: a reply of an engine that left them
/// in, or a reasoning field with calls leaked into it (give [`super::Opening::Thinking`] for that).
/// The older spelling `tool_call_section` is understood too.
#[must_use]
pub fn recover(tokenizer: &Arc<Tokenizer>, text: &str, options: ScannerOptions) -> (Reply, Summary) {
    let text = text
        .replace("<|tool_call_section_begin|>", "<|tool_calls_section_begin|>")
        .replace("<|tool_call_section_end|>", "<|tool_calls_section_end|>");
    let ids = tokenizer.encode(&text, SpecialText::AsTokens);
    scan(tokenizer, &ids, options, Ending::Complete)
}
