//! The two service classes under a mixed load: one latency stream beside 16 throughput requests with long prompts.
//!
//! `cargo run --release -p perilune-engine --example classes -- CHECKPOINT [N_THREADS]`

#![allow(clippy::print_stdout)]

use perilune_engine::forward::Served;
use perilune_engine::request::{Class, Delivery, Event, EventSink, Request};
use perilune_engine::{Engine, EngineThread, Settings};
use perilune_kernels::cpu::Cpu;
use perilune_model::checkpoint::Checkpoint;
use perilune_model::forward::{Arithmetic, Model};
use perilune_model::weights::{Dense, Weights};
use std::error::Error;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const N_PROMPT: usize = 2_000;
const N_TOKENS: usize = 600;

fn start(dir: &Path, n_threads: usize, settings: Settings) -> Result<EngineThread, Box<dyn Error>> {
    let checkpoint = Checkpoint::open(dir)?;
    let cpu = Cpu::new(n_threads);
    let weights = Weights::load(&checkpoint, Dense::AsPublished, &cpu, |_, _| {})?;
    let model = Model::new(checkpoint.config, weights, cpu, Arithmetic::Fast)?;
    let begin = Instant::now();
    let served = Served::new(model.into(), 1_000);
    Ok(EngineThread::start(Engine::new(served, settings, Box::new(move || begin.elapsed())))?)
}

/// A sink that notes when each event came.
fn sink() -> (EventSink, Receiver<(Instant, Event)>) {
    let (sender, receiver) = channel();
    let tell = move |event| match sender.send((Instant::now(), event)) {
        Ok(()) => Delivery::Taken,
        Err(_) => Delivery::Gone,
    };
    (Box::new(tell), receiver)
}

fn tokens(events: &Receiver<(Instant, Event)>) -> Vec<Instant> {
    events.iter().filter(|(_, e)| matches!(e, Event::Token(_))).map(|(at, _)| at).collect()
}

/// Distances between tokens, sorted.
fn gaps(at: &[Instant]) -> Vec<Duration> {
    let mut gaps: Vec<Duration> = at.windows(2).map(|w| w[1] - w[0]).collect();
    gaps.sort_unstable();
    gaps
}

fn show(what: &str, sent: Instant, at: &[Instant]) {
    let gaps = gaps(at);
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let share = |p: usize| ms(gaps[(gaps.len() * p / 100).min(gaps.len() - 1)]);
    println!(
        "{what:28} first token {:8.1} ms  between tokens p50 {:7.3}  p95 {:7.3}  p99 {:7.3}  max {:7.1} ms",
        ms(at[0] - sent),
        share(50),
        share(95),
        share(99),
        share(100)
    );
}

fn run(dir: &Path, n_threads: usize, settings: Settings, n_others: usize) -> Result<(), Box<dyn Error>> {
    let thread = start(dir, n_threads, settings)?;
    let handle = thread.handle();
    let prompt = |i: usize| (0..N_PROMPT).map(|t| ((t * 31 + i * 17) % 90) as u32).collect::<Vec<u32>>();
    let (mut others, mut tickets) = (Vec::new(), Vec::new());
    let sent = Instant::now();
    for i in 0..n_others {
        let (sink, events) = sink();
        tickets.push(handle.submit(Request::greedy(prompt(i + 1), 100), sink)?);
        others.push(events);
    }
    let (sink, events) = sink();
    let latency = Request { class: Class::Latency, ..Request::greedy(prompt(0)[..200].to_vec(), N_TOKENS) };
    tickets.push(handle.submit(latency, sink)?);
    let at = tokens(&events);
    let name = if n_others == 0 { "latency, idle server" } else { "latency, 16 others" };
    show(name, sent, &at);
    let done = at[at.len() - 1];
    let others: Vec<Vec<Instant>> = others.iter().map(tokens).collect();
    if let Some(first) = others.first() {
        show("throughput, the first", sent, first);
        let meanwhile = others.iter().flatten().filter(|at| **at <= done).count();
        let all = others.iter().map(Vec::len).sum::<usize>();
        let last = others.iter().flatten().max().copied().unwrap_or(done);
        println!(
            "throughput tokens while the latency request ran: {meanwhile}; all {all} after {:.1?}",
            last - sent
        );
    }
    thread.drain();
    println!("steps {}, preemptions {:?}", handle.stats().steps, handle.stats().preemptions);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("name the folder of a checkpoint")?;
    let n_threads = args.next().map_or(Ok(1), |n| n.parse())?;
    run(Path::new(&dir), n_threads, Settings::default(), 0)?;
    println!("-- classes");
    run(Path::new(&dir), n_threads, Settings::default(), 16)?;
    println!("-- the same without a share of its own for each class (throughput_every = 1)");
    run(Path::new(&dir), n_threads, Settings { throughput_every: 1, ..Settings::default() }, 16)
}
