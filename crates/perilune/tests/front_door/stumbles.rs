//! What a newcomer stumbles over: the sentence names the thing and the next step.

use super::world::{World, said};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;

#[test]
fn a_task_a_workspace_and_a_model_that_are_none_are_told() {
    let world = World::new();
    let stumble = |args: &[&str], code: i32, says: &[&str]| {
        let (ended, _, error) = world.perilune(args);
        assert_eq!(ended, Some(code), "{args:?}: {error}");
        assert!(says.iter().all(|word| error.contains(word)), "{args:?}: {error}");
    };
    stumble(&["run", "  "], 2, &["a task in words"]);
    stumble(&["run", "x", "--workspace", "nowhere"], 1, &["nowhere", "make the folder", "--workspace"]);
    let file = "examples/workspace/start.txt";
    stumble(&["run", "x", "--workspace", file], 1, &["start.txt is a file", "name the folder"]);
    stumble(&["run", "x", "--model", "nowhere"], 1, &["nowhere is not a folder", "config.json"]);
    stumble(&["runs", "show", "none"], 1, &["none", "`perilune runs list`"]);
    let mut command = world.command("perilune");
    let (_, _, error) = said(command.env("PERILUNE_MODEL", "/nowhere").args(["run", "x"]));
    assert!(error.contains("`perilune config show --origin`") && error.contains("/nowhere"), "{error}");
    let runs = world.home().join(".local/share/perilune/runs");
    let n_begun = std::fs::read_dir(runs).map_or(0, Iterator::count);
    assert_eq!(n_begun, 0, "nothing of this began a run");
}

/// An endpoint that refuses every key.
fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), [0; 4096]);
            let _ = stream.read(&mut head).unwrap();
            let body = "{\"error\":{\"message\":\"Incorrect API key provided\"}}";
            let n = body.len();
            let kind = "content-type: application/json\r\nconnection: close";
            let head = format!("HTTP/1.1 401 Unauthorized\r\n{kind}\r\ncontent-length: {n}\r\n\r\n");
            stream.write_all((head + body).as_bytes()).unwrap();
            // What is closed with bytes unread is reset, and the answer is lost.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    address
}

#[test]
fn a_wrong_key_is_told_with_the_variable_that_it_is_read_from() {
    let world = World::new();
    let upstream = format!("http://{}/v1#m", refusing());
    for (key, says) in
        [(None, "PERILUNE_UPSTREAM_KEY, which is not set"), (Some("sk-wrong-5512"), "which is set")]
    {
        let mut command = world.command("perilune");
        command.args(["run", "x", "--upstream", &upstream]);
        key.map(|key| command.env("PERILUNE_UPSTREAM_KEY", key));
        let (code, _, error) = said(&mut command);
        assert_eq!(code, Some(1));
        for says in [says, "Incorrect API key provided", "go on with: perilune run --resume"] {
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}

#[test]
fn an_endpoint_that_nobody_answers_at_is_told_in_the_systems_words() {
    let world = World::new();
    // Port 1 of this machine is nobody's.
    let mut command = world.command("perilune");
    command.args(["run", "x", "--upstream", "http://127.0.0.1:1/v1#m"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("cannot be reached"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.as_ref().is_some_and(|line| line.contains("Connection refused")), "{line:?}");
}
