//! Runs `tests/documents/**/*.md`; with `PERILUNE_UPDATE=1` it rewrites their expectations.
//!
//! A case has `files` (JSON: path to content) and `calls` (one turn a line: `name {arguments}`; before it
//! `think: …` and `say: …`, after it `note: …`, and `now: path content` for a change from outside), with
//! `options`. Its expectations: `results` (what each call answers), `left` (the files afterwards), `prompt`
//! (what the model sees next, markers by name).
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

mod support;

use perilune_agent::context::{self, Bytes, Folds, Profile, Transcript, Turn};
use perilune_agent::tools::{Output, Scope, Workspace};
use perilune_chat::message::Thinking;
use perilune_chat::template::Template;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use support::document::{self, Case};

#[test]
fn documents() {
    let update = std::env::var_os("PERILUNE_UPDATE").is_some();
    let (mut n_cases, mut failures) = (0, Vec::new());
    for mut document in document::all(&support::tests_dir().join("documents")) {
        for case in document.cases.iter_mut().filter(|case| case.get("calls").is_some()) {
            n_cases += 1;
            for (kind, found) in Trial::new(case).run(case) {
                match case.get(kind) {
                    Some(expected) if expected != found && update => case.set(kind, &found),
                    Some(expected) if expected != found => failures.push(format!(
                        "{}: {}: {kind}\n  expected: {expected}\n  found:    {found}",
                        document.path.display(),
                        case.title
                    )),
                    _ => {}
                }
            }
        }
        if update {
            document.write();
        }
    }
    assert!(failures.is_empty(), "{} of {n_cases} cases differ\n{}", failures.len(), failures.join("\n\n"));
    println!("{n_cases} cases");
    assert!(n_cases >= 20, "only {n_cases} cases were found");
}

/// A workspace with a run in it.
struct Trial {
    dir: tempfile::TempDir,
    profile: Profile,
    scope: Scope,
    transcript: Transcript,
    folds: Folds,
    results: String,
}

impl Trial {
    fn new(case: &Case) -> Self {
        let options: Value =
            case.get("options").map_or(json!({}), |text| serde_json::from_str(text).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("workspace");
        std::fs::create_dir(&root).unwrap();
        let files: Map<String, Value> =
            case.get("files").map_or(Map::new(), |text| serde_json::from_str(text).unwrap());
        for (path, content) in &files {
            put(&root.join(path), content.as_str().unwrap());
        }
        let workspace = Workspace::open(&root).unwrap().with_own_folder(&dir.path().join("own")).unwrap();
        let profile = profile(&options);
        let scope = Scope::new(workspace, profile.limits);
        let task = options["task"].as_str().unwrap_or("Do it.");
        let transcript = Transcript::new(task);
        Self { dir, profile, scope, transcript, folds: Folds::default(), results: String::new() }
    }

    fn run(mut self, case: &Case) -> Vec<(&'static str, String)> {
        let mut turn = Turn::default();
        for line in case.get("calls").unwrap().lines() {
            match line.split_once(' ').unwrap() {
                ("think:", text) => turn.reasoning = text.to_owned(),
                ("say:", text) => turn.content = text.to_owned(),
                ("note:", text) => self.transcript.turns.last_mut().unwrap().remark = Some(text.to_owned()),
                ("now:", change) => {
                    let (path, content) = change.split_once(' ').unwrap();
                    put(&self.dir.path().join("workspace").join(path), content);
                }
                (name, arguments) => {
                    turn.calls.push(self.call(name, arguments));
                    self.transcript.turns.push(std::mem::take(&mut turn));
                    self.view();
                }
            }
        }
        let prompt = self.view();
        let left = serde_json::to_string_pretty(&left(&self.dir.path().join("workspace"))).unwrap();
        vec![("results", self.results.trim_end().to_owned()), ("left", left), ("prompt", prompt)]
    }

    fn call(&mut self, name: &str, arguments: &str) -> context::Call {
        let number = self.transcript.n_calls() + 1;
        let parsed: Map<String, Value> = serde_json::from_str(arguments).unwrap();
        let tool = self.profile.tools.get(name).unwrap();
        let output: Output = support::now(tool.run(&parsed, &self.scope));
        let shown = context::show(number, name, arguments, &output, &self.profile.policy, &Bytes);
        self.scope.workspace.write_own(&format!("calls/{number}.txt"), shown.file.as_bytes()).unwrap();
        self.results += &format!("> {name} {arguments}\n{}\n", shown.text);
        self.transcript.plan = output.plan.or(self.transcript.plan.take());
        context::Call { number, name: name.to_owned(), arguments: arguments.to_owned(), result: shown.text }
    }

    fn view(&mut self) -> String {
        let view = context::fit(&self.profile, &self.transcript, &mut self.folds, &Bytes).unwrap();
        let thinking = Thinking { preserve: true, ..Thinking::default() };
        let text = Template::default().render(&view.conversation, thinking).text();
        // One message a line is easier to read; nothing else is changed.
        text.replace("<|im_end|>", "<|im_end|>\n")
    }
}

fn profile(options: &Value) -> Profile {
    let mut profile = match options["profile"].as_str() {
        Some("embedded") => Profile::embedded(),
        None => Profile::standard(100_000, 1_000),
        other => panic!("unknown profile {other:?}"),
    };
    let number = |key: &str, at: usize| options[key].as_u64().map_or(at, |n| n as usize);
    profile.policy.budget_tokens = number("budget_tokens", profile.policy.budget_tokens);
    profile.policy.low_water_tokens = number("low_water_tokens", profile.policy.low_water_tokens);
    profile.policy.result_tokens_max = number("result_tokens_max", profile.policy.result_tokens_max);
    profile.limits.n_lines_max = number("n_lines_max", profile.limits.n_lines_max);
    profile.limits.line_bytes_max = number("line_bytes_max", profile.limits.line_bytes_max);
    profile
}

fn put(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Every file under a folder with its content.
fn left(dir: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}
