//! What may be said? The validated form of a request: after this line only legal values exist.
//!
//! [`Envelope`] is made from a wire type by `TryFrom` (the door); a [`Conversation`] checks itself, also
//! when a program builds it. Reading order: the dialogue, the request around it, the errors.

mod anthropic;
mod error;
mod openai;
mod to_anthropic;

pub use error::{Invalid, Problem};

use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Most tools in one request (Moonshot's API specification).
pub const N_TOOLS_MAX: usize = 128;
/// Longest tool name in bytes; the widest of the public APIs.
pub const TOOL_NAME_BYTES_MAX: usize = 128;
/// Most stop strings (Moonshot's API specification).
pub const N_STOPS_MAX: usize = 5;
/// Longest stop string in bytes (Moonshot's API specification).
pub const STOP_BYTES_MAX: usize = 32;
/// Most choices per request (Moonshot's API specification).
pub const N_CHOICES_MAX: i64 = 5;
/// Most alternatives per token whose log-probabilities may be asked for.
pub const N_TOP_LOGPROBS_MAX: i64 = 20;

// ---- the dialogue ----

/// One message of a dialogue.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// Instructions.
    System {
        /// Printed in the header instead of the role.
        name: Option<String>,
        /// The instructions.
        text: String,
    },
    /// A person's words.
    User {
        /// Printed in the header instead of the role.
        name: Option<String>,
        /// The words.
        text: String,
    },
    /// The model's words and calls.
    Assistant(Assistant),
    /// What a tool returned.
    ToolResult(ToolResult),
}

/// A message of the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assistant {
    /// Printed in the header instead of the role.
    pub name: Option<String>,
    /// The thinking; empty when there was none.
    pub reasoning: String,
    /// The answer; empty when there was none.
    pub content: String,
    /// The calls, in order.
    pub tool_calls: Vec<ToolCall>,
}

/// A call as it stands in the history.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Id under which the tool result refers to it; the prompt uses the dialogue's own numbering.
    pub id: String,
    /// Tool name.
    pub name: String,
    /// The arguments.
    pub arguments: Arguments,
}

/// Arguments of a call in the history.
#[derive(Debug, Clone, PartialEq)]
pub enum Arguments {
    /// JSON text, printed verbatim (it is what the model wrote, valid or not).
    Text(String),
    /// An object, printed with the separators of Python's `json.dumps`, as the published template prints it.
    Object(Map<String, Value>),
}

/// A message of role `tool`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolResult {
    /// Printed in the header instead of the role; usually the tool's name.
    pub name: Option<String>,
    /// The call's id; `None` means the next unanswered call.
    pub call_id: Option<String>,
    /// What the tool returned.
    pub text: String,
}

/// A declared tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    name: String,
    declaration: Map<String, Value>,
}

impl Tool {
    /// Checks a declaration `{"type":"function","function":{"name",...}}`, kept with its key order.
    ///
    /// # Errors
    /// [`Invalid`] with a path inside the declaration.
    pub fn new(declaration: Map<String, Value>) -> Result<Self, Invalid> {
        let kind = declaration.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind != "function" {
            return Err(Invalid::new("type", Problem::ToolKind { kind: kind.to_owned() }));
        }
        let Some(function) = declaration.get("function").and_then(Value::as_object) else {
            return Err(Invalid::new("function", Problem::Missing { what: "the function object of a tool" }));
        };
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        check_tool_name(&name).map_err(|problem| Invalid::new("function.name", problem))?;
        if let Some(description) = function.get("description")
            && !description.is_null()
            && !description.is_string()
        {
            return Err(Invalid::new("function.description", Problem::Shape { expected: "a string" }));
        }
        if let Some(parameters) = function.get("parameters")
            && !parameters.is_null()
            && !parameters.is_object()
        {
            let expected = "a JSON Schema object";
            return Err(Invalid::new("function.parameters", Problem::Shape { expected }));
        }
        Ok(Self { name, declaration })
    }

    /// A tool from its parts; `parameters` is a JSON Schema.
    ///
    /// # Errors
    /// [`Invalid`] when the name is not legal.
    pub fn function(
        name: &str,
        description: Option<&str>,
        parameters: Option<&Map<String, Value>>,
    ) -> Result<Self, Invalid> {
        let mut function = Map::new();
        function.insert("name".to_owned(), Value::from(name));
        if let Some(description) = description {
            function.insert("description".to_owned(), Value::from(description));
        }
        if let Some(parameters) = parameters {
            function.insert("parameters".to_owned(), Value::Object(parameters.clone()));
        }
        let mut declaration = Map::new();
        declaration.insert("type".to_owned(), Value::from("function"));
        declaration.insert("function".to_owned(), Value::Object(function));
        Self::new(declaration)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the tool does, when the caller said so.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.function_field("description").and_then(Value::as_str)
    }

    /// JSON Schema of the arguments; `None` when the caller gave none.
    #[must_use]
    pub fn parameters(&self) -> Option<&Map<String, Value>> {
        self.function_field("parameters").and_then(Value::as_object)
    }

    /// The declaration as sent.
    #[must_use]
    pub fn declaration(&self) -> &Map<String, Value> {
        &self.declaration
    }

    fn function_field(&self, key: &str) -> Option<&Value> {
        self.declaration.get("function").and_then(|function| function.get(key))
    }
}

/// A dialogue with its tools: names legal and unique, every tool result tied to its call.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    messages: Vec<Message>,
    tools: Vec<Tool>,
    partial: bool,
    /// For each tool result, in order, the dialogue-wide number of the call that it answers.
    answered: Vec<usize>,
}

impl Conversation {
    /// Checks a dialogue.
    ///
    /// # Errors
    /// [`Invalid`] for a tool result without a call, duplicate tools, or too many.
    pub fn new(messages: Vec<Message>, tools: Vec<Tool>) -> Result<Self, Invalid> {
        let result_path = |idx| format!("messages[{idx}].tool_call_id");
        Self::with_paths(messages, tools, &result_path, "function.name")
    }

    /// As [`Conversation::new`], for a format that keeps tool results and tool names elsewhere.
    fn with_paths(
        messages: Vec<Message>,
        tools: Vec<Tool>,
        result_path: &dyn Fn(usize) -> String,
        name_field: &str,
    ) -> Result<Self, Invalid> {
        check_tools(&tools, name_field)?;
        let answered = tie_results(&messages, result_path)?;
        Ok(Self { messages, tools, partial: false, answered })
    }

    /// The same dialogue with its last message as the beginning of the answer (prefill).
    ///
    /// # Errors
    /// [`Invalid`] when the last message is not an assistant message, or has calls.
    pub fn into_partial(mut self) -> Result<Self, Invalid> {
        let path = format!("messages[{}].partial", self.messages.len().saturating_sub(1));
        match self.messages.last() {
            Some(Message::Assistant(last)) if last.tool_calls.is_empty() => self.partial = true,
            Some(Message::Assistant(_)) => return Err(Invalid::new(path, Problem::PartialWithCalls)),
            _ => return Err(Invalid::new(path, Problem::PartialNotLast)),
        }
        Ok(self)
    }

    /// The messages, oldest first.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The declared tools, in the order given.
    #[must_use]
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// The last message is the beginning of the answer.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Calls in the whole dialogue; the next call of the model has this number, the first having 0.
    #[must_use]
    pub fn n_calls(&self) -> usize {
        calls(&self.messages).count()
    }

    /// For each tool result, in order, the dialogue-wide number (from 0) of the call that it answers.
    #[must_use]
    pub fn answered_calls(&self) -> &[usize] {
        &self.answered
    }
}

fn calls(messages: &[Message]) -> impl Iterator<Item = &ToolCall> {
    messages.iter().flat_map(|message| match message {
        Message::Assistant(assistant) => assistant.tool_calls.as_slice(),
        _ => &[],
    })
}

fn check_tools(tools: &[Tool], name_field: &str) -> Result<(), Invalid> {
    if tools.len() > N_TOOLS_MAX {
        return Err(Invalid::new("tools", Problem::TooManyTools { n_tools: tools.len() }));
    }
    let mut names = HashSet::new();
    for (idx, tool) in tools.iter().enumerate() {
        if !names.insert(tool.name()) {
            let problem = Problem::DuplicateTool { name: tool.name().to_owned() };
            return Err(Invalid::new(format!("tools[{idx}].{name_field}"), problem));
        }
    }
    Ok(())
}

fn check_tool_name(name: &str) -> Result<(), Problem> {
    let first_ok = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let all_ok = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if first_ok && all_ok && name.len() <= TOOL_NAME_BYTES_MAX {
        return Ok(());
    }
    Err(Problem::ToolName { name: name.chars().take(TOOL_NAME_BYTES_MAX).collect() })
}

/// Ties each result to a call: unanswered calls of the latest assistant message first, then older
/// unanswered ones in order, then (for a repeated result) the latest call of that id.
fn tie_results(messages: &[Message], result_path: &dyn Fn(usize) -> String) -> Result<Vec<usize>, Invalid> {
    let mut calls = Calls::default();
    let mut answered = Vec::new();
    for (idx, message) in messages.iter().enumerate() {
        match message {
            Message::Assistant(assistant) => calls.add(&assistant.tool_calls),
            Message::ToolResult(result) => {
                let call = calls.answer(result.call_id.as_deref()).ok_or_else(|| {
                    let problem = Problem::ResultWithoutCall { id: result.call_id.clone() };
                    Invalid::new(result_path(idx), problem)
                })?;
                answered.push(call);
            }
            Message::System { .. } | Message::User { .. } => {}
        }
    }
    Ok(answered)
}

/// The calls met so far, by their number in the dialogue; each step is logarithmic in their count.
#[derive(Default)]
struct Calls<'m> {
    ids: Vec<&'m str>,
    /// First call of the latest assistant message with calls.
    turn_start: usize,
    unanswered: BTreeSet<usize>,
    by_id: HashMap<&'m str, SameId>,
}

/// The calls of one id.
#[derive(Default)]
struct SameId {
    latest: usize,
    unanswered: BTreeSet<usize>,
}

impl<'m> Calls<'m> {
    fn add(&mut self, calls: &'m [ToolCall]) {
        if !calls.is_empty() {
            self.turn_start = self.ids.len();
        }
        for call in calls {
            let call_idx = self.ids.len();
            self.ids.push(&call.id);
            self.unanswered.insert(call_idx);
            let same = self.by_id.entry(&call.id).or_default();
            same.latest = call_idx;
            same.unanswered.insert(call_idx);
        }
    }

    /// The call that a result with this id answers.
    fn answer(&mut self, id: Option<&str>) -> Option<usize> {
        let candidates = match id {
            None => &self.unanswered,
            Some(id) => &self.by_id.get(id)?.unanswered,
        };
        let first = candidates.range(self.turn_start..).next().or_else(|| candidates.first()).copied();
        let Some(call_idx) = first else { return Some(self.by_id.get(id?)?.latest) };
        self.unanswered.remove(&call_idx);
        if let Some(same) = self.by_id.get_mut(self.ids[call_idx]) {
            same.unanswered.remove(&call_idx);
        }
        Some(call_idx)
    }
}

// ---- the request around it ----

/// Everything a model needs to answer once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The dialogue and its tools.
    pub conversation: Conversation,
    /// Whether, and which, tool must be called.
    pub tool_choice: ToolChoice,
    /// At most one call in the reply.
    pub single_tool_call: bool,
    /// Shape of the answer text.
    pub response_format: ResponseFormat,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Most tokens to generate, reasoning included; `None` leaves it to the model's side.
    pub max_tokens: Option<u64>,
    /// Thinking, as far as the caller said anything.
    pub thinking: Thinking,
    /// Requests with the same key share a prefix.
    pub prompt_cache_key: Option<String>,
}

impl Request {
    /// A request with every setting at its default.
    #[must_use]
    pub fn new(conversation: Conversation) -> Self {
        Self { conversation, ..Self::default() }
    }
}

/// A [`Request`] with what only the HTTP door cares about.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// Model id as sent.
    pub model: Option<String>,
    /// What the model needs.
    pub request: Request,
    /// Independent choices, 1 to [`N_CHOICES_MAX`].
    pub n_choices: u32,
    /// `None`: no log-probabilities; `Some(k)`: with k alternatives per token, at most [`N_TOP_LOGPROBS_MAX`].
    pub top_logprobs: Option<u32>,
    /// Answer as server-sent events.
    pub stream: bool,
    /// Send the usage chunk at the end of the stream.
    pub include_usage: bool,
    /// Caller's stable id of its end user.
    pub end_user: Option<String>,
}

/// Whether, and which, tool must be called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call. The tools stay in the prompt, so that the cached prefix stays valid.
    None,
    /// At least one call.
    Required,
    /// This declared tool.
    Named(String),
}

/// Shape of the answer text.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ResponseFormat {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a schema.
    JsonSchema {
        /// Name of the schema.
        name: String,
        /// Enforce it while generating.
        strict: bool,
        /// The JSON Schema.
        schema: Map<String, Value>,
    },
}

/// How tokens are drawn; `None` leaves a value to the model's side.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    /// Divides the logits, 0 to 2; 0 picks the most probable token.
    pub temperature: Option<f64>,
    /// Probability mass of the most probable tokens kept, 0 to 1.
    pub top_p: Option<f64>,
    /// Number of most probable tokens kept, at least 1.
    pub top_k: Option<u32>,
    /// Least probability kept, relative to the most probable token's, 0 to 1.
    pub min_p: Option<f64>,
    /// Taken once from the logit of a token that was generated before, -2 to 2.
    pub presence_penalty: Option<f64>,
    /// Taken from the logit for each time a token was generated before, -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Divides positive and multiplies negative logits of tokens that occurred, above 0 up to 2; 1 is none.
    pub repetition_penalty: Option<f64>,
    /// Seed of the sequence's own random numbers.
    pub seed: Option<u64>,
    /// Strings that end the answer, at most [`N_STOPS_MAX`] of at most [`STOP_BYTES_MAX`] bytes.
    pub stop: Vec<String>,
    /// Token ids and what is added to their logits, -100 to 100.
    pub logit_bias: Vec<(u32, f64)>,
}

/// What the caller said about thinking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thinking {
    /// `Some(false)`: answer without thinking.
    pub enabled: Option<bool>,
    /// Keep the reasoning of the whole history in the prompt.
    pub preserve: bool,
    /// Most tokens to think; whether it is kept is up to the model's side.
    pub budget_tokens: Option<u64>,
}

/// What a completion continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text.
    Text(String),
    /// Token ids; the server checks them against its vocabulary.
    Ids(Vec<u32>),
}

/// The validated form of a completions request.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Model id as sent.
    pub model: Option<String>,
    /// At least one prompt.
    pub prompts: Vec<Prompt>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Most tokens to generate per prompt.
    pub max_tokens: Option<u64>,
    /// Choices per prompt, 1 to [`N_CHOICES_MAX`].
    pub n_choices: u32,
    /// Repeat the prompt in the answer.
    pub echo: bool,
    /// `None`: no log-probabilities; `Some(k)`: with k alternatives per token, at most [`N_TOP_LOGPROBS_MAX`].
    pub top_logprobs: Option<u32>,
    /// Read special-token text in the prompt as special tokens.
    pub special_text: bool,
    /// Answer as server-sent events.
    pub stream: bool,
    /// Send the usage chunk at the end of the stream.
    pub include_usage: bool,
    /// Caller's stable id of its end user.
    pub end_user: Option<String>,
}
