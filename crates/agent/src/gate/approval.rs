//! A person's answer, and those who fetch it: terminal and console implement [`Approver`]; where nobody is
//! there, [`Unattended`] answers at once, and [`Timed`] answers when the time is over.

use super::{OnNoAnswer, Outside, ProposedCall};
use crate::tools::Person;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A future on the heap.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a person answered. Journalled before it takes effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Approval {
    /// This call only.
    AllowOnce,
    /// This call, and the same again until the run ends.
    AllowForRun,
    /// This call, and the same again in any run: written into the policy's file.
    AllowAlways,
    /// Other arguments; the gate checks them anew.
    Edited {
        /// The arguments to use.
        arguments: Map<String, Value>,
    },
    /// No.
    Denied {
        /// One sentence, told to the model.
        reason: String,
    },
    /// There was nobody, and nothing but an answer will do. Never journalled: the question stays open.
    Unanswered {
        /// Why there is no answer, in a few words.
        reason: String,
    },
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The call.
    pub call: ProposedCall,
    /// Name of the rule that asks.
    pub rule: String,
    /// Why it asks, in one sentence for the person.
    pub reason: String,
    /// What holds where nobody answers.
    pub unattended: OnNoAnswer,
    /// Paths outside the workspace that a yes opens for this call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<Outside>,
}

/// Who answers. Object-safe: hold it as `Arc<dyn Approver>`. Dropping the future withdraws the question.
pub trait Approver: Send + Sync {
    /// Asks, and waits for the answer.
    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Approval>;
}

/// Nobody is there: never waits. What would ask is denied unless its rule says otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unattended;

impl Approver for Unattended {
    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Approval> {
        let answer = question.unanswered("nobody is there to answer");
        Box::pin(std::future::ready(answer))
    }
}

/// Nobody is at hand, but somebody may answer elsewhere: waits for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Elsewhere;

impl Approver for Elsewhere {
    fn ask<'a>(&'a self, _question: &'a Question) -> BoxFuture<'a, Approval> {
        Box::pin(std::future::pending())
    }
}

/// Asks another, and answers by the question's own rule when the time is over.
pub struct Timed<P: ?Sized> {
    inner: Arc<P>,
    wait: Duration,
}

impl<P: ?Sized> Timed<P> {
    /// Waits `wait` for `inner`, for each question anew.
    #[must_use]
    pub fn new(inner: Arc<P>, wait: Duration) -> Self {
        Self { inner, wait }
    }
}

impl<P: Approver + ?Sized> Approver for Timed<P> {
    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Approval> {
        Box::pin(async move {
            let answered = tokio::time::timeout(self.wait, self.inner.ask(question)).await;
            let late = || format!("nobody answered within {} s", self.wait.as_secs_f64());
            answered.unwrap_or_else(|_| question.unanswered(&late()))
        })
    }
}

impl<P: Person + ?Sized> Person for Timed<P> {
    fn ask<'a>(&'a self, question: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(async move {
            tokio::time::timeout(self.wait, self.inner.ask(question)).await.unwrap_or_default()
        })
    }
}

impl Question {
    /// What holds where nobody answers; `why` says so in a few words.
    #[must_use]
    pub fn unanswered(&self, why: &str) -> Approval {
        match self.unattended {
            OnNoAnswer::Allow => Approval::AllowOnce,
            OnNoAnswer::Deny => Approval::Denied { reason: format!("{} ({why})", self.reason) },
            OnNoAnswer::Stop => Approval::Unanswered { reason: why.to_owned() },
        }
    }
}
