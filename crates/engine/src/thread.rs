//! The engine on a thread of its own, spoken to over channels.
//!
//! Requests go in through a handle that checks them and takes a place in the queue first, so the channel never holds
//! more than the queues' maximum. Events come out through each request's sink. A cancel is a flag beside the request,
//! so it needs no place in any queue and frees its work within one step. Without work the thread blocks on the channel.

use crate::engine::{Engine, Limits, Places};
use crate::forward::ForwardModel;
use crate::request::{EventSink, Request, RequestId, SubmitError};
use crate::stats::Stats;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

enum Command {
    Submit(Box<Submission>),
    /// Look at the flags.
    Wake,
}

struct Submission {
    id: RequestId,
    request: Request,
    sink: EventSink,
    cancel: Arc<AtomicBool>,
}

struct Shared {
    limits: Limits,
    places: Arc<Places>,
    next_id: AtomicU64,
    stats: Mutex<Stats>,
    is_draining: AtomicBool,
    is_aborting: AtomicBool,
}

/// Speaks to an engine thread; clones speak to the same one.
#[derive(Clone)]
pub struct EngineHandle {
    sender: Sender<Command>,
    shared: Arc<Shared>,
}

/// Owns an engine's thread.
pub struct EngineThread {
    handle: EngineHandle,
    thread: JoinHandle<()>,
}

/// A request on its way; dropping it cancels the request.
#[must_use = "dropping a ticket cancels its request"]
pub struct Ticket {
    id: RequestId,
    cancel: Arc<AtomicBool>,
    is_detached: bool,
}

impl EngineThread {
    /// Start a thread for `engine`.
    ///
    /// # Errors
    /// The system's reason, where it gives no thread.
    pub fn start<M: ForwardModel + Send + 'static>(engine: Engine<M>) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let shared = Arc::new(Shared {
            limits: engine.limits(),
            places: Arc::clone(&engine.places),
            next_id: AtomicU64::new(0),
            stats: Mutex::new(engine.stats()),
            is_draining: AtomicBool::new(false),
            is_aborting: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("perilune-engine".to_owned())
            .spawn(move || run(engine, &receiver, &theirs))?;
        Ok(EngineThread { handle: EngineHandle { sender, shared }, thread })
    }

    /// A handle to it, one of any number.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Take no more requests, finish those there are, and wait for the thread to end.
    pub fn drain(self) {
        self.handle.drain();
        // The thread catches the panics of its steps; what is left to learn from a failed join is nothing.
        let _ = self.thread.join();
    }

    /// Take no more requests, cancel those there are, and wait for the thread to end.
    pub fn stop(self) {
        self.handle.abort();
        let _ = self.thread.join();
    }
}

impl EngineHandle {
    /// What requests must fit.
    pub fn limits(&self) -> Limits {
        self.shared.limits
    }

    /// The books as of the last step.
    pub fn stats(&self) -> Stats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Send a request; its events go to `sink`, which is dropped without a last event only if the engine died.
    ///
    /// # Errors
    /// [`SubmitError`] for a request that can never run, a full queue, or an engine that is stopping.
    pub fn submit(&self, request: Request, sink: EventSink) -> Result<Ticket, SubmitError> {
        if self.shared.is_draining.load(Ordering::Acquire) {
            return Err(SubmitError::Stopping);
        }
        self.shared.limits.check(&request)?;
        let class = request.class;
        self.shared.places.enter(class)?;
        let id = RequestId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let cancel = Arc::new(AtomicBool::new(false));
        let submission = Submission { id, request, sink, cancel: Arc::clone(&cancel) };
        self.sender.send(Command::Submit(Box::new(submission))).map_err(|_| {
            self.shared.places.leave(class);
            SubmitError::Stopping
        })?;
        Ok(Ticket { id, cancel, is_detached: false })
    }

    /// Take no more requests and end when those there are have finished.
    pub fn drain(&self) {
        self.shared.is_draining.store(true, Ordering::Release);
        // Without a receiver the thread has ended already.
        let _ = self.sender.send(Command::Wake);
    }

    /// Take no more requests, cancel those there are, and end.
    pub fn abort(&self) {
        self.shared.is_aborting.store(true, Ordering::Release);
        self.drain();
    }
}

impl Ticket {
    /// The name of the request in the engine.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Cancel the request; its work stops before the next step.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// Let the request run on without its ticket.
    pub fn detach(mut self) {
        self.is_detached = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_detached {
            self.cancel();
        }
    }
}

fn run<M: ForwardModel>(mut engine: Engine<M>, receiver: &Receiver<Command>, shared: &Shared) {
    loop {
        let is_open = take_commands(&mut engine, receiver);
        if shared.is_aborting.load(Ordering::Acquire) {
            engine.cancel_all();
        }
        if engine.is_idle() {
            publish(&engine, shared);
            if !is_open || shared.is_draining.load(Ordering::Acquire) {
                break;
            }
            match receiver.recv() {
                Ok(command) => take(&mut engine, command),
                Err(mpsc::RecvError) => break,
            }
            continue;
        }
        if catch_unwind(AssertUnwindSafe(|| engine.step())).is_err() {
            engine.fail_all("a step of the engine panicked; the engine has stopped");
            break;
        }
        publish(&engine, shared);
        // Whoever waits for this step's tokens may want the processor that this thread holds.
        std::thread::yield_now();
    }
    shared.is_draining.store(true, Ordering::Release);
    take_commands(&mut engine, receiver);
    engine.cancel_all();
    publish(&engine, shared);
}

/// Take what has come; `false` when nothing more can.
fn take_commands<M: ForwardModel>(engine: &mut Engine<M>, receiver: &Receiver<Command>) -> bool {
    loop {
        match receiver.try_recv() {
            Ok(command) => take(engine, command),
            Err(mpsc::TryRecvError::Empty) => return true,
            Err(mpsc::TryRecvError::Disconnected) => return false,
        }
    }
}

fn take<M: ForwardModel>(engine: &mut Engine<M>, command: Command) {
    match command {
        Command::Submit(s) => engine.enqueue(s.id, s.request, s.sink, s.cancel),
        Command::Wake => {}
    }
}

fn publish<M: ForwardModel>(engine: &Engine<M>, shared: &Shared) {
    *shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = engine.stats();
}
