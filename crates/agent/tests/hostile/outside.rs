//! What a person allowed outside the workspace: that path, for that call, and nothing beside it.

use crate::loops::{self, Shared, ready};
use perilune_agent::gate::{
    Access, Approval, Approver, BoxFuture, Effect, Gate, GateEvent, Outside, PolicyGate, Question, Resource,
    may_read,
};
use perilune_agent::journal::{self, CallText, Entry, Event, Journal, Opened, TokenUse};
use perilune_agent::policy::{Policy, Workspace as Ground};
use perilune_agent::run::Run;
use perilune_agent::secrets::Secrets;
use perilune_agent::tools::{
    Arguments, Declaration, EditFile, Limits, ListFiles, Output, Parameter, ReadFile, Registry, Scope,
    SearchFiles, Tool, Workspace, WriteFile,
};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// `ws` with a folder `sub` and a link `elsewhere` to `home`, which has two files; `trap` is empty.
struct World {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["ws/sub", "home/deep", "trap"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::write(root.join("home/report.txt"), "old\n").unwrap();
        std::fs::write(root.join("home/notes.txt"), "private\n").unwrap();
        symlink("../home", root.join("ws/elsewhere")).unwrap();
        Self { _folder: folder, root }
    }

    fn at(&self, path: &str) -> String {
        self.root.join(path).display().to_string()
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    /// Everything outside the workspace, as paths.
    fn outside(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in ["home", "home/deep", "trap"] {
            for entry in std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten() {
                found.push(format!("{folder}/{}", entry.file_name().display()));
            }
        }
        found.sort();
        found
    }

    async fn run(&self, calls: &[(&str, Value)], says: Says, is_naive: bool) -> Shared {
        let opened = Opened { run: "run".to_owned(), ..Opened::default() };
        let (journal, first) = journal::create(&self.root.join("run"), 0, opened).unwrap();
        self.go_on(journal, &[first], calls, says, is_naive).await
    }

    async fn go_on(
        &self,
        journal: Journal,
        entries: &[Entry],
        calls: &[(&str, Value)],
        says: Says,
        is_naive: bool,
    ) -> Shared {
        let ws = self.root.join("ws");
        let gate = PolicyGate::new(Policy::standard(), Ground::open(&ws).unwrap(), Arc::new(Secrets::none()));
        let gate: Arc<dyn Gate> = Arc::new(gate);
        let workspace = Workspace::open(&ws).unwrap().with_own_folder(&self.root.join("run/own")).unwrap();
        let mut scope = Scope::new(workspace, Limits::default());
        scope.may_read = Some(may_read(Arc::clone(&gate), "run"));
        let write: Arc<dyn Tool> = if is_naive { Arc::new(Naive(ws)) } else { Arc::new(WriteFile) };
        let all: Vec<Arc<dyn Tool>> =
            vec![write, Arc::new(ReadFile), Arc::new(EditFile), Arc::new(ListFiles), Arc::new(SearchFiles)];
        let mind = Shared::default();
        let calls =
            calls.iter().map(|(name, value)| ((*name).to_owned(), value.as_object().unwrap().clone()));
        mind.0.lock().unwrap().calls = calls.collect();
        let mut hands = loops::hands(&mind, Registry::new(all).unwrap(), gate, scope);
        hands.approver = Arc::new(says);
        Run::new(hands, journal, entries).unwrap().finish().await.unwrap();
        mind
    }
}

/// Says yes to each of these places once, where the question names it and nothing else, and no to all others; something
/// happens while it thinks.
struct Says {
    yes: Mutex<Vec<String>>,
    meanwhile: Box<dyn Fn() + Send + Sync>,
}

impl Says {
    fn yes(places: &[String]) -> Self {
        Self { yes: Mutex::new(places.to_vec()), meanwhile: Box::new(|| ()) }
    }
}

impl Approver for Says {
    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Approval> {
        (self.meanwhile)();
        let mut yes = self.yes.lock().unwrap();
        let named = match question.outside.as_slice() {
            [Outside { real, .. }] => yes.iter().position(|place| place == real),
            _ => None,
        };
        ready(match named {
            Some(at) => {
                yes.remove(at);
                Approval::AllowOnce
            }
            None => Approval::Denied { reason: "not that".to_owned() },
        })
    }
}

/// A `write_file` that opens what was written, as if nothing could have changed since it was decided.
struct Naive(PathBuf);

impl Tool for Naive {
    fn declaration(&self) -> Declaration {
        let parameters =
            [Parameter::required("path", "string", "file"), Parameter::required("text", "string", "text")];
        Declaration::flat("write_file", "Writes a file.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        WriteFile.resources(arguments)
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, _: &'a Scope) -> BoxFuture<'a, Output> {
        let text = |key: &str| arguments[key].as_str().unwrap().to_owned();
        std::fs::write(self.0.join(text("path")), text("text") + "\n").unwrap();
        ready(Output::done("written"))
    }
}

fn write(path: &str) -> (&'static str, Value) {
    ("write_file", json!({"path": path, "text": "new"}))
}

fn shown(mind: &Shared) -> Vec<String> {
    mind.0.lock().unwrap().shown.clone()
}

#[tokio::test]
async fn an_allowed_path_is_written_however_it_is_spelled() {
    let absolute = |world: &World| world.at("home/report.txt");
    let spellings: [&dyn Fn(&World) -> String; 5] = [
        &|_| "../home/report.txt".to_owned(),
        &absolute,
        &|_| "elsewhere/report.txt".to_owned(),
        &|_| "sub/../../home//report.txt".to_owned(),
        &|_| "elsewhere/deep/../report.txt".to_owned(),
    ];
    for spelling in spellings {
        let world = World::new();
        let path = spelling(&world);
        let says = Says::yes(&[world.at("home/report.txt")]);
        let mind = world.run(&[write(&path)], says, false).await;
        assert_eq!(shown(&mind), [format!("wrote {path}")]);
        assert_eq!(world.read("home/report.txt").as_deref(), Some("new\n"), "{path}");
        assert_eq!(world.outside(), ["home/deep", "home/notes.txt", "home/report.txt"], "{path}");
    }
    let world = World::new();
    let says = Says::yes(&[world.at("home/new/folder/a.txt")]);
    world.run(&[write("../home/new/folder/a.txt")], says, false).await;
    assert_eq!(world.read("home/new/folder/a.txt").as_deref(), Some("new\n"));
}

#[tokio::test]
async fn what_was_not_allowed_stays_refused() {
    let world = World::new();
    let again = ("write_file", json!({"path": "../home/report.txt", "text": "again"}));
    let calls = [
        write("../home/report.txt"),
        again,
        write("../home/report.txt2"),
        write("../home/deep/report.txt"),
        write("elsewhere/other.txt"),
        ("edit_file", json!({"path": "../home/report.txt", "old": "new", "new": "newer"})),
        ("read_file", json!({"path": "../home/report.txt"})),
        ("read_file", json!({"path": "../home/notes.txt"})),
        ("list_files", json!({"path": "../home"})),
        ("search_files", json!({"path": "../home", "query": "private"})),
    ];
    let mind = world.run(&calls, Says::yes(&[world.at("home/report.txt")]), false).await;
    let shown = shown(&mind);
    assert_eq!(shown[0], "wrote ../home/report.txt");
    assert!(shown[1..].iter().all(|text| text == "denied: not that"), "{shown:?}");
    assert_eq!(shown.len(), calls.len());
    assert_eq!(world.read("home/report.txt").as_deref(), Some("new\n"));
    assert_eq!(world.outside(), ["home/deep", "home/notes.txt", "home/report.txt"]);
}

#[tokio::test]
async fn an_allowed_path_is_read_edited_listed_and_searched() {
    let world = World::new();
    let (report, home) = (world.at("home/report.txt"), world.at("home"));
    let calls = [
        ("read_file", json!({"path": "elsewhere/report.txt"})),
        ("edit_file", json!({"path": "../home/report.txt", "old": "old", "new": "newer"})),
        ("list_files", json!({"path": "../home"})),
        ("search_files", json!({"path": "../home/report.txt", "query": "newer"})),
        ("search_files", json!({"path": "../home", "query": "private"})),
    ];
    let yes = [&report, &report, &home, &report, &home].map(Clone::clone);
    let shown = shown(&world.run(&calls, Says::yes(&yes), false).await);
    assert!(shown[0].contains("1: old"), "{shown:?}");
    assert_eq!(shown[1], "edited ../home/report.txt");
    assert!(shown[2].contains("deep/") && shown[2].contains("notes.txt"), "{shown:?}");
    assert!(shown[3].contains("report.txt:1: newer"), "{shown:?}");
    // A folder is not what lies in it.
    assert!(
        shown[4].ends_with("is a folder; name a file in it") && !shown[4].contains("private"),
        "{shown:?}"
    );
    assert_eq!(world.read("home/report.txt").as_deref(), Some("newer\n"));
}

#[tokio::test]
async fn a_link_that_changes_while_the_person_thinks_leads_nowhere_else() {
    type Meanwhile = fn(&Path);
    let turn: Meanwhile = |root| {
        std::fs::remove_file(root.join("ws/elsewhere")).unwrap();
        symlink("../trap", root.join("ws/elsewhere")).unwrap();
    };
    let swap: Meanwhile = |root| {
        std::fs::remove_dir(root.join("home/deep")).unwrap();
        symlink("../trap", root.join("home/deep")).unwrap();
    };
    let leaf: Meanwhile = |root| {
        std::fs::remove_file(root.join("home/report.txt")).unwrap();
        symlink("../trap/report.txt", root.join("home/report.txt")).unwrap();
    };
    let cases: [(&str, &str, Meanwhile, &str); 3] = [
        ("elsewhere/report.txt", "home/report.txt", turn, "wrote"),
        (
            "../home/deep/report.txt",
            "home/deep/report.txt",
            swap,
            "error: ../home/deep/report.txt leads elsewhere",
        ),
        ("../home/report.txt", "home/report.txt", leaf, "wrote"),
    ];
    for (path, real, meanwhile, told) in cases {
        for is_naive in [false, true] {
            let world = World::new();
            let root = world.root.clone();
            let says = Says { meanwhile: Box::new(move || meanwhile(&root)), ..Says::yes(&[world.at(real)]) };
            let mind = world.run(&[write(path)], says, is_naive).await;
            let trapped = world.read("trap/report.txt").is_some();
            assert_eq!(trapped, is_naive, "{path}: {:?}", shown(&mind));
            if !is_naive {
                assert!(shown(&mind)[0].starts_with(told), "{path}: {:?}", shown(&mind));
            }
        }
    }
    // A file that was allowed to be read, and is a link to another one now.
    let world = World::new();
    let root = world.root.clone();
    let meanwhile = move || {
        std::fs::remove_file(root.join("home/report.txt")).unwrap();
        symlink("notes.txt", root.join("home/report.txt")).unwrap();
    };
    let says = Says { meanwhile: Box::new(meanwhile), ..Says::yes(&[world.at("home/report.txt")]) };
    let read = ("read_file", json!({"path": "../home/report.txt"}));
    let shown = shown(&world.run(&[read], says, false).await);
    assert!(shown[0].contains("leads elsewhere now"), "{shown:?}");
}

/// A process that died after these events of its one call.
fn die(world: &World, more: Vec<Event>) -> (Journal, Vec<Entry>) {
    let run = world.root.join("run");
    let (mut journal, _) =
        journal::create(&run, 0, Opened { run: "run".to_owned(), ..Opened::default() }).unwrap();
    let (name, arguments) = write("elsewhere/report.txt");
    let calls = vec![CallText { name: name.to_owned(), arguments: arguments.to_string() }];
    let (reasoning, content, tokens) = (String::new(), String::new(), TokenUse::default());
    let answered = Event::Answered { reasoning, content, calls, tokens, is_cut: false };
    for event in std::iter::once(answered).chain(more) {
        journal.append(1, event, true).unwrap();
    }
    drop(journal);
    journal::resume(&run).unwrap()
}

fn intent(outside: Vec<Outside>) -> Event {
    let (tool, arguments) = write("elsewhere/report.txt");
    let arguments = arguments.as_object().unwrap().clone();
    let (call, tool, effect, key) = (1, tool.to_owned(), Effect::Idempotent, "k".to_owned());
    Event::Intent { call, tool, arguments, effect, key, note: None, outside }
}

#[tokio::test]
async fn an_attempt_that_is_taken_up_again_opens_what_its_intent_says() {
    for is_named in [true, false] {
        let world = World::new();
        let (path, real) = ("elsewhere/report.txt".to_owned(), world.at("home/report.txt"));
        let outside = if is_named { vec![Outside { access: Access::Write, path, real }] } else { Vec::new() };
        let (journal, entries) = die(&world, vec![intent(outside)]);
        let mind = world.go_on(journal, &entries, &[], Says::yes(&[]), false).await;
        let expected = if is_named { "new\n" } else { "old\n" };
        assert_eq!(world.read("home/report.txt").as_deref(), Some(expected), "{:?}", shown(&mind));
    }
}

#[tokio::test]
async fn an_answer_of_the_journal_holds_for_the_place_that_it_was_given_for() {
    for has_moved in [false, true] {
        let world = World::new();
        let asking = Says::yes(&[]);
        let run = world.run(&[write("elsewhere/report.txt")], asking, false).await;
        assert_eq!(shown(&run), ["denied: not that"]);
        let asked =
            journal::read(&world.root.join("run")).unwrap().into_iter().find_map(|entry| match entry.event {
                Event::Gate { gate: GateEvent::Asked { question }, .. } => Some(question),
                _ => None,
            });
        std::fs::remove_dir_all(world.root.join("run")).unwrap();
        let gate = |gate| Event::Gate { call: 1, gate };
        let answered = GateEvent::Answered { approval: Approval::AllowOnce };
        let (journal, entries) =
            die(&world, vec![gate(GateEvent::Asked { question: asked.unwrap() }), gate(answered)]);
        if has_moved {
            std::fs::remove_file(world.root.join("ws/elsewhere")).unwrap();
            symlink("../trap", world.root.join("ws/elsewhere")).unwrap();
        }
        world.go_on(journal, &entries, &[], Says::yes(&[]), false).await;
        let expected = if has_moved { "old\n" } else { "new\n" };
        assert_eq!(world.read("home/report.txt").as_deref(), Some(expected));
        assert_eq!(world.read("trap/report.txt"), None);
    }
}
