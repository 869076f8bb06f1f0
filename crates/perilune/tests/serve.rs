//! The server from outside: its door, its keys, its ledger, and how it ends.

#![allow(clippy::unwrap_used)]

#[path = "common/signal.rs"]
mod signal;

use serde_json::Value;
use signal::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn perilune() -> Command {
    Command::new(env!("CARGO_BIN_EXE_perilune"))
}

fn run(args: &[&str]) -> Output {
    perilune().args(args).output().unwrap()
}

/// A random model that speaks: the goldens' sizes, the test tokenizer's vocabulary.
fn model(dir: &Path) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let ranks = crates.join("chat/tests/data/small.tiktoken");
    let n_vocab = std::fs::read_to_string(&ranks).unwrap().lines().count() + 256;
    let golden = std::fs::read_to_string(crates.join("model/tests/goldens/d/int4/config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&golden).unwrap();
    config["max_position_embeddings"] = Value::from(16_384);
    config["eos_token_id"] = Value::from(n_vocab - 1);
    let (path, out) = (dir.join("config.json"), dir.join("model"));
    std::fs::write(&path, config.to_string()).unwrap();
    let made = perilune()
        .args(["random", "--layers", "2", "--seed", "1", "--vocab", &n_vocab.to_string()])
        .args(["--config".as_ref(), path.as_os_str(), "--out".as_ref(), out.as_os_str()])
        .args(["--tokenizer".as_ref(), ranks.as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    out
}

/// A running server; killed when dropped.
struct Server {
    child: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        model(dir.path());
        Self::again(dir)
    }

    /// Starts on a folder that is there.
    fn again(dir: tempfile::TempDir) -> Self {
        let mut child = perilune()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--cache-tokens",
                "65536",
                "--threads",
                "1",
                "--drain",
                "600",
            ])
            .args([
                "--data".as_ref(),
                dir.path().join("data").as_os_str(),
                dir.path().join("model").as_os_str(),
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address =
            lines.find_map(|line| line.unwrap().strip_prefix("address  http://").map(str::to_owned));
        Self { child, address: address.expect("the server says its address"), dir }
    }

    fn data(&self) -> String {
        self.dir.path().join("data").to_str().unwrap().to_owned()
    }

    /// Sends a request; the connection, nothing read yet.
    fn send(&self, body: &str, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let n = body.len();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {n}\r\n{head}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream
    }

    fn usage(&self) -> Value {
        let output = run(&["usage", "--json", "--data", &self.data()]);
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn long_stream(n_tokens: usize) -> String {
    // The ids that end a message are made unlikely, so the answer is about as long as asked.
    let bias: serde_json::Map<String, Value> =
        (1792..2048).map(|id| (id.to_string(), Value::from(-100))).collect();
    serde_json::json!({
        "messages": [{ "role": "user", "content": "go" }],
        "stream": true,
        "seed": 1,
        "thinking": { "type": "disabled" },
        "max_tokens": n_tokens,
        "logit_bias": bias,
    })
    .to_string()
}

fn read_some(stream: &mut TcpStream, until: &str) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains(until) {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the stream ended before {until:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

#[test]
fn sigterm_lets_running_answers_end() {
    let mut server = Server::start();
    let mut stream = server.send(&long_stream(600), "connection: close\r\n");
    let first = read_some(&mut stream, "delta");
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    signal::send(&server.child, Signal::SIGTERM);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(first.contains("[DONE]") || rest.contains("[DONE]"), "the answer was cut off: {rest}");
    assert!(server.child.wait().unwrap().success());
    let usage = server.usage();
    assert_eq!(usage[0]["requests"], 1, "{usage}");
    assert!(usage[0]["completion_tokens"].as_u64().unwrap() > 0, "{usage}");
}

#[test]
fn sigkill_in_a_request_leaves_the_ledger_whole() {
    let mut server = Server::start();
    let mut done = server.send(&long_stream(3), "connection: close\r\n");
    let mut whole = String::new();
    done.read_to_string(&mut whole).unwrap();
    assert!(whole.contains("[DONE]"), "{whole}");
    let mut stream = server.send(&long_stream(15_000), "");
    read_some(&mut stream, "delta");
    signal::send(&server.child, Signal::SIGKILL);
    server.child.wait().unwrap();
    let before = server.usage();
    assert_eq!(before[0]["requests"], 2, "both were opened: {before}");
    let dir = std::mem::replace(&mut server.dir, tempfile::tempdir().unwrap());
    let again = Server::again(dir);
    assert_eq!(again.usage(), before, "the lost request is charged nothing, the settled one as before");
    let mut after = again.send(&long_stream(2), "connection: close\r\n");
    let mut text = String::new();
    after.read_to_string(&mut text).unwrap();
    assert!(text.contains("[DONE]"), "{text}");
    assert_eq!(again.usage()[0]["requests"], 3);
}

#[test]
fn half_closed_and_vanished_clients_stop_their_work() {
    let server = Server::start();
    let mut half = server.send(&long_stream(15_000), "");
    read_some(&mut half, "delta");
    half.shutdown(Shutdown::Write).unwrap();
    let mut gone = server.send(&long_stream(15_000), "");
    read_some(&mut gone, "delta");
    drop(gone);
    let since = Instant::now();
    loop {
        let mut stream = TcpStream::connect(&server.address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        if text.contains("running_throughput\"} 0\n") && text.contains("perilune_open_answers 0\n") {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(300), "work goes on for nobody: {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_keys_it_stays_at_home() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let data = dir.path().join("data");
    let args =
        |listen| ["serve", model.to_str().unwrap(), "--listen", listen, "--data", data.to_str().unwrap()];
    let refused = run(&args("0.0.0.0:0"));
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("perilune keys create"), "{text}");
    let server = Server::again(dir);
    let second = run(&["serve", server.dir.path().join("model").to_str().unwrap(), "--data", &server.data()]);
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server uses"));
}

#[test]
fn keys_are_shown_once_and_never_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let made = run(&["keys", "create", "mine", "--balance", "1.5", "--data", data]);
    let secret = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    assert!(secret.starts_with("sk-") && secret.len() == 67, "{secret}");
    let listed = run(&["keys", "list", "--json", "--data", data]);
    let keys: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((&keys[0]["name"], &keys[0]["balance_usd"]), (&Value::from("mine"), &Value::from(1.5)));
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "the key is on disk");
    }
    assert!(run(&["keys", "revoke", &secret, "--data", data]).status.success());
    let listed = run(&["keys", "list", "--json", "--data", data]);
    let keys: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert!(keys[0]["revoked_ms"].is_i64());
    let unknown = run(&["keys", "revoke", "77", "--data", data]);
    assert_eq!(unknown.status.code(), Some(1));
}

#[test]
fn a_conversation_in_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let mut child = perilune()
        .args(["chat", "--max-tokens", "8", "--seed", "1", "--threads", "1"])
        .arg(model)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Hello\nAnd again\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{shown}");
    assert_eq!(shown.matches("generated").count(), 2, "{shown}");
    assert!(!output.stdout.contains(&0x1b), "no colour where nobody looks");
}
