//! One answer as it comes, whoever gives it: the engine in this process, or an endpoint elsewhere.
//!
//! There is one path: pieces arise in order, a streamed reply writes them down, an unstreamed one folds them.

pub mod local;
pub mod mask;
mod reader;
pub mod served;
pub mod stop;

pub use reader::UNREAD_EVENTS_MAX;

use crate::error::ApiError;
use futures_util::Stream;
use perilune_chat::model::Usage;
use perilune_chat::scanner::{Delta, Finish, Open, Reply};
use perilune_chat::wire::openai::TokenLogprob;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The pieces of one choice, ending with [`Piece::End`] or an error. Dropping the stream cancels its work.
pub type Pieces = Pin<Box<dyn Stream<Item = Result<Piece, ApiError>> + Send>>;

/// What arises while a choice is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Thinking, answer text or a part of a call.
    Delta(Delta),
    /// A token's log-probability, where it was asked for.
    Logprob(TokenLogprob),
    /// The end.
    End(End),
}

/// How a choice ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// Why it ended.
    pub finish: Finish,
    /// The stop string that ended it, which is not part of its text.
    pub stop_string: Option<String>,
    /// What was still open at the end: a thought or a call that was cut off.
    pub left_open: Option<Open>,
    /// Tokens that it used; a prompt shared by choices is counted with the first.
    pub usage: Usage,
}

/// Tokens that one choice has used so far, readable while it runs and after it was dropped.
#[derive(Debug)]
pub struct Progress {
    made: Instant,
    /// When the engine gave the token that made the first piece, nanoseconds after `made`.
    first_piece_ns: AtomicU64,
    prompt: AtomicU64,
    cached: AtomicU64,
    completion: AtomicU64,
    reasoning: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            made: Instant::now(),
            first_piece_ns: zero(),
            prompt: zero(),
            cached: zero(),
            completion: zero(),
            reasoning: zero(),
        }
    }
}

impl Progress {
    /// The token that the engine gave `at` made a piece; only the first such counts.
    pub(crate) fn piece_came(&self, at: Instant) {
        let ns = u64::try_from(at.saturating_duration_since(self.made).as_nanos()).unwrap_or(u64::MAX);
        // A second piece finds the place taken, which is what is meant.
        let _ = self.first_piece_ns.compare_exchange(0, ns.max(1), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Time since the engine gave the token that made the first piece; `None` before it.
    #[must_use]
    pub fn since_first_piece(&self) -> Option<Duration> {
        let came = self.first_piece_ns.load(Ordering::Relaxed);
        (came > 0).then(|| self.made.elapsed().saturating_sub(Duration::from_nanos(came)))
    }

    /// The counts as they stand.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            prompt_tokens: self.prompt.load(Ordering::Relaxed),
            cached_tokens: self.cached.load(Ordering::Relaxed),
            completion_tokens: self.completion.load(Ordering::Relaxed),
            reasoning_tokens: self.reasoning.load(Ordering::Relaxed),
        }
    }

    /// Replaces all counts.
    pub fn set(&self, usage: Usage) {
        self.prompt.store(usage.prompt_tokens, Ordering::Relaxed);
        self.cached.store(usage.cached_tokens, Ordering::Relaxed);
        self.completion.store(usage.completion_tokens, Ordering::Relaxed);
        self.reasoning.store(usage.reasoning_tokens, Ordering::Relaxed);
    }
}

/// A finished choice.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// What was said.
    pub reply: Reply,
    /// Log-probabilities, one per token, where they were asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// How it ended.
    pub end: End,
}

/// Several choices' tokens added up, count by count.
#[must_use]
pub fn sum(usages: impl IntoIterator<Item = Usage>) -> Usage {
    usages.into_iter().fold(Usage::default(), |sum, usage| Usage {
        prompt_tokens: sum.prompt_tokens + usage.prompt_tokens,
        cached_tokens: sum.cached_tokens + usage.cached_tokens,
        completion_tokens: sum.completion_tokens + usage.completion_tokens,
        reasoning_tokens: sum.reasoning_tokens + usage.reasoning_tokens,
    })
}
