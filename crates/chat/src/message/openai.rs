//! The door for OpenAI-shaped requests, and the way back out for clients.

use super::{
    Arguments, Assistant, Completion, Conversation, Envelope, Invalid, Message, N_CHOICES_MAX, N_STOPS_MAX,
    N_TOP_LOGPROBS_MAX, Problem, Prompt, Request, ResponseFormat, STOP_BYTES_MAX, Sampling, Thinking, Tool,
    ToolCall, ToolChoice, ToolResult,
};
use crate::wire::openai as wire;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

impl TryFrom<wire::ChatRequest> for Envelope {
    type Error = Invalid;

    fn try_from(sent: wire::ChatRequest) -> Result<Self, Invalid> {
        refuse_outdated(&sent.extra, "", &[("functions", "tools"), ("function_call", "tool_choice")])?;
        let sampling = sampling(&sent.sampling_fields())?;
        let max_tokens = max_tokens(sent.max_tokens, sent.max_completion_tokens)?;
        let conversation = conversation(sent.messages, sent.tools)?;
        let tool_choice = tool_choice(sent.tool_choice, conversation.tools())?;
        let response_format = response_format(sent.response_format)?;
        if conversation.is_partial() && response_format != ResponseFormat::Text {
            return Err(Invalid::new("response_format", Problem::PartialWithJson));
        }
        let request = Request {
            conversation,
            tool_choice,
            single_tool_call: sent.parallel_tool_calls == Some(false),
            response_format,
            sampling,
            max_tokens,
            thinking: thinking(sent.thinking, sent.chat_template_kwargs)?,
            prompt_cache_key: sent.prompt_cache_key,
        };
        Ok(Self {
            model: sent.model,
            request,
            n_choices: n_choices(sent.n)?,
            top_logprobs: top_logprobs(sent.logprobs.unwrap_or(false), sent.top_logprobs)?,
            stream: sent.stream.unwrap_or(false),
            include_usage: sent.stream_options.is_some_and(|options| options.include_usage),
            end_user: sent.safety_identifier.or(sent.user),
        })
    }
}

fn refuse_outdated(
    extra: &Map<String, Value>,
    prefix: &str,
    fields: &[(&'static str, &'static str)],
) -> Result<(), Invalid> {
    for (field, instead) in fields {
        if extra.get(*field).is_some_and(|value| !value.is_null()) {
            return Err(Invalid::new(format!("{prefix}{field}"), Problem::Outdated { instead }));
        }
    }
    Ok(())
}

// ---- the dialogue ----

fn conversation(
    messages: Vec<wire::Message>,
    tools: Option<Vec<wire::Tool>>,
) -> Result<Conversation, Invalid> {
    if messages.is_empty() {
        return Err(Invalid::new("messages", Problem::NoMessages));
    }
    let last = messages.len() - 1;
    let mut partial = false;
    let mut checked = Vec::with_capacity(messages.len());
    for (idx, sent) in messages.into_iter().enumerate() {
        let path = format!("messages[{idx}]");
        if sent.partial == Some(true) {
            if idx != last {
                return Err(Invalid::new(format!("{path}.partial"), Problem::PartialNotLast));
            }
            partial = true;
        }
        checked.push(message(sent, &path)?);
    }
    let conversation = Conversation::new(checked, declared(tools)?)?;
    if partial { conversation.into_partial() } else { Ok(conversation) }
}

fn declared(tools: Option<Vec<wire::Tool>>) -> Result<Vec<Tool>, Invalid> {
    let Some(tools) = tools else { return Ok(Vec::new()) };
    if tools.is_empty() {
        return Err(Invalid::new("tools", Problem::NoTools));
    }
    let check = |(idx, tool): (usize, wire::Tool)| {
        Tool::new(tool.0).map_err(|invalid| invalid.within(&format!("tools[{idx}]")))
    };
    tools.into_iter().enumerate().map(check).collect()
}

fn message(sent: wire::Message, path: &str) -> Result<Message, Invalid> {
    refuse_outdated(&sent.extra, &format!("{path}."), &[("function_call", "tool_calls")])?;
    let has_calls = sent.tool_calls.as_ref().is_some_and(|calls| !calls.is_empty());
    if has_calls && sent.role != "assistant" {
        return Err(Invalid::new(format!("{path}.tool_calls"), Problem::Misplaced { owner: "assistant" }));
    }
    let call_id = sent.tool_call_id.filter(|id| !id.is_empty());
    if call_id.is_some() && sent.role != "tool" {
        return Err(Invalid::new(format!("{path}.tool_call_id"), Problem::Misplaced { owner: "tool" }));
    }
    let text = content(sent.content, path)?;
    let name = sent.name.filter(|name| !name.is_empty());
    match sent.role.as_str() {
        "system" | "developer" => Ok(Message::System { name, text }),
        "user" => Ok(Message::User { name, text }),
        "assistant" => {
            let older = || sent.extra.get("reasoning").and_then(Value::as_str).map(str::to_owned);
            let reasoning = sent.reasoning_content.or_else(older).unwrap_or_default();
            let tool_calls = tool_calls(sent.tool_calls.unwrap_or_default(), path)?;
            Ok(Message::Assistant(Assistant { name, reasoning, content: text, tool_calls }))
        }
        "tool" => Ok(Message::ToolResult(ToolResult { name, call_id, text })),
        _ => {
            let expected = "system, user, assistant or tool";
            Err(Invalid::new(format!("{path}.role"), Problem::UnknownRole { role: sent.role, expected }))
        }
    }
}

fn content(sent: Option<wire::Content>, path: &str) -> Result<String, Invalid> {
    let parts = match sent {
        None => return Ok(String::new()),
        Some(wire::Content::Text(text)) => return Ok(text),
        Some(wire::Content::Parts(parts)) => parts,
    };
    let mut joined = String::new();
    for (idx, part) in parts.into_iter().enumerate() {
        let path = format!("{path}.content[{idx}]");
        if part.kind != "text" {
            let expected = "send parts of type \"text\"";
            return Err(Invalid::new(path, Problem::UnsupportedPart { kind: part.kind, expected }));
        }
        let missing = Problem::Missing { what: "the text of a text part" };
        joined.push_str(&part.text.ok_or_else(|| Invalid::new(format!("{path}.text"), missing))?);
    }
    Ok(joined)
}

fn tool_calls(sent: Vec<wire::ToolCall>, path: &str) -> Result<Vec<ToolCall>, Invalid> {
    let one = |(idx, call): (usize, wire::ToolCall)| tool_call(call, &format!("{path}.tool_calls[{idx}]"));
    sent.into_iter().enumerate().map(one).collect()
}

fn tool_call(sent: wire::ToolCall, path: &str) -> Result<ToolCall, Invalid> {
    if let Some(kind) = sent.kind.filter(|kind| kind != "function") {
        return Err(Invalid::new(format!("{path}.type"), Problem::ToolKind { kind }));
    }
    if sent.function.name.is_empty() {
        let missing = Problem::Missing { what: "the name of the called tool" };
        return Err(Invalid::new(format!("{path}.function.name"), missing));
    }
    let arguments = match sent.function.arguments {
        Value::String(text) => Arguments::Text(text),
        Value::Object(object) => Arguments::Object(object),
        Value::Null => Arguments::Text("{}".to_owned()),
        _ => {
            let expected = "a JSON text or an object";
            return Err(Invalid::new(format!("{path}.function.arguments"), Problem::Shape { expected }));
        }
    };
    Ok(ToolCall { id: sent.id.unwrap_or_default(), name: sent.function.name, arguments })
}

// ---- around the dialogue ----

fn tool_choice(sent: Option<wire::ToolChoice>, tools: &[Tool]) -> Result<ToolChoice, Invalid> {
    let expected = "\"auto\", \"none\", \"required\" or a named function";
    let unknown = |word: String| Err(Invalid::new("tool_choice", Problem::Word { word, expected }));
    let choice = match sent {
        None => ToolChoice::Auto,
        Some(wire::ToolChoice::Word(word)) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            _ => return unknown(word),
        },
        Some(wire::ToolChoice::Named { kind, function }) if kind == "function" => {
            ToolChoice::Named(function.name)
        }
        Some(wire::ToolChoice::Named { kind, .. }) => return unknown(kind),
    };
    check_tool_choice(&choice, tools, "tool_choice.function.name")?;
    Ok(choice)
}

/// A demanded tool must be declared; `name_path` is where the format keeps the name.
pub(super) fn check_tool_choice(choice: &ToolChoice, tools: &[Tool], name_path: &str) -> Result<(), Invalid> {
    match choice {
        ToolChoice::Auto | ToolChoice::None => Ok(()),
        _ if tools.is_empty() => Err(Invalid::new("tool_choice", Problem::ChoiceWithoutTools)),
        ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name() == name) => {
            let declared = tools.iter().map(Tool::name).collect::<Vec<_>>().join(", ");
            Err(Invalid::new(name_path, Problem::UnknownTool { name: name.clone(), declared }))
        }
        ToolChoice::Required | ToolChoice::Named(_) => Ok(()),
    }
}

fn response_format(sent: Option<wire::ResponseFormat>) -> Result<ResponseFormat, Invalid> {
    let Some(sent) = sent else { return Ok(ResponseFormat::Text) };
    match sent.kind.as_str() {
        "text" => Ok(ResponseFormat::Text),
        "json_object" => Ok(ResponseFormat::JsonObject),
        "json_schema" => json_schema(sent.json_schema),
        _ => {
            let expected = "\"text\", \"json_object\" or \"json_schema\"";
            Err(Invalid::new("response_format.type", Problem::Word { word: sent.kind, expected }))
        }
    }
}

fn json_schema(sent: Option<wire::JsonSchemaFormat>) -> Result<ResponseFormat, Invalid> {
    let path = "response_format.json_schema";
    let missing = |what| Problem::Missing { what };
    let sent = sent.ok_or_else(|| Invalid::new(path, missing("the object with the schema")))?;
    let schema = match sent.schema {
        Some(Value::Object(schema)) => schema,
        None | Some(Value::Null) => {
            return Err(Invalid::new(format!("{path}.schema"), missing("the JSON Schema")));
        }
        Some(_) => {
            let expected = "a JSON Schema object";
            return Err(Invalid::new(format!("{path}.schema"), Problem::Shape { expected }));
        }
    };
    let name = sent.name.unwrap_or_else(|| "response".to_owned());
    Ok(ResponseFormat::JsonSchema { name, strict: sent.strict.unwrap_or(true), schema })
}

fn thinking(
    sent: Option<wire::Thinking>,
    kwargs: Option<wire::ChatTemplateKwargs>,
) -> Result<Thinking, Invalid> {
    let kwargs = kwargs.unwrap_or_default();
    let preserve = kwargs.preserve_thinking.unwrap_or(false);
    let mut result = Thinking { enabled: kwargs.thinking, preserve, budget_tokens: None };
    let Some(sent) = sent else { return Ok(result) };
    let enabled = match sent.kind.as_str() {
        "enabled" => true,
        "disabled" => false,
        _ => {
            let expected = "\"enabled\" or \"disabled\"";
            return Err(Invalid::new("thinking.type", Problem::Word { word: sent.kind, expected }));
        }
    };
    if result.enabled.is_some_and(|other| other != enabled) {
        let other = "chat_template_kwargs.thinking";
        return Err(Invalid::new("thinking.type", Problem::Contradiction { other }));
    }
    result.enabled = Some(enabled);
    match sent.keep.as_deref() {
        None => {}
        Some("all") => result.preserve = true,
        Some(word) => {
            let problem = Problem::Word { word: word.to_owned(), expected: "\"all\" or null" };
            return Err(Invalid::new("thinking.keep", problem));
        }
    }
    Ok(result)
}

// ---- numbers ----

/// `value` if it is finite and within the closed range.
pub(super) fn within(
    path: &str,
    value: Option<f64>,
    low: f64,
    high: f64,
    expected: &'static str,
) -> Result<Option<f64>, Invalid> {
    match value {
        Some(value) if !(value >= low && value <= high) => {
            Err(Invalid::new(path, Problem::Range { value, expected }))
        }
        other => Ok(other),
    }
}

pub(super) fn max_tokens(old: Option<i64>, new: Option<i64>) -> Result<Option<u64>, Invalid> {
    let at_least_one = |path, value: Option<i64>| match value {
        Some(value) if value < 1 => {
            Err(Invalid::new(path, Problem::Range { value: value as f64, expected: "a number from 1" }))
        }
        other => Ok(other.map(i64::unsigned_abs)),
    };
    let old = at_least_one("max_tokens", old)?;
    Ok(at_least_one("max_completion_tokens", new)?.or(old))
}

fn n_choices(sent: Option<i64>) -> Result<u32, Invalid> {
    match sent.unwrap_or(1) {
        n @ 1..=N_CHOICES_MAX => Ok(n as u32),
        n => Err(Invalid::new("n", Problem::Range { value: n as f64, expected: "a number from 1 to 5" })),
    }
}

fn top_logprobs(asked: bool, sent: Option<i64>) -> Result<Option<u32>, Invalid> {
    match (asked, sent) {
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(Invalid::new("logprobs", Problem::Missing { what: "`logprobs: true`" })),
        (true, n) => match n.unwrap_or(0) {
            n @ 0..=N_TOP_LOGPROBS_MAX => Ok(Some(n as u32)),
            n => {
                let expected = "a number from 0 to 20";
                Err(Invalid::new("top_logprobs", Problem::Range { value: n as f64, expected }))
            }
        },
    }
}

fn sampling(sent: &wire::SamplingFields) -> Result<Sampling, Invalid> {
    let repetition_penalty = within(
        "repetition_penalty",
        sent.repetition_penalty,
        f64::MIN_POSITIVE,
        2.0,
        "a number above 0 up to 2",
    )?;
    Ok(Sampling {
        temperature: within("temperature", sent.temperature, 0.0, 2.0, "a number from 0 to 2")?,
        top_p: within("top_p", sent.top_p, 0.0, 1.0, "a number from 0 to 1")?,
        top_k: top_k(sent.top_k)?,
        min_p: within("min_p", sent.min_p, 0.0, 1.0, "a number from 0 to 1")?,
        presence_penalty: penalty("presence_penalty", sent.presence_penalty)?,
        frequency_penalty: penalty("frequency_penalty", sent.frequency_penalty)?,
        repetition_penalty,
        seed: sent.seed.map(|seed| seed as u64),
        stop: stops(sent.stop.clone())?,
        logit_bias: logit_bias(sent.logit_bias.as_ref())?,
    })
}

fn penalty(path: &str, value: Option<f64>) -> Result<Option<f64>, Invalid> {
    within(path, value, -2.0, 2.0, "a number from -2 to 2")
}

pub(super) fn top_k(sent: Option<i64>) -> Result<Option<u32>, Invalid> {
    let expected = "a number from 1, or 0 or -1 for no limit";
    match sent {
        None | Some(0 | -1) => Ok(None),
        Some(k) => u32::try_from(k)
            .map(Some)
            .map_err(|_| Invalid::new("top_k", Problem::Range { value: k as f64, expected })),
    }
}

fn stops(sent: Option<wire::Stop>) -> Result<Vec<String>, Invalid> {
    match sent {
        None => Ok(Vec::new()),
        Some(wire::Stop::One(stop)) => check_stops("stop", vec![stop]),
        Some(wire::Stop::Many(stops)) => check_stops("stop", stops),
    }
}

pub(super) fn check_stops(path: &str, stops: Vec<String>) -> Result<Vec<String>, Invalid> {
    if stops.len() > N_STOPS_MAX {
        return Err(Invalid::new(path, Problem::TooManyStops { n_stops: stops.len() }));
    }
    match stops.iter().position(|stop| stop.is_empty() || stop.len() > STOP_BYTES_MAX) {
        Some(idx) => {
            let problem = Problem::StopLength { n_bytes: stops[idx].len() };
            Err(Invalid::new(format!("{path}[{idx}]"), problem))
        }
        None => Ok(stops),
    }
}

fn logit_bias(sent: Option<&BTreeMap<String, f64>>) -> Result<Vec<(u32, f64)>, Invalid> {
    let mut biases = Vec::new();
    for (id, bias) in sent.into_iter().flatten() {
        let path = format!("logit_bias.{id}");
        let Ok(token) = id.parse::<u32>() else {
            let problem = Problem::Word { word: id.clone(), expected: "a token id" };
            return Err(Invalid::new(path, problem));
        };
        within(&path, Some(*bias), -100.0, 100.0, "a number from -100 to 100")?;
        biases.push((token, *bias));
    }
    Ok(biases)
}

// ---- completions ----

impl TryFrom<wire::CompletionRequest> for Completion {
    type Error = Invalid;

    fn try_from(sent: wire::CompletionRequest) -> Result<Self, Invalid> {
        let sampling = sampling(&sent.sampling_fields())?;
        Ok(Self {
            prompts: prompts(sent.prompt)?,
            sampling,
            max_tokens: max_tokens(sent.max_tokens, None)?,
            n_choices: n_choices(sent.n)?,
            echo: sent.echo.unwrap_or(false),
            top_logprobs: match sent.logprobs {
                None => None,
                asked => top_logprobs(true, asked)
                    .map_err(|invalid| Invalid { path: "logprobs".into(), ..invalid })?,
            },
            special_text: sent.add_special_tokens.unwrap_or(false),
            stream: sent.stream.unwrap_or(false),
            include_usage: sent.stream_options.is_some_and(|options| options.include_usage),
            end_user: sent.user,
            model: sent.model,
        })
    }
}

fn prompts(sent: wire::Prompt) -> Result<Vec<Prompt>, Invalid> {
    let prompts = match sent {
        wire::Prompt::Text(text) => vec![Prompt::Text(text)],
        wire::Prompt::Ids(ids) if !ids.is_empty() => vec![Prompt::Ids(ids)],
        wire::Prompt::Ids(_) => Vec::new(),
        wire::Prompt::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
        wire::Prompt::IdLists(lists) => lists.into_iter().map(Prompt::Ids).collect(),
    };
    let is_empty = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => text.is_empty(),
        Prompt::Ids(ids) => ids.is_empty(),
    };
    if prompts.is_empty() || prompts.iter().any(is_empty) {
        return Err(Invalid::new("prompt", Problem::Missing { what: "a prompt of at least one token" }));
    }
    Ok(prompts)
}

// ---- the way back ----

impl From<&Request> for wire::ChatRequest {
    /// The request as an OpenAI-shaped client sends it; `model`, `stream` and `n` are the client's to add.
    fn from(request: &Request) -> Self {
        let conversation = &request.conversation;
        let sampling = &request.sampling;
        let tools: Vec<_> =
            conversation.tools().iter().map(|tool| wire::Tool(tool.declaration().clone())).collect();
        let mut messages: Vec<_> = conversation.messages().iter().map(wire::Message::from).collect();
        if conversation.is_partial()
            && let Some(last) = messages.last_mut()
        {
            last.partial = Some(true);
        }
        wire::ChatRequest {
            messages,
            tools: (!tools.is_empty()).then_some(tools),
            tool_choice: choice_to_wire(&request.tool_choice),
            parallel_tool_calls: request.single_tool_call.then_some(false),
            response_format: format_to_wire(&request.response_format),
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k.map(i64::from),
            min_p: sampling.min_p,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            repetition_penalty: sampling.repetition_penalty,
            seed: sampling.seed.map(|seed| seed as i64),
            stop: (!sampling.stop.is_empty()).then(|| wire::Stop::Many(sampling.stop.clone())),
            logit_bias: (!sampling.logit_bias.is_empty())
                .then(|| sampling.logit_bias.iter().map(|(id, bias)| (id.to_string(), *bias)).collect()),
            max_completion_tokens: request.max_tokens.map(|n| i64::try_from(n).unwrap_or(i64::MAX)),
            thinking: request.thinking.enabled.map(|enabled| wire::Thinking {
                kind: if enabled { "enabled" } else { "disabled" }.to_owned(),
                keep: request.thinking.preserve.then(|| "all".to_owned()),
            }),
            prompt_cache_key: request.prompt_cache_key.clone(),
            ..wire::ChatRequest::default()
        }
    }
}

impl From<&Message> for wire::Message {
    fn from(message: &Message) -> Self {
        let plain = |role: &str, name: &Option<String>, text: &str| wire::Message {
            role: role.to_owned(),
            name: name.clone(),
            content: Some(wire::Content::Text(text.to_owned())),
            ..wire::Message::default()
        };
        match message {
            Message::System { name, text } => plain("system", name, text),
            Message::User { name, text } => plain("user", name, text),
            Message::Assistant(assistant) => {
                let calls: Vec<_> = assistant.tool_calls.iter().map(wire::ToolCall::from).collect();
                wire::Message {
                    reasoning_content: Some(assistant.reasoning.clone()),
                    tool_calls: (!calls.is_empty()).then_some(calls),
                    ..plain("assistant", &assistant.name, &assistant.content)
                }
            }
            Message::ToolResult(result) => wire::Message {
                tool_call_id: result.call_id.clone(),
                ..plain("tool", &result.name, &result.text)
            },
        }
    }
}

impl From<&ToolCall> for wire::ToolCall {
    fn from(call: &ToolCall) -> Self {
        let arguments = match &call.arguments {
            Arguments::Text(text) => text.clone(),
            Arguments::Object(object) => crate::template::json::python(&Value::Object(object.clone())),
        };
        wire::ToolCall {
            id: Some(call.id.clone()),
            kind: Some("function".to_owned()),
            function: wire::FunctionCall { name: call.name.clone(), arguments: Value::String(arguments) },
        }
    }
}

fn choice_to_wire(choice: &ToolChoice) -> Option<wire::ToolChoice> {
    let word = |word: &str| Some(wire::ToolChoice::Word(word.to_owned()));
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => word("none"),
        ToolChoice::Required => word("required"),
        ToolChoice::Named(name) => Some(wire::ToolChoice::Named {
            kind: "function".to_owned(),
            function: wire::FunctionName { name: name.clone() },
        }),
    }
}

fn format_to_wire(format: &ResponseFormat) -> Option<wire::ResponseFormat> {
    match format {
        ResponseFormat::Text => None,
        ResponseFormat::JsonObject => {
            Some(wire::ResponseFormat { kind: "json_object".to_owned(), json_schema: None })
        }
        ResponseFormat::JsonSchema { name, strict, schema } => Some(wire::ResponseFormat {
            kind: "json_schema".to_owned(),
            json_schema: Some(wire::JsonSchemaFormat {
                name: Some(name.clone()),
                description: None,
                strict: Some(*strict),
                schema: Some(Value::Object(schema.clone())),
            }),
        }),
    }
}
