//! One task in one world: the files, the sentence, who solves it, and what the files must hold in the end.

use super::Family;
use super::forms::Split;
use super::steps::{Call, Step};
use perilune_chat::message::Message;
use std::collections::BTreeMap;

/// Files by path, as text.
pub type Files = BTreeMap<String, String>;

/// A task in its world.
pub struct Episode {
    /// The skill it asks for.
    pub family: Family,
    /// What kind of task of that skill: a section of its file of sentences.
    pub kind: &'static str,
    /// Whether training sees the form of its sentence.
    pub split: Split,
    /// The sentence that the user writes.
    pub sentence: String,
    /// The files of the workspace before the first call.
    pub files: Files,
    /// What they must hold in the end.
    pub goal: Goal,
    /// Names and errors of its tools.
    pub tools: super::tools::Kit,
    /// Who knows what to do next.
    pub expert: Box<dyn Expert + Send>,
}

/// What the files must hold in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// Files that have to hold this text; a line break at the end does not matter.
    pub files: Files,
}

impl Goal {
    /// The goal that one file holds this text.
    #[must_use]
    pub fn file(path: &str, text: &str) -> Self {
        Self { files: Files::from([(path.to_owned(), text.to_owned())]) }
    }

    /// Judges a world by its files alone: the goal's files hold their text, all others are as they were.
    ///
    /// # Errors
    /// The first difference, as a sentence.
    pub fn judge(&self, before: &Files, after: &Files) -> Result<(), String> {
        let mut wanted = before.clone();
        wanted.extend(self.files.clone());
        for (path, text) in &wanted {
            match after.get(path) {
                None => return Err(format!("{path} is missing")),
                Some(found) if found.trim_end_matches('\n') != text.trim_end_matches('\n') => {
                    return Err(format!("{path} holds {found:?} instead of {text:?}"));
                }
                Some(_) => {}
            }
        }
        match after.keys().find(|path| !wanted.contains_key(*path)) {
            Some(path) => Err(format!("{path} should not be there")),
            None => Ok(()),
        }
    }
}

/// Who knows what to do next, from what stands in sight.
pub trait Expert {
    /// The next step, given the messages that the model would see now.
    fn next(&mut self, visible: &[Message]) -> Step;

    /// Learns what was called, and whether the tool did it.
    fn settle(&mut self, call: &Call, is_done: bool);
}

/// Steps known from the start. A step is over when its call was made and came to what the step expects.
#[derive(Debug, Clone)]
pub struct Script {
    steps: Vec<Step>,
    at: usize,
}

impl Script {
    /// The script of these steps.
    #[must_use]
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps, at: 0 }
    }
}

impl Expert for Script {
    fn next(&mut self, _visible: &[Message]) -> Step {
        self.steps[self.at.min(self.steps.len() - 1)].clone()
    }

    fn settle(&mut self, call: &Call, is_done: bool) {
        let Some(step) = self.steps.get(self.at) else { return };
        if step.call.as_ref() == Some(call) && (is_done || step.may_fail) {
            self.at += 1;
        }
    }
}
