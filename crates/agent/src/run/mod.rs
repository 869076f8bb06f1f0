//! One task, from first to last turn: ask the model, do its calls, until there is an answer or a limit says stop.
//!
//! The loop keeps nothing of its own: each thing that happens is an event, journalled before the next one, and
//! [`State`] is the fold over events. A run that was killed at any moment goes on from the same state.
//!
//! Reading order: what a run is handed, the loop, its turn, its calls.

mod ask;
mod calls;
mod ledger;
mod repeats;
#[cfg(test)]
mod sim;
mod state;

pub use ledger::{Budget, Ledger, Price};
pub use repeats::{REMIND_AT, STOP_AT};
pub use state::{Intent, OpenCall, OpenTurn, State};

use crate::context::{ContextError, Profile, TokenCounter, words};
use crate::gate::{Approver, BoxFuture, Gate, GateError};
use crate::journal::{Entry, Event, How, Journal, JournalError};
use crate::mutant::{Mutant, is};
use crate::secrets::Secrets;
use crate::tools::{Clean, Output, Scope};
use perilune_chat::message::Sampling;
use perilune_chat::model::{ChatModel, ModelError};
use perilune_chat::scanner::Delta;
use perilune_chat::tokenizer::Tokenizer;
use std::sync::Arc;

/// Answers in a row that say nothing, after which the run stops.
const N_EMPTY_MAX: u32 = 5;

/// Time, handed in so that a test can own it, and a place for what may never return.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Waits.
    fn sleep_ms(&self, ms: u64) -> BoxFuture<'static, ()>;

    /// The same work, where it may block without holding up whoever waits for it. Dropping the future ends work
    /// that waits; what blocks goes on unheard. A test that blocks nowhere leaves it as it is.
    fn apart(&self, work: BoxFuture<'static, Output>) -> BoxFuture<'static, Output> {
        work
    }
}

/// The system's clock, on tokio's timer and tokio's threads for what blocks.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep_ms(&self, ms: u64) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(std::time::Duration::from_millis(ms)))
    }

    fn apart(&self, work: BoxFuture<'static, Output>) -> BoxFuture<'static, Output> {
        let (waiting, mut nobody_waits) = tokio::sync::oneshot::channel::<()>();
        let runtime = tokio::runtime::Handle::current();
        let thread = tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    output = work => Some(output),
                    _ = &mut nobody_waits => None,
                }
            })
        });
        Box::pin(async move {
            let _waiting = waiting;
            let output = thread.await.ok().flatten();
            output.unwrap_or_else(|| Output::failed(words::BROKE_OFF))
        })
    }
}

/// Who watches a run: terminal, console, a script.
pub trait Listener: Send + Sync {
    /// An event, after it was journalled.
    fn event(&self, entry: &Entry);

    /// A piece of the answer as it comes, or the whole at its end where there are secrets, which could stand in
    /// several pieces; a retry starts the answer anew.
    fn delta(&self, _delta: &Delta) {}
}

/// Everything that a run is handed.
pub struct Hands {
    /// Who thinks.
    pub model: Arc<dyn ChatModel>,
    /// Its instructions, tools and limits.
    pub profile: Profile,
    /// What tools may reach; its secrets are those of the whole run.
    pub scope: Scope,
    /// What may happen.
    pub gate: Arc<dyn Gate>,
    /// Who is asked.
    pub approver: Arc<dyn Approver>,
    /// Counts the model's tokens.
    pub counter: Arc<dyn TokenCounter + Send + Sync>,
    /// Reads calls that leaked into the thinking, where it is at hand.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who watches.
    pub listener: Arc<dyn Listener>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// What may be used.
    pub budget: Budget,
    /// What tokens cost.
    pub price: Price,
}

/// Why a run pauses. Its journal is whole; it can be resumed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The journal did not keep an event.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The gate could not settle a call.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// The model cannot be used.
    #[error("{0}; the run can be resumed when that is mended")]
    Model(#[from] ModelError),
    /// The conversation does not fit.
    #[error(transparent)]
    Context(#[from] ContextError),
}

/// A run with its one writer.
pub struct Run {
    hands: Hands,
    book: Book,
    clean: Clean,
}

/// Journal and state, which never differ.
struct Book {
    journal: Journal,
    state: State,
    clock: Arc<dyn Clock>,
    listener: Arc<dyn Listener>,
    secrets: Arc<Secrets>,
}

impl Run {
    /// A run over a journal and what it holds, from [`crate::journal::create`] or [`crate::journal::resume`].
    ///
    /// # Errors
    /// The policy's file or the run's own folder cannot be written.
    pub fn new(hands: Hands, journal: Journal, entries: &[Entry]) -> Result<Self, RunError> {
        let mut state = State::of(entries);
        // Of an older process, which may have known of fewer secrets.
        state.redact(&hands.scope.secrets);
        hands.scope.seen.learn(&state.seen);
        for (call, approval) in &state.approvals {
            hands.gate.remember(call, approval)?;
        }
        let (clock, listener) = (Arc::clone(&hands.clock), Arc::clone(&hands.listener));
        let secrets = Arc::clone(&hands.scope.secrets);
        let book = Book { journal, state, clock, listener, secrets };
        let mut run = Self { hands, book, clean: Clean::default() };
        run.restore_files(entries)?;
        if run.goes_on() {
            run.book.keep(Event::Resumed, false)?;
        }
        Ok(run)
    }

    /// Whether another process began it and it is not over, or ended at a limit that is larger now.
    fn goes_on(&self) -> bool {
        let State { ended, ledger, .. } = &self.book.state;
        match ended {
            None => self.book.journal.is_resumed(),
            Some((How::Budget, _)) => ledger.over(&self.hands.budget, &self.hands.price).is_none(),
            Some(_) => false,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.book.state
    }

    /// Goes on until the run ends: how, and the answer or why there is none.
    ///
    /// # Errors
    /// [`RunError`]: the run pauses.
    pub async fn finish(mut self) -> Result<(How, String), RunError> {
        loop {
            if let Some(ended) = self.book.state.ended.clone() {
                return Ok(ended);
            }
            match &self.book.state.open {
                None => self.turn().await?,
                Some(open) if open.calls.iter().all(|call| call.result.is_some()) => self.end_turn()?,
                Some(_) => self.calls().await?,
            }
        }
    }

    async fn turn(&mut self) -> Result<(), RunError> {
        if let Some(answer) = self.book.state.answer.clone() {
            return self.end(How::Answer, &answer);
        }
        let over = self.book.state.ledger.over(&self.hands.budget, &self.hands.price);
        if let Some(sentence) = over.filter(|_| !is(Mutant::IgnoreBudget)) {
            return self.end(How::Budget, &sentence);
        }
        self.ask().await
    }

    /// All calls are settled: is it an answer, a circle, or the next turn?
    fn end_turn(&mut self) -> Result<(), RunError> {
        let Some(open) = &self.book.state.open else { return Ok(()) };
        if open.calls.is_empty() {
            if !open.content.trim().is_empty() && !open.is_cut {
                let answer = open.content.clone();
                return self.end(How::Answer, &answer);
            }
            if self.book.state.n_empty >= N_EMPTY_MAX {
                return self.end(How::Stuck, "the model neither called a tool nor answered, again and again");
            }
            let remark = if open.is_cut { words::CUT_ANSWER } else { words::EMPTY_ANSWER };
            return self.book.keep(Event::TurnEnded { remark: Some(remark.to_owned()) }, false);
        }
        let n_same = self.most_repeated(open);
        if n_same >= STOP_AT && !is(Mutant::IgnoreCircles) {
            return self.end(
                How::Stuck,
                &format!("the model made the same call, or nearly the same, {n_same} times"),
            );
        }
        let is_reminded = n_same > 0 && n_same.is_multiple_of(REMIND_AT);
        let remark = is_reminded.then(|| words::repeated(n_same));
        self.book.keep(Event::TurnEnded { remark }, false)
    }

    /// How often the call that was repeated most has been made; tools that are called for news do not count.
    fn most_repeated(&self, open: &OpenTurn) -> usize {
        let counted = open.calls.iter().filter(|call| {
            !self.hands.profile.tools.get(&call.text.name).is_some_and(|tool| tool.is_polling())
        });
        let counts = counted.map(|call| self.book.state.repeats.count(&call.fingerprint()));
        counts.max().unwrap_or(0)
    }

    fn end(&mut self, how: How, text: &str) -> Result<(), RunError> {
        // All of them once more, whatever the system says of them.
        self.clean = Clean::default();
        self.redact_artefacts()?;
        self.book.keep(Event::Ended { how, text: text.to_owned() }, true)
    }
}

impl Book {
    /// Journals an event without secret values, then lets it count.
    fn keep(&mut self, mut event: Event, is_synced: bool) -> Result<(), RunError> {
        event.redact(&self.secrets);
        let entry = self.journal.append(self.clock.now_ms(), event, is_synced)?;
        self.state.apply(&entry);
        self.listener.event(&entry);
        Ok(())
    }
}
