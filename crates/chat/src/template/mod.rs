//! What exactly does the model see? A conversation becomes special ids and text, then token ids.
//!
//! The published rules (chat_template.jinja of Kimi K2 Thinking), in the order they print:
//! tool declaration; default system prompt where no system message comes first; each message as
//! header, body, end; the opened header of the answer. No newlines and no begin-of-text token between.
//! Special tokens and text are kept apart until the last step, so text from outside cannot forge a marker.

pub mod json;
mod typescript;

use crate::message::{Arguments, Assistant, Conversation, Message, Thinking, ToolCall};
use crate::scanner::Opening;
use crate::tokenizer::{Markers, SpecialText, Tokenizer};
use serde_json::Value;

/// The system prompt printed when the first message is not a system message (the published chat_template.jinja).
pub const DEFAULT_SYSTEM: &str = "You are Kimi, an AI assistant created by Moonshot AI.";

/// How prompts are written; the default is Kimi K2 Thinking as published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// How tools are declared.
    pub tool_form: ToolForm,
    /// System prompt where the first message is not a system message; `None` prints none.
    pub default_system: Option<String>,
    /// Open the header of the answer at the end.
    pub generation_prompt: bool,
    /// What the opened answer starts with.
    pub think_prefill: ThinkPrefill,
    /// How a partial last message is opened.
    pub partial_form: PartialForm,
}

impl Default for Template {
    fn default() -> Self {
        Self {
            tool_form: ToolForm::Json,
            default_system: Some(DEFAULT_SYSTEM.to_owned()),
            generation_prompt: true,
            think_prefill: ThinkPrefill::Off,
            partial_form: PartialForm::AfterThinkPair,
        }
    }
}

/// How tools are declared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ToolForm {
    /// Compact JSON of the tools as sent (K2, K2 Thinking).
    #[default]
    Json,
    /// TypeScript declarations (K2.5 and later); a schema that has none falls back to JSON of the
    /// tools with sorted keys, as the published tokenizer does.
    TypeScript,
}

/// What the opened answer starts with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ThinkPrefill {
    /// Nothing: the model writes `<think>` itself (K2 Thinking).
    #[default]
    Off,
    /// `<think>` (K2.5 and later in thinking mode).
    On,
}

/// How a partial last message (prefill) is opened. The vendor has not published it for K2 Thinking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PartialForm {
    /// A think pair with the message's reasoning (or empty), then its content: the form that a finished
    /// assistant message has in the history, so the model goes on as it was trained to read.
    #[default]
    AfterThinkPair,
    /// The content right after the header.
    Bare,
}

/// A special token that the template prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// `<|im_system|>`
    ImSystem,
    /// `<|im_user|>`
    ImUser,
    /// `<|im_assistant|>`
    ImAssistant,
    /// `<|im_middle|>`
    ImMiddle,
    /// `<|im_end|>`
    ImEnd,
    /// `<think>`
    ThinkBegin,
    /// `</think>`
    ThinkEnd,
    /// `<|tool_calls_section_begin|>`
    SectionBegin,
    /// `<|tool_calls_section_end|>`
    SectionEnd,
    /// `<|tool_call_begin|>`
    CallBegin,
    /// `<|tool_call_argument_begin|>`
    ArgumentBegin,
    /// `<|tool_call_end|>`
    CallEnd,
}

impl Special {
    /// The token's name, as the model's tokenizer_config.json writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ImSystem => "<|im_system|>",
            Self::ImUser => "<|im_user|>",
            Self::ImAssistant => "<|im_assistant|>",
            Self::ImMiddle => "<|im_middle|>",
            Self::ImEnd => "<|im_end|>",
            Self::ThinkBegin => "<think>",
            Self::ThinkEnd => "</think>",
            Self::SectionBegin => "<|tool_calls_section_begin|>",
            Self::SectionEnd => "<|tool_calls_section_end|>",
            Self::CallBegin => "<|tool_call_begin|>",
            Self::ArgumentBegin => "<|tool_call_argument_begin|>",
            Self::CallEnd => "<|tool_call_end|>",
        }
    }

    /// The token's id in the vocabulary that `markers` are of.
    #[must_use]
    pub fn id(self, markers: &Markers) -> u32 {
        match self {
            Self::ImSystem => markers.im_system,
            Self::ImUser => markers.im_user,
            Self::ImAssistant => markers.im_assistant,
            Self::ImMiddle => markers.im_middle,
            Self::ImEnd => markers.im_end,
            Self::ThinkBegin => markers.think_begin,
            Self::ThinkEnd => markers.think_end,
            Self::SectionBegin => markers.section_begin,
            Self::SectionEnd => markers.section_end,
            Self::CallBegin => markers.call_begin,
            Self::ArgumentBegin => markers.call_argument_begin,
            Self::CallEnd => markers.call_end,
        }
    }
}

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// One special token.
    Special(Special),
    /// Text; two text segments never stand side by side.
    Text(String),
}

/// A rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    segments: Vec<Segment>,
    opening: Opening,
}

impl Rendered {
    /// The prompt's pieces in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where the answer starts, for the scanner that will read it.
    #[must_use]
    pub fn opening(&self) -> Opening {
        self.opening
    }

    /// The prompt for human eyes: special tokens by name.
    #[must_use]
    pub fn text(&self) -> String {
        let piece = |segment: &Segment| match segment {
            Segment::Special(special) => special.name().to_owned(),
            Segment::Text(text) => text.clone(),
        };
        self.segments.iter().map(piece).collect()
    }

    /// The prompt as token ids. [`SpecialText::AsText`] keeps marker text in messages harmless;
    /// [`SpecialText::AsTokens`] gives exactly what the published tokenizer gives for the whole prompt.
    #[must_use]
    pub fn ids(&self, tokenizer: &Tokenizer, special_text: SpecialText) -> Vec<u32> {
        if special_text == SpecialText::AsTokens {
            return tokenizer.encode(&self.text(), SpecialText::AsTokens);
        }
        let mut ids = Vec::new();
        for segment in &self.segments {
            match segment {
                Segment::Special(special) => ids.push(special.id(tokenizer.markers())),
                Segment::Text(text) => ids.extend(tokenizer.encode(text, SpecialText::AsText)),
            }
        }
        ids
    }
}

/// The dialogue-wide id of call number `call_idx`, from 0: the form the model was trained on (Kimi K2 report,
/// appendix B).
#[must_use]
pub fn call_id(name: &str, call_idx: usize) -> String {
    format!("functions.{name}:{call_idx}")
}

impl Template {
    /// The template of a model by the `model_type` of its config.json: `kimi_k25` declares tools in
    /// TypeScript and opens the thinking; everything else is written as Kimi K2 Thinking.
    #[must_use]
    pub fn of_model_type(model_type: &str) -> Self {
        match model_type {
            "kimi_k25" => {
                Self { tool_form: ToolForm::TypeScript, think_prefill: ThinkPrefill::On, ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    /// Renders a conversation into the prompt of its next answer.
    #[must_use]
    pub fn render(&self, conversation: &Conversation, thinking: Thinking) -> Rendered {
        let mut page = Page { segments: Vec::new() };
        self.tools(&mut page, conversation);
        self.default_system(&mut page, conversation);
        let opening = self.messages(&mut page, conversation, thinking);
        Rendered { segments: page.segments, opening }
    }

    fn tools(&self, page: &mut Page, conversation: &Conversation) {
        if conversation.tools().is_empty() {
            return;
        }
        page.header(Special::ImSystem, "tool_declare");
        page.text(&self.declaration(conversation));
        page.special(Special::ImEnd);
    }

    fn declaration(&self, conversation: &Conversation) -> String {
        let as_sent = conversation.tools().iter().map(|tool| Value::Object(tool.declaration().clone()));
        let mut tools = Value::Array(as_sent.collect());
        match self.tool_form {
            ToolForm::Json => json::compact(&tools),
            ToolForm::TypeScript => {
                tools.sort_all_objects();
                typescript::declare(&tools).unwrap_or_else(|| json::compact(&tools))
            }
        }
    }

    fn default_system(&self, page: &mut Page, conversation: &Conversation) {
        if matches!(conversation.messages().first(), Some(Message::System { .. })) {
            return;
        }
        if let Some(text) = &self.default_system {
            page.header(Special::ImSystem, "system");
            page.text(text);
            page.special(Special::ImEnd);
        }
    }

    fn messages(&self, page: &mut Page, conversation: &Conversation, thinking: Thinking) -> Opening {
        let (closed, partial) = split_partial(conversation);
        let kept_from = if thinking.preserve { 0 } else { reasoning_kept_from(closed) };
        let call_names = names_of_calls(closed);
        let mut n_calls = 0;
        let mut answered = conversation.answered_calls().iter();
        for (idx, message) in closed.iter().enumerate() {
            match message {
                Message::System { name, text } => page.plain(Special::ImSystem, name, "system", text),
                Message::User { name, text } => page.plain(Special::ImUser, name, "user", text),
                Message::Assistant(assistant) => {
                    page.assistant(assistant, idx >= kept_from, n_calls);
                    n_calls += assistant.tool_calls.len();
                }
                Message::ToolResult(result) => {
                    let call = *answered.next().expect("a conversation ties every tool result to a call");
                    let body = format!("## Return of {}\n{}", call_id(call_names[call], call), result.text);
                    page.plain(Special::ImSystem, &result.name, "tool", &body);
                }
            }
        }
        match partial {
            Some(partial) => self.open_partial(page, partial),
            None => self.open_answer(page, thinking),
        }
    }

    /// Switched-off thinking opens the answer after an empty think pair, as K2.5 does in instant mode.
    /// Kimi K2 Thinking was trained to think always; whether to let it be switched off is the server's choice.
    fn open_answer(&self, page: &mut Page, thinking: Thinking) -> Opening {
        if !self.generation_prompt {
            return Opening::Unknown;
        }
        page.header(Special::ImAssistant, "assistant");
        if thinking.enabled == Some(false) {
            page.think("");
            return Opening::Answer;
        }
        if self.think_prefill == ThinkPrefill::On {
            page.special(Special::ThinkBegin);
            return Opening::Thinking;
        }
        Opening::Unknown
    }

    fn open_partial(&self, page: &mut Page, partial: &Assistant) -> Opening {
        page.header(Special::ImAssistant, partial.name.as_deref().unwrap_or("assistant"));
        if self.partial_form == PartialForm::AfterThinkPair {
            page.think(&partial.reasoning);
        }
        page.text(&partial.content);
        Opening::Answer
    }
}

/// The messages that are printed closed, and the partial one that is left open.
fn split_partial(conversation: &Conversation) -> (&[Message], Option<&Assistant>) {
    match conversation.messages() {
        [closed @ .., Message::Assistant(last)] if conversation.is_partial() => (closed, Some(last)),
        all => (all, None),
    }
}

/// Index of the first message whose reasoning is printed: after the last assistant message without
/// calls (the last final answer). A partial message is not an answer yet and does not count.
fn reasoning_kept_from(messages: &[Message]) -> usize {
    let is_answer = |message: &Message| matches!(message, Message::Assistant(a) if a.tool_calls.is_empty());
    messages.iter().rposition(is_answer).map_or(0, |idx| idx + 1)
}

fn names_of_calls(messages: &[Message]) -> Vec<&str> {
    let calls = messages.iter().flat_map(|message| match message {
        Message::Assistant(assistant) => assistant.tool_calls.as_slice(),
        _ => &[],
    });
    calls.map(|call| call.name.as_str()).collect()
}

/// The prompt while it is written.
struct Page {
    segments: Vec<Segment>,
}

impl Page {
    fn special(&mut self, special: Special) {
        self.segments.push(Segment::Special(special));
    }

    fn text(&mut self, text: &str) {
        match self.segments.last_mut() {
            _ if text.is_empty() => {}
            Some(Segment::Text(last)) => last.push_str(text),
            _ => self.segments.push(Segment::Text(text.to_owned())),
        }
    }

    fn header(&mut self, role: Special, name: &str) {
        self.special(role);
        self.text(name);
        self.special(Special::ImMiddle);
    }

    fn think(&mut self, reasoning: &str) {
        self.special(Special::ThinkBegin);
        self.text(reasoning);
        self.special(Special::ThinkEnd);
    }

    fn plain(&mut self, role: Special, name: &Option<String>, role_name: &str, body: &str) {
        self.header(role, name.as_deref().unwrap_or(role_name));
        self.text(body);
        self.special(Special::ImEnd);
    }

    fn assistant(&mut self, message: &Assistant, keep_reasoning: bool, first_call: usize) {
        self.header(Special::ImAssistant, message.name.as_deref().unwrap_or("assistant"));
        self.think(if keep_reasoning { &message.reasoning } else { "" });
        self.text(&message.content);
        if !message.tool_calls.is_empty() {
            self.special(Special::SectionBegin);
            for (idx, call) in message.tool_calls.iter().enumerate() {
                self.call(call, first_call + idx);
            }
            self.special(Special::SectionEnd);
        }
        self.special(Special::ImEnd);
    }

    fn call(&mut self, call: &ToolCall, call_idx: usize) {
        self.special(Special::CallBegin);
        self.text(&call_id(&call.name, call_idx));
        self.special(Special::ArgumentBegin);
        match &call.arguments {
            Arguments::Text(text) => self.text(text),
            Arguments::Object(object) => self.text(&json::python(&Value::Object(object.clone()))),
        }
        self.special(Special::CallEnd);
    }
}
