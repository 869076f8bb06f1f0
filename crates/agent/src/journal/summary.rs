//! Where a run stands, for a list: a fold over its events.

use super::{Entry, Event, How, Opened};
use crate::gate::{GateEvent, Question};
use crate::run::Ledger;
use sha2::{Digest, Sha256};

/// Name of the tool whose call is a question in words.
pub(crate) const ASK_USER: &str = "ask_user";

/// A run after some of its events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// What it started from.
    pub opened: Opened,
    /// When it was opened: Unix time, milliseconds.
    pub opened_at_ms: u64,
    /// When the last event was kept: Unix time, milliseconds.
    pub last_at_ms: u64,
    /// Number of events.
    pub n_events: u64,
    /// Number of calls.
    pub n_calls: u64,
    /// Steps, tokens and time.
    pub ledger: Ledger,
    /// The question that nobody has answered.
    pub waiting: Option<Waiting>,
    /// How it ended, and the answer or why there is none.
    pub ended: Option<(How, String)>,
    /// A call, and how often people have answered on it.
    answered: (u64, u64),
}

/// A question that waits for its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its id among all questions of the run: what [`super::give`] takes.
    pub id: String,
    /// Number of the call, from 1.
    pub call: u64,
    /// Since when it waits: Unix time, milliseconds.
    pub at_ms: u64,
    /// What is asked.
    pub asked: Asked,
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// Whether a call may happen.
    Approval(Box<Question>),
    /// Something in words, by the model.
    Words(String),
}

impl Summary {
    /// The summary of these events.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        let mut summary = Self::default();
        entries.iter().for_each(|entry| summary.apply(entry));
        summary
    }

    /// The summary after one more event.
    pub fn apply(&mut self, entry: &Entry) {
        self.ledger.apply(entry);
        (self.n_events, self.last_at_ms) = (entry.seq, entry.at_ms);
        match &entry.event {
            Event::Opened(opened) => (self.opened, self.opened_at_ms) = (opened.clone(), entry.at_ms),
            Event::Answered { calls, .. } => self.n_calls += calls.len() as u64,
            Event::Gate { call, gate: GateEvent::Asked { question } } => {
                self.ask(*call, entry.at_ms, Asked::Approval(Box::new(question.clone())));
            }
            Event::Gate { call, gate: GateEvent::Answered { .. } } => {
                self.answered = (*call, self.n_answered(*call) + 1);
                self.waiting = None;
            }
            Event::Intent { call, tool, arguments, .. } if tool == ASK_USER => {
                let question = arguments.get("question").and_then(|it| it.as_str()).unwrap_or_default();
                self.ask(*call, entry.at_ms, Asked::Words(question.to_owned()));
            }
            Event::Intent { .. } | Event::Outcome { .. } | Event::Told { .. } => self.waiting = None,
            Event::Resumed => self.ended = self.ended.take().filter(|(how, _)| *how != How::Budget),
            Event::Ended { how, text } => {
                self.waiting = None;
                self.ended = Some((*how, text.clone()));
            }
            _ => {}
        }
    }

    /// Money so far, in millionths of the currency of the run's price; `None` where that is not known.
    #[must_use]
    pub fn cost_micros(&self) -> Option<u64> {
        self.opened.price.map(|price| self.ledger.cost_micros(&price))
    }

    fn n_answered(&self, call: u64) -> u64 {
        if self.answered.0 == call { self.answered.1 } else { 0 }
    }

    /// The id holds after a crash: the same question, asked again by the process that goes on, has the same one.
    fn ask(&mut self, call: u64, at_ms: u64, asked: Asked) {
        let text = match &asked {
            Asked::Approval(question) => serde_json::to_string(question).unwrap_or_default(),
            Asked::Words(question) => question.clone(),
        };
        let hash: String = Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let id = format!("{call}-{}-{hash}", self.n_answered(call));
        self.waiting = Some(Waiting { id, call, at_ms, asked });
    }
}
