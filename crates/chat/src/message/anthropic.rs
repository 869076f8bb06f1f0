//! The door for Anthropic-shaped requests: the same inner form.

use super::openai::{check_stops, check_tool_choice, max_tokens, top_k, within};
use super::{
    Arguments, Assistant, Conversation, Envelope, Invalid, Message, Problem, Request, ResponseFormat,
    Sampling, Thinking, Tool, ToolCall, ToolChoice, ToolResult,
};
use crate::wire::anthropic as wire;
use serde_json::Value;
use std::collections::HashMap;

impl TryFrom<wire::MessagesRequest> for Envelope {
    type Error = Invalid;

    /// A trailing assistant message without calls becomes a prefill. A missing `max_tokens` is legal
    /// here, because counting needs none; the server demands it where the format does.
    fn try_from(sent: wire::MessagesRequest) -> Result<Self, Invalid> {
        let sampling = sampling(&sent)?;
        let conversation = conversation(sent.system, sent.messages, sent.tools)?;
        let single_tool_call =
            sent.tool_choice.as_ref().is_some_and(|choice| choice.disable_parallel_tool_use == Some(true));
        let tool_choice = tool_choice(sent.tool_choice, conversation.tools())?;
        let request = Request {
            conversation,
            tool_choice,
            single_tool_call,
            response_format: ResponseFormat::Text,
            sampling,
            max_tokens: max_tokens(sent.max_tokens, None)?,
            thinking: thinking(sent.thinking)?,
            prompt_cache_key: None,
        };
        Ok(Self {
            model: sent.model,
            request,
            n_choices: 1,
            top_logprobs: None,
            stream: sent.stream.unwrap_or(false),
            include_usage: true,
            end_user: sent.metadata.and_then(|metadata| metadata.user_id),
        })
    }
}

fn sampling(sent: &wire::MessagesRequest) -> Result<Sampling, Invalid> {
    Ok(Sampling {
        temperature: within("temperature", sent.temperature, 0.0, 2.0, "a number from 0 to 2")?,
        top_p: within("top_p", sent.top_p, 0.0, 1.0, "a number from 0 to 1")?,
        top_k: top_k(sent.top_k)?,
        stop: check_stops("stop_sequences", sent.stop_sequences.clone().unwrap_or_default())?,
        ..Sampling::default()
    })
}

fn conversation(
    system: Option<wire::Content>,
    sent: Vec<wire::Message>,
    tools: Option<Vec<wire::Tool>>,
) -> Result<Conversation, Invalid> {
    if sent.is_empty() {
        return Err(Invalid::new("messages", Problem::NoMessages));
    }
    let mut messages = Vec::new();
    let mut result_paths = HashMap::new();
    if let Some(system) = system {
        messages.push(Message::System { name: None, text: text_only(system, "system")? });
    }
    for (idx, message) in sent.into_iter().enumerate() {
        let path = format!("messages[{idx}]");
        match message.role.as_str() {
            "user" => user(message.content, &path, &mut messages, &mut result_paths)?,
            "assistant" => messages.push(Message::Assistant(assistant(message.content, &path)?)),
            _ => {
                let expected = "user or assistant (the system prompt is the field `system`)";
                let problem = Problem::UnknownRole { role: message.role, expected };
                return Err(Invalid::new(format!("{path}.role"), problem));
            }
        }
    }
    let prefill = matches!(messages.last(), Some(Message::Assistant(last)) if last.tool_calls.is_empty());
    let result_path = |idx| result_paths.get(&idx).cloned().unwrap_or_default();
    let conversation = Conversation::with_paths(messages, declared(tools)?, &result_path, "name")?;
    if prefill { conversation.into_partial() } else { Ok(conversation) }
}

fn declared(tools: Option<Vec<wire::Tool>>) -> Result<Vec<Tool>, Invalid> {
    let Some(tools) = tools else { return Ok(Vec::new()) };
    if tools.is_empty() {
        return Err(Invalid::new("tools", Problem::NoTools));
    }
    tools.into_iter().enumerate().map(|(idx, tool)| declare(tool, &format!("tools[{idx}]"))).collect()
}

fn declare(sent: wire::Tool, path: &str) -> Result<Tool, Invalid> {
    if let Some(kind) = sent.kind.filter(|kind| kind != "custom") {
        return Err(Invalid::new(format!("{path}.type"), Problem::ToolKind { kind }));
    }
    let parameters = match &sent.input_schema {
        None | Some(Value::Null) => None,
        Some(Value::Object(schema)) => Some(schema),
        Some(_) => {
            let expected = "a JSON Schema object";
            return Err(Invalid::new(format!("{path}.input_schema"), Problem::Shape { expected }));
        }
    };
    Tool::function(&sent.name, sent.description.as_deref(), parameters)
        .map_err(|invalid| Invalid::new(format!("{path}.name"), invalid.problem))
}

/// Text of a place that holds nothing but text.
fn text_only(sent: wire::Content, path: &str) -> Result<String, Invalid> {
    match sent {
        wire::Content::Text(text) => Ok(text),
        wire::Content::Blocks(blocks) => {
            let mut joined = String::new();
            for (idx, block) in blocks.into_iter().enumerate() {
                joined.push_str(&text_block(block, &format!("{path}[{idx}]"))?);
            }
            Ok(joined)
        }
    }
}

fn text_block(block: wire::Block, path: &str) -> Result<String, Invalid> {
    if block.kind != "text" {
        let expected = "send blocks of type \"text\"";
        return Err(Invalid::new(path, Problem::UnsupportedPart { kind: block.kind, expected }));
    }
    need(block.text, format!("{path}.text"), "the text of a text block")
}

fn need<T>(field: Option<T>, path: String, what: &'static str) -> Result<T, Invalid> {
    field.ok_or_else(|| Invalid::new(path, Problem::Missing { what }))
}

/// A user message becomes its tool results and its text, in the order sent. `is_error` is not told to
/// the model: the template has no place for it, and the result's text says it.
fn user(
    sent: wire::Content,
    path: &str,
    messages: &mut Vec<Message>,
    result_paths: &mut HashMap<usize, String>,
) -> Result<(), Invalid> {
    let blocks = match sent {
        wire::Content::Text(text) => {
            messages.push(Message::User { name: None, text });
            return Ok(());
        }
        wire::Content::Blocks(blocks) => blocks,
    };
    let mut text: Option<String> = None;
    for (idx, block) in blocks.into_iter().enumerate() {
        let path = format!("{path}.content[{idx}]");
        if block.kind != "tool_result" {
            text.get_or_insert_default().push_str(&text_block(block, &path)?);
            continue;
        }
        if let Some(text) = text.take() {
            messages.push(Message::User { name: None, text });
        }
        let id_path = format!("{path}.tool_use_id");
        let id = need(block.tool_use_id, id_path.clone(), "the id of the answered call")?;
        result_paths.insert(messages.len(), id_path);
        let text = match block.content {
            None => String::new(),
            Some(content) => text_only(*content, &format!("{path}.content"))?,
        };
        messages.push(Message::ToolResult(ToolResult { name: None, call_id: Some(id), text }));
    }
    if let Some(text) = text {
        messages.push(Message::User { name: None, text });
    }
    Ok(())
}

fn assistant(sent: wire::Content, path: &str) -> Result<Assistant, Invalid> {
    let mut message = Assistant::default();
    let blocks = match sent {
        wire::Content::Text(text) => return Ok(Assistant { content: text, ..message }),
        wire::Content::Blocks(blocks) => blocks,
    };
    for (idx, block) in blocks.into_iter().enumerate() {
        let path = format!("{path}.content[{idx}]");
        match block.kind.as_str() {
            "thinking" => {
                let text = need(block.thinking, format!("{path}.thinking"), "the text of a thinking block")?;
                message.reasoning.push_str(&text);
            }
            "redacted_thinking" => {}
            "tool_use" => message.tool_calls.push(tool_use(block, &path)?),
            _ => message.content.push_str(&text_block(block, &path)?),
        }
    }
    Ok(message)
}

fn tool_use(block: wire::Block, path: &str) -> Result<ToolCall, Invalid> {
    let id = need(block.id, format!("{path}.id"), "the id of a tool_use block")?;
    let name = need(block.name, format!("{path}.name"), "the name of a tool_use block")?;
    let arguments = match block.input {
        Some(Value::Object(object)) => Arguments::Object(object),
        None | Some(Value::Null) => Arguments::Text("{}".to_owned()),
        Some(_) => {
            return Err(Invalid::new(format!("{path}.input"), Problem::Shape { expected: "an object" }));
        }
    };
    Ok(ToolCall { id, name, arguments })
}

fn tool_choice(sent: Option<wire::ToolChoice>, tools: &[Tool]) -> Result<ToolChoice, Invalid> {
    let Some(sent) = sent else { return Ok(ToolChoice::Auto) };
    let choice = match sent.kind.as_str() {
        "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "any" => ToolChoice::Required,
        "tool" => ToolChoice::Named(need(sent.name, "tool_choice.name".to_owned(), "the tool's name")?),
        _ => {
            let expected = "\"auto\", \"any\", \"tool\" or \"none\"";
            return Err(Invalid::new("tool_choice.type", Problem::Word { word: sent.kind, expected }));
        }
    };
    check_tool_choice(&choice, tools, "tool_choice.name")?;
    Ok(choice)
}

fn thinking(sent: Option<wire::Thinking>) -> Result<Thinking, Invalid> {
    let Some(sent) = sent else { return Ok(Thinking::default()) };
    let enabled = match sent.kind.as_str() {
        "enabled" | "adaptive" => true,
        "disabled" => false,
        _ => {
            let expected = "\"enabled\", \"adaptive\" or \"disabled\"";
            return Err(Invalid::new("thinking.type", Problem::Word { word: sent.kind, expected }));
        }
    };
    if let Some(budget) = sent.budget_tokens.filter(|budget| *budget < 1) {
        let problem = Problem::Range { value: budget as f64, expected: "a number from 1" };
        return Err(Invalid::new("thinking.budget_tokens", problem));
    }
    let budget_tokens = sent.budget_tokens.map(i64::unsigned_abs);
    Ok(Thinking { enabled: Some(enabled), preserve: false, budget_tokens })
}
