//! What must the caller change? One typed refusal with its JSON path.

use super::{N_STOPS_MAX, N_TOOLS_MAX, STOP_BYTES_MAX, TOOL_NAME_BYTES_MAX};
use crate::wire::{anthropic, openai};

/// A request that has the right JSON shape but no legal meaning.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Invalid {
    /// Where, for example `messages[3].tool_call_id`.
    pub path: String,
    /// What, and the change needed.
    pub problem: Problem,
}

/// What is wrong at the path; each sentence says what to change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Problem {
    /// No message at all.
    #[error("the list is empty; send at least one message")]
    NoMessages,
    /// A role that the format does not have.
    #[error("unknown role {role:?}; use {expected}")]
    UnknownRole {
        /// As sent.
        role: String,
        /// The legal ones.
        expected: &'static str,
    },
    /// A part or block that this model cannot read here.
    #[error("a part of type {kind:?} cannot stand here: this model reads text only; {expected}")]
    UnsupportedPart {
        /// As sent.
        kind: String,
        /// What to do.
        expected: &'static str,
    },
    /// A field that is needed.
    #[error("{what} is missing; add it")]
    Missing {
        /// Which field.
        what: &'static str,
    },
    /// A field of the wrong JSON type.
    #[error("must be {expected}")]
    Shape {
        /// The right one.
        expected: &'static str,
    },
    /// A field on a message whose role cannot carry it.
    #[error("only {owner} messages may carry this field; remove it here")]
    Misplaced {
        /// The role that may.
        owner: &'static str,
    },
    /// A field of an older form of the API.
    #[error("this older field is not read; use {instead}")]
    Outdated {
        /// The field of today.
        instead: &'static str,
    },
    /// A tool result whose call is not in the history.
    #[error("{}", result_without_call(id.as_deref()))]
    ResultWithoutCall {
        /// As sent.
        id: Option<String>,
    },
    /// Prefill somewhere else than in the last message.
    #[error(
        "only the last message may be partial, and it must be an assistant message; remove the field or move the message to the end"
    )]
    PartialNotLast,
    /// Prefill with calls.
    #[error("a partial message cannot have tool calls; remove `partial` or the calls")]
    PartialWithCalls,
    /// Prefill with forced JSON.
    #[error("a partial message cannot be combined with a JSON response_format; remove one of them")]
    PartialWithJson,
    /// `tools: []`.
    #[error("the list is empty; leave the field out or declare a tool")]
    NoTools,
    /// Too many tools.
    #[error("{n_tools} tools are declared; at most {N_TOOLS_MAX} are allowed")]
    TooManyTools {
        /// As sent.
        n_tools: usize,
    },
    /// Two tools of one name.
    #[error("the tool name {name:?} is declared twice; rename one of them")]
    DuplicateTool {
        /// The name.
        name: String,
    },
    /// A tool type other than `function`.
    #[error("the tool type is {kind:?}; only \"function\" is supported")]
    ToolKind {
        /// As sent.
        kind: String,
    },
    /// An illegal tool name.
    #[error(
        "{name:?} is not a tool name; use 1 to {TOOL_NAME_BYTES_MAX} letters, digits, `_`, `-` or `.`, starting with a letter, a digit or `_`"
    )]
    ToolName {
        /// As sent, cut to the limit.
        name: String,
    },
    /// `tool_choice` names a tool that is not declared.
    #[error("the tool {name:?} is not declared; choose one of: {declared}")]
    UnknownTool {
        /// As sent.
        name: String,
        /// The declared names.
        declared: String,
    },
    /// `tool_choice` demands a call without tools.
    #[error("a tool call is demanded but no tools are declared; declare tools or remove tool_choice")]
    ChoiceWithoutTools,
    /// A word that is not one of the legal ones.
    #[error("{word:?} is not understood; use {expected}")]
    Word {
        /// As sent.
        word: String,
        /// The legal ones.
        expected: &'static str,
    },
    /// A number that is not a number, or out of range.
    #[error("{value} is out of range; use {expected}")]
    Range {
        /// As sent.
        value: f64,
        /// The legal range.
        expected: &'static str,
    },
    /// Too many stop strings.
    #[error("{n_stops} stop strings; at most {N_STOPS_MAX} are allowed")]
    TooManyStops {
        /// As sent.
        n_stops: usize,
    },
    /// A stop string of illegal length.
    #[error("a stop string of {n_bytes} bytes; use 1 to {STOP_BYTES_MAX} bytes")]
    StopLength {
        /// As sent.
        n_bytes: usize,
    },
    /// Two fields that contradict each other.
    #[error("contradicts {other}; send only one of them")]
    Contradiction {
        /// The other field.
        other: &'static str,
    },
}

fn result_without_call(id: Option<&str>) -> String {
    let change = "send the assistant message with the call before its result";
    match id {
        Some(id) => format!("no earlier assistant message has a tool call with the id {id:?}; {change}"),
        None => format!("there is no id, and no earlier tool call is unanswered; {change}"),
    }
}

impl Invalid {
    /// A problem at a path, for example `messages[3].role`.
    #[must_use]
    pub fn new(path: impl Into<String>, problem: Problem) -> Self {
        Self { path: path.into(), problem }
    }

    /// The same problem seen from outside: `prefix` and a dot come before the path.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.path = format!("{prefix}.{}", self.path);
        self
    }
}

impl From<&Invalid> for openai::ErrorBody {
    fn from(invalid: &Invalid) -> Self {
        openai::ErrorBody {
            error: openai::ErrorDetail {
                message: invalid.to_string(),
                kind: "invalid_request_error".to_owned(),
                code: None,
                param: Some(invalid.path.clone()),
            },
        }
    }
}

impl From<&Invalid> for anthropic::ErrorBody {
    fn from(invalid: &Invalid) -> Self {
        anthropic::ErrorBody {
            kind: "error".to_owned(),
            error: anthropic::ErrorDetail {
                kind: "invalid_request_error".to_owned(),
                message: invalid.to_string(),
            },
            request_id: None,
        }
    }
}
