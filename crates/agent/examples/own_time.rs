//! How long does the agent itself take per step? 300 steps with the journal on this disk, a model and a tool that take
//! no time. `cargo run --release -p perilune-agent --example own_time [DIR]`
//!
//! First with calls whose intents need no sync, then with one synced intent a step: the difference is the disk's.
//! Beside it the resident memory of the process as the steps go on.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../tests/support/alone.rs"]
mod alone;

use perilune_agent::context::Profile;
use perilune_agent::gate::{BoxFuture, Effect, Resource};
use perilune_agent::journal::{self, Opened};
use perilune_agent::run::Run;
use perilune_agent::tools::{Arguments, Declaration, Output, Parameter, Registry, Scope, Tool, Workspace};
use perilune_chat::message::Request;
use perilune_chat::model::{ChatModel, Event, EventStream};
use perilune_chat::scanner::{Closing, Delta, Finish};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Steps of the run.
const N_STEPS: usize = 300;

/// Tokens of the conversation, as `run` has it where nothing else is asked for; it is full after some fifty steps.
const CONTEXT_TOKENS: usize = 32_768;

/// Steps between two looks at memory.
const LOOK_STEPS: usize = 50;

/// Answers at once, and notes when it was asked and when it had answered.
#[derive(Default)]
struct Instantly {
    times: Mutex<Vec<(Instant, Instant)>>,
    resident: Mutex<Vec<String>>,
}

/// Resident memory of this process, as the system says it.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap_or("unknown").trim().to_owned()
}

impl ChatModel for Instantly {
    fn name(&self) -> &str {
        "instantly"
    }

    fn answer(&self, _request: Request) -> EventStream {
        let asked = Instant::now();
        let mut times = self.times.lock().unwrap();
        let step = times.len();
        if step > 0 && step.is_multiple_of(LOOK_STEPS) {
            self.resident.lock().unwrap().push(format!("{} after {step}", resident()));
        }
        let events = if step < N_STEPS {
            let arguments = format!("{{\"text\":\"{step} of some words that a call may have\"}}");
            vec![
                Event::Delta(Delta::Reasoning(format!("{step}: I do the next one. ").repeat(8))),
                Event::Delta(Delta::ToolCallBegin {
                    index: 0,
                    id: "functions.do:0".to_owned(),
                    name: "do".to_owned(),
                }),
                Event::Delta(Delta::ToolCallArguments { index: 0, text: arguments }),
                Event::Delta(Delta::ToolCallEnd { index: 0, closing: Closing::Marker }),
                Event::Finish { finish: Finish::ToolCalls, left_open: None },
            ]
        } else {
            let end = Event::Finish { finish: Finish::Stop, left_open: None };
            vec![Event::Delta(Delta::Content("done".to_owned())), end]
        };
        times.push((asked, Instant::now()));
        Box::pin(futures_util::stream::iter(events.into_iter().map(Ok)))
    }
}

/// Does nothing.
struct Do(Effect);

impl Tool for Do {
    fn declaration(&self) -> Declaration {
        Declaration::flat("do", "Does it.", &[Parameter::required("text", "string", "what")])
    }

    fn effect(&self) -> Effect {
        self.0
    }

    fn resources(&self, _arguments: &Arguments) -> Vec<Resource> {
        Vec::new()
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, _scope: &'a Scope) -> BoxFuture<'a, Output> {
        let text = format!("did {}\n", arguments["text"]).repeat(10);
        Box::pin(std::future::ready(Output::files(text)))
    }
}

async fn run(folder: &Path, effect: Effect) -> Vec<f64> {
    let model = Arc::new(Instantly::default());
    std::fs::create_dir_all(folder.join("work")).unwrap();
    let workspace =
        Workspace::open(&folder.join("work")).unwrap().with_own_folder(&folder.join("own")).unwrap();
    let tools = Registry::new(vec![Arc::new(Do(effect))]).unwrap();
    let profile = Profile { tools, ..Profile::standard(CONTEXT_TOKENS, CONTEXT_TOKENS / 4) };
    let hands = alone::hands(Arc::clone(&model) as Arc<dyn ChatModel>, profile, workspace);
    let (journal, entry) =
        journal::create(folder, 0, Opened { run: "run".to_owned(), ..Opened::default() }).unwrap();
    Run::new(hands, journal, &[entry]).unwrap().finish().await.unwrap();
    println!("memory: {}", model.resident.lock().unwrap().join(", "));
    let times = model.times.lock().unwrap();
    times.windows(2).map(|pair| (pair[1].0 - pair[0].1).as_secs_f64() * 1e3).collect()
}

fn report(what: &str, steps: &[f64]) -> f64 {
    let median = |steps: &[f64]| {
        let mut sorted = steps.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let last = median(&steps[N_STEPS - 50..]);
    println!(
        "{what}: median {:.3} ms a step over all, {:.3} ms in steps 1 to 50, {last:.3} ms in steps 251 to 300",
        median(steps),
        median(&steps[..50])
    );
    last
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let base = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let folder = tempfile::tempdir_in(base).unwrap();
    let plain = report("no sync", &run(&folder.path().join("plain"), Effect::Idempotent).await);
    let synced = report("one sync", &run(&folder.path().join("synced"), Effect::Once).await);
    println!("sync: {:.3} ms a step", synced - plain);
}
