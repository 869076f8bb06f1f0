//! A run as people read it: steps, and in each its thinking, its calls with what was decided and what came of them.

use super::{CallText, Entry, Event, How, Opened, TokenUse};
use crate::context::Folds;
use crate::gate::GateEvent;
use crate::tools::Output;
use serde_json::{Map, Value};

/// A run, or a later part of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// What the run started from, where the part begins there.
    pub opened: Option<Opened>,
    /// Its steps in order.
    pub steps: Vec<Step>,
    /// How it ended, and the answer or why there is none.
    pub ended: Option<(How, String)>,
}

/// What happened until all calls of one answer were settled.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Number in the run, from 1.
    pub number: u64,
    /// Number that its first call has in the run, or would have.
    pub first_call: u64,
    /// Number of its first event.
    pub from_seq: u64,
    /// When that was: Unix time, milliseconds.
    pub at_ms: u64,
    /// What happened besides.
    pub notes: Vec<Note>,
    /// Whether the answer came; before that the step is being thought about.
    pub is_answered: bool,
    /// Thinking.
    pub reasoning: String,
    /// Words.
    pub content: String,
    /// Tokens of prompt and answer.
    pub tokens: TokenUse,
    /// Whether the answer ended at its length limit.
    pub is_cut: bool,
    /// Its calls in order.
    pub calls: Vec<TracedCall>,
    /// Whether all calls are settled.
    pub is_over: bool,
}

/// What is neither an answer nor a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// Something went out of the model's sight.
    Folded(Folds),
    /// The model could not answer: why, and how often in a row.
    ModelFailed(String, u32),
    /// Another process took the run up.
    Resumed,
    /// A remark that the model is shown.
    Remark(String),
}

/// A call on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct TracedCall {
    /// Number in the run, from 1.
    pub number: u64,
    /// Tool and arguments as the model wrote them.
    pub text: CallText,
    /// What was decided, asked and answered.
    pub gate: Vec<GateEvent>,
    /// The arguments that were attempted, after edits.
    pub attempted: Option<Map<String, Value>>,
    /// What came of it.
    pub settled: Option<Settled>,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Settled {
    /// The attempt is over.
    Done {
        /// What the tool answered.
        output: Output,
        /// Milliseconds that the attempt took.
        took_ms: u64,
    },
    /// No attempt was made: what the model is told.
    Told(String),
}

impl Trace {
    /// The trace of these events.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        Self::from(entries, 1, 1)
    }

    /// The trace of events that begin with the step of this number, whose first call has that number.
    #[must_use]
    pub fn from(entries: &[Entry], step: u64, call: u64) -> Self {
        let mut trace = Self::default();
        let mut next = (step, call);
        for entry in entries {
            trace.apply(entry, &mut next);
        }
        trace
    }

    fn apply(&mut self, entry: &Entry, next: &mut (u64, u64)) {
        match &entry.event {
            Event::Opened(opened) => return self.opened = Some(opened.clone()),
            Event::Ended { how, text } => {
                // An answer in words ends the run without an end of its step.
                self.steps.iter_mut().for_each(|step| step.is_over = true);
                return self.ended = Some((*how, text.clone()));
            }
            Event::Resumed => self.ended = self.ended.take().filter(|(how, _)| *how != How::Budget),
            _ => {}
        }
        if self.steps.last().is_none_or(|step| step.is_over) {
            let (number, first_call) = *next;
            next.0 += 1;
            let (from_seq, at_ms) = (entry.seq, entry.at_ms);
            self.steps.push(Step { number, first_call, from_seq, at_ms, ..Step::default() });
        }
        if let Some(step) = self.steps.last_mut() {
            step.apply(&entry.event);
            next.1 = step.first_call + step.calls.len() as u64;
        }
    }
}

impl Step {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Resumed => self.notes.push(Note::Resumed),
            Event::Folded { folds } => self.notes.push(Note::Folded(folds.clone())),
            Event::ModelFailed { error, attempt } => {
                self.notes.push(Note::ModelFailed(error.clone(), *attempt));
            }
            Event::Answered { reasoning, content, calls, tokens, is_cut } => {
                self.is_answered = true;
                (self.reasoning, self.content) = (reasoning.clone(), content.clone());
                (self.tokens, self.is_cut) = (*tokens, *is_cut);
                self.calls = (self.first_call..).zip(calls).map(TracedCall::new).collect();
            }
            Event::Gate { call, gate } => self.call(*call, |it| it.gate.push(gate.clone())),
            Event::Intent { call, arguments, .. } => {
                self.call(*call, |it| it.attempted = Some(arguments.clone()));
            }
            Event::Outcome { call, output, took_ms, .. } => self.call(*call, |it| {
                it.settled = Some(Settled::Done { output: output.clone(), took_ms: *took_ms });
            }),
            Event::Told { call, text } => {
                self.call(*call, |it| it.settled = Some(Settled::Told(text.clone())));
            }
            Event::TurnEnded { remark } => {
                self.notes.extend(remark.clone().map(Note::Remark));
                self.is_over = true;
            }
            Event::Opened(_) | Event::Ended { .. } => {}
        }
    }

    fn call(&mut self, number: u64, change: impl FnOnce(&mut TracedCall)) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.number == number) {
            change(call);
        }
    }
}

impl TracedCall {
    fn new((number, text): (u64, &CallText)) -> Self {
        Self { number, text: text.clone(), gate: Vec::new(), attempted: None, settled: None }
    }

    /// The arguments that were attempted, where they are not those of the model.
    #[must_use]
    pub fn edited(&self) -> Option<&Map<String, Value>> {
        let written = serde_json::from_str::<Map<String, Value>>(&self.text.arguments).ok();
        self.attempted.as_ref().filter(|attempted| written.as_ref() != Some(*attempted))
    }
}
