//! Which words are thought, answer or call? One incremental state machine over token ids.
//!
//! Ids are the authority: a marker is a marker only as its special id. The same characters spelled in
//! ordinary tokens are content (a model may write about `<think>`), and stay in the text; so "no marker
//! text in any field" is a promise about real markers. [`recover`] reads text that came from elsewhere
//! and takes its markers as real.
//!
//! Rules beyond the plain shape `<think>` reasoning `</think>` answer, calls, end:
//! - Whitespace before the first `<think>` is dropped. A second `<think>` reopens thinking; a `</think>`
//!   that closes nothing is dropped.
//! - A tool section (or a bare call) opened while thinking ends the thinking for the time being.
//! - Text whose label is not known yet (no `<think>` came at the start, or thinking was ended by a
//!   section) is held: `</think>` makes it reasoning; another `<think>`, the end, or the limit
//!   [`ScannerOptions::undecided_tokens_max`] makes it answer.
//! - Between the calls of a section, text is trimmed and kept as answer; where an argument marker
//!   follows it, it was the id of a call whose begin marker is missing.
//! - A call is closed by its end marker, or implicitly by the next call, the section end or the end of
//!   the message. Think markers and section begins inside a call are dropped.
//! - A call without a name cannot be run: it is dropped and counted.
//! - Tokens that end or begin a message (`<|im_end|>`, `[EOS]`, `[EOT]`, `[BOS]`, `<|im_user|>`, ...)
//!   end the reply wherever they stand; what follows is ignored. Only at the very start an assistant
//!   header is skipped: a model writes it itself where the prompt lacked it. All other special tokens and ids
//!   outside the vocabulary have no text.

mod name;
mod reply;

pub use name::tool_name;
pub use reply::{Call, Reply, recover, scan};

use crate::tokenizer::{Detokenizer, Markers, Tokenizer};
use std::sync::Arc;

/// Default of [`ScannerOptions::undecided_tokens_max`], tokens.
pub const UNDECIDED_TOKENS_MAX: usize = 2048;

/// What a scanner knows before the first token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannerOptions {
    /// Where the reply starts; the template says.
    pub opening: Opening,
    /// Names of the declared tools; they settle what a malformed call id means.
    pub tool_names: Vec<String>,
    /// Most tokens of text held while its label is not known; then it is answer. 0 never holds.
    pub undecided_tokens_max: usize,
}

impl Default for ScannerOptions {
    fn default() -> Self {
        Self { opening: Opening::Unknown, tool_names: Vec::new(), undecided_tokens_max: UNDECIDED_TOKENS_MAX }
    }
}

/// Where a reply starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Opening {
    /// The model is expected to write `<think>` first (K2 Thinking).
    #[default]
    Unknown,
    /// The prompt ended with `<think>`.
    Thinking,
    /// The prompt ended after a think pair.
    Answer,
}

/// What a token, or the end, adds to the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// Added thinking.
    Reasoning(String),
    /// Added answer.
    Content(String),
    /// A call opens.
    ToolCallBegin {
        /// 0, 1, 2, ... in this reply.
        index: usize,
        /// The id as the model wrote it, trimmed.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// Added argument text of the open call.
    ToolCallArguments {
        /// Which call.
        index: usize,
        /// The text.
        text: String,
    },
    /// The open call closes.
    ToolCallEnd {
        /// Which call.
        index: usize,
        /// By what.
        closing: Closing,
    },
}

/// How a call was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// By its end marker.
    Marker,
    /// By another marker that cannot stand inside a call.
    Implied,
    /// Not at all: the stream stopped inside it.
    Cut,
}

/// What the feeder of a scanner knows about the end of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The reply is whole (an end token was already seen, or a stop string matched).
    Complete,
    /// The stream stopped at a limit or was cancelled.
    Cut,
}

/// How a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// The model asks for tools.
    ToolCalls,
    /// The stream was cut.
    Length,
}

/// What was still open at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// A think block.
    Thinking,
    /// A tool section, between calls.
    Section,
    /// The id of a call.
    CallId,
    /// The arguments of a call.
    CallArguments,
}

/// The end of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How it ended.
    pub finish: Finish,
    /// What was still open, if anything.
    pub left_open: Option<Open>,
    /// Calls yielded.
    pub n_calls: usize,
    /// Calls without a name, dropped.
    pub n_dropped_calls: usize,
    /// Text tokens that were reasoning.
    pub n_reasoning_tokens: usize,
}

/// The state machine. Feed it ids as they come; the deltas do not depend on how they are grouped.
#[derive(Debug)]
pub struct Scanner {
    tokenizer: Arc<Tokenizer>,
    options: ScannerOptions,
    detokenizer: Detokenizer,
    place: Place,
    label: Label,
    /// Undecided text and its token count.
    held: String,
    n_held: usize,
    /// The held text began after a tool marker, so its leading whitespace is layout.
    held_after_tools: bool,
    /// The next answer text follows a tool marker.
    after_tools: bool,
    n_calls: usize,
    n_dropped_calls: usize,
    n_reasoning_tokens: usize,
    /// An end token was seen.
    ended: bool,
    left_open: Option<Open>,
}

/// Where the next token stands.
#[derive(Debug)]
enum Place {
    /// Before the first token.
    Start,
    /// In an assistant header that the model wrote itself.
    Header,
    /// Outside any tool section.
    Outside,
    /// In a section, outside its calls; the text since the last marker.
    Section(String),
    /// After a call's begin marker; the text so far.
    Id(String),
    /// In the arguments of the latest call.
    Arguments { started: bool, spaces: String },
    /// In the arguments of a call that has no name.
    Nameless,
}

/// What text outside calls is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Undecided,
    Reasoning,
    Answer,
}

/// What an id means to the scanner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    ThinkBegin,
    ThinkEnd,
    SectionBegin,
    SectionEnd,
    CallBegin,
    ArgumentBegin,
    CallEnd,
    End,
}

impl Sign {
    fn of(id: u32, m: &Markers) -> Option<Self> {
        let sign = match id {
            _ if id == m.think_begin => Self::ThinkBegin,
            _ if id == m.think_end => Self::ThinkEnd,
            _ if id == m.section_begin => Self::SectionBegin,
            _ if id == m.section_end => Self::SectionEnd,
            _ if id == m.call_begin => Self::CallBegin,
            _ if id == m.call_argument_begin => Self::ArgumentBegin,
            _ if id == m.call_end => Self::CallEnd,
            _ if is_message_boundary(id, m) => Self::End,
            _ => return None,
        };
        Some(sign)
    }
}

/// Tokens that end a message, or that could only begin another.
fn is_message_boundary(id: u32, m: &Markers) -> bool {
    [m.im_end, m.eos, m.eot, m.bos, m.im_user, m.im_assistant, m.im_system, m.im_middle].contains(&id)
}

impl Scanner {
    /// A scanner at the start of a reply.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, options: ScannerOptions) -> Self {
        let label = match options.opening {
            Opening::Unknown => Label::Undecided,
            Opening::Thinking => Label::Reasoning,
            Opening::Answer => Label::Answer,
        };
        Self {
            tokenizer,
            options,
            detokenizer: Detokenizer::new(),
            place: Place::Start,
            label,
            held: String::new(),
            n_held: 0,
            held_after_tools: false,
            after_tools: false,
            n_calls: 0,
            n_dropped_calls: 0,
            n_reasoning_tokens: 0,
            ended: false,
            left_open: None,
        }
    }

    /// Text tokens so far that were reasoning.
    #[must_use]
    pub fn n_reasoning_tokens(&self) -> usize {
        self.n_reasoning_tokens
    }

    /// An end token was seen; further ids are ignored.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Takes the next id and appends what it adds to `deltas`; after an end token nothing more is added.
    pub fn push(&mut self, id: u32, deltas: &mut Vec<Delta>) {
        if self.ended || self.is_header(id) {
            return;
        }
        if let Some(sign) = Sign::of(id, self.tokenizer.markers()) {
            let rest = self.detokenizer.finish();
            self.text(&rest, deltas);
            self.sign(sign, deltas);
        } else if !self.tokenizer.is_special(id)
            && let Some(bytes) = self.tokenizer.token_bytes(id)
        {
            let text = self.detokenizer.push(bytes);
            self.count_token();
            self.text(&text, deltas);
            if self.n_held > self.options.undecided_tokens_max {
                self.decide(Label::Answer, deltas);
            }
        }
    }

    /// Whether `id` belongs to an assistant header at the very start.
    fn is_header(&mut self, id: u32) -> bool {
        let m = self.tokenizer.markers();
        let (skip, next) = match self.place {
            Place::Start if id == m.im_assistant => (true, Place::Header),
            Place::Header if id == m.im_middle => (true, Place::Outside),
            Place::Header if !is_message_boundary(id, m) => return true,
            Place::Start | Place::Header => (false, Place::Outside),
            _ => return false,
        };
        self.place = next;
        skip
    }

    /// Takes several ids.
    pub fn push_all(&mut self, ids: &[u32], deltas: &mut Vec<Delta>) {
        for &id in ids {
            self.push(id, deltas);
        }
    }

    /// Ends the reply: yields what was held and says how it ended. An end token seen before wins over
    /// [`Ending::Cut`].
    pub fn finish(mut self, ending: Ending, deltas: &mut Vec<Delta>) -> Summary {
        let cut = !self.ended && ending == Ending::Cut;
        if !self.ended {
            let rest = self.detokenizer.finish();
            self.text(&rest, deltas);
            self.ended = true;
            self.end(if cut { Closing::Cut } else { Closing::Implied }, deltas);
        }
        let finish = match self.n_calls {
            _ if cut => Finish::Length,
            0 => Finish::Stop,
            _ => Finish::ToolCalls,
        };
        Summary {
            finish,
            left_open: self.left_open,
            n_calls: self.n_calls,
            n_dropped_calls: self.n_dropped_calls,
            n_reasoning_tokens: self.n_reasoning_tokens,
        }
    }

    fn sign(&mut self, sign: Sign, deltas: &mut Vec<Delta>) {
        let in_call = matches!(self.place, Place::Id(_) | Place::Arguments { .. } | Place::Nameless);
        match sign {
            Sign::ThinkBegin | Sign::ThinkEnd | Sign::SectionBegin if in_call => {}
            Sign::ThinkBegin => self.think_begin(deltas),
            Sign::ThinkEnd => self.think_end(deltas),
            Sign::SectionBegin => self.enter(Place::Section(String::new()), Closing::Implied, deltas),
            Sign::CallBegin => self.enter(Place::Id(String::new()), Closing::Implied, deltas),
            Sign::ArgumentBegin => self.argument_begin(deltas),
            Sign::CallEnd if in_call => self.enter(Place::Section(String::new()), Closing::Marker, deltas),
            Sign::CallEnd => self.flush_between(deltas),
            Sign::SectionEnd => {
                self.leave(Closing::Implied, deltas);
                self.after_tools = true;
            }
            Sign::End => {
                self.ended = true;
                self.end(Closing::Implied, deltas);
            }
        }
    }

    fn think_begin(&mut self, deltas: &mut Vec<Delta>) {
        self.leave(Closing::Implied, deltas);
        if self.label == Label::Undecided {
            self.decide(Label::Answer, deltas);
        }
        self.label = Label::Reasoning;
        self.after_tools = false;
    }

    /// `</think>` settles undecided text as reasoning; a section stays open around it.
    fn think_end(&mut self, deltas: &mut Vec<Delta>) {
        self.flush_between(deltas);
        match self.label {
            Label::Undecided => {
                self.decide(Label::Reasoning, deltas);
                self.label = Label::Answer;
            }
            Label::Reasoning => self.label = Label::Answer,
            Label::Answer => {}
        }
        self.after_tools = false;
    }

    /// Goes into a section or a call; thinking that was never closed becomes undecided.
    fn enter(&mut self, place: Place, closing: Closing, deltas: &mut Vec<Delta>) {
        self.leave(closing, deltas);
        if self.label == Label::Reasoning {
            self.label = Label::Undecided;
        }
        self.after_tools = true;
        self.place = place;
    }

    /// Leaves whatever is open, and stands outside.
    fn leave(&mut self, closing: Closing, deltas: &mut Vec<Delta>) {
        self.flush_between(deltas);
        match std::mem::replace(&mut self.place, Place::Outside) {
            Place::Id(text) => self.close_bare_id(&text, closing, deltas),
            Place::Arguments { .. } => {
                deltas.push(Delta::ToolCallEnd { index: self.n_calls - 1, closing });
            }
            Place::Start | Place::Header | Place::Outside | Place::Section(_) | Place::Nameless => {}
        }
    }

    fn argument_begin(&mut self, deltas: &mut Vec<Delta>) {
        match &mut self.place {
            Place::Id(text) | Place::Section(text) => {
                let id = std::mem::take(text);
                self.open_call(&id, deltas);
            }
            Place::Start | Place::Header | Place::Outside | Place::Arguments { .. } | Place::Nameless => {}
        }
    }

    fn open_call(&mut self, id: &str, deltas: &mut Vec<Delta>) {
        let id = id.trim();
        match tool_name(id, &self.options.tool_names) {
            Some(name) => {
                let (index, id) = (self.n_calls, id.to_owned());
                deltas.push(Delta::ToolCallBegin { index, id, name });
                self.n_calls += 1;
                self.place = Place::Arguments { started: false, spaces: String::new() };
            }
            None => {
                self.n_dropped_calls += 1;
                self.place = Place::Nameless;
            }
        }
    }

    /// A call that closes without an argument marker: an object after the id was its arguments. What the
    /// stream's end cut short is no call, unless its arguments had begun.
    fn close_bare_id(&mut self, text: &str, closing: Closing, deltas: &mut Vec<Delta>) {
        let id_end = text.find('{').unwrap_or(text.len());
        let unfinished = self.ended && id_end == text.len();
        if unfinished {
            self.n_dropped_calls += 1;
            return;
        }
        self.open_call(&text[..id_end], deltas);
        self.text(&text[id_end..], deltas);
        if let Place::Arguments { .. } = std::mem::replace(&mut self.place, Place::Outside) {
            deltas.push(Delta::ToolCallEnd { index: self.n_calls - 1, closing });
        }
    }

    fn end(&mut self, closing: Closing, deltas: &mut Vec<Delta>) {
        self.left_open = match self.place {
            Place::Id(_) => Some(Open::CallId),
            Place::Arguments { .. } | Place::Nameless => Some(Open::CallArguments),
            Place::Section(_) => Some(Open::Section),
            Place::Start | Place::Header | Place::Outside => {
                (self.label == Label::Reasoning).then_some(Open::Thinking)
            }
        };
        self.leave(closing, deltas);
        if self.label == Label::Undecided {
            self.decide(Label::Answer, deltas);
        }
    }

    // ---- text ----

    fn text(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        if text.is_empty() {
            return;
        }
        match &mut self.place {
            Place::Outside => self.outside_text(text, deltas),
            Place::Section(between) => between.push_str(text),
            Place::Id(id) => id.push_str(text),
            Place::Arguments { started, spaces } => {
                if let Some(text) = trim_stream(text, started, spaces) {
                    deltas.push(Delta::ToolCallArguments { index: self.n_calls - 1, text });
                }
            }
            Place::Start | Place::Header | Place::Nameless => {}
        }
    }

    fn outside_text(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        match self.label {
            Label::Reasoning => deltas.push(Delta::Reasoning(text.to_owned())),
            Label::Answer => self.answer(text, deltas),
            Label::Undecided => {
                if self.held.is_empty() {
                    self.held_after_tools = self.after_tools;
                }
                self.held.push_str(text);
            }
        }
    }

    /// Answer text; whitespace right after a tool marker is layout and dropped.
    fn answer(&mut self, text: &str, deltas: &mut Vec<Delta>) {
        let text = if self.after_tools { text.trim_start() } else { text };
        if !text.is_empty() {
            self.after_tools = false;
            deltas.push(Delta::Content(text.to_owned()));
        }
    }

    /// Text between the calls of a section, trimmed, goes where text outside calls goes.
    fn flush_between(&mut self, deltas: &mut Vec<Delta>) {
        if let Place::Section(between) = &mut self.place {
            let text = std::mem::take(between);
            self.outside_text(text.trim(), deltas);
        }
    }

    /// Settles what the held text is, and what follows it.
    fn decide(&mut self, label: Label, deltas: &mut Vec<Delta>) {
        let held = std::mem::take(&mut self.held);
        let n_held = std::mem::take(&mut self.n_held);
        self.label = label;
        if held.trim().is_empty() {
            return;
        }
        if label == Label::Reasoning {
            self.n_reasoning_tokens += n_held;
            deltas.push(Delta::Reasoning(held));
        } else {
            self.after_tools = self.held_after_tools;
            self.answer(&held, deltas);
        }
    }

    fn count_token(&mut self) {
        match (&self.place, self.label) {
            (Place::Outside, Label::Reasoning) => self.n_reasoning_tokens += 1,
            (Place::Outside, Label::Undecided) => self.n_held += 1,
            _ => {}
        }
    }
}

/// The part of a stream's next text that is certain to stay when the whole is trimmed at both ends.
fn trim_stream(text: &str, started: &mut bool, spaces: &mut String) -> Option<String> {
    let text = if *started { text } else { text.trim_start() };
    let certain = text.trim_end();
    if certain.is_empty() {
        spaces.push_str(text);
        return None;
    }
    *started = true;
    let mut yielded = std::mem::take(spaces);
    yielded.push_str(certain);
    spaces.push_str(&text[certain.len()..]);
    Some(yielded)
}
