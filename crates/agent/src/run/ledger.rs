//! What may a run use, and what has it used? One ledger for steps, tokens, money and time.

use crate::gate::GateEvent;
use crate::journal::{ASK_USER, Entry, Event, TokenUse};
use serde::{Deserialize, Serialize};

/// What a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Turns of the model at most.
    pub n_steps_max: u64,
    /// Tokens of thinking in one turn at most.
    pub step_reasoning_tokens_max: u64,
    /// Tokens of prompts and answers together, in all turns, at most; cached ones count too.
    pub tokens_max: Option<u64>,
    /// Money at most, in millionths of the currency of [`Price`].
    pub cost_micros_max: Option<u64>,
    /// Milliseconds at most that processes work on the run; waiting for a person does not count.
    pub wall_ms_max: Option<u64>,
    /// Times in a row that the model may fail to answer.
    pub n_model_retries_max: u32,
}

/// What a million tokens cost, in millionths of a currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Prompt tokens that were not cached.
    pub prompt_micros: u64,
    /// Prompt tokens from a cache.
    pub cached_micros: u64,
    /// Generated tokens.
    pub completion_micros: u64,
}

impl Budget {
    /// 120 steps of up to 48k thinking tokens: the protocol of K2 Thinking's model card for HLE with tools.
    pub const STEPS_120: Self = Self::steps(120, 48_000);
    /// 300 steps of up to 24k thinking tokens: the protocol of K2 Thinking's model card for agentic search.
    pub const STEPS_300: Self = Self::steps(300, 24_000);

    const fn steps(n_steps_max: u64, step_reasoning_tokens_max: u64) -> Self {
        Self {
            n_steps_max,
            step_reasoning_tokens_max,
            tokens_max: None,
            cost_micros_max: None,
            wall_ms_max: None,
            n_model_retries_max: 8,
        }
    }
}

/// What a run has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Turns that the model has answered.
    pub n_steps: u64,
    /// Tokens of all turns.
    pub tokens: TokenUse,
    /// Milliseconds that processes worked on it; while a person was asked, nobody did.
    pub wall_ms: u64,
    /// Failures of the model in a row.
    pub n_model_failures: u32,
    last_at_ms: u64,
    is_asking: bool,
}

impl Ledger {
    /// Takes one more event.
    pub fn apply(&mut self, entry: &Entry) {
        // Between a crash and the process that goes on, nobody worked, nor between a question and its answer.
        let is_idle = self.is_asking || matches!(entry.event, Event::Opened(_) | Event::Resumed);
        if !is_idle {
            self.wall_ms += entry.at_ms.saturating_sub(self.last_at_ms);
        }
        self.last_at_ms = entry.at_ms;
        self.is_asking = match &entry.event {
            Event::Gate { gate, .. } => matches!(gate, GateEvent::Asked { .. }),
            Event::Intent { tool, .. } => tool == ASK_USER,
            _ => false,
        };
        match &entry.event {
            Event::Answered { tokens, .. } => {
                self.n_steps += 1;
                self.n_model_failures = 0;
                self.tokens.prompt += tokens.prompt;
                self.tokens.cached += tokens.cached;
                self.tokens.completion += tokens.completion;
                self.tokens.reasoning += tokens.reasoning;
            }
            Event::ModelFailed { .. } => self.n_model_failures += 1,
            Event::Resumed => self.n_model_failures = 0,
            _ => {}
        }
    }

    /// Money so far, in millionths of the currency of `price`, rounded down.
    #[must_use]
    pub fn cost_micros(&self, price: &Price) -> u64 {
        let new = self.tokens.prompt.saturating_sub(self.tokens.cached);
        let parts = [
            (new, price.prompt_micros),
            (self.tokens.cached, price.cached_micros),
            (self.tokens.completion, price.completion_micros),
        ];
        let sum: u128 = parts.iter().map(|(n, micros)| u128::from(*n) * u128::from(*micros)).sum();
        u64::try_from(sum / 1_000_000).unwrap_or(u64::MAX)
    }

    /// The first limit that is reached, as one sentence; steps before tokens, money and time.
    #[must_use]
    pub fn over(&self, budget: &Budget, price: &Price) -> Option<String> {
        let over = |what: &str, used: u64, max: Option<u64>| {
            let max = max.filter(|max| used >= *max)?;
            Some(format!("the run has used {used} of {max} {what}"))
        };
        over("steps", self.n_steps, Some(budget.n_steps_max))
            .or_else(|| over("tokens", self.tokens.prompt + self.tokens.completion, budget.tokens_max))
            .or_else(|| over("millionths of its money", self.cost_micros(price), budget.cost_micros_max))
            .or_else(|| over("milliseconds", self.wall_ms, budget.wall_ms_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::{Approval, Decision, Effect};
    use serde_json::Map;

    #[test]
    fn a_person_who_is_asked_uses_up_no_time() {
        let gate = |gate| Event::Gate { call: 1, gate };
        let allowed = GateEvent::Decided { decision: Decision::Allow { rule: "any".to_owned() } };
        let question = serde_json::from_str(
            r#"{"call":{"run":"r","step":0,"tool":"t","effect":"once","arguments":{},"resources":[]},
                "rule":"r","reason":"w","unattended":"deny"}"#,
        );
        let asked = GateEvent::Asked { question: question.unwrap() };
        let answered = GateEvent::Answered { approval: Approval::AllowOnce };
        let (note, outside, key) = (None, Vec::new(), "k".to_owned());
        let (tool, arguments, effect) = (ASK_USER.to_owned(), Map::new(), Effect::Idempotent);
        let intent = Event::Intent { call: 2, tool, arguments, effect, key, note, outside };
        let told = || Event::Told { call: 2, text: String::new() };
        let events = [
            (1, gate(allowed)),
            (3, gate(asked)),
            (1_000_003, gate(answered)),
            (1_000_004, intent),
            (2_000_004, told()),
            (2_000_006, told()),
        ];
        let mut ledger = Ledger::default();
        for (at_ms, event) in events {
            ledger.apply(&Entry { seq: 1, at_ms, event });
        }
        assert_eq!(ledger.wall_ms, 3 + 1 + 2);
    }
}
