//! A run in a small world with a seed: a model that errs, tools that change the world, a process that dies at any
//! moment, a machine that loses what was not synced. A judge that shares no code with the agent looks at the world,
//! at what the model was sent and at the raw rows of the journal.
//!
//! `PERILUNE_SIM_RUNS=10000 cargo test -p perilune-agent --lib sim` runs more seeds than the quick number.

mod judge;
mod model;
mod tools;
mod world;

use super::{Budget, Clock, Hands, Listener, Price, Run};
use crate::context::{Bytes, Profile};
use crate::gate::BoxFuture;
use crate::journal::{Entry, Event, Journal, JournalError, Opened, Row, Store};
use crate::mutant::{Mutant, ON};
use crate::tools::{Limits, Registry, Scope, Workspace};
use perilune_chat::message::Sampling;
use perilune_chat::tokenizer::Tokenizer;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use world::World;

/// Seeds of one test where nothing else is asked for.
const N_RUNS: u64 = 300;
/// Times that a process may die in one run.
const N_CRASHES_MAX: usize = 200;

/// Rows in memory; what is not synced is lost when the machine dies.
struct Memory(Arc<World>);

impl Store for Memory {
    fn append(&mut self, row: &Row, is_synced: bool) -> Result<(), JournalError> {
        let died = || JournalError::Io { path: "memory".into(), problem: "the process died".to_owned() };
        if self.0.dies() {
            return Err(died());
        }
        self.0.keep(row, is_synced);
        if self.0.dies() { Err(died()) } else { Ok(()) }
    }
}

impl Clock for World {
    fn now_ms(&self) -> u64 {
        self.tick()
    }

    fn sleep_ms(&self, ms: u64) -> BoxFuture<'static, ()> {
        // Waits for a retry are over at once; the limit of an attempt never comes.
        if ms > 700_000 { Box::pin(std::future::pending()) } else { Box::pin(std::future::ready(())) }
    }
}

impl Listener for World {
    fn event(&self, _entry: &Entry) {}
}

fn hands(world: &Arc<World>, folder: &Path) -> Hands {
    let workspace = Workspace::open(folder).unwrap();
    let tools = Registry::new(tools::all(world)).unwrap();
    Hands {
        model: Arc::new(model::Erring(Arc::clone(world))),
        profile: Profile { tools, ..Profile::standard(1_000_000, 1_000) },
        scope: Scope::new(workspace, Limits::default()),
        gate: Arc::new(tools::Rules),
        approver: Arc::new(tools::Person(Arc::clone(world))),
        counter: Arc::new(Bytes),
        tokenizer: Some(Arc::clone(&world.tokenizer)),
        clock: Arc::clone(world) as Arc<dyn Clock>,
        listener: Arc::clone(world) as Arc<dyn Listener>,
        sampling: Sampling::default(),
        budget: Budget { n_steps_max: world.n_steps_max, n_model_retries_max: 50, ..Budget::STEPS_120 },
        price: Price::default(),
    }
}

/// One process: from what the journal holds until the run ends (true) or the process dies.
fn process(world: &Arc<World>, folder: &Path) -> bool {
    let rows = world.rows();
    let (mut journal, mut entries) =
        Journal::over(Box::new(Memory(Arc::clone(world))), Path::new("memory"), &rows).unwrap();
    if rows.is_empty() {
        let opened = Opened { run: "run".to_owned(), task: "Do it.".to_owned(), ..Opened::default() };
        match journal.append(world.tick(), Event::Opened(opened), true) {
            Ok(entry) => entries.push(entry),
            Err(_) => return false,
        }
    }
    let Ok(run) = Run::new(hands(world, folder), journal, &entries) else { return false };
    let finish = pin!(run.finish());
    match finish.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(_)) => true,
        Poll::Ready(Err(_)) => false,
        Poll::Pending => panic!("the run waits for something that never comes"),
    }
}

/// The whole life of a run; what the judge says of it.
fn life(seed: u64, folder: &Path, tokenizer: &Arc<Tokenizer>) -> Result<(), String> {
    let world = Arc::new(World::new(seed, tokenizer));
    for n_crashes in 0.. {
        if process(&world, folder) {
            break;
        }
        if !world.has_died() {
            return Err("the run stopped though nothing had died".to_owned());
        }
        if n_crashes >= N_CRASHES_MAX {
            return Err(format!("the run never ends, {n_crashes} crashes"));
        }
        world.rise();
    }
    judge::judge(&world)
}

fn tokenizer() -> Arc<Tokenizer> {
    let ranks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chat/tests/data/small.tiktoken");
    Arc::new(Tokenizer::from_rank_file(&ranks).unwrap())
}

fn n_runs() -> u64 {
    std::env::var("PERILUNE_SIM_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(N_RUNS)
}

#[test]
fn every_life_is_right() {
    let (folder, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer());
    for seed in 0..n_runs() {
        if let Err(wrong) = life(seed, folder.path(), &tokenizer) {
            panic!("seed {seed}: {wrong}");
        }
    }
}

#[test]
fn each_mutant_is_caught() {
    use Mutant::*;
    let (folder, tokenizer) = (tempfile::tempdir().unwrap(), tokenizer());
    let all = [
        SkipIntent,
        UnsyncedIntent,
        RepeatUnknown,
        AssumeDone,
        FreshKey,
        SkipOutcome,
        IgnoreGate,
        Reorder,
        SwallowCalls,
        DropReasoning,
        LoseLeakedCalls,
        IgnoreBudget,
        IgnoreCircles,
        ForgetAnswers,
    ];
    for mutant in all {
        ON.set(Some(mutant));
        let caught = (0..N_RUNS)
            .find_map(|seed| life(seed, folder.path(), &tokenizer).err().map(|wrong| (seed, wrong)));
        ON.set(None);
        match caught {
            Some((seed, wrong)) => println!("{mutant:?}: seed {seed}: {wrong}"),
            None => panic!("{mutant:?} was not caught by {N_RUNS} seeds"),
        }
    }
}
