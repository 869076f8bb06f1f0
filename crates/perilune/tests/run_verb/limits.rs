//! How a run says that it is over or not: its last line and status, its limits, and where it searches.

use super::scripted::telling_endpoint;
use super::signal::{self, Signal};
use super::{call, endpoint, finish, start, words};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// The last line: status, and whether it says how to go on.
fn last(lines: &[Value]) -> (&str, bool) {
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "final", "{last}");
    (last["status"].as_str().unwrap(), last["resume"].is_string())
}

#[test]
fn each_limit_ends_a_run_with_its_own_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let again = || endpoint(vec![call("calculate", &json!({"expression": "1+1"}))]);
    let table = [
        (vec!["--steps", "2"], "the run has used 2 of 2 steps"),
        (vec!["--tokens", "20"], "the run has used 30 of 20 tokens"),
    ];
    for (flags, sentence) in table {
        let (code, lines) = finish(start(folder.path(), &again(), &[&["count"], flags.as_slice()].concat()));
        assert_eq!((code, last(&lines)), (Some(3), ("budget", false)), "{flags:?}");
        assert_eq!(lines.last().unwrap()["text"], sentence);
    }
    let data = folder.path().join("data").display().to_string();
    let costly = ["count", "--cost", "0.000001", "--data", &data];
    let (code, lines) = finish(start(folder.path(), &again(), &costly));
    assert_eq!((code, last(&lines)), (Some(1), ("failed", false)));
    assert!(lines[0]["text"].as_str().unwrap().contains("perilune prices set scripted"), "{lines:?}");
    let price = ["prices", "set", "scripted", "--input", "1", "--output", "2", "--data", &data];
    assert!(Command::new(env!("CARGO_BIN_EXE_perilune")).args(price).output().unwrap().status.success());
    let (code, lines) = finish(start(folder.path(), &again(), &costly));
    assert_eq!((code, last(&lines)), (Some(3), ("budget", false)));
    assert_eq!(lines.last().unwrap()["text"], "the run has used 20 of 1 millionths of its money");
}

#[test]
fn a_model_that_goes_in_circles_is_reminded_and_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let ask = |query: &str| call("search_files", &json!({"query": query}));
    let asked =
        ["where is the red fox's den", "the red fox's den, where is it", "Where is the red fox's den?"];
    let mut answers: Vec<Value> = (0..4).flat_map(|_| asked.map(ask)).collect();
    answers.push(words("not reached"));
    let (code, lines) = finish(start(folder.path(), &endpoint(answers), &["find the den"]));
    assert_eq!((code, last(&lines)), (Some(1), ("stuck", false)), "{lines:?}");
    let remarks: Vec<&str> = lines.iter().filter_map(|line| line["remark"].as_str()).collect();
    assert_eq!(remarks.len(), 3, "{remarks:?}");
    assert!(remarks[0].contains("3 times"), "{remarks:?}");
}

#[test]
fn to_look_again_after_a_change_is_no_circle() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("work")).unwrap();
    std::fs::write(folder.path().join("work/a.txt"), "0").unwrap();
    let look = || call("list_files", &json!({"path": "."}));
    let write = |text: &str| call("write_file", &json!({"path": "a.txt", "text": text}));
    let mut answers: Vec<Value> = (1..=13).flat_map(|n| [look(), write(&n.to_string())]).collect();
    answers.push(words("written and looked at"));
    let (code, lines) = finish(start(folder.path(), &endpoint(answers), &["write and look"]));
    assert_eq!((code, last(&lines)), (Some(0), ("done", false)), "{lines:?}");
    assert!(lines.iter().all(|line| line["remark"].is_null()), "{lines:?}");
}

#[test]
fn an_interrupted_run_says_how_to_go_on_and_does() {
    let folder = tempfile::tempdir().unwrap();
    let (upstream, is_asked) = telling_endpoint(vec![Value::Null, words("done at last")]);
    let child = start(folder.path(), &upstream, &["a task that's \"odd\"", "--steps", "7"]);
    is_asked.recv().unwrap();
    signal::send(&child, Signal::SIGINT);
    let (code, lines) = finish(child);
    assert_eq!((code, last(&lines)), (Some(130), ("interrupted", true)));
    let resume = lines.last().unwrap()["resume"].as_str().unwrap().to_owned();
    let binary = Path::new(env!("CARGO_BIN_EXE_perilune")).parent().unwrap().display().to_string();
    let path = format!("{binary}:{}", std::env::var("PATH").unwrap());
    // With standard input closed, not merely empty.
    let line = format!("{resume} <&-");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &line]).env("PATH", path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (code, lines) = finish(shell.spawn().unwrap());
    assert_eq!((code, last(&lines)), (Some(0), ("done", false)), "{resume}");
    assert_eq!(lines.last().unwrap()["answer"], "done at last");
}

/// Refuses the key, and says it again as some providers do.
fn refusing() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("http://{}/v1#scripted", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut piece = [0; 1 << 16];
            let _ = std::io::Read::read(&mut stream, &mut piece);
            let body =
                json!({"error": {"message": format!("Incorrect key: {KEY}"), "type": "invalid"}}).to_string();
            let head = "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\nconnection: close\r\n";
            let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
            let _ = std::io::Write::write_all(&mut stream, text.as_bytes());
        }
    });
    place
}

const KEY: &str = "sk-0123456789abcdef";

#[test]
fn a_refused_key_pauses_the_run_and_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("work")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_perilune"))
        .args(["run", &format!("log in with {KEY}"), "--json", "--upstream", &refusing()])
        .args(["--workspace".as_ref(), folder.path().join("work").as_os_str()])
        .args(["--runs".as_ref(), folder.path().join("runs").as_os_str()])
        .env("PERILUNE_UPSTREAM_KEY", KEY)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (shown, told) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((output.status.code(), last(&lines)), (Some(1), ("paused", true)), "{shown}{told}");
    assert!(lines[0]["task"].as_str().unwrap().contains("[secret PERILUNE_UPSTREAM_KEY]"), "{shown}");
    assert!(!shown.contains(KEY) && !told.contains(KEY), "{shown}{told}");
    assert!(told.contains("go on with: perilune run --resume"), "{told}");
}

/// The policy that lets commands through, and a command that outlives its agent.
#[test]
fn what_nobody_knows_needs_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    let default = Command::new(env!("CARGO_BIN_EXE_perilune")).args(["policy", "default"]).output().unwrap();
    let answer = "\n[[rule]]\nname = \"sleeps\"\ndecision = \"allow\"\nanswers = \"shell\"\ncommands = [\"sleep ...\"]\n\
                  match = [{ tool = \"shell\", command = \"sleep 9\" }]\n\
                  no_match = [{ tool = \"shell\", command = \"ls\" }]\n";
    std::fs::write(&policy, String::from_utf8(default.stdout).unwrap() + answer).unwrap();
    let upstream = endpoint(vec![call("shell", &json!({"command": "sleep 600"})), words("not reached")]);
    let args = ["sleep", "--policy", policy.to_str().unwrap()];
    let mut child = start(folder.path(), &upstream, &args);
    let intent = |line: &String| line.contains("\"event\":\"intent\"");
    let denied = |line: &String| line.contains("there is no tool shell");
    let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut lines = std::io::BufRead::lines(stdout).map_while(Result::ok);
    let found = lines.find(|line| intent(line) || denied(line));
    child.kill().unwrap();
    child.wait().unwrap();
    if found.is_none_or(|line| denied(&line)) {
        println!("SKIPPED: there is no sandbox here, so there is no shell to be killed in");
        return;
    }
    let run = std::fs::read_dir(folder.path().join("runs")).unwrap().next().unwrap().unwrap().file_name();
    let args = ["--resume", run.to_str().unwrap(), "--policy", policy.to_str().unwrap()];
    let (code, lines) = finish(start(folder.path(), &upstream, &args));
    assert_eq!((code, last(&lines)), (Some(5), ("unanswered", true)), "{lines:?}");
    let text = lines.last().unwrap()["text"].as_str().unwrap();
    assert!(text.starts_with("nobody is there to answer, and the call of shell"), "{text}");
}

#[test]
fn documents_are_searched_and_read_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    std::fs::create_dir(&notes).unwrap();
    std::fs::write(notes.join("tides.md"), "# Tides\n\nThe moon pulls the sea.\n").unwrap();
    let upstream = endpoint(vec![
        call("web_search", &json!({"query": "moon"})),
        call("fetch_url", &json!({"url": "doc:tides.md"})),
        call("fetch_url", &json!({"url": "https://example.org/"})),
        words("the moon"),
    ]);
    let args = ["what pulls the sea?", "--corpus", notes.to_str().unwrap()];
    let (code, lines) = finish(start(folder.path(), &upstream, &args));
    assert_eq!((code, last(&lines)), (Some(0), ("done", false)), "{lines:?}");
    let shown: Vec<&str> = lines.iter().filter_map(|line| line["shown"].as_str()).collect();
    assert!(shown[0].contains("doc:tides.md") && shown[1].contains("The moon pulls the sea."), "{shown:?}");
    let told = lines.iter().find_map(|line| line["text"].as_str().filter(|text| text.starts_with("denied")));
    assert!(told.unwrap().contains("this reaches the network"), "{lines:?}");
}

#[test]
fn a_search_engine_without_its_key_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = endpoint(vec![words("not reached")]);
    let (code, lines) = finish(start(folder.path(), &upstream, &["a task", "--search", "brave"]));
    assert_eq!((code, last(&lines)), (Some(1), ("failed", false)));
    assert!(lines[0]["text"].as_str().unwrap().contains("PERILUNE_SEARCH_KEY"), "{lines:?}");
    assert_eq!(finish(start(folder.path(), &upstream, &["a task", "--search", "altavista"])).0, Some(2));
}
