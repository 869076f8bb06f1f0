//! A long run through the binary: a model over HTTP that misbehaves from a seed, an agent that is killed by SIGKILL
//! again and again, and at the end each effect once, no step lost, every file right.
//!
//! `PERILUNE_SOAK_STEPS=300 PERILUNE_SOAK_KILLS=30 cargo test -p perilune --test run_verb soak -- --nocapture` is the
//! whole of it; the quick numbers are less. `PERILUNE_SOAK_SEED` repeats one.

mod embedded;
mod judge;
mod model;
mod plan;

use crate::{finish, start};
use model::Model;
use plan::{EFFECT_EVERY, LEDGER, Plan, Random, filler};
use rustix::fs::inotify;
use std::io::{BufRead, BufReader};
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Steps where nothing else is asked for.
const N_STEPS: usize = 60;
/// Times that the agent is killed.
const N_KILLS: usize = 10;
/// Longest time after an intent at which a kill may come, µs: an edit of the ledger takes about as long.
const ATTEMPT_US: usize = 12_000;
/// Last kills that are aimed at an attempt where none has met one yet.
const N_AIMED: usize = 6;
/// Time that one life may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Counts how often a file was replaced, in this process and beside all that the agent says.
struct Watch(std::os::fd::OwnedFd);

impl Watch {
    fn new(folder: &Path) -> Self {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        // Each replacement makes a file of its own first, which keeps the system from merging equal events.
        let events = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CREATE;
        inotify::add_watch(&watch, folder, events).unwrap();
        Self(watch)
    }

    /// Of the file of this name.
    fn n_replaced(self, name: &str) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.0, &mut buffer);
        let mut n_replaced = 0;
        while let Ok(event) = reader.next() {
            assert!(!event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW));
            let is_it = event.file_name().is_some_and(|it| it.to_bytes() == name.as_bytes());
            n_replaced += usize::from(is_it && event.events().contains(inotify::ReadFlags::MOVED_TO));
        }
        n_replaced
    }
}

/// An agent at work, and the lines that it shows.
struct Life {
    child: Child,
    lines: Receiver<String>,
}

impl Life {
    fn start(folder: &Path, upstream: &str, run: Option<&str>) -> Self {
        let task = ["do all steps"];
        let resume = ["--resume", run.unwrap_or_default()];
        let args: &[&str] = if run.is_some() { &resume } else { &task };
        Self::of(start(folder, upstream, &[args, &["--steps", "100000"]].concat()))
    }

    fn of(mut child: Child) -> Self {
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        // What it has to say of its troubles must not fill a pipe.
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            errors.lines().map_while(Result::ok).for_each(|line| eprintln!("agent: {line}"))
        });
        Self { child, lines }
    }

    /// Waits until the model has seen `n_done` steps done, and then for the intent of an effect if asked to; gives back
    /// how long to wait on.
    fn wait(&self, model: &Model, n_done: usize, for_intent: bool, wait_us: usize) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let is_intent = |line: &str| line.contains(r#""event":"intent""#) && line.contains("edit_file");
        while Instant::now() < deadline {
            match self.lines.recv_timeout(Duration::from_millis(1)) {
                Ok(line) if for_intent && is_intent(&line) && model.seen().n_done >= n_done => {
                    return wait_us;
                }
                Err(RecvTimeoutError::Disconnected) => return 0,
                _ if !for_intent && model.seen().n_done >= n_done => return wait_us,
                _ => {}
            }
        }
        panic!("the agent came no further in {PATIENCE:?}");
    }

    /// Whether it was alive.
    fn kill(mut self) -> bool {
        let is_alive = self.child.try_wait().unwrap().is_none();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        is_alive
    }
}

/// The model and how it is reached.
struct Place {
    model: Arc<Model>,
    upstream: String,
}

/// The name of the one run. An agent that was killed before it opened one leaves a folder without a journal.
fn name(folder: &Path) -> Option<String> {
    let runs = std::fs::read_dir(folder.join("runs")).ok()?.flatten();
    let mut opened = runs.filter(|run| run.path().join("journal.sqlite").exists());
    opened.next().map(|run| run.file_name().into_string().unwrap())
}

/// Lives one life of at most `n_more` steps and ends it at a moment of `random`'s choice, or right after the intent of an
/// effect.
fn live_and_die(folder: &Path, place: &Place, n_more: usize, after_intent: bool, random: &mut Random) {
    let run = name(folder);
    let n_done = place.model.hold_after(n_more) + random.below(n_more.saturating_sub(EFFECT_EVERY).max(1));
    let life = Life::start(folder, &place.upstream, run.as_deref());
    let wait_us = match random.below(10) {
        _ if after_intent => life.wait(&place.model, n_done, true, 1),
        // While it starts; the first one must have opened a run.
        0 if run.is_some() => random.below(200_000),
        0..=5 => {
            // Short waits come as often as long ones.
            let longest_us = ATTEMPT_US >> random.below(6);
            life.wait(&place.model, n_done, true, random.below(longest_us))
        }
        _ => life.wait(&place.model, n_done, false, random.below(20_000)),
    };
    std::thread::sleep(Duration::from_micros(wait_us as u64));
    assert!(life.kill(), "the agent ended by itself");
}

/// Says how much memory the agent takes after each fifty steps.
fn memory(agent: u32, model: Arc<Model>) {
    std::thread::spawn(move || {
        let mut next = model.seen().n_done / 50 * 50 + 50;
        while let Ok(status) = std::fs::read_to_string(format!("/proc/{agent}/status")) {
            if model.seen().n_done >= next {
                let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
                println!("after {next} steps: {resident}");
                next += 50;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn each_effect_once_whatever_the_model_says_and_whenever_the_agent_dies() {
    let (n_steps, n_kills) = (number("PERILUNE_SOAK_STEPS", N_STEPS), number("PERILUNE_SOAK_KILLS", N_KILLS));
    let seed = number("PERILUNE_SOAK_SEED", std::process::id() as usize) as u64;
    println!("PERILUNE_SOAK_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let (folder, work) = (dir.path(), dir.path().join("work"));
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join(LEDGER), filler()).unwrap();
    let watch = Watch::new(&work);
    let (model, upstream) = Model::start(Plan::new(seed, n_steps));
    let place = Place { model, upstream };
    let mut random = Random::new(seed ^ 0x6b69_6c6c);
    for n_left in (1..=n_kills).rev() {
        let n_more = (n_steps - place.model.seen().n_done) / (n_left + 1);
        let is_aimed = n_left <= N_AIMED && judge::n_torn(folder) == 0;
        live_and_die(folder, &place, n_more, is_aimed, &mut random);
    }
    place.model.hold_after(n_steps + 1);
    let run = name(folder);
    let args: Vec<&str> = run.as_deref().map_or(vec!["do all steps"], |run| vec!["--resume", run]);
    let last = start(folder, &place.upstream, &[&args[..], &["--steps", "100000"]].concat());
    memory(last.id(), Arc::clone(&place.model));
    let (code, lines) = finish(last);
    assert_eq!(code, Some(0), "seed {seed}: {:?}", lines.last());
    assert_eq!(lines.last().unwrap()["answer"], model::ANSWER, "seed {seed}");
    let judged = judge::judge(folder, &place.model, n_kills, watch.n_replaced(LEDGER));
    judged.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
}
