//! Secret values through the whole loop: what leaves it, in any encoding, holds none.

use crate::loops::{self, Shared, ready};
use crate::world::forms;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use perilune_agent::gate::{BoxFuture, Effect, PolicyGate, Resource, may_read};
use perilune_agent::journal::{self, CallText, Event, TokenUse};
use perilune_agent::policy::{DEFAULT, Policy, Workspace as Ground};
use perilune_agent::secrets::Secrets;
use perilune_agent::tools::{
    Arguments, Declaration, EditFile, Limits, Output, ReadFile, Registry, Scope, SearchFiles, Tool,
    Workspace, WriteFile,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const VALUE: &str = "tok-51b7/f0c2+aa94";
/// Bytes of a line that `read_file` shows, and of a result that is shown before it is cut.
const LINE_BYTES: usize = 2_000;

const LEAK_RULE: &str = r#"
[[rule]]
name = "leaks"
decision = "allow"
tools = ["leak"]
match = [{ tool = "leak" }]
no_match = [{ tool = "shell" }]
"#;

/// Answers in each part of an output with the value, and leaves files with it as a program does.
struct Leak(PathBuf);

impl Tool for Leak {
    fn declaration(&self) -> Declaration {
        Declaration::flat("leak", "Says it.", &[])
    }

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn resources(&self, _: &Arguments) -> Vec<Resource> {
        Vec::new()
    }

    fn run<'a>(&'a self, _: &'a Arguments, _: &'a Scope) -> BoxFuture<'a, Output> {
        let artefacts = self.0.join("artefacts");
        std::fs::create_dir_all(artefacts.join("deep")).unwrap();
        std::fs::write(artefacts.join("table.csv"), format!("a,{VALUE}\n")).unwrap();
        std::fs::write(artefacts.join("deep/picture.png"), [b"\x89PNG\xff", VALUE.as_bytes()].concat())
            .unwrap();
        std::fs::write(artefacts.join(STANDARD.encode(VALUE).replace('/', "_")), "by its name").unwrap();
        std::fs::write(artefacts.join("plain.txt"), "stays").unwrap();
        ready(Output {
            plan: Some(format!("use {VALUE}")),
            artefacts: vec![format!("artefacts/{VALUE}")],
            seen: vec![(VALUE.to_owned(), String::new())],
            ..Output::files(format!("{}{VALUE}", "x".repeat(96_990)))
        })
    }
}

/// Lines that hold the value in encodings, and across the place where a long line is cut.
fn file() -> String {
    let hex: String = VALUE.bytes().map(|byte| format!("{byte:02X}")).collect();
    let across = format!("{}{VALUE}", "x".repeat(LINE_BYTES - 8));
    let basic = STANDARD.encode(format!("user:{VALUE}"));
    let url: String = url::form_urlencoded::byte_serialize(VALUE.as_bytes()).collect();
    let safe = URL_SAFE_NO_PAD.encode(VALUE);
    [format!("token = {VALUE}"), basic, safe, hex, url, across].join("\n")
}

fn arguments(value: &Value) -> Arguments {
    value.as_object().unwrap().clone()
}

fn registry(own: &Path) -> Registry {
    let leak = Arc::new(Leak(own.to_owned()));
    Registry::new(vec![
        Arc::new(ReadFile),
        Arc::new(SearchFiles),
        Arc::new(WriteFile),
        Arc::new(EditFile),
        leak,
    ])
    .unwrap()
}

/// One run in `root` over these calls; the mind with all that left the loop.
async fn run(root: &Path, calls: &[(&str, Value)], secrets: Secrets) -> Shared {
    let (ws, folder) = (root.join("ws"), root.join("run"));
    let secrets = Arc::new(secrets);
    let policy = Policy::parse(&format!("{DEFAULT}{LEAK_RULE}"), "test").unwrap();
    let gate = Arc::new(PolicyGate::new(policy, Ground::open(&ws).unwrap(), Arc::clone(&secrets)));
    let workspace = Workspace::open(&ws).unwrap().with_own_folder(&folder.join("own")).unwrap();
    let mut scope = Scope::new(workspace, Limits::default());
    scope.may_read = Some(may_read(gate.clone(), "run"));
    scope.secrets = secrets;
    let mind = Shared::default();
    let calls = calls.iter().map(|(name, value)| ((*name).to_owned(), arguments(value)));
    mind.0.lock().unwrap().calls = calls.collect();
    mind.0.lock().unwrap().answer = format!("It is {VALUE}.");
    let task = format!("Log in with {VALUE}.");
    loops::run(&task, &folder, &mind, registry(&folder.join("own")), gate, scope).await.unwrap();
    mind
}

/// Every file beneath a folder, names and contents.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = std::fs::read(&path).unwrap();
            found.push((path.display().to_string(), String::from_utf8_lossy(&content).into_owned()));
        }
    }
    found
}

fn calls() -> [(&'static str, Value); 7] {
    let escaped = VALUE.replace('t', "\\u0074");
    [
        ("read_file", json!({"path": "config.txt"})),
        ("search_files", json!({"query": "token"})),
        ("search_files", json!({"query": "tok-5", "regex": true})),
        ("write_file", json!({"path": "out.txt", "text": VALUE})),
        ("write_file", json!({"path": "out.txt", "text": STANDARD.encode(format!("a{VALUE}"))})),
        ("leak", json!({})),
        (VALUE, serde_json::from_str(&format!("{{\"{escaped}\": \"{escaped}\"}}")).unwrap()),
    ]
}

#[tokio::test]
async fn no_encoding_of_a_value_leaves_the_loop() {
    let secret = || Secrets::new([("TOKEN", VALUE)]).unwrap();
    for (secrets, holds) in [(secret(), false), (Secrets::none(), true)] {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("ws")).unwrap();
        std::fs::write(root.path().join("ws/config.txt"), file()).unwrap();
        let mind = run(root.path(), &calls(), secrets).await;
        let mind = mind.0.lock().unwrap();
        let journal = journal::read(&root.path().join("run")).unwrap();
        let journal: Vec<String> = journal.iter().map(|it| serde_json::to_string(it).unwrap()).collect();
        let files: Vec<String> =
            files(&root.path().join("run")).into_iter().map(|(name, content)| name + &content).collect();
        for (place, texts) in
            [("requests", &mind.requests), ("events", &mind.told), ("journal", &journal), ("files", &files)]
        {
            for form in forms(VALUE) {
                let found = texts.iter().find(|text| text.to_lowercase().contains(&form.to_lowercase()));
                let is_plain = form == VALUE;
                assert!(found.is_none() || holds, "{form} is in {place}: {}", found.unwrap());
                assert!(
                    found.is_some() || !holds || !is_plain,
                    "nothing is in {place}, so this shows nothing"
                );
            }
            let half = texts.iter().find(|text| text.contains(&VALUE[..8]));
            assert!(half.is_none() || holds, "half of the value is in {place}: {}", half.unwrap());
        }
        assert_eq!(root.path().join("ws/out.txt").exists(), holds, "a value was written");
        let plain = std::fs::read_to_string(root.path().join("run/own/artefacts/plain.txt"));
        let ends: Vec<_> = mind.shown.iter().map(|text| &text[..text.len().min(200)]).collect();
        assert_eq!(plain.ok().as_deref(), Some("stays"), "{ends:?}");
        assert_eq!(std::fs::read_to_string(root.path().join("ws/config.txt")).unwrap(), file());
    }
}

/// What the model sees in a value's place, written back, would destroy the value.
#[tokio::test]
async fn the_placeholder_is_not_written_over_the_value() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("ws")).unwrap();
    std::fs::write(root.path().join("ws/config.txt"), format!("token = {VALUE}\nport = 1\n")).unwrap();
    let text = "token = [secret TOKEN]\nport = 2\n";
    let calls = [
        ("read_file", json!({"path": "config.txt"})),
        ("write_file", json!({"path": "config.txt", "text": text})),
    ];
    let mind = run(root.path(), &calls, Secrets::new([("TOKEN", VALUE)]).unwrap()).await;
    let shown = mind.0.lock().unwrap().shown[1].clone();
    assert!(shown.starts_with("denied: [secret TOKEN] stands for a value"), "{shown}");
    let left = std::fs::read_to_string(root.path().join("ws/config.txt")).unwrap();
    assert_eq!(left, format!("token = {VALUE}\nport = 1\n"));
}

/// A journal of a process that did not know that the value is secret.
#[tokio::test]
async fn an_older_journal_is_not_sent_again() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("ws")).unwrap();
    let folder = root.path().join("old");
    let opened = journal::Opened { run: "run".to_owned(), task: VALUE.to_owned(), ..Default::default() };
    let (mut journal, first) = journal::create(&folder, 0, opened).unwrap();
    let text = CallText { name: "todo".to_owned(), arguments: json!({"plan": VALUE}).to_string() };
    let events = [
        Event::Answered {
            reasoning: VALUE.to_owned(),
            content: VALUE.to_owned(),
            calls: vec![text],
            tokens: TokenUse::default(),
            is_cut: false,
        },
        Event::Told { call: 1, text: VALUE.to_owned() },
        Event::TurnEnded { remark: Some(VALUE.to_owned()) },
    ];
    let mut entries = vec![first];
    entries.extend(events.map(|event| journal.append(1, event, false).unwrap()));
    let mut scope = Scope::new(
        Workspace::open(&root.path().join("ws")).unwrap().with_own_folder(&folder.join("own")).unwrap(),
        Limits::default(),
    );
    scope.secrets = Arc::new(Secrets::new([("TOKEN", VALUE)]).unwrap());
    let gate = PolicyGate::new(Policy::standard(), Ground::imagined(), scope.secrets.clone());
    let mind = Shared::default();
    let hands = loops::hands(&mind, registry(&folder), Arc::new(gate), scope);
    perilune_agent::run::Run::new(hands, journal, &entries).unwrap().finish().await.unwrap();
    let mind = mind.0.lock().unwrap();
    assert_eq!(mind.requests.len(), 1);
    assert!(!mind.requests[0].contains(VALUE), "{}", mind.requests[0]);
    let own = files(&folder.join("own"));
    assert!(own.len() == 1 && !own[0].1.contains(VALUE), "{own:?}");
}
