//! A run that nobody watches and whose every call is allowed: for what looks at the run's own work alone.

use perilune_agent::context::{Bytes, Profile};
use perilune_agent::gate::{Approval, Decision, Gate, GateError, ProposedCall, Unattended};
use perilune_agent::journal::Entry;
use perilune_agent::run::{Budget, Hands, Listener, Price, SystemClock};
use perilune_agent::tools::{Limits, Scope, Workspace};
use perilune_chat::message::Sampling;
use perilune_chat::model::ChatModel;
use std::sync::Arc;

struct Open;

impl Gate for Open {
    fn decide(&self, _call: &ProposedCall) -> Decision {
        Decision::Allow { rule: "all".to_owned() }
    }

    fn remember(&self, _call: &ProposedCall, _approval: &Approval) -> Result<(), GateError> {
        Ok(())
    }
}

struct Nobody;

impl Listener for Nobody {
    fn event(&self, _entry: &Entry) {}
}

/// Hands for up to 1,000 steps.
pub(crate) fn hands(model: Arc<dyn ChatModel>, profile: Profile, workspace: Workspace) -> Hands {
    Hands {
        model,
        profile,
        scope: Scope::new(workspace, Limits::default()),
        gate: Arc::new(Open),
        approver: Arc::new(Unattended),
        counter: Arc::new(Bytes),
        tokenizer: None,
        clock: Arc::new(SystemClock),
        listener: Arc::new(Nobody),
        sampling: Sampling::default(),
        budget: Budget { n_steps_max: 1_000, ..Budget::STEPS_300 },
        price: Price::default(),
    }
}
