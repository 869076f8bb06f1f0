//! What happened in a run, as far as the model is concerned.

use super::{Folds, call_file, words};
use serde::{Deserialize, Serialize};

/// Everything since the task was given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Transcript {
    /// The user's words.
    pub task: String,
    /// Turns of the model, oldest first, without those that are [`Transcript::gone`].
    pub turns: Vec<Turn>,
    /// The plan as the model keeps it.
    pub plan: Option<String>,
    /// The first turns, as far as [`Transcript::forget`] let go of them.
    #[serde(default)]
    pub gone: Gone,
}

/// The first turns, of which only their number and that of their calls is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// Their number.
    pub n_turns: usize,
    /// Number of their calls.
    pub n_calls: u64,
    /// Numbers, from 1, of their first and of their last call; `None` where they made none.
    pub calls: Option<(u64, u64)>,
}

/// One answer of the model, and what its calls came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Thinking, sent back with its own calls for as long as the task goes on.
    pub reasoning: String,
    /// Words beside the calls.
    pub content: String,
    /// Calls in order, each with its result.
    pub calls: Vec<Call>,
    /// A remark of the agent to the model, after the results.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// A call that was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Number in the run, from 1.
    pub number: u64,
    /// Name of the tool.
    pub name: String,
    /// Arguments as the model wrote them: JSON, valid or not.
    pub arguments: String,
    /// What the model is shown: labelled and cut.
    pub result: String,
}

impl Transcript {
    /// A task before the first turn.
    #[must_use]
    pub fn new(task: &str) -> Self {
        Self { task: task.to_owned(), turns: Vec::new(), plan: None, gone: Gone::default() }
    }

    /// Calls so far, those let go of included.
    #[must_use]
    pub fn n_calls(&self) -> u64 {
        self.gone.n_calls + self.turns.iter().map(|turn| turn.calls.len() as u64).sum::<u64>()
    }

    /// Turns so far, those let go of included.
    #[must_use]
    pub fn n_turns(&self) -> usize {
        self.gone.n_turns + self.turns.len()
    }

    /// Lets go of what is out of the model's sight and will not be shown again: what is left is what it sees, so that
    /// its budget of tokens bounds the memory of a run. Files keep the whole of it.
    pub fn forget(&mut self, folds: &Folds) {
        let kept_from = |n: usize, gone: &Gone, n_turns: usize| n.saturating_sub(gone.n_turns).min(n_turns);
        let n_folded = kept_from(folds.n_folded, &self.gone, self.turns.len());
        for call in self.turns.drain(..n_folded).flat_map(|turn| turn.calls) {
            let first = self.gone.calls.map_or(call.number, |(first, _)| first);
            self.gone.calls = Some((first, call.number));
            self.gone.n_calls += 1;
        }
        self.gone.n_turns += n_folded;
        let n_hidden = kept_from(folds.n_hidden, &self.gone, self.turns.len());
        for call in self.turns[..n_hidden].iter_mut().flat_map(|turn| &mut turn.calls) {
            let stub = words::hidden(&call_file(call.number));
            if stub.len() < call.result.len() {
                call.result = stub;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Bytes, Policy, Profile, fit};

    /// Bytes of everything that is kept of the turns.
    fn n_bytes(transcript: &Transcript) -> usize {
        let call = |call: &Call| call.name.len() + call.arguments.len() + call.result.len();
        let turn = |turn: &Turn| {
            turn.reasoning.len() + turn.content.len() + turn.calls.iter().map(call).sum::<usize>()
        };
        transcript.turns.iter().map(turn).sum()
    }

    #[test]
    fn what_is_kept_is_what_is_seen_and_the_view_is_the_same() {
        let mut profile = Profile::standard(8_000, 1_000);
        profile.policy = Policy { budget_tokens: 4_000, low_water_tokens: 2_000, ..profile.policy };
        let (mut whole, mut kept) = (Transcript::new("Do it."), Transcript::new("Do it."));
        let (mut folds, mut of_kept) = (Folds::default(), Folds::default());
        let mut most = 0;
        for step in 1..=1_000_u64 {
            let number = |n: u64| kept.n_calls() + n;
            let calls = (1..=1 + step % 3).map(|n| Call {
                number: number(n),
                name: "look".to_owned(),
                arguments: format!("{{\"n\":{step}}}"),
                // Some results are shorter than what would stand in their place.
                result: "x".repeat(if step.is_multiple_of(5) { 3 } else { 100 + step as usize % 700 }),
            });
            let turn =
                Turn { reasoning: format!("thought {step}"), calls: calls.collect(), ..Turn::default() };
            whole.turns.push(turn.clone());
            kept.turns.push(turn);
            let of_whole = fit(&profile, &whole, &mut folds, &Bytes).unwrap();
            let view = fit(&profile, &kept, &mut of_kept, &Bytes).unwrap();
            assert_eq!((&view, &of_kept), (&of_whole, &folds), "step {step}");
            if view.is_new_stretch {
                kept.forget(&of_kept);
            }
            assert_eq!((kept.n_turns(), kept.n_calls()), (whole.n_turns(), whole.n_calls()));
            most = most.max(n_bytes(&kept));
        }
        // The estimate of a token is three bytes; the newest turn may come on top.
        assert!(most < 3 * 4_000 + 3_000, "{most} bytes are kept");
        assert!(n_bytes(&whole) > 20 * most && kept.gone.n_turns > 900, "nothing was let go of");
    }

    #[test]
    fn what_was_folded_keeps_its_place_in_a_run_that_is_read_again() {
        let call = |number| Call {
            number,
            name: "look".to_owned(),
            arguments: "{}".to_owned(),
            result: "y".repeat(200),
        };
        let mut transcript = Transcript::new("Do it.");
        transcript.turns =
            (1..=4).map(|number| Turn { calls: vec![call(number)], ..Turn::default() }).collect();
        transcript.forget(&Folds { n_folded: 1, n_hidden: 3, ..Folds::default() });
        let hidden = |turn: &Turn| turn.calls[0].result.starts_with("(hidden");
        assert_eq!(transcript.turns.iter().map(hidden).collect::<Vec<_>>(), [true, true, false]);
        transcript.forget(&Folds { n_folded: 3, n_hidden: 3, ..Folds::default() });
        assert_eq!(transcript.gone, Gone { n_turns: 3, n_calls: 3, calls: Some((1, 3)) });
        let text: String = serde_json::to_string(&transcript).unwrap();
        assert_eq!(serde_json::from_str::<Transcript>(&text).unwrap(), transcript);
    }
}
