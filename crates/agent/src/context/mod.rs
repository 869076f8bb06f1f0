//! What does the model see of a run? A bounded view of everything that happened.
//!
//! [`Transcript`] is what happened; [`Policy`] says how much of it fits; [`Folds`] is how much is out of sight
//! already. [`fit`] gives the conversation for the next answer. When it would be over the budget, old results
//! are hidden, newest kept; when that is not enough, whole old turns (calls with their results) fold into one
//! line. Either goes down to the low-water mark at once, so that between two such moments the view only grows:
//! a prefix cache stays warm, and what was written in one such stretch was written in sight of all that
//! precedes it.
//!
//! All words that the model reads besides the task stand in [`words`]; a test pins them.

mod count;
mod fold;
mod label;
mod transcript;
pub mod words;

pub use count::{Bytes, TokenCounter};
pub use fold::{ContextError, Folds, View, fit};
pub use label::{Shown, call_file, show};
pub use transcript::{Call, Gone, Transcript, Turn};

use crate::tools::{Limits, Registry};

/// How much a model sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Policy {
    /// Tokens of a prompt at most.
    pub budget_tokens: usize,
    /// Tokens of a prompt after hiding and folding, at most where that can be reached.
    pub low_water_tokens: usize,
    /// Tokens of one result at most; the rest stays in a file.
    pub result_tokens_max: usize,
    /// Tokens of one answer at most, thinking included.
    pub reply_tokens_max: usize,
}

/// A way to use a model: its instructions, its tools, how much it sees.
#[derive(Clone)]
pub struct Profile {
    /// The system message.
    pub system: &'static str,
    /// What it can call.
    pub tools: Registry,
    /// How much it sees.
    pub policy: Policy,
    /// How much a tool answers.
    pub limits: Limits,
    /// Temperature that its tokens are drawn at where nobody says otherwise; 0 takes the likeliest.
    pub temperature: f64,
}

/// Share of the context after hiding and folding, in percent.
const LOW_WATER_PERCENT: usize = 50;
/// Share of the context for one result, in percent.
const RESULT_PERCENT: usize = 10;
/// What K2 Thinking's model card recommends; APIs of other large models take it as their default too.
const STANDARD_TEMPERATURE: f64 = 1.0;

impl Profile {
    /// What the embedded model was trained with: prompts of 1,280 tokens, answers of 128.
    #[must_use]
    pub fn embedded() -> Self {
        Self {
            system: words::SYSTEM_EMBEDDED,
            tools: Registry::embedded(),
            policy: Policy {
                budget_tokens: 1280,
                low_water_tokens: 640,
                result_tokens_max: 384,
                reply_tokens_max: 160,
            },
            // What its model was trained with.
            limits: Limits { n_lines_max: 10, line_bytes_max: 200, file_bytes_max: 64 << 20 },
            temperature: 0.0,
        }
    }

    /// A large model: `context_tokens_max` is what it holds, prompt and answer together, of which the answer has
    /// `reply_tokens_max`.
    #[must_use]
    pub fn standard(context_tokens_max: usize, reply_tokens_max: usize) -> Self {
        let budget_tokens = context_tokens_max.saturating_sub(reply_tokens_max);
        Self {
            system: words::SYSTEM_STANDARD,
            tools: Registry::standard(),
            policy: Policy {
                budget_tokens,
                low_water_tokens: budget_tokens * LOW_WATER_PERCENT / 100,
                result_tokens_max: budget_tokens * RESULT_PERCENT / 100,
                reply_tokens_max,
            },
            limits: Limits::default(),
            temperature: STANDARD_TEMPERATURE,
        }
    }
}
