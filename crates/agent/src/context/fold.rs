//! From transcript to conversation, within the budget.

use super::label::{call_file, last_that};
use super::{Policy, Profile, TokenCounter, Transcript, Turn, words};
use perilune_chat::message::{self, Arguments, Assistant, Conversation, Message, ToolCall, ToolResult};
use serde::{Deserialize, Serialize};

/// What is out of sight. Changes only when a view would be over the budget; the journal keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folds {
    /// Turns whose results are hidden, counted from the first.
    pub n_hidden: usize,
    /// Turns that are folded, counted from the first; never more than `n_hidden`.
    pub n_folded: usize,
    /// The plan as it was when something went out of sight last; shown after the task.
    pub plan: Option<String>,
    /// Turns that were there at that moment: what came later was written in sight of all that is shown before it.
    pub n_before: usize,
}

/// What the model is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The conversation.
    pub conversation: Conversation,
    /// Tokens of its prompt.
    pub n_tokens: usize,
    /// Whether something went out of sight just now.
    pub is_new_stretch: bool,
}

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// Even the newest turn alone is too long.
    #[error(
        "task, tools and the newest turn have {n_tokens} tokens, the model's prompt may have {budget_tokens}; use a model with a longer context or a shorter task"
    )]
    TooLong {
        /// Tokens of the shortest view.
        n_tokens: usize,
        /// Tokens that a prompt may have.
        budget_tokens: usize,
    },
    /// The transcript is not a legal dialogue.
    #[error("the transcript is not a dialogue that the model can read: {0}")]
    Invalid(#[from] message::Invalid),
}

/// The conversation for the next answer. When it would be over the budget, `folds` is brought up to date so that it
/// has at most [`Policy::low_water_tokens`] where that can be reached.
///
/// # Errors
/// [`ContextError::TooLong`] when nothing more can be left out, [`ContextError::Invalid`] for a transcript that is no
/// dialogue; `folds` is unchanged then.
pub fn fit(
    profile: &Profile,
    transcript: &Transcript,
    folds: &mut Folds,
    counter: &dyn TokenCounter,
) -> Result<View, ContextError> {
    let Policy { budget_tokens, low_water_tokens, .. } = profile.policy;
    let now = view(profile, transcript, folds, counter)?;
    if now.n_tokens <= budget_tokens {
        return Ok(now);
    }
    let next = smaller(profile, transcript, folds, low_water_tokens, counter)?;
    let view = View { is_new_stretch: true, ..view(profile, transcript, &next, counter)? };
    if view.n_tokens > budget_tokens {
        return Err(ContextError::TooLong { n_tokens: view.n_tokens, budget_tokens });
    }
    *folds = next;
    Ok(view)
}

/// The folds that hide least of those whose view is down to the low-water mark; all but the newest turn, if none is.
fn smaller(
    profile: &Profile,
    transcript: &Transcript,
    folds: &Folds,
    low_water_tokens: usize,
    counter: &dyn TokenCounter,
) -> Result<Folds, ContextError> {
    let n_old = transcript.n_turns().saturating_sub(1);
    let at = |level: usize| Folds {
        n_hidden: (folds.n_hidden + level).min(n_old),
        n_folded: folds.n_folded + (folds.n_hidden + level).saturating_sub(n_old),
        plan: transcript.plan.clone(),
        n_before: transcript.n_turns(),
    };
    let n_levels = (n_old - folds.n_hidden.min(n_old)) + (n_old - folds.n_folded.min(n_old));
    if n_levels == 0 {
        return Ok(at(0));
    }
    // Checked once here, so that counting inside the search cannot fail.
    view(profile, transcript, &at(0), counter)?;
    let is_too_long = |level: usize| {
        view(profile, transcript, &at(level), counter).is_ok_and(|view| view.n_tokens > low_water_tokens)
    };
    // Every level is shorter than the one before, so the last one that is too long is found by halves.
    let last_too_long = last_that(n_levels, is_too_long);
    Ok(at((last_too_long + 1).min(n_levels)))
}

fn view(
    profile: &Profile,
    transcript: &Transcript,
    folds: &Folds,
    counter: &dyn TokenCounter,
) -> Result<View, ContextError> {
    let mut messages = vec![
        Message::System { name: None, text: profile.system.to_owned() },
        Message::User { name: None, text: task(transcript, folds) },
    ];
    let turns = (transcript.gone.n_turns..).zip(&transcript.turns);
    for (idx, turn) in turns.skip(folds.n_folded.saturating_sub(transcript.gone.n_turns)) {
        push_turn(turn, idx < folds.n_hidden, &mut messages);
    }
    let conversation = Conversation::new(messages, profile.tools.declared().to_vec())?;
    let n_tokens = counter.conversation(&conversation);
    Ok(View { conversation, n_tokens, is_new_stretch: false })
}

/// The task, then what is folded, then the plan.
fn task(transcript: &Transcript, folds: &Folds) -> String {
    let mut text = transcript.task.clone();
    let n_folded = folds.n_folded.saturating_sub(transcript.gone.n_turns);
    let mut folded = transcript.turns[..n_folded].iter().flat_map(|turn| &turn.calls).map(|call| call.number);
    let (first_gone, last_gone) = transcript.gone.calls.unzip();
    if let Some(first) = first_gone.or_else(|| folded.next()) {
        let last = folded.next_back().or(last_gone).unwrap_or(first);
        text.push_str("\n\n");
        text.push_str(&words::folded(first, last));
    }
    if let Some(plan) = &folds.plan {
        text.push_str("\n\n");
        text.push_str(words::PLAN);
        text.push_str(plan);
    }
    text
}

fn push_turn(turn: &Turn, is_hidden: bool, messages: &mut Vec<Message>) {
    let tool_calls = turn.calls.iter().map(|call| ToolCall {
        id: format!("call-{}", call.number),
        name: call.name.clone(),
        arguments: Arguments::Text(call.arguments.clone()),
    });
    messages.push(Message::Assistant(Assistant {
        name: None,
        reasoning: turn.reasoning.clone(),
        content: turn.content.clone(),
        tool_calls: tool_calls.collect(),
    }));
    for (idx, call) in turn.calls.iter().enumerate() {
        let stub = words::hidden(&call_file(call.number));
        let is_shorter = stub.len() < call.result.len();
        let mut text = if is_hidden && is_shorter { stub } else { call.result.clone() };
        if let Some(remark) = turn.remark.as_ref().filter(|_| idx + 1 == turn.calls.len()) {
            text = text + words::REMARK + remark + words::REMARK_END;
        }
        messages.push(Message::ToolResult(ToolResult {
            name: Some(call.name.clone()),
            call_id: Some(format!("call-{}", call.number)),
            text,
        }));
    }
    if let Some(remark) = turn.remark.as_ref().filter(|_| turn.calls.is_empty()) {
        messages.push(Message::User { name: None, text: remark.clone() });
    }
}
