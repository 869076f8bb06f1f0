//! What is drawn, who is waited for, and how runs go on: temperature, questions in words, larger limits, secrets in
//! answers.

use super::scripted::request;
use super::{call, command, endpoint, finish, start, waiting, words};
use perilune_agent::journal::{self, Answer};
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

/// A model that says that it is done, and passes on what it was asked.
fn overheard() -> (String, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("http://{}/v1#scripted", listener.local_addr().unwrap());
    let (send, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(body) = request(&stream) else { continue };
            let answer = json!({
                "id": "a", "object": "chat.completion", "created": 1, "model": "scripted",
                "choices": [{"index": 0, "message": words("done"), "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            });
            let body_text = answer.to_string();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
            let length = body_text.len();
            let _ = stream.write_all(format!("{head}content-length: {length}\r\n\r\n{body_text}").as_bytes());
            if send.send(serde_json::from_slice(&body).unwrap()).is_err() {
                break;
            }
        }
    });
    (place, asked)
}

#[test]
fn the_temperature_is_the_models_own_or_the_one_that_is_given() {
    let (upstream, asked) = overheard();
    for (flags, temperature) in [
        (vec![], 1.0),
        (vec!["--context", "8000"], 0.0),
        (vec!["--temperature", "0.25"], 0.25),
        (vec!["--context", "8000", "--temperature", "0.5"], 0.5),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (code, _) = finish(start(folder.path(), &upstream, &[&["a task"], flags.as_slice()].concat()));
        assert_eq!(code, Some(0));
        assert_eq!(asked.recv().unwrap()["temperature"], temperature, "{flags:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(finish(start(folder.path(), &upstream, &["a task", "--temperature", "3"])).0, Some(2));
}

fn name(folder: &Path) -> String {
    let run = std::fs::read_dir(folder.join("runs")).unwrap().next().unwrap().unwrap();
    run.file_name().into_string().unwrap()
}

#[test]
fn a_run_that_a_limit_stopped_goes_on_with_a_larger_one() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str| call("write_file", &json!({"path": path, "text": "x"}));
    let upstream = endpoint(vec![write("a.txt"), write("b.txt"), write("c.txt"), words("three files")]);
    let (code, _) = finish(start(folder.path(), &upstream, &["write", "--steps", "2"]));
    let run = name(folder.path());
    let resume =
        |steps: &str| finish(start(folder.path(), &upstream, &["--resume", run.as_str(), "--steps", steps]));
    assert_eq!(code, Some(3));
    // The same limit is reached already, and nothing is asked.
    let (code, lines) = resume("2");
    assert_eq!((code, &lines.last().unwrap()["status"]), (Some(3), &json!("budget")));
    let (code, lines) = resume("9");
    assert_eq!((code, &lines[0]["event"]), (Some(0), &json!("resumed")), "{lines:?}");
    assert_eq!(lines.last().unwrap()["answer"], "three files");
    assert!(["a.txt", "b.txt", "c.txt"].iter().all(|it| folder.path().join("work").join(it).exists()));
    let listed: Value = serde_json::from_str(&super::told(folder.path(), &["show", &run, "--json"])).unwrap();
    assert_eq!((&listed["state"], &listed["steps"]), (&json!("done"), &json!(4)));
}

#[test]
fn a_question_in_words_outlives_the_process_that_asked_it() {
    let folder = tempfile::tempdir().unwrap();
    let ask = || call("ask_user", &json!({"question": "Which colour?"}));
    let mut child = start(folder.path(), &endpoint(vec![ask()]), &["paint", "--ask-in-console"]);
    let (run, question) = waiting(folder.path());
    child.kill().unwrap();
    child.wait().unwrap();
    let place = folder.path().join("runs").join(&run);
    assert!(journal::give(&place, &question.id, &Answer::Words(Some("blue".to_owned()))).unwrap());
    let upstream = endpoint(vec![words("it is blue")]);
    let (code, lines) =
        finish(start(folder.path(), &upstream, &["--resume", run.as_str(), "--ask-in-console"]));
    assert_eq!(code, Some(0), "{lines:?}");
    assert!(lines.iter().any(|line| line["shown"] == "blue"), "{lines:?}");
}

const KEY: &str = "sk-0123456789abcdef";

/// Whether a file beneath a folder holds the key.
fn holds(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| match entry.path() {
        path if path.is_dir() => holds(&path),
        path => String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains(KEY),
    })
}

#[test]
fn a_secret_in_an_answer_stays_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = endpoint(vec![call("ask_user", &json!({"question": "Which key?"})), words("I have it")]);
    let mut process = command(folder.path(), &upstream, &["log in", "--ask-in-console"]);
    let child = process.env("PERILUNE_UPSTREAM_KEY", KEY).spawn().unwrap();
    let (run, question) = waiting(folder.path());
    let place = folder.path().join("runs").join(&run);
    assert!(journal::give(&place, &question.id, &Answer::Words(Some(format!("it is {KEY}")))).unwrap());
    let (code, lines) = finish(child);
    assert_eq!(code, Some(0), "{lines:?}");
    assert!(lines.iter().any(|line| line["shown"] == "it is [secret PERILUNE_UPSTREAM_KEY]"), "{lines:?}");
    assert!(!holds(&folder.path().join("runs")) && !lines.iter().any(|line| line.to_string().contains(KEY)));
    // An answer that was given while nobody worked on the run.
    assert!(journal::give(&place, "9-0-later", &Answer::Words(Some(KEY.to_owned()))).unwrap());
    assert!(holds(&folder.path().join("runs")));
    let mut process = command(folder.path(), &upstream, &["--resume", run.as_str()]);
    finish(process.env("PERILUNE_UPSTREAM_KEY", KEY).spawn().unwrap());
    assert!(!holds(&folder.path().join("runs")));
}

#[test]
fn a_denial_of_long_ago_is_not_why_a_run_is_stuck() {
    let folder = tempfile::tempdir().unwrap();
    let outside = call("write_file", &json!({"path": "../out.txt", "text": "x"}));
    let circle = call("calculate", &json!({"expression": "1+1"}));
    let (code, lines) = finish(start(folder.path(), &endpoint(vec![outside, circle]), &["count"]));
    assert_eq!((code, &lines.last().unwrap()["status"]), (Some(1), &json!("stuck")));
}

#[test]
fn a_run_has_the_name_that_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = endpoint(vec![words("done")]);
    assert_eq!(finish(start(folder.path(), &upstream, &["a task", "--name", "my-run"])).0, Some(0));
    assert_eq!(name(folder.path()), "my-run");
    for (name, says) in [("my-run", "exists already"), ("../x", "is no name of a run")] {
        let (code, lines) = finish(start(folder.path(), &upstream, &["a task", "--name", name]));
        assert_eq!(code, Some(1));
        assert!(lines[0]["text"].as_str().unwrap().contains(says), "{lines:?}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_perilune")).args(["run", "--help"]).output().unwrap();
    assert!(String::from_utf8(help.stdout).unwrap().contains("--temperature"));
}
