//! Policy, then a person, until a call may happen or may not.

use super::{Approval, Approver, Decision, Gate, Outside, ProposedCall, Question, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::error::Error;

/// Most times that one call's arguments may be edited.
pub(super) const N_EDITS_MAX: usize = 8;

/// What the gate did, in order; the loop journals each before the next happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "gate", rename_all = "snake_case")]
pub enum GateEvent {
    /// Policy decided on these arguments.
    Decided {
        /// What it said.
        decision: Decision,
    },
    /// A person is asked; the run waits.
    Asked {
        /// The question.
        question: Question,
    },
    /// A person answered.
    Answered {
        /// The answer.
        approval: Approval,
    },
}

/// Where the gate's events go: the journal.
pub trait Record: Send {
    /// Keeps an event; when this returns it is durable.
    ///
    /// # Errors
    /// Why it could not be kept: the call then does not happen.
    fn record(&mut self, event: &GateEvent) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Reads other arguments as the tool would: checks them against its schema and says what they touch.
pub trait Prepare: Sync {
    /// What these arguments touch.
    ///
    /// # Errors
    /// One sentence: what is wrong with them.
    fn prepare(&self, arguments: &Map<String, Value>) -> Result<Vec<Resource>, String>;
}

impl<F: Fn(&Map<String, Value>) -> Result<Vec<Resource>, String> + Sync> Prepare for F {
    fn prepare(&self, arguments: &Map<String, Value>) -> Result<Vec<Resource>, String> {
        self(arguments)
    }
}

/// What came of settling a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The call may happen, with these arguments.
    Go {
        /// The call; its arguments may have been edited.
        call: ProposedCall,
        /// Name of the rule that allows it, or of the one that asked and was answered.
        rule: String,
        /// Paths outside the workspace that it may open.
        outside: Vec<Outside>,
    },
    /// It may not.
    Refused {
        /// One sentence for the model.
        told: String,
        /// Name of the rule that said so or asked; `edits` where the arguments were edited too often.
        rule: String,
    },
}

/// Why a call could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The journal did not take an event.
    #[error("the journal did not keep the gate's event, so the call does not happen: {0}")]
    NotRecorded(Box<dyn Error + Send + Sync>),
    /// Nobody answered a question that has to be answered.
    #[error(
        "{reason}, and the call of {tool} needs an answer: {question}; resume the run where somebody can give it"
    )]
    Unanswered {
        /// Name of the tool.
        tool: String,
        /// Why a person was asked, in one sentence.
        question: String,
        /// Why there is no answer.
        reason: String,
    },
    /// An answer for always could not be written.
    #[error(
        "the answer could not be written into the policy {file}: {cause}; check that the file can be written"
    )]
    NotWritten {
        /// The policy's file.
        file: String,
        /// Why.
        cause: String,
    },
}

/// Everything that settling a call needs.
pub struct Settlement<'a> {
    /// Policy and the answers given so far.
    pub gate: &'a dyn Gate,
    /// Who answers.
    pub approver: &'a dyn Approver,
    /// The tool's own reading of arguments.
    pub prepare: &'a dyn Prepare,
    /// The journal.
    pub record: &'a mut dyn Record,
    /// Answers that the journal already holds for this call, in order (after a crash); empty otherwise.
    pub answered: Vec<Answered>,
}

/// An answer that the journal holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The answer.
    pub approval: Approval,
    /// What its question said that a yes opens outside the workspace: it answers no question that says otherwise.
    pub outside: Vec<Outside>,
}

/// Settles one call: policy, then a person as often as policy asks. Edited arguments start over at policy:
/// what it denies stays denied, and only the rule that the editor has just answered does not ask again.
///
/// # Errors
/// [`GateError`]: an event was not kept, a question that has to be answered was not, or an answer for always could not
/// be written. The call does not happen then.
pub async fn settle(mut with: Settlement<'_>, mut call: ProposedCall) -> Result<Verdict, GateError> {
    let mut given = std::mem::take(&mut with.answered).into_iter();
    let mut edited_under = None;
    for _ in 0..=N_EDITS_MAX {
        let decision = with.gate.decide(&call);
        let outside = with.gate.outside(&call, &decision);
        keep(&mut with, GateEvent::Decided { decision: decision.clone() })?;
        let (rule, reason, unattended) = match decision {
            Decision::Allow { rule } => return Ok(Verdict::Go { call, rule, outside }),
            Decision::Deny { rule, reason } => return Ok(Verdict::Refused { told: reason, rule }),
            Decision::Ask { rule, reason, unattended } => (rule, reason, unattended),
        };
        if edited_under.as_ref() == Some(&rule) {
            return Ok(Verdict::Go { call, rule, outside });
        }
        let approval = match given.next().filter(|it| it.outside == outside) {
            Some(Answered { approval, .. }) => approval,
            None => {
                // What followed an answer that does not fit does not fit either.
                given = Vec::new().into_iter();
                let (rule, outside) = (rule.clone(), outside.clone());
                let question = Question { call: call.clone(), rule, reason, unattended, outside };
                ask(&mut with, question).await?
            }
        };
        with.gate.remember(&call.led_to(&outside), &approval)?;
        match approval {
            Approval::AllowOnce | Approval::AllowForRun | Approval::AllowAlways => {
                return Ok(Verdict::Go { call, rule, outside });
            }
            Approval::Denied { reason } | Approval::Unanswered { reason } => {
                return Ok(Verdict::Refused { told: reason, rule });
            }
            Approval::Edited { arguments } => match with.prepare.prepare(&arguments) {
                Ok(resources) => {
                    call = ProposedCall { arguments, resources, ..call };
                    edited_under = Some(rule);
                }
                Err(wrong) => {
                    let told = format!("the arguments were edited, but {wrong}");
                    return Ok(Verdict::Refused { told, rule });
                }
            },
        }
    }
    let told = format!("the arguments were edited more than {N_EDITS_MAX} times");
    Ok(Verdict::Refused { told, rule: "edits".to_owned() })
}

impl Question {
    /// The answer, if there is one.
    pub(crate) fn answered(&self, approval: Approval) -> Result<Approval, GateError> {
        let Approval::Unanswered { reason } = approval else { return Ok(approval) };
        let (tool, question) = (self.call.tool.clone(), self.reason.clone());
        Err(GateError::Unanswered { tool, question, reason })
    }
}

async fn ask(with: &mut Settlement<'_>, question: Question) -> Result<Approval, GateError> {
    keep(with, GateEvent::Asked { question: question.clone() })?;
    let approval = with.approver.ask(&question).await;
    let approval = question.answered(approval)?;
    keep(with, GateEvent::Answered { approval: approval.clone() })?;
    Ok(approval)
}

fn keep(with: &mut Settlement<'_>, event: GateEvent) -> Result<(), GateError> {
    with.record.record(&event).map_err(GateError::NotRecorded)
}
