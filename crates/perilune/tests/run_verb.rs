//! `run` from outside: the binary against a scripted endpoint, judged by the files that it leaves.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // Helpers outside the test functions; what a soak met is said.

mod refusals;
mod soak;

#[path = "run_verb/limits.rs"]
mod limits;
#[path = "run_verb/resumed.rs"]
mod resumed;
#[path = "common/scripted.rs"]
mod scripted;
#[path = "common/signal.rs"]
mod signal;
#[path = "run_verb/started.rs"]
mod started;
#[path = "run_verb/terminal.rs"]
mod terminal;

use perilune_agent::gate::Approval;
use perilune_agent::journal::{self, Answer, Runs, Stand, Waiting};
use scripted::{ASK_WRITES, call, endpoint, request, words};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn command(folder: &Path, upstream: &str, args: &[&str]) -> Command {
    let (work, runs) = (folder.join("work"), folder.join("runs"));
    std::fs::create_dir_all(&work).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_perilune"));
    command.args(["run", "--json", "--upstream", upstream]);
    if !args.contains(&"--workspace") {
        command.args(["--workspace".as_ref(), work.as_os_str()]);
    }
    command.args(["--runs".as_ref(), runs.as_os_str()]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(folder: &Path, upstream: &str, args: &[&str]) -> Child {
    command(folder, upstream, args).spawn().unwrap()
}

/// Exit code, and the JSON lines.
fn finish(child: Child) -> (Option<i32>, Vec<Value>) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn a_task_is_done_and_its_events_tell_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("work")).unwrap();
    std::fs::write(folder.path().join("work/prices.txt"), "12\n30\n").unwrap();
    let upstream = endpoint(vec![
        call("read_file", &json!({"path": "prices.txt"})),
        call("calculate", &json!({"expression": "12+30"})),
        call("write_file", &json!({"path": "total.txt", "text": "42\n"})),
        words("the total is 42"),
    ]);
    let (code, lines) = finish(start(folder.path(), &upstream, &["add the prices"]));
    assert_eq!(code, Some(0), "{lines:?}");
    assert_eq!(std::fs::read_to_string(folder.path().join("work/total.txt")).unwrap(), "42\n");
    let shown: Vec<&str> = lines.iter().filter_map(|line| line["shown"].as_str()).collect();
    assert!(shown[0].starts_with("[data]") && shown[0].contains("30"), "{shown:?}");
    assert!(shown[1].contains("42"), "{shown:?}");
    let last = lines.last().unwrap();
    assert_eq!((&last["event"], &last["answer"]), (&json!("final"), &json!("the total is 42")));
}

#[test]
fn a_write_outside_is_denied_where_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let upstream =
        endpoint(vec![call("write_file", &json!({"path": "../out.txt", "text": "x"})), words("I may not")]);
    let (code, lines) = finish(start(folder.path(), &upstream, &["write outside"]));
    assert_eq!(code, Some(0));
    assert!(!folder.path().join("out.txt").exists());
    let told = lines.iter().find_map(|line| line["text"].as_str().filter(|text| text.starts_with("denied")));
    assert!(told.unwrap().contains("outside the workspace"), "{lines:?}");
}

#[test]
fn what_rules_a_run_is_not_written_however_wide_its_workspace() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("policy.toml"), perilune_agent::policy::DEFAULT).unwrap();
    std::fs::write(at("config.toml"), "").unwrap();
    let write = |path: &str| call("write_file", &json!({"path": path, "text": "x"}));
    let paths = ["data/perilune.db", "policy.toml", "runs/one/journal.sqlite", "config.toml", "notes.txt"];
    let answers = paths.map(write).into_iter().chain([words("one of five")]);
    let (workspace, policy, data) = (at(""), at("policy.toml"), at("data"));
    let args = ["write", "--workspace", &workspace, "--policy", &policy, "--data", &data];
    let mut command = command(folder.path(), &endpoint(answers.collect()), &args);
    let (code, lines) = finish(command.env("PERILUNE_CONFIG", at("config.toml")).spawn().unwrap());
    assert_eq!(code, Some(0), "{lines:?}");
    let told: Vec<&str> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    let denied = told.iter().filter(|text| text.starts_with("denied: this file rules the run"));
    assert_eq!(denied.count(), 4, "{told:?}");
    let is_there = paths.map(|path| folder.path().join(path).exists());
    assert_eq!(is_there, [false, true, false, true, true]);
    assert_eq!(std::fs::read_to_string(at("config.toml")).unwrap(), "");
    assert_eq!(std::fs::read_to_string(at("policy.toml")).unwrap(), perilune_agent::policy::DEFAULT);
}

#[test]
fn limits_and_wrong_use_have_their_own_status() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = endpoint(vec![call("calculate", &json!({"expression": "1+1"}))]);
    let (code, lines) = finish(start(folder.path(), &upstream, &["count", "--steps", "2"]));
    assert_eq!(code, Some(3));
    assert_eq!(lines.last().unwrap()["answer"], Value::Null);
    let outside = call("write_file", &json!({"path": "../out.txt", "text": "x"}));
    let (code, _) = finish(start(folder.path(), &endpoint(vec![outside]), &["write outside"]));
    assert_eq!(code, Some(4));
    assert_eq!(finish(start(folder.path(), &upstream, &[])).0, Some(2));
}

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let upstream =
        endpoint(vec![call("write_file", &json!({"path": "a.txt", "text": "first"})), Value::Null]);
    let mut child = start(folder.path(), &upstream, &["write two files"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let is_outcome = |line: &String| line.contains("\"event\":\"outcome\"");
    let found = lines.find(|line| line.as_ref().is_ok_and(is_outcome));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.is_some());
    let run = std::fs::read_dir(folder.path().join("runs")).unwrap().next().unwrap().unwrap().file_name();
    let more =
        vec![call("write_file", &json!({"path": "b.txt", "text": "second"})), words("both are written")];
    let upstream = endpoint(more);
    let (code, lines) = finish(start(folder.path(), &upstream, &["--resume", run.to_str().unwrap()]));
    assert_eq!(code, Some(0), "{lines:?}");
    assert_eq!(lines[0]["event"], "resumed");
    assert_eq!(std::fs::read_to_string(folder.path().join("work/a.txt")).unwrap(), "first\n");
    assert_eq!(lines.last().unwrap()["answer"], "both are written");
}

/// `runs WHAT…` on the folder of journals: exit code, standard output and error.
fn runs(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_perilune"))
        .arg("runs")
        .args(args)
        .args(["--runs".as_ref(), folder.join("runs").as_os_str()])
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The same where it must succeed.
fn told(folder: &Path, args: &[&str]) -> String {
    let (code, out, error) = runs(folder, args);
    assert_eq!(code, Some(0), "{args:?}: {error}");
    out
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn runs_are_listed_shown_verified_and_exported() {
    let folder = tempfile::tempdir().unwrap();
    assert!(told(folder.path(), &["list"]).starts_with("No run in"));
    let calculate = call("calculate", &json!({"expression": "12+30"}));
    let upstream = endpoint(vec![calculate, words("it is 42")]);
    assert_eq!(finish(start(folder.path(), &upstream, &["add 12 and 30"])).0, Some(0));
    let listed = parsed(&told(folder.path(), &["list", "--json"]));
    let run = listed[0]["run"].as_str().unwrap();
    assert_eq!(
        (&listed[0]["state"], &listed[0]["steps"], &listed[0]["calls"]),
        (&json!("done"), &json!(2), &json!(1))
    );
    let line = told(folder.path(), &["list"]);
    assert!(line.contains("done") && line.contains("add 12 and 30"), "{line}");
    let shown = told(folder.path(), &["show", run]);
    for piece in ["add 12 and 30", "step 1 ", "call calculate", "42", "\ndone: it is 42\n"] {
        assert!(shown.contains(piece), "{piece}: {shown}");
    }
    assert_eq!(parsed(&told(folder.path(), &["show", run, "--json"]))["text"], "it is 42");
    let lines = told(folder.path(), &["export", run]);
    let events: Vec<Value> = lines.lines().map(parsed).collect();
    assert_eq!(parsed(&told(folder.path(), &["verify", run, "--json"]))["events"], events.len());
    assert_eq!(events.last().unwrap()["event"], "ended");
    let page = told(folder.path(), &["export", run, "--format", "markdown"]);
    assert!(page.contains("## Step 2") && page.contains("it is 42"), "{page}");
}

#[test]
fn a_fork_goes_on_from_its_step() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str| call("write_file", &json!({"path": path, "text": "x"}));
    let upstream = endpoint(vec![write("a.txt"), write("b.txt"), words("both are written")]);
    assert_eq!(finish(start(folder.path(), &upstream, &["write two files"])).0, Some(0));
    let listed = parsed(&told(folder.path(), &["list", "--json"]));
    let run = listed[0]["run"].as_str().unwrap();
    let (code, _, error) = runs(folder.path(), &["fork", run, "--at", "9"]);
    assert_eq!((code, error.as_str()), (Some(1), "error: the run has 2 whole steps; fork at 0 to 2\n"));
    let made = parsed(&told(folder.path(), &["fork", run, "--at", "1", "--json"]));
    let fork = made["run"].as_str().unwrap();
    let state = parsed(&told(folder.path(), &["show", fork, "--json"]));
    assert_eq!(
        (&state["state"], &state["steps"], &state["forked_from"]),
        (&json!("paused"), &json!(1), &json!(run))
    );
    let upstream = endpoint(vec![write("c.txt"), words("now the third")]);
    let (code, lines) = finish(start(folder.path(), &upstream, &["--resume", fork]));
    assert_eq!((code, &lines.last().unwrap()["answer"]), (Some(0), &json!("now the third")));
    assert!(folder.path().join("work/c.txt").exists());
    assert_eq!(parsed(&told(folder.path(), &["verify", fork, "--json"]))["run"], fork);
    assert_eq!(parsed(&told(folder.path(), &["show", run, "--json"]))["text"], "both are written");
}

#[test]
fn what_is_wrong_with_a_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = endpoint(vec![words("done")]);
    assert_eq!(finish(start(folder.path(), &upstream, &["say done"])).0, Some(0));
    let listed = parsed(&told(folder.path(), &["list", "--json"]));
    let run = listed[0]["run"].as_str().unwrap();
    let refused = |args: &[&str], says: &str| {
        let (code, _, error) = runs(folder.path(), args);
        assert_eq!(code, Some(1), "{args:?}");
        assert!(error.contains(says) && error.lines().count() == 1, "{args:?}: {error}");
    };
    for verb in ["show", "verify", "export"] {
        refused(&[verb, "none"], "does not exist; `perilune runs list`");
        refused(&[verb, "../runs"], "is no name of a run");
    }
    let journal = folder.path().join("runs").join(run).join("journal.sqlite");
    std::fs::write(&journal, "this is not a database, and long enough to be looked at").unwrap();
    for args in [&["show", run][..], &["verify", run], &["export", run], &["fork", run, "--at", "0"]] {
        refused(args, "is corrupt at event 1");
    }
    assert!(told(folder.path(), &["list"]).contains("unreadable"));
    let kept = std::fs::read_to_string(&journal).unwrap();
    assert!(kept.starts_with("this is not"), "the damaged journal was changed");
}

/// Waits until a run asks: its name, and its question.
fn waiting(folder: &Path) -> (String, Waiting) {
    let runs = Runs::new(&folder.join("runs"));
    loop {
        let listed = runs.list().unwrap_or_default();
        let asked = listed.into_iter().find_map(|it| {
            let (summary, stand) = it.state.ok()?;
            Some((it.name, summary.waiting.filter(|_| stand == Stand::Waiting)?))
        });
        match asked {
            Some(asked) => break asked,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Waits until the only run asks, and answers as the console does.
fn answer(folder: &Path, approval: Approval) {
    let (run, waiting) = waiting(folder);
    let place = folder.join("runs").join(run);
    assert!(journal::give(&place, &waiting.id, &Answer::Approval(approval)).unwrap());
}

#[test]
fn a_run_without_a_terminal_waits_for_the_console_where_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, ASK_WRITES).unwrap();
    let write = |path: &str| call("write_file", &json!({"path": path, "text": "x"}));
    let upstream = endpoint(vec![write("a.txt"), write("b.txt"), write("c.txt"), words("two of three")]);
    let args = ["write", "--ask-in-console", "--policy", policy.to_str().unwrap()];
    let child = start(folder.path(), &upstream, &args);
    answer(folder.path(), Approval::AllowOnce);
    answer(folder.path(), Approval::Denied { reason: "not that one".to_owned() });
    let arguments = json!({"path": "d.txt", "text": "y"}).as_object().unwrap().clone();
    answer(folder.path(), Approval::Edited { arguments });
    let (code, lines) = finish(child);
    assert_eq!(code, Some(0), "{lines:?}");
    let is_there = |name: &&str| folder.path().join("work").join(name).exists();
    let there: Vec<&str> = ["a.txt", "b.txt", "c.txt", "d.txt"].into_iter().filter(is_there).collect();
    assert_eq!(there, ["a.txt", "d.txt"]);
    let told = lines.iter().find_map(|line| line["text"].as_str().filter(|text| text.starts_with("denied")));
    assert!(told.unwrap().contains("not that one"), "{lines:?}");
}
