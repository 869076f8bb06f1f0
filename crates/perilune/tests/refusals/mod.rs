//! `run` with bad input: what is wrong is named, nothing is overwritten, and what can be mended goes on.

use crate::signal::{self, Signal};
use crate::{Child, call, command, endpoint, finish, start, words};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code, and all that was said on both streams.
fn said(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

fn run_name(folder: &Path) -> String {
    let run = std::fs::read_dir(folder.join("runs")).unwrap().next().unwrap().unwrap();
    run.file_name().into_string().unwrap()
}

/// Waits for an event; the child goes on.
fn wait_for(child: &mut Child, event: &str) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let wanted = format!("\"event\":\"{event}\"");
    lines.find_map(|line| line.ok().filter(|line| line.contains(&wanted))).unwrap()
}

/// All files beneath a folder, with their bytes; not what readers of a journal share, which holds nothing of it.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.ends_with("lock") && !path.ends_with("journal.sqlite-shm") {
            found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    found.retain(|path, bytes| !path.ends_with("-wal") || !bytes.is_empty());
    found
}

#[test]
fn a_corrupt_journal_is_named_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = endpoint(vec![words("done")]);
    assert_eq!(finish(start(folder.path(), &upstream, &["add the prices"])).0, Some(0));
    let run = run_name(folder.path());
    let journal = folder.path().join("runs").join(&run).join("journal.sqlite");
    let whole = std::fs::read(&journal).unwrap();
    let at = whole.windows(14).position(|bytes| bytes == b"add the prices").unwrap();
    let mut changed = whole.clone();
    changed[at] = b'A';
    let text = b"not a journal at all, though it is long enough to be looked at".to_vec();
    let cases = [
        (changed, "is corrupt at event 1: its hash does not fit"),
        (whole[..whole.len() / 2].to_vec(), "is corrupt at event"),
        (text, "is corrupt at event"),
    ];
    for (bytes, expected) in cases {
        std::fs::write(&journal, bytes).unwrap();
        let before = files(folder.path());
        let (code, said) = said(command(folder.path(), &upstream, &["--resume", &run]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(expected) && said.contains(journal.to_str().unwrap()), "{said}");
        assert!(files(folder.path()) == before, "{said}");
    }
    let (code, said) = said(command(folder.path(), &upstream, &["--resume", "no-such-run"]));
    assert!(code == Some(1) && said.contains("no-such-run/journal.sqlite does not exist"), "{said}");
}

#[test]
fn nothing_begins_under_a_lying_policy_or_without_a_workspace() {
    let folder = tempfile::tempdir().unwrap();
    let policy = Command::new(env!("CARGO_BIN_EXE_perilune")).args(["policy", "default"]).output().unwrap();
    let policy = String::from_utf8(policy.stdout).unwrap();
    let lying = folder.path().join("lying.toml");
    std::fs::write(&lying, policy.replace("read = \"../a.csv\"", "read = \"a.csv\"")).unwrap();
    let upstream = endpoint(vec![words("done")]);
    let (code, said) = said(command(folder.path(), &upstream, &["x", "--policy", lying.to_str().unwrap()]));
    assert!(code == Some(1) && said.contains("the rule \"read-workspace\" lies"), "{said}");
    let (code, said) = self::said(command(folder.path(), &upstream, &["x", "--workspace", "no-such-folder"]));
    assert!(code == Some(1) && said.contains("the workspace no-such-folder cannot be opened"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path().join("runs")).unwrap().count(), 0, "a run was begun");
}

#[test]
fn a_workspace_that_cannot_be_written_is_told_to_the_model() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("a.txt"), "one\n").unwrap();
    std::fs::set_permissions(&work, std::fs::Permissions::from_mode(0o555)).unwrap();
    let upstream = endpoint(vec![
        call("read_file", &json!({"path": "a.txt"})),
        call("edit_file", &json!({"path": "a.txt", "old": "one", "new": "two"})),
        call("write_file", &json!({"path": "b.txt", "text": "x"})),
        words("I cannot write here"),
    ]);
    let plain = command(folder.path(), &upstream, &["write"]);
    // Root may write everywhere, unless it gives that up.
    let mut confined = Command::new("setpriv");
    confined.arg("--bounding-set=-dac_override,-dac_read_search,-fowner").arg(plain.get_program());
    confined.args(plain.get_args()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let is_root = std::fs::write(work.join("probe"), "").is_ok();
    let _ = std::fs::remove_file(work.join("probe"));
    let Ok(child) = (if is_root { confined } else { plain }).spawn() else {
        println!("skipped: root, and no setpriv");
        return;
    };
    let (code, lines) = finish(child);
    assert_eq!(code, Some(0), "{lines:?}");
    let shown: Vec<&str> = lines.iter().filter_map(|line| line["shown"].as_str()).collect();
    assert!(shown[0].contains("1: one"), "{shown:?}");
    for (text, path) in shown[1..].iter().zip(["a.txt", "b.txt"]) {
        assert!(text.starts_with(&format!("error: {path}: Permission denied")), "{shown:?}");
    }
    assert_eq!(files(&work).len(), 1);
    assert_eq!(std::fs::read_to_string(work.join("a.txt")).unwrap(), "one\n");
}

#[test]
fn a_run_whose_model_is_down_goes_on_when_it_is_up() {
    let folder = tempfile::tempdir().unwrap();
    // Port 1 of this machine is nobody's.
    let nobody = "127.0.0.1:1";
    let down = format!("http://{nobody}/v1#scripted");
    let mut child = start(folder.path(), &down, &["say it"]);
    let failed = wait_for(&mut child, "model_failed");
    assert!(failed.contains(nobody) && failed.contains("cannot be reached"), "{failed}");
    signal::send(&child, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    let run = run_name(folder.path());
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.contains(&format!("go on with: perilune run --resume {run}")), "{told}");
    let (code, lines) = finish(start(folder.path(), &endpoint(vec![words("said")]), &["--resume", &run]));
    assert_eq!((code, &lines.last().unwrap()["answer"]), (Some(0), &json!("said")));
}

#[test]
fn a_wrong_key_pauses_the_run_and_is_in_nothing_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let key = "sk-wrong-0123456789";
    let error = json!({"error": {"message": format!("{key} is no key of ours")}});
    let refusing = endpoint(vec![json!({"status": "401 Unauthorized", "body": error})]);
    let mut command = command(folder.path(), &refusing, &["say it"]);
    command.env("PERILUNE_UPSTREAM_KEY", key);
    let (code, said) = said(command);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("did not accept the credentials") && said.contains("can be resumed"), "{said}");
    let bytes: Vec<u8> = files(folder.path()).into_values().flatten().chain(said.into_bytes()).collect();
    assert!(!bytes.windows(key.len()).any(|it| it == key.as_bytes()), "the key was kept");
    let run = run_name(folder.path());
    let (code, _) = finish(start(folder.path(), &endpoint(vec![words("said")]), &["--resume", &run]));
    assert_eq!(code, Some(0));
}

#[test]
fn a_tool_that_never_returns_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    assert!(Command::new("mkfifo").arg(work.join("pipe")).status().unwrap().success());
    std::fs::write(work.join("z.txt"), "the word\n").unwrap();
    let policy = Command::new(env!("CARGO_BIN_EXE_perilune")).args(["policy", "default"]).output().unwrap();
    let policy = String::from_utf8(policy.stdout).unwrap();
    let asked = "name = \"shell\"\ndecision = \"ask\"";
    let open = folder.path().join("open.toml");
    std::fs::write(&open, policy.replace(asked, &asked.replace("ask", "allow"))).unwrap();
    let upstream = endpoint(vec![
        // Whoever opens a pipe to read waits for a writer.
        call("read_file", &json!({"path": "pipe"})),
        call("search_files", &json!({"query": "word"})),
        call("shell", &json!({"command": "sleep 600 & sleep 600", "timeout_s": 1})),
        words("it was given up"),
    ]);
    let (code, lines) =
        finish(start(folder.path(), &upstream, &["wait", "--policy", open.to_str().unwrap()]));
    assert_eq!(code, Some(0), "{lines:?}");
    let results: Vec<&str> =
        lines.iter().filter_map(|line| line["shown"].as_str().or(line["text"].as_str())).collect();
    assert!(results[0].contains("is not an ordinary file"), "{results:?}");
    assert!(results[1].contains("z.txt:1: the word"), "{results:?}");
    let has_shell = lines[0]["tools"].as_array().unwrap().contains(&json!("shell"));
    if has_shell {
        assert!(results[2].contains("killed with all it started: not done after 1 s"), "{results:?}");
    } else {
        println!("skipped: no sandbox here, so no shell");
    }
}

#[test]
fn of_two_that_resume_a_run_one_wins_and_the_other_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let upstream =
        endpoint(vec![call("write_file", &json!({"path": "a.txt", "text": "first"})), Value::Null]);
    let mut first = start(folder.path(), &upstream, &["write"]);
    wait_for(&mut first, "outcome");
    first.kill().unwrap();
    first.wait().unwrap();
    let run = run_name(folder.path());
    let mut second = start(folder.path(), &upstream, &["--resume", &run]);
    wait_for(&mut second, "resumed");
    let (code, said) = said(command(folder.path(), &upstream, &["--resume", &run]));
    let expected = format!("another process works on the run in {}", folder.path().join("runs").display());
    assert!(code == Some(1) && said.contains(&expected), "{said}");
    assert!(second.try_wait().unwrap().is_none(), "the first to come was disturbed");
    second.kill().unwrap();
    second.wait().unwrap();
    let upstream = endpoint(vec![words("done")]);
    let (code, lines) = finish(start(folder.path(), &upstream, &["--resume", &run]));
    assert_eq!((code, &lines.last().unwrap()["answer"]), (Some(0), &json!("done")));
}
