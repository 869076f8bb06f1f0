//! The state of one generation: free text, the tool section, a JSON answer.

use std::sync::Arc;

use serde_json::{Value, json};

use super::compile::{GrammarFactory, Report, Template, Vocab};
use super::error::GrammarError;
use super::guard::set;
use super::header::{Header, check_name};
use super::json_value::{JsonValue, Step};
use super::schema::shorten;

/// Most tools of a request (Moonshot's API specification).
pub const TOOLS_MAX: usize = 128;
/// Most bytes of all tools' schemas together, as JSON text.
pub const TOOLS_BYTES_MAX: usize = 1 << 20;
/// Most calls in one tool section; after them only its end is allowed.
pub const CALLS_MAX: u32 = 128;

/// One declared tool.
#[derive(Debug, Clone)]
pub struct ToolSpec {
    /// The function's name, as in the request.
    pub name: String,
    /// The JSON Schema of its arguments; `None` means that it takes none (the arguments are `{}`).
    pub parameters: Option<Value>,
    /// Refuse parameters with keywords that cannot be enforced, instead of reporting them.
    pub strict: bool,
}

/// Whether the model must call, and what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// No call: the tool section cannot be opened.
    None,
    /// At least one call.
    Required,
    /// Exactly one call of this tool.
    Named(String),
}

/// The tools of a request.
#[derive(Debug, Clone)]
pub struct Tools {
    /// All tools that may be called.
    pub specs: Vec<ToolSpec>,
    /// The request's `tool_choice`.
    pub choice: ToolChoice,
    /// The request's `parallel_tool_calls`: false allows one call in the turn.
    pub parallel: bool,
    /// Number of calls in the dialogue so far; the next call gets this index.
    pub next_call_idx: u32,
}

impl Default for Tools {
    fn default() -> Self {
        Self { specs: Vec::new(), choice: ToolChoice::Auto, parallel: true, next_call_idx: 0 }
    }
}

/// The request's `response_format`.
#[derive(Debug, Clone, Default)]
pub enum ResponseFormat {
    /// Free text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// A JSON value by this schema.
    JsonSchema {
        /// The JSON Schema.
        schema: Value,
        /// Refuse a schema with keywords that cannot be enforced, instead of reporting them.
        strict: bool,
    },
}

/// Where the prompt leaves the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartsIn {
    /// Before `<think>`, which the model writes itself (K2 Thinking).
    #[default]
    Turn,
    /// Inside a think block that the prompt has opened.
    Thinking,
    /// After the think block, or where there is none.
    Answer,
}

/// All that one request constrains; the default constrains nothing but the tool section, which stays shut.
#[derive(Debug, Clone, Default)]
pub struct ConstraintSpec {
    /// Its tools.
    pub tools: Tools,
    /// The form of its answer.
    pub response_format: ResponseFormat,
    /// Where its prompt ends.
    pub starts_in: StartsIn,
}

impl GrammarFactory {
    /// The constraint of one request.
    ///
    /// # Errors
    /// [`GrammarError`] when a tool's name or schema cannot be used, a limit is passed, or `tool_choice` asks for a
    /// tool that is not declared.
    pub fn constraint(&self, spec: &ConstraintSpec) -> Result<Constraint, GrammarError> {
        let tools = self.tools(&spec.tools)?;
        let must_call = matches!(spec.tools.choice, ToolChoice::Required | ToolChoice::Named(_));
        let format = match &spec.response_format {
            _ if must_call => None,
            ResponseFormat::Text => None,
            ResponseFormat::JsonObject => Some(self.template(&json!({"type": "object"}), true, false)?),
            ResponseFormat::JsonSchema { schema, strict } => Some(self.template(schema, false, *strict)?),
        };
        let answer = match (must_call, &format) {
            (true, _) => Answer::Call,
            (false, Some(template)) => Answer::Json(Arc::clone(template)),
            (false, None) => Answer::Free,
        };
        let mut reports: Vec<Report> =
            tools.iter().map(|tool| report(Some(&tool.name), &tool.template)).collect();
        reports.extend(format.map(|template| report(None, &template)));
        let is_single = !spec.tools.parallel || matches!(spec.tools.choice, ToolChoice::Named(_));
        let n_calls_max = if is_single { 1 } else { CALLS_MAX };
        Ok(Constraint {
            vocab: Arc::clone(&self.vocab),
            section: Section { tools, next_call_idx: spec.tools.next_call_idx, n_calls: 0, n_calls_max },
            answer,
            state: State::Free(spec.starts_in),
            reports,
        })
    }

    /// Tool calls by a request's tools, with a free answer.
    ///
    /// # Errors
    /// As [`Self::constraint`].
    pub fn tool_calls(&self, tools: Tools, starts_in: StartsIn) -> Result<Constraint, GrammarError> {
        self.constraint(&ConstraintSpec { tools, starts_in, ..ConstraintSpec::default() })
    }

    /// An answer that is a JSON object of any members.
    ///
    /// # Errors
    /// As [`Self::constraint`].
    pub fn json_object(&self, starts_in: StartsIn) -> Result<Constraint, GrammarError> {
        let response_format = ResponseFormat::JsonObject;
        self.constraint(&ConstraintSpec { response_format, starts_in, ..ConstraintSpec::default() })
    }

    /// An answer that is JSON by a schema; `strict` refuses one that cannot be enforced in full.
    ///
    /// # Errors
    /// As [`Self::constraint`].
    pub fn json_schema(
        &self,
        schema: &Value,
        strict: bool,
        starts_in: StartsIn,
    ) -> Result<Constraint, GrammarError> {
        let response_format = ResponseFormat::JsonSchema { schema: schema.clone(), strict };
        self.constraint(&ConstraintSpec { response_format, starts_in, ..ConstraintSpec::default() })
    }

    /// The tools that may be called, compiled.
    fn tools(&self, tools: &Tools) -> Result<Vec<Tool>, GrammarError> {
        check_tools(tools)?;
        let callable = |spec: &&ToolSpec| match &tools.choice {
            ToolChoice::None => false,
            ToolChoice::Named(name) => spec.name == *name,
            ToolChoice::Auto | ToolChoice::Required => true,
        };
        let no_arguments = json!({"type": "object", "properties": {}, "additionalProperties": false});
        tools
            .specs
            .iter()
            .filter(callable)
            .map(|spec| {
                let schema = spec.parameters.as_ref().unwrap_or(&no_arguments);
                let template = self.template(schema, true, spec.strict).map_err(|source| {
                    GrammarError::Tool { name: spec.name.clone(), source: Box::new(source) }
                })?;
                Ok(Tool { name: spec.name.clone(), template, arguments: None })
            })
            .collect()
    }
}

fn check_tools(tools: &Tools) -> Result<(), GrammarError> {
    let specs = &tools.specs;
    if specs.len() > TOOLS_MAX {
        return Err(GrammarError::TooManyTools { n_tools: specs.len(), limit: TOOLS_MAX });
    }
    for (idx, spec) in specs.iter().enumerate() {
        check_name(&spec.name)?;
        if specs[..idx].iter().any(|other| other.name == spec.name) {
            return Err(GrammarError::DuplicateTool { name: spec.name.clone() });
        }
    }
    let n_bytes: usize =
        specs.iter().filter_map(|spec| Some(spec.parameters.as_ref()?.to_string().len())).sum();
    if n_bytes > TOOLS_BYTES_MAX {
        let limit = TOOLS_BYTES_MAX;
        return Err(GrammarError::SchemaTooLarge { at: "all tools".into(), what: "bytes", limit });
    }
    match &tools.choice {
        ToolChoice::Named(name) if !specs.iter().any(|spec| spec.name == *name) => {
            Err(GrammarError::UnknownTool { name: shorten(name) })
        }
        ToolChoice::Required if specs.is_empty() => Err(GrammarError::NoTools),
        _ => Ok(()),
    }
}

fn report(tool: Option<&str>, template: &Template) -> Report {
    Report {
        tool: tool.map(str::to_owned),
        unenforced: template.unenforced.clone(),
        bytes_max: template.bytes_max,
    }
}

/// One tool of a constraint.
#[derive(Clone)]
struct Tool {
    name: String,
    template: Arc<Template>,
    /// A fresh parser whose lexer this constraint's calls share; made at the first call.
    arguments: Option<llguidance::Matcher>,
}

/// What may stand after the think block.
#[derive(Clone)]
enum Answer {
    Free,
    Json(Arc<Template>),
    /// Only the tool section.
    Call,
}

/// The tool section of the turn.
#[derive(Clone)]
struct Section {
    tools: Vec<Tool>,
    next_call_idx: u32,
    n_calls: u32,
    n_calls_max: u32,
}

impl Section {
    /// Whether the section may be opened.
    fn is_open_to_model(&self) -> bool {
        !self.tools.is_empty()
    }

    fn may_call(&self) -> bool {
        self.n_calls < self.n_calls_max
    }

    fn header(&self) -> Header {
        let names = self.tools.iter().enumerate().map(|(idx, tool)| (tool.name.as_str(), idx));
        Header::new(names, self.next_call_idx.saturating_add(self.n_calls))
    }

    fn arguments(&mut self, tool_idx: usize, end: u32) -> JsonValue {
        let tool = &mut self.tools[tool_idx];
        let fresh = tool.arguments.get_or_insert_with(|| tool.template.matcher.deep_clone());
        JsonValue::new(fresh.clone(), Arc::clone(&tool.template), end)
    }
}

/// Where the generation is.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // One per sequence, and mostly in its largest form.
enum State {
    Free(StartsIn),
    Json(JsonValue),
    /// In the section, before a call or its end.
    BetweenCalls,
    Header(Header),
    Arguments(JsonValue),
    /// After the section or a JSON answer: the turn ends.
    Closing,
    Done,
}

/// Which token may come next in one generation; a clone goes its own way from where it was made.
#[derive(Clone)]
pub struct Constraint {
    vocab: Arc<Vocab>,
    section: Section,
    answer: Answer,
    state: State,
    reports: Vec<Report>,
}

impl Constraint {
    /// Words of 32 bits that [`Self::fill_mask`] needs: the vocabulary over 32, rounded up.
    pub fn n_mask_words(&self) -> usize {
        self.vocab.n_words()
    }

    /// What is not enforced: a report for each tool that may be called, in their order, then one for a JSON answer.
    pub fn reports(&self) -> &[Report] {
        &self.reports
    }

    /// Whether the turn has ended: nothing more may follow.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the position is free text: only a few special ids are masked here, so a caller in a hurry may sample
    /// first and ask [`Self::accept`] for the token it chose.
    pub fn is_free_text(&self) -> bool {
        matches!((&self.state, &self.answer), (State::Free(_), Answer::Free))
    }

    /// Writes the allowed ids: bit `i % 32` of word `i / 32` stands for id `i`; words beyond the vocabulary become 0.
    /// After the end only `<|im_end|>` is allowed.
    ///
    /// # Errors
    /// [`GrammarError::MaskTooShort`], or [`GrammarError::Generation`] where the parser met a limit: the turn cannot
    /// go on.
    pub fn fill_mask(&mut self, mask: &mut [u32]) -> Result<(), GrammarError> {
        let needed = self.vocab.n_words();
        if mask.len() < needed {
            return Err(GrammarError::MaskTooShort { n_words: mask.len(), needed });
        }
        mask.fill(0);
        let markers = self.vocab.tokenizer.markers();
        match &mut self.state {
            State::Free(place) => {
                let place = *place;
                self.fill_free(place, mask)?;
            }
            State::Json(value) | State::Arguments(value) => value.fill(&self.vocab, mask)?,
            State::Header(header) => {
                header.fill(self.vocab.trie(), mask);
                if header.tool().is_some() {
                    set(mask, markers.call_argument_begin);
                }
            }
            State::BetweenCalls => {
                if self.section.may_call() {
                    set(mask, markers.call_begin);
                }
                if self.section.n_calls > 0 {
                    set(mask, markers.section_end);
                }
            }
            State::Closing | State::Done => set(mask, markers.im_end),
        }
        Ok(())
    }

    fn fill_free(&self, place: StartsIn, mask: &mut [u32]) -> Result<(), GrammarError> {
        let n_ranks = self.vocab.n_ranks();
        if self.allows_text(place) {
            fill_below(mask, n_ranks);
        }
        for id in n_ranks..self.vocab.tokenizer.n_vocab() as u32 {
            if self.allows_special(place, id) {
                set(mask, id);
            }
        }
        match (&self.answer, place) {
            (Answer::Json(template), StartsIn::Turn | StartsIn::Answer) => {
                JsonValue::from_template(template, self.vocab.tokenizer.markers().im_end)
                    .fill(&self.vocab, mask)
            }
            _ => Ok(()),
        }
    }

    /// Whether any text may stand in free text here.
    fn allows_text(&self, place: StartsIn) -> bool {
        matches!(self.answer, Answer::Free) || place == StartsIn::Thinking
    }

    /// Whether a special id may stand in free text here.
    fn allows_special(&self, place: StartsIn, id: u32) -> bool {
        let markers = self.vocab.tokenizer.markers();
        let inner = [markers.section_end, markers.call_begin, markers.call_argument_begin, markers.call_end];
        if inner.contains(&id) {
            return false;
        }
        if id == markers.section_begin {
            return self.section.is_open_to_model();
        }
        match (&self.answer, place) {
            (Answer::Free, _) => true,
            (_, StartsIn::Turn) => id == markers.think_begin,
            (_, StartsIn::Thinking) => id == markers.think_end,
            (_, StartsIn::Answer) => false,
        }
    }

    /// Goes on by one token; refuses one that the mask does not allow, and then stays where it was.
    ///
    /// # Errors
    /// [`GrammarError::NotAllowed`], or [`GrammarError::Generation`] where the parser met a limit.
    pub fn accept(&mut self, id: u32) -> Result<(), GrammarError> {
        let markers = self.vocab.tokenizer.markers();
        let refused = Err(GrammarError::NotAllowed { id });
        let next = match &mut self.state {
            State::Free(place) => {
                let place = *place;
                self.accept_free(place, id)?
            }
            State::Json(value) | State::Arguments(value) => match value.accept(id, &self.vocab)? {
                Step::Inside => return Ok(()),
                Step::Ended if matches!(self.state, State::Json(_)) => State::Done,
                Step::Ended => State::BetweenCalls,
            },
            State::Header(header) if id == markers.call_argument_begin => {
                let Some(tool_idx) = header.tool() else { return refused };
                self.section.n_calls += 1;
                State::Arguments(self.section.arguments(tool_idx, markers.call_end))
            }
            State::Header(header) => {
                let is_text = id < self.vocab.n_ranks();
                let fits = is_text && header.accept(id, self.vocab.trie().token(id));
                return if fits { Ok(()) } else { refused };
            }
            State::BetweenCalls if id == markers.call_begin && self.section.may_call() => {
                State::Header(self.section.header())
            }
            State::BetweenCalls if id == markers.section_end && self.section.n_calls > 0 => State::Closing,
            State::Closing if id == markers.im_end => State::Done,
            State::BetweenCalls | State::Closing | State::Done => return refused,
        };
        self.state = next;
        Ok(())
    }

    fn accept_free(&self, place: StartsIn, id: u32) -> Result<State, GrammarError> {
        let markers = self.vocab.tokenizer.markers();
        let is_text = id < self.vocab.n_ranks();
        let is_special = !is_text && (id as usize) < self.vocab.tokenizer.n_vocab();
        if is_special && self.allows_special(place, id) {
            return Ok(match id {
                _ if id == markers.section_begin => State::BetweenCalls,
                _ if id == markers.think_begin => State::Free(StartsIn::Thinking),
                _ if id == markers.think_end => State::Free(StartsIn::Answer),
                _ if [markers.im_end, markers.eos, markers.eot].contains(&id) => State::Done,
                _ => State::Free(place),
            });
        }
        match &self.answer {
            _ if is_text && self.allows_text(place) => Ok(State::Free(place)),
            Answer::Json(template) if is_text && place != StartsIn::Thinking => {
                let mut value = JsonValue::from_template(template, markers.im_end);
                value.accept(id, &self.vocab)?;
                Ok(State::Json(value))
            }
            _ => Err(GrammarError::NotAllowed { id }),
        }
    }

    /// Tokens that must come next, in order, as far as there is no choice; may be empty where there is none to see.
    /// They are not accepted yet.
    pub fn forced(&mut self) -> Vec<u32> {
        let markers = self.vocab.tokenizer.markers();
        match &mut self.state {
            State::Free(StartsIn::Answer) if matches!(self.answer, Answer::Call) => {
                vec![markers.section_begin, markers.call_begin]
            }
            State::Free(_) | State::Done => Vec::new(),
            State::Json(value) | State::Arguments(value) => value.forced(),
            State::Header(header) => {
                let mut forced = header.forced(&self.vocab);
                forced.extend(header.ends_after(&forced, &self.vocab).then_some(markers.call_argument_begin));
                forced
            }
            State::BetweenCalls if self.section.n_calls == 0 => vec![markers.call_begin],
            State::BetweenCalls if !self.section.may_call() => vec![markers.section_end, markers.im_end],
            State::BetweenCalls => Vec::new(),
            State::Closing => vec![markers.im_end],
        }
    }
}

/// Sets the bits of all ids below `n_ids`.
fn fill_below(mask: &mut [u32], n_ids: u32) {
    let n_whole = n_ids as usize / 32;
    mask[..n_whole].fill(u32::MAX);
    if !n_ids.is_multiple_of(32) {
        mask[n_whole] |= (1 << (n_ids % 32)) - 1;
    }
}
