//! An event without secret values: what may be kept and shown.

use super::{CallText, Event, Opened};
use crate::gate::{Approval, Decision, GateEvent, Outside, Question, Resource};
use crate::secrets::Secrets;

impl Opened {
    /// The same without secret values.
    #[must_use]
    pub fn redacted(mut self, secrets: &Secrets) -> Self {
        self.redact(secrets);
        self
    }

    fn redact(&mut self, secrets: &Secrets) {
        for text in [&mut self.task, &mut self.model, &mut self.workspace] {
            secrets.redact_text(text);
        }
    }
}

impl Event {
    /// Takes secret values out of everything that a model, a tool, a person or a provider said.
    pub(crate) fn redact(&mut self, secrets: &Secrets) {
        if secrets.is_empty() {
            return;
        }
        match self {
            Self::Opened(opened) => opened.redact(secrets),
            Self::Folded { folds } => all(secrets, &mut folds.plan),
            Self::Answered { reasoning, content, calls, .. } => {
                all(secrets, [reasoning, content]);
                for CallText { name, arguments } in calls {
                    secrets.redact_text(name);
                    secrets.redact_json(arguments);
                }
            }
            Self::Gate { gate, .. } => redact_gate(gate, secrets),
            Self::Intent { tool, arguments, note, outside, .. } => {
                secrets.redact_text(tool);
                redact_outside(outside, secrets);
                secrets.redact_map(arguments);
                note.as_mut().map(|note| secrets.redact_value(note));
            }
            Self::Outcome { output, shown, .. } => {
                output.redact(secrets);
                secrets.redact_text(shown);
            }
            Self::ModelFailed { error: text, .. } | Self::Told { text, .. } | Self::Ended { text, .. } => {
                secrets.redact_text(text);
            }
            Self::TurnEnded { remark } => all(secrets, remark),
            Self::Resumed => {}
        }
    }
}

fn all<'a>(secrets: &Secrets, texts: impl IntoIterator<Item = &'a mut String>) {
    for text in texts {
        secrets.redact_text(text);
    }
}

fn redact_gate(gate: &mut GateEvent, secrets: &Secrets) {
    match gate {
        GateEvent::Decided { decision: Decision::Ask { reason, .. } | Decision::Deny { reason, .. } }
        | GateEvent::Answered { approval: Approval::Denied { reason } | Approval::Unanswered { reason } } => {
            all(secrets, [reason])
        }
        GateEvent::Asked { question } => redact_question(question, secrets),
        GateEvent::Answered { approval: Approval::Edited { arguments } } => secrets.redact_map(arguments),
        GateEvent::Decided { decision: Decision::Allow { .. } }
        | GateEvent::Answered {
            approval: Approval::AllowOnce | Approval::AllowForRun | Approval::AllowAlways,
        } => {}
    }
}

fn redact_outside(outside: &mut [Outside], secrets: &Secrets) {
    for Outside { path, real, .. } in outside {
        all(secrets, [path, real]);
    }
}

fn redact_question(question: &mut Question, secrets: &Secrets) {
    let Question { call, reason, outside, .. } = question;
    redact_outside(outside, secrets);
    all(secrets, [&mut call.tool, reason]);
    secrets.redact_map(&mut call.arguments);
    for resource in &mut call.resources {
        let (Resource::Path { path: text, .. }
        | Resource::Host { host: text, .. }
        | Resource::Command { text }) = resource;
        secrets.redact_text(text);
    }
}
