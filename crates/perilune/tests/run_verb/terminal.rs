//! A person at a terminal: `script` of util-linux gives the binary one, and the test types.

use super::{call, endpoint, words};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Longest time for something to be shown.
const WAIT: Duration = Duration::from_secs(120);

/// The binary at a terminal.
struct Session {
    child: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    seen: String,
}

/// Whether there is a `script` that passes on the exit status.
fn has_script() -> bool {
    let found = Command::new("script").args(["-qec", "exit 7", "/dev/null"]).stdin(Stdio::null()).output();
    let has = found.is_ok_and(|output| output.status.code() == Some(7));
    if !has {
        eprintln!("SKIPPED: there is no `script` of util-linux, which gives a program a terminal");
    }
    has
}

impl Session {
    fn start(folder: &Path, upstream: &str, args: &[&str]) -> Self {
        std::fs::create_dir_all(folder.join("work")).unwrap();
        let quoted = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
        let (work, runs) =
            (folder.join("work").display().to_string(), folder.join("runs").display().to_string());
        let fixed = [env!("CARGO_BIN_EXE_perilune"), "run", "--upstream", upstream];
        let folders = ["--workspace", work.as_str(), "--runs", runs.as_str()];
        let line: Vec<String> = fixed.iter().chain(&folders).chain(args).map(|word| quoted(word)).collect();
        let mut child = Command::new("script")
            // Or the shell between dies of Ctrl-C first, and takes the terminal with it.
            .args(["-qfec", &format!("exec {}", line.join(" ")), "/dev/null"])
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdout, (pieces, output)) = (child.stdout.take().unwrap(), channel());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n) = stdout.read(&mut piece) {
                if n == 0 || pieces.send(piece[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let input = child.stdin.take().unwrap();
        Self { child, input, output, seen: String::new() }
    }

    /// Waits until `text` is shown, and forgets everything up to it.
    fn expect(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(text) {
                let before = self.seen[..at + text.len()].to_owned();
                self.seen.drain(..at + text.len());
                return before;
            }
            match self.output.recv_timeout(WAIT) {
                Ok(piece) => self.seen.push_str(&String::from_utf8_lossy(&piece)),
                Err(error) => panic!("{text:?} is not shown ({error}), but:\n{}", self.seen),
            }
        }
    }

    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    /// Waits for the question, answers it.
    fn answer(&mut self, text: &str) -> String {
        let before = self.expect("or [d]eny with a reason? ");
        self.say(&format!("{text}\r"));
        before
    }

    fn exit(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        while let Ok(piece) = self.output.recv_timeout(WAIT) {
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
        (status.code(), self.seen)
    }
}

fn write(path: &str) -> Value {
    call("write_file", &json!({"path": path, "text": "x"}))
}

#[test]
fn a_person_answers_at_the_terminal() {
    if !has_script() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    let default = Command::new(env!("CARGO_BIN_EXE_perilune")).args(["policy", "default"]).output().unwrap();
    std::fs::write(&policy, default.stdout).unwrap();
    let upstream = endpoint(vec![
        write("Makefile"),
        write(".envrc"),
        write(".npmrc"),
        write("build.rs"),
        write("build.rs"),
        write("conftest.py"),
        call("ask_user", &json!({"question": "Which colour?"})),
        words("all is done"),
    ]);
    let args = ["write files", "--policy", policy.to_str().unwrap()];
    let mut session = Session::start(folder.path(), &upstream, &args);
    let asked = session.answer("what?");
    assert!(
        asked.contains("Makefile") && asked.contains("other programs run what this file says"),
        "{asked}"
    );
    session.answer("o");
    session.answer("e {nonsense");
    session.expect("these are no arguments");
    session.answer("e");
    session.expect("new arguments as JSON: ");
    session.say("{\"path\": \"inside.txt\", \"text\": \"y\"}\r");
    session.answer("d not in that folder");
    session.expect("denied: not in that folder");
    session.answer("run");
    session.answer("always");
    session.expect("the model asks: Which colour?");
    session.expect("> ");
    session.say("blue\r");
    session.expect("result");
    session.expect("blue");
    let (code, rest) = session.exit();
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("all is done"), "{rest}");
    let is_there = |path: &&str| folder.path().join("work").join(path).exists();
    let all = ["Makefile", "inside.txt", "build.rs", "conftest.py", ".envrc", ".npmrc"];
    assert_eq!(
        all.iter().filter(|path| is_there(path)).collect::<Vec<_>>(),
        all[..4].iter().collect::<Vec<_>>()
    );
    assert!(std::fs::read_to_string(&policy).unwrap().contains("# A person answered: always."));
}

#[test]
fn ctrl_c_at_a_question_leaves_a_run_that_goes_on() {
    if !has_script() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let upstream = endpoint(vec![write("Makefile"), words("all is done")]);
    let mut session = Session::start(folder.path(), &upstream, &["write a file"]);
    session.expect("or [d]eny with a reason? ");
    session.say("\x03");
    let (code, rest) = session.exit();
    assert_eq!(code, Some(130), "{rest}");
    // The terminal itself shows `^C` before it.
    assert!(rest.contains("go on with: perilune run --resume"), "{rest}");
    let run = std::fs::read_dir(folder.path().join("runs")).unwrap().next().unwrap().unwrap().file_name();
    let mut session = Session::start(folder.path(), &upstream, &["--resume", run.to_str().unwrap()]);
    session.answer("o");
    let (code, rest) = session.exit();
    assert_eq!(code, Some(0), "{rest}");
    assert!(folder.path().join("work/Makefile").exists());
}

#[test]
fn a_question_that_nobody_answers_is_over_in_time() {
    if !has_script() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let upstream = endpoint(vec![write("Makefile"), words("I may not")]);
    let mut session = Session::start(folder.path(), &upstream, &["write a file", "--approval-timeout", "1"]);
    session.expect("or [d]eny with a reason? ");
    session.expect("nobody answered within 1 s");
    let (code, rest) = session.exit();
    assert_eq!(code, Some(0), "{rest}");
    assert!(!folder.path().join("work/Makefile").exists());
}
