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
    /// Unix time, milliseconds.
    fn now_ms(&self) -> u64;

    /// Waits `ms` milliseconds.
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
    /// What decides which calls may happen.
    pub gate: Arc<dyn Gate>,
    /// Who is asked.
    pub approver: Arc<dyn Approver>,
    /// Counts the model's tokens.
    pub counter: Arc<dyn TokenCounter + Send + Sync>,
    /// Reads calls that leaked into the thinking, where it is at hand.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who watches.
    pub listener: Arc<dyn Listener>,
    /// How tokens are drawn; the profile's temperature is not read, it must be copied here.
    pub sampling: Sampling,
    /// Steps, tokens, money and time that may be used.
    pub budget: Budget,
    /// What tokens cost; zero where that is not known.
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
    /// [`RunError::Gate`] or [`RunError::Journal`]: the policy's file, the run's own folder or the journal cannot be
    /// written.
    pub fn new(hands: Hands, journal: Journal, entries: &[Entry]) -> Result<Self, RunError> {
        let mut state = State::of(entries);
        // Of an older process, which may have known of fewer secrets.
        state.redact(&hands.scope.secrets);
        hands.scope.seen.learn(&state.seen);
        for (call, approval) in &state.approvals {
            hands.gate.recall(call, approval)?;
        }
        let (clock, listener) = (Arc::clone(&hands.clock), Arc::clone(&hands.listener));
        let secrets = Arc::clone(&hands.scope.secrets);
        let book = Book { journal, state, clock, listener, secrets };
        let mut run = Self { hands, book, clean: Clean::default() };
        if run.book.journal.is_resumed() {
            // A program may have left some, and the process died before it could look.
            run.redact_artefacts()?;
        }
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

    /// Goes on until the run ends: how, and the answer or why there is none. One that has ended returns at once.
    ///
    /// # Errors
    /// [`RunError`]: the run pauses, and can be resumed.
    pub async fn finish(mut self) -> Result<(How, String), RunError> {
        loop {
            if let Some(ended) = self.book.state.ended.clone() {
                return Ok(ended);
            }
            match &self.book.state.open {
                None => self.turn().await?,
                Some(open) if open.calls.iter().all(|call| call.result.is_some()) => self.end_turn().await?,
                Some(_) => self.calls().await?,
            }
        }
    }

    async fn turn(&mut self) -> Result<(), RunError> {
        if let Some(answer) = self.book.state.answer.clone() {
            return self.end(How::Answer, &answer).await;
        }
        let over = self.book.state.ledger.over(&self.hands.budget, &self.hands.price);
        if let Some(sentence) = over.filter(|_| !is(Mutant::IgnoreBudget)) {
            return self.end(How::Budget, &sentence).await;
        }
        self.ask().await
    }

    /// All calls are settled: is it an answer, a circle, or the next turn?
    async fn end_turn(&mut self) -> Result<(), RunError> {
        let Some(open) = &self.book.state.open else { return Ok(()) };
        if open.calls.is_empty() {
            if !open.content.trim().is_empty() && !open.is_cut {
                let answer = open.content.clone();
                return self.end(How::Answer, &answer).await;
            }
            if self.book.state.n_empty >= N_EMPTY_MAX {
                let why = "the model neither called a tool nor answered, again and again";
                return self.end(How::Stuck, why).await;
            }
            let remark = if open.is_cut { words::CUT_ANSWER } else { words::EMPTY_ANSWER };
            return self.book.keep(Event::TurnEnded { remark: Some(remark.to_owned()) }, false);
        }
        let n_same = self.most_repeated(open);
        if n_same >= STOP_AT && !is(Mutant::IgnoreCircles) {
            let why = format!("the model made the same call, or nearly the same, {n_same} times");
            return self.end(How::Stuck, &why).await;
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

    async fn end(&mut self, how: How, text: &str) -> Result<(), RunError> {
        for tool in self.hands.profile.tools.tools() {
            tool.close().await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Bytes;
    use crate::gate::{Effect, PolicyGate, Resource, Unattended};
    use crate::journal::{self, Opened};
    use crate::policy::{Policy, Workspace as Ground};
    use crate::tools::{Arguments, Declaration, Limits, Registry, Tool, Workspace};
    use perilune_chat::message::Request;
    use perilune_chat::model::{self, EventStream};
    use perilune_chat::scanner::Finish;
    use std::path::Path;

    /// Answers at once.
    struct Brief;

    impl ChatModel for Brief {
        fn name(&self) -> &str {
            "brief"
        }

        fn answer(&self, _: Request) -> EventStream {
            let end = model::Event::Finish { finish: Finish::Stop, left_open: None };
            let events = [model::Event::Delta(Delta::Content("done".to_owned())), end];
            Box::pin(futures_util::stream::iter(events.map(Ok)))
        }
    }

    struct Nobody;

    impl Listener for Nobody {
        fn event(&self, _: &Entry) {}
    }

    fn hands(folder: &Path) -> Hands {
        std::fs::create_dir_all(folder.join("ws")).unwrap();
        let workspace = Workspace::open(&folder.join("ws")).unwrap();
        let mut scope =
            Scope::new(workspace.with_own_folder(&folder.join("own")).unwrap(), Limits::default());
        scope.secrets = Arc::new(Secrets::new([("TOKEN", "tok-0123456789")]).unwrap());
        let gate = PolicyGate::new(Policy::standard(), Ground::imagined(), Arc::clone(&scope.secrets));
        Hands {
            model: Arc::new(Brief),
            profile: Profile { tools: Registry::default(), ..Profile::standard(10_000, 1_000) },
            scope,
            gate: Arc::new(gate),
            approver: Arc::new(Unattended),
            counter: Arc::new(Bytes),
            tokenizer: None,
            clock: Arc::new(SystemClock),
            listener: Arc::new(Nobody),
            sampling: Sampling::default(),
            budget: Budget::STEPS_120,
            price: Price::default(),
        }
    }

    /// Leaves a file when it is closed, as a program does that is still at work.
    struct Late(std::path::PathBuf);

    impl Tool for Late {
        fn declaration(&self) -> Declaration {
            Declaration::flat("late", "Writes late.", &[])
        }

        fn effect(&self) -> Effect {
            Effect::Irreversible
        }

        fn resources(&self, _: &Arguments) -> Vec<Resource> {
            Vec::new()
        }

        fn run<'a>(&'a self, _: &'a Arguments, _: &'a Scope) -> BoxFuture<'a, Output> {
            Box::pin(std::future::ready(Output::done("")))
        }

        fn close(&self) -> BoxFuture<'_, ()> {
            std::fs::write(&self.0, "b,tok-0123456789\n").unwrap();
            Box::pin(std::future::ready(()))
        }
    }

    /// What a program changes through a mapping leaves the system's stamps as they were: here they say that the file
    /// is as it was when it was clean.
    #[tokio::test]
    async fn the_end_looks_at_every_artefact_whatever_is_known_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut hands, artefacts) = (hands(folder.path()), folder.path().join("own/artefacts"));
        std::fs::create_dir_all(&artefacts).unwrap();
        let (table, late) = (artefacts.join("table.csv"), artefacts.join("late.csv"));
        hands.profile.tools.add(Arc::new(Late(late.clone()))).unwrap();
        std::fs::write(&table, "a,tok-0123456789\n").unwrap();
        let (journal, first) = journal::create(&folder.path().join("run"), 0, Opened::default()).unwrap();
        let mut run = Run::new(hands, journal, &[first]).unwrap();
        run.clean = Clean::knowing(&artefacts).unwrap();
        run.redact_artefacts().unwrap();
        assert!(std::fs::read_to_string(&table).unwrap().contains("tok-"), "it was not passed over");
        run.clean = Clean::knowing(&artefacts).unwrap();
        assert_eq!(run.finish().await.unwrap().0, How::Answer);
        assert_eq!(std::fs::read_to_string(&table).unwrap(), "a,[secret TOKEN]\n");
        assert_eq!(std::fs::read_to_string(&late).unwrap(), "b,[secret TOKEN]\n");
    }

    /// A process died after a program had written and before it could look.
    #[tokio::test]
    async fn a_run_that_is_taken_up_looks_at_the_artefacts_first() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("run");
        drop(journal::create(&place, 0, Opened::default()).unwrap());
        let (hands, artefacts) = (hands(folder.path()), folder.path().join("own/artefacts"));
        std::fs::create_dir_all(&artefacts).unwrap();
        std::fs::write(artefacts.join("table.csv"), "a,tok-0123456789\n").unwrap();
        let (journal, entries) = journal::resume(&place).unwrap();
        let _run = Run::new(hands, journal, &entries).unwrap();
        assert_eq!(std::fs::read_to_string(artefacts.join("table.csv")).unwrap(), "a,[secret TOKEN]\n");
    }
}
