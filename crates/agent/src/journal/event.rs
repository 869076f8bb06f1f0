//! The events of a run.

use crate::context::{Folds, Policy};
use crate::gate::{Effect, GateEvent, Outside};
use crate::run::Price;
use crate::tools::Output;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One thing that happened. Calls are numbered through the run, from 1; turns from 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run was opened: always the first event.
    Opened(Opened),
    /// A process took the run up again; one that had ended at a limit is not over any more.
    Resumed,
    /// Old results or turns went out of the model's sight.
    Folded {
        /// What is out of sight from now on.
        folds: Folds,
    },
    /// The model could not answer; it is asked again.
    ModelFailed {
        /// Why.
        error: String,
        /// Failures in a row, this one included.
        attempt: u32,
    },
    /// The model answered.
    Answered {
        /// Thinking.
        reasoning: String,
        /// Words.
        content: String,
        /// Calls in order, as the model wrote them.
        calls: Vec<CallText>,
        /// Tokens of prompt and answer.
        tokens: TokenUse,
        /// Whether the answer ended at its length limit.
        is_cut: bool,
    },
    /// The gate decided, asked or was answered.
    Gate {
        /// Number of the call.
        call: u64,
        /// What the gate did.
        #[serde(flatten)]
        gate: GateEvent,
    },
    /// The attempt comes next.
    Intent {
        /// Number of the call.
        call: u64,
        /// Name of the tool.
        tool: String,
        /// The arguments that are attempted, after edits.
        arguments: Map<String, Value>,
        /// Effect class.
        effect: Effect,
        /// The same for each attempt of this call, and for no other: [`crate::tools::Scope::key`].
        key: String,
        /// What [`crate::tools::Tool::prepare`] gave, for the tool's probe.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<Value>,
        /// Paths outside the workspace that the attempt may open.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        outside: Vec<Outside>,
    },
    /// The attempt is over.
    Outcome {
        /// Number of the call.
        call: u64,
        /// What the tool answered.
        output: Output,
        /// What the model is shown of it: labelled and cut.
        shown: String,
        /// Milliseconds that the attempt took.
        took_ms: u64,
    },
    /// No attempt was made; the model is told why.
    Told {
        /// Number of the call.
        call: u64,
        /// One sentence for the model.
        text: String,
    },
    /// All calls of the turn are settled.
    TurnEnded {
        /// A remark to the model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        remark: Option<String>,
    },
    /// The run is over: the last event, unless it ended at a limit and was resumed with a larger one.
    Ended {
        /// How.
        how: How,
        /// The answer, or one sentence why there is none.
        text: String,
    },
}

/// What a run starts from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Name, which its folder has too.
    pub run: String,
    /// The user's words.
    pub task: String,
    /// The model's name.
    pub model: String,
    /// Path of the folder that the run works in.
    pub workspace: String,
    /// Names of its tools, in declared order.
    pub tools: Vec<String>,
    /// How much the model sees, in tokens.
    pub policy: Option<Policy>,
    /// What its tokens cost, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Name of the run that it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<String>,
}

/// A call as the model wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallText {
    /// Name of the tool.
    pub name: String,
    /// The arguments as JSON text, valid or not.
    pub arguments: String,
}

/// Tokens of one answer, or of several added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Of these, tokens that came from a cache.
    pub cached: u64,
    /// Tokens generated, thinking included.
    pub completion: u64,
    /// Of these, tokens of thinking.
    pub reasoning: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// With an answer.
    Answer,
    /// At a limit of its budget.
    Budget,
    /// The model went round in circles or said nothing.
    Stuck,
}
