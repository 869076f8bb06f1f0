//! Where does a run stand? A pure fold over its events: the loop and a resumed run read the same state.

use super::Ledger;
use super::calls::UNKNOWN_RULE;
use super::repeats::{Fingerprint, Repeats};
use crate::context::{self, Folds, Transcript, Turn};
use crate::gate::{Answered, Approval, Effect, GateEvent, Outside, ProposedCall, Question};
use crate::journal::{CallText, Entry, Event, How, Opened};
use crate::secrets::Secrets;
use crate::tools::see;
use serde_json::{Map, Value};

/// A run after some of its events.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What it started from.
    pub opened: Opened,
    /// The whole turns so far.
    pub transcript: Transcript,
    /// The turn whose calls are not all settled.
    pub open: Option<OpenTurn>,
    /// What is out of the model's sight, by number of turns.
    pub folds: Folds,
    /// What was used.
    pub ledger: Ledger,
    /// Calls that come again and again.
    pub repeats: Repeats,
    /// Answers in a row that said nothing.
    pub n_empty: u32,
    /// Contents of files that the model has seen, newest last: path and SHA-256 in hexadecimal.
    pub seen: Vec<(String, String)>,
    /// What people were asked and answered, in order, as far as it reaches beyond its call.
    pub approvals: Vec<(ProposedCall, Approval)>,
    asked: Option<Question>,
    /// The answer that a call of `finish` gave.
    pub answer: Option<String>,
    /// How it ended, and the answer or why there is none.
    pub ended: Option<(How, String)>,
}

/// A turn with its calls.
#[derive(Debug, Clone, Default)]
pub struct OpenTurn {
    /// Thinking.
    pub reasoning: String,
    /// Words.
    pub content: String,
    /// Whether the answer ended at its length limit.
    pub is_cut: bool,
    /// Its calls in order.
    pub calls: Vec<OpenCall>,
}

/// A call on its way.
#[derive(Debug, Clone)]
pub struct OpenCall {
    /// Number in the run, from 1.
    pub number: u64,
    /// Tool and arguments as the model wrote them.
    pub text: CallText,
    /// Answers that people gave on it since the last intent.
    pub approvals: Vec<Answered>,
    /// The attempt that was announced.
    pub intent: Option<Intent>,
    /// Whether something may be other than before it.
    pub has_changed: bool,
    /// What the model is shown, once it is settled.
    pub result: Option<String>,
}

/// An announced attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// Name of the tool.
    pub tool: String,
    /// The arguments that are attempted.
    pub arguments: Map<String, Value>,
    /// Effect class.
    pub effect: Effect,
    /// The same for each attempt of this call, and for no other.
    pub key: String,
    /// What [`crate::tools::Tool::prepare`] gave, for the tool's probe.
    pub note: Option<Value>,
    /// Paths outside the workspace that it may open.
    pub outside: Vec<Outside>,
}

impl State {
    /// The state after these events.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        let mut state = Self::default();
        entries.iter().for_each(|entry| state.apply(entry));
        state
    }

    /// The state after one more event.
    pub fn apply(&mut self, entry: &Entry) {
        self.ledger.apply(entry);
        match &entry.event {
            Event::Opened(opened) => {
                self.transcript = Transcript::new(&opened.task);
                self.opened = opened.clone();
            }
            Event::Folded { folds } => {
                self.transcript.forget(folds);
                self.folds = folds.clone();
            }
            Event::Answered { reasoning, content, calls, is_cut, .. } => {
                let first = self.transcript.n_calls() + 1;
                let calls: Vec<OpenCall> =
                    calls.iter().zip(first..).map(|(text, number)| OpenCall::new(number, text)).collect();
                let is_empty = calls.is_empty() && (content.trim().is_empty() || *is_cut);
                self.n_empty = if is_empty { self.n_empty + 1 } else { 0 };
                let (reasoning, content) = (reasoning.clone(), content.clone());
                self.open = Some(OpenTurn { reasoning, content, is_cut: *is_cut, calls });
            }
            Event::Gate { gate: GateEvent::Asked { question }, .. } => self.asked = Some(question.clone()),
            Event::Gate { call, gate: GateEvent::Answered { approval } } => self.answered(*call, approval),
            Event::Intent { call, tool, arguments, effect, key, note, outside } => {
                if let Some(call) = self.call(*call) {
                    let (tool, arguments, effect) = (tool.clone(), arguments.clone(), *effect);
                    let (key, note, outside) = (key.clone(), note.clone(), outside.clone());
                    call.intent = Some(Intent { tool, arguments, effect, key, note, outside });
                    // What was answered before belongs to what led to this attempt.
                    call.approvals.clear();
                }
            }
            Event::Outcome { call, output, shown, .. } => {
                self.transcript.plan = output.plan.clone().or(self.transcript.plan.take());
                self.answer = output.answer.clone().or(self.answer.take());
                output.seen.iter().for_each(|(path, hash)| see(&mut self.seen, path, hash));
                if let Some(call) = self.call(*call) {
                    let effect = call.intent.as_ref().map(|intent| intent.effect);
                    // What a program did is not told; a tool that changes files says what they hold now.
                    call.has_changed = effect == Some(Effect::Irreversible)
                        || effect != Some(Effect::Read) && !output.seen.is_empty();
                }
                self.settle(*call, shown);
            }
            Event::Told { call, text } => self.settle(*call, text),
            Event::TurnEnded { remark } => self.end_turn(remark.as_deref()),
            Event::Ended { how, text } => self.ended = Some((*how, text.clone())),
            // A larger budget takes up what a limit had ended.
            Event::Resumed => self.ended = self.ended.take().filter(|(how, _)| *how != How::Budget),
            Event::ModelFailed { .. } | Event::Gate { .. } => {}
        }
    }

    /// Takes secret values out of all that the model is sent.
    pub(super) fn redact(&mut self, secrets: &Secrets) {
        if secrets.is_empty() {
            return;
        }
        let mut texts = vec![&mut self.transcript.task, &mut self.opened.task];
        texts.extend(self.transcript.plan.iter_mut().chain(&mut self.folds.plan).chain(&mut self.answer));
        let mut arguments = Vec::new();
        for turn in &mut self.transcript.turns {
            texts.extend([&mut turn.reasoning, &mut turn.content].into_iter().chain(&mut turn.remark));
            for call in &mut turn.calls {
                texts.extend([&mut call.name, &mut call.result]);
                arguments.push(&mut call.arguments);
            }
        }
        if let Some(open) = &mut self.open {
            texts.extend([&mut open.reasoning, &mut open.content]);
            for call in &mut open.calls {
                texts.extend(std::iter::once(&mut call.text.name).chain(&mut call.result));
                arguments.push(&mut call.text.arguments);
            }
        }
        for text in texts {
            secrets.redact_text(text);
        }
        arguments.into_iter().for_each(|text| secrets.redact_json(text));
    }

    /// The open call of a number, from 1.
    pub fn call(&mut self, number: u64) -> Option<&mut OpenCall> {
        self.open.as_mut()?.calls.iter_mut().find(|call| call.number == number)
    }

    fn answered(&mut self, number: u64, approval: &Approval) {
        let asked = self.asked.take();
        let outside = asked.as_ref().map(|it| it.outside.clone()).unwrap_or_default();
        if let Some(call) = self.call(number) {
            call.approvals.push(Answered { approval: approval.clone(), outside });
        }
        let reaches_on = matches!(approval, Approval::AllowForRun | Approval::AllowAlways);
        // Whether to attempt a call again says nothing about the next call: no grant comes of it.
        if let Some(asked) = asked.filter(|it| reaches_on && it.rule != UNKNOWN_RULE) {
            self.approvals.push((asked.call.led_to(&asked.outside), approval.clone()));
        }
    }

    fn settle(&mut self, number: u64, shown: &str) {
        if let Some(call) = self.call(number) {
            call.result = Some(shown.to_owned());
        }
    }

    fn end_turn(&mut self, remark: Option<&str>) {
        let Some(open) = self.open.take() else { return };
        open.calls.iter().for_each(|call| self.repeats.add(call.fingerprint(), call.has_changed));
        let calls = open.calls.into_iter().map(|call| context::Call {
            number: call.number,
            name: call.text.name,
            arguments: call.text.arguments,
            result: call.result.unwrap_or_default(),
        });
        let calls: Vec<context::Call> = calls.collect();
        let (reasoning, content, remark) = (open.reasoning, open.content, remark.map(str::to_owned));
        self.transcript.turns.push(Turn { reasoning, content, calls, remark });
    }
}

impl OpenCall {
    fn new(number: u64, text: &CallText) -> Self {
        let text = text.clone();
        Self { number, text, approvals: Vec::new(), intent: None, has_changed: false, result: None }
    }

    /// What tells it from other calls; one that was never attempted has changed nothing.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let changed_nothing = self.intent.as_ref().is_none_or(|intent| intent.effect == Effect::Read);
        let result = self.result.as_deref().unwrap_or_default();
        Fingerprint::new(&self.text.name, &self.text.arguments, result, changed_nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(name: &str) -> [Event; 3] {
        let calls = vec![CallText { name: name.to_owned(), arguments: "{}".to_owned() }];
        let (reasoning, content, tokens) =
            (String::new(), String::new(), crate::journal::TokenUse::default());
        [
            Event::Answered { reasoning, content, calls, tokens, is_cut: false },
            Event::Told { call: 0, text: "no".to_owned() },
            Event::TurnEnded { remark: None },
        ]
    }

    #[test]
    fn what_is_folded_is_let_go_of_and_calls_are_numbered_on() {
        let folds = Folds { n_hidden: 2, n_folded: 2, ..Folds::default() };
        let events = [turn("a"), turn("b"), turn("c")].into_iter().flatten();
        let events = events.chain([Event::Folded { folds }]).chain(turn("d").into_iter().take(1));
        let entries: Vec<Entry> =
            (1..).zip(events).map(|(seq, event)| Entry { seq, at_ms: seq, event }).collect();
        let state = State::of(&entries);
        let names: Vec<&str> =
            state.transcript.turns.iter().map(|turn| turn.calls[0].name.as_str()).collect();
        assert_eq!(names, ["c"], "turns that are out of sight are kept");
        assert_eq!(state.open.map(|open| open.calls[0].number), Some(4));
    }
}
