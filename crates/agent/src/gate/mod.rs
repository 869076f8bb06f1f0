//! May this call happen? Every effect on the world is decided here: policy first, then a person where
//! policy asks for one. What follows (intent, attempt in the sandbox, outcome) is the loop's.
//!
//! Reading order: the call, the decision, the answer of a person, and [`settle`], which joins them.

mod approval;
mod call;
mod rules;
mod settle;

pub use approval::{Approval, Approver, BoxFuture, Elsewhere, Question, Timed, Unattended};
pub use call::{Access, Effect, Outside, ProposedCall, Resource};
pub use rules::PolicyGate;
pub use settle::{Answered, GateError, GateEvent, Prepare, Record, Settlement, Verdict, settle};

use crate::tools::MayRead;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What policy says of a call. Deny beats ask, ask beats allow; no mode overrides deny or ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// It may happen.
    Allow {
        /// Name of the rule that says so.
        rule: String,
    },
    /// A person decides.
    Ask {
        /// Name of the rule that says so.
        rule: String,
        /// One sentence for the person.
        reason: String,
        /// What holds where no person answers.
        #[serde(default)]
        unattended: OnNoAnswer,
    },
    /// It may not happen.
    Deny {
        /// Name of the rule that says so.
        rule: String,
        /// One sentence for the model.
        reason: String,
    },
}

impl Decision {
    /// Name of the rule that decided.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Self::Allow { rule } | Self::Ask { rule, .. } | Self::Deny { rule, .. } => rule,
        }
    }
}

/// What holds for a question that nobody answers: input closed, or its time over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNoAnswer {
    /// The call happens; only where the policy's own rule says so.
    Allow,
    /// The call is denied.
    #[default]
    Deny,
    /// The run stops until somebody answers.
    Stop,
}

/// Policy and the answers given so far. Object-safe: hold it as `Arc<dyn Gate>`.
pub trait Gate: Send + Sync {
    /// What policy says of a call. Asks nobody and changes nothing.
    fn decide(&self, call: &ProposedCall) -> Decision;

    /// The paths outside the workspace that the call may open where `decision` was made on it and, if it asks, a
    /// person says yes. The tools' handles open these and no others.
    fn outside(&self, _call: &ProposedCall, _decision: &Decision) -> Vec<Outside> {
        Vec::new()
    }

    /// Keeps what a person answered, as far as it reaches beyond this call: [`Approval::AllowForRun`] until
    /// the run ends, [`Approval::AllowAlways`] in the policy's file. Others change nothing. Repeating it
    /// changes nothing. Paths stand in the call as they led when it was decided ([`ProposedCall::led_to`]).
    ///
    /// # Errors
    /// [`GateError::NotWritten`]: the policy's file cannot be written.
    fn remember(&self, call: &ProposedCall, approval: &Approval) -> Result<(), GateError>;

    /// Takes in an answer that an earlier process of the run has remembered.
    ///
    /// # Errors
    /// As [`Gate::remember`].
    fn recall(&self, call: &ProposedCall, approval: &Approval) -> Result<(), GateError> {
        self.remember(call, approval)
    }
}

/// Which files a tool may read that comes upon them without being told their names, as a search does: those
/// whose reading needs nobody's answer. Goes into the tools' scope ([`crate::tools::Scope::may_read`]).
#[must_use]
pub fn may_read(gate: Arc<dyn Gate>, run: &str) -> MayRead {
    let run = run.to_owned();
    Arc::new(move |path| {
        let call = ProposedCall {
            run: run.clone(),
            step: 0,
            tool: "search_files".to_owned(),
            effect: Effect::Read,
            arguments: serde_json::Map::new(),
            resources: vec![Resource::Path { access: Access::Read, path: path.to_owned() }],
        };
        matches!(gate.decide(&call), Decision::Allow { .. })
    })
}
