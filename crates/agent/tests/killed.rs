//! A real process, killed by SIGKILL again and again: each effect that must happen once happens once, counted in a file
//! that the process only appends to.
//!
//! `PERILUNE_KILLED_STEPS=300 cargo test -p perilune-agent --test killed` takes more steps.
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

#[path = "support/alone.rs"]
mod alone;

use perilune_agent::context::Profile;
use perilune_agent::gate::{BoxFuture, Effect, Resource};
use perilune_agent::journal::{self, Event, How, JOURNAL_FILE, Opened};
use perilune_agent::run::Run;
use perilune_agent::tools::{
    Arguments, Declaration, Output, Parameter, Probe, Registry, Scope, Tool, Workspace,
};
use perilune_chat::message::{Message, Request};
use perilune_chat::model::{self, ChatModel, EventStream};
use perilune_chat::scanner::{Closing, Delta, Finish};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Folder of the run, for the process that is to be killed.
const CHILD: &str = "PERILUNE_KILLED_CHILD";
/// Calls of the run where nothing else is asked for.
const N_STEPS: usize = 40;
/// Times that the process is killed.
const N_KILLS: usize = 30;

fn n_steps() -> usize {
    std::env::var("PERILUNE_KILLED_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(N_STEPS)
}

/// One call a turn, then the answer.
struct Counting;

impl ChatModel for Counting {
    fn name(&self) -> &str {
        "counting"
    }

    fn answer(&self, request: Request) -> EventStream {
        let messages = request.conversation.messages();
        let n_answers = messages.iter().filter(|it| matches!(it, Message::Assistant(_))).count();
        let end = |finish| model::Event::Finish { finish, left_open: None };
        let events = if n_answers < n_steps() {
            let (id, name) = ("functions.stamp:0".to_owned(), "stamp".to_owned());
            let text = format!("{{\"number\":{n_answers}}}");
            vec![
                model::Event::Delta(Delta::ToolCallBegin { index: 0, id, name }),
                model::Event::Delta(Delta::ToolCallArguments { index: 0, text }),
                model::Event::Delta(Delta::ToolCallEnd { index: 0, closing: Closing::Marker }),
                end(Finish::ToolCalls),
            ]
        } else {
            vec![model::Event::Delta(Delta::Content("done".to_owned())), end(Finish::Stop)]
        };
        Box::pin(futures_util::stream::iter(events.into_iter().map(Ok)))
    }
}

/// Appends its key to a file, which can be looked through for it.
struct Stamp(PathBuf);

impl Tool for Stamp {
    fn declaration(&self) -> Declaration {
        Declaration::flat("stamp", "Stamps.", &[Parameter::required("number", "integer", "which")])
    }

    fn effect(&self) -> Effect {
        Effect::Once
    }

    fn resources(&self, _arguments: &Arguments) -> Vec<Resource> {
        Vec::new()
    }

    fn probe(&self, _arguments: &Arguments, _note: &Value, scope: &Scope) -> Probe {
        let stamps = std::fs::read_to_string(&self.0).unwrap_or_default();
        if stamps.contains(&scope.key) { Probe::Done(Output::done("stamped")) } else { Probe::NotStarted }
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        // Wide open to a kill, before and after the effect.
        std::thread::sleep(Duration::from_millis(1));
        file.write_all(format!("{} {}\n", arguments["number"], scope.key).as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        Box::pin(std::future::ready(Output::done("stamped")))
    }
}

/// The process that is killed: does nothing unless it is told where to work.
#[tokio::test]
async fn child() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let workspace = Workspace::open(&folder).unwrap().with_own_folder(&folder.join("own")).unwrap();
    let tools = Registry::new(vec![Arc::new(Stamp(folder.join("stamps")))]).unwrap();
    let profile = Profile { tools, ..Profile::standard(1_000_000, 1_000) };
    let hands = alone::hands(Arc::new(Counting), profile, workspace);
    let (journal, entries) = if folder.join(JOURNAL_FILE).exists() {
        journal::resume(&folder).unwrap()
    } else {
        let opened = Opened { run: "run".to_owned(), ..Opened::default() };
        let (journal, entry) = journal::create(&folder, 0, opened).unwrap();
        (journal, vec![entry])
    };
    let ended = Run::new(hands, journal, &entries).unwrap().finish().await.unwrap();
    assert_eq!(ended, (How::Answer, "done".to_owned()));
}

fn start(folder: &Path) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child"]).env(CHILD, folder).stdout(Stdio::null()).stderr(Stdio::inherit());
    command.spawn().unwrap()
}

#[test]
fn killed_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let seed = std::process::id();
    let mut random = u64::from(seed) | 1;
    let mut n_kills = 0;
    let n_events = || journal::read(folder).map_or(0, |entries| entries.len());
    for _ in 0..N_KILLS {
        let (mut child, before) = (start(folder), n_events());
        let deadline = Instant::now() + Duration::from_secs(60);
        // It gets somewhere before it dies: a process that is killed while it starts shows nothing.
        while n_events() < before + 2 && child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_micros((random >> 33) % 4_000));
        n_kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(start(folder).wait().unwrap().success(), "the last process failed (seed {seed})");
    let stamps = std::fs::read_to_string(folder.join("stamps")).unwrap();
    let numbers: Vec<String> =
        stamps.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    let expected: Vec<String> = (0..n_steps()).map(|number| number.to_string()).collect();
    assert_eq!(numbers, expected, "each stamp once and in order (seed {seed})");
    let entries = journal::read(folder).unwrap();
    let count = |is: fn(&Event) -> bool| entries.iter().filter(|entry| is(&entry.event)).count();
    assert_eq!(count(|event| matches!(event, Event::Outcome { .. })), n_steps());
    let n_intents = count(|event| matches!(event, Event::Intent { .. }));
    println!("{n_kills} kills while at work, {n_intents} intents for {} effects", n_steps());
    assert!(n_kills > 0, "no process was killed while at work");
}
