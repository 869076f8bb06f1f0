//! A request as an Anthropic-shaped client sends it.

use super::{Arguments, Assistant, Message, Request, ToolCall, ToolChoice};
use crate::wire::anthropic as wire;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// Least tokens of thinking that the format takes (Anthropic's extended thinking).
const THINKING_TOKENS_MIN: u64 = 1_024;
/// Tokens of a reply where the request names no limit, which the format demands.
const MAX_TOKENS_DEFAULT: u64 = 16_384;

impl From<&Request> for wire::MessagesRequest {
    /// `model` and `stream` are the client's to add; what the format has no field for is left out, so the client
    /// refuses it first. Calls whose ids the format would refuse, or which repeat, get ids by their number.
    fn from(request: &Request) -> Self {
        let conversation = &request.conversation;
        let n_system =
            conversation.messages().iter().take_while(|m| matches!(m, Message::System { .. })).count();
        let (system, rest) = conversation.messages().split_at(n_system);
        let ids = call_ids(conversation.messages());
        let tools: Vec<_> = conversation.tools().iter().map(wire::Tool::from).collect();
        let max_tokens = request.max_tokens.unwrap_or(MAX_TOKENS_DEFAULT);
        let stops = &request.sampling.stop;
        Self {
            system: system_text(system).map(wire::Content::Text),
            messages: Turns::new(&ids, conversation.answered_calls()).of(rest),
            max_tokens: Some(i64::try_from(max_tokens).unwrap_or(i64::MAX)),
            tool_choice: (!tools.is_empty()).then(|| choice(request)).flatten(),
            tools: (!tools.is_empty()).then_some(tools),
            thinking: thinking(request, max_tokens),
            temperature: request.sampling.temperature,
            top_p: request.sampling.top_p,
            top_k: request.sampling.top_k.map(i64::from),
            stop_sequences: (!stops.is_empty()).then(|| stops.clone()),
            ..Self::default()
        }
    }
}

fn system_text(messages: &[Message]) -> Option<String> {
    let text = |message: &Message| match message {
        Message::System { text, .. } if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    let texts: Vec<_> = messages.iter().filter_map(text).collect();
    (!texts.is_empty()).then(|| texts.join("\n\n"))
}

/// An id for every call of the dialogue, in order: as it is where the format takes it and it is the first of its kind.
fn call_ids(messages: &[Message]) -> Vec<String> {
    let mut seen = HashSet::new();
    let legal = |id: &str| {
        !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    let id = |(idx, call): (usize, &ToolCall)| match legal(&call.id) && seen.insert(call.id.clone()) {
        true => call.id.clone(),
        false => format!("call_{idx}"),
    };
    super::calls(messages).enumerate().map(id).collect()
}

/// Gathers messages into turns that alternate, as the format wants them.
struct Turns<'a> {
    ids: &'a [String],
    answered: &'a [usize],
    n_calls: usize,
    n_results: usize,
    turns: Vec<(&'static str, Vec<wire::Block>)>,
}

impl<'a> Turns<'a> {
    fn new(ids: &'a [String], answered: &'a [usize]) -> Self {
        Self { ids, answered, n_calls: 0, n_results: 0, turns: Vec::new() }
    }

    fn of(mut self, messages: &[Message]) -> Vec<wire::Message> {
        for message in messages {
            match message {
                // The format has no instructions between turns: they stand in the user's, in their place.
                Message::System { text, .. } | Message::User { text, .. } => {
                    self.add("user", text_block(text))
                }
                Message::Assistant(assistant) => {
                    let blocks = self.assistant(assistant);
                    self.add("assistant", blocks);
                }
                Message::ToolResult(result) => {
                    let block = self.result(&result.text);
                    self.add("user", Some(block));
                }
            }
        }
        let message = |(role, blocks): (&str, Vec<wire::Block>)| wire::Message {
            role: role.to_owned(),
            content: wire::Content::Blocks(blocks),
        };
        self.turns.into_iter().map(message).collect()
    }

    fn add(&mut self, role: &'static str, blocks: impl IntoIterator<Item = wire::Block>) {
        let mut blocks = blocks.into_iter().peekable();
        if blocks.peek().is_none() {
            return;
        }
        match self.turns.last_mut() {
            Some((last, kept)) if *last == role => kept.extend(blocks),
            _ => self.turns.push((role, blocks.collect())),
        }
    }

    fn assistant(&mut self, message: &Assistant) -> Vec<wire::Block> {
        let mut blocks = Vec::new();
        if !message.reasoning.is_empty() {
            blocks.push(wire::Block::thinking(&message.reasoning));
        }
        blocks.extend(text_block(&message.content));
        for call in &message.tool_calls {
            let id = self.ids.get(self.n_calls).cloned().unwrap_or_default();
            self.n_calls += 1;
            blocks.push(wire::Block::tool_use(id, &call.name, Value::Object(object(&call.arguments))));
        }
        blocks
    }

    fn result(&mut self, text: &str) -> wire::Block {
        let call = self.answered.get(self.n_results).and_then(|call| self.ids.get(*call));
        self.n_results += 1;
        wire::Block {
            kind: "tool_result".to_owned(),
            tool_use_id: call.cloned(),
            content: Some(Box::new(wire::Content::Text(text.to_owned()))),
            ..wire::Block::default()
        }
    }
}

/// A text block; the format refuses empty ones.
fn text_block(text: &str) -> Option<wire::Block> {
    (!text.is_empty()).then(|| wire::Block::text(text))
}

/// Arguments as the object that the format demands; text that is none is kept under one key.
fn object(arguments: &Arguments) -> Map<String, Value> {
    match arguments {
        Arguments::Object(object) => object.clone(),
        Arguments::Text(text) => serde_json::from_str(text)
            .unwrap_or_else(|_| Map::from_iter([("arguments".to_owned(), Value::from(text.as_str()))])),
    }
}

fn choice(request: &Request) -> Option<wire::ToolChoice> {
    let (kind, name) = match &request.tool_choice {
        ToolChoice::Auto if !request.single_tool_call => return None,
        ToolChoice::Auto => ("auto", None),
        ToolChoice::None => ("none", None),
        ToolChoice::Required => ("any", None),
        ToolChoice::Named(name) => ("tool", Some(name.clone())),
    };
    let single = (request.single_tool_call && kind != "none").then_some(true);
    Some(wire::ToolChoice { kind: kind.to_owned(), name, disable_parallel_tool_use: single })
}

/// Thinking needs a budget here, which must leave room for the answer.
fn thinking(request: &Request, max_tokens: u64) -> Option<wire::Thinking> {
    let asked = request.thinking;
    if asked.enabled == Some(false) {
        return Some(wire::Thinking { kind: "disabled".to_owned(), budget_tokens: None });
    }
    if asked.enabled.is_none() && asked.budget_tokens.is_none() {
        return None;
    }
    let budget = asked.budget_tokens.unwrap_or((max_tokens / 2).max(THINKING_TOKENS_MIN));
    let budget_tokens = Some(i64::try_from(budget).unwrap_or(i64::MAX));
    Some(wire::Thinking { kind: "enabled".to_owned(), budget_tokens })
}

impl From<&super::Tool> for wire::Tool {
    fn from(tool: &super::Tool) -> Self {
        let schema = tool.parameters().cloned().map_or_else(|| json!({ "type": "object" }), Value::Object);
        Self {
            kind: None,
            name: tool.name().to_owned(),
            description: tool.description().map(str::to_owned),
            input_schema: Some(schema),
            extra: Map::new(),
        }
    }
}
