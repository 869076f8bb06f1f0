//! A served random model, and a client that speaks plain HTTP to it.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Vocabulary of the test tokenizer; its last [`N_SPECIAL`] ids are special.
pub(crate) const N_VOCAB: usize = 2048;
/// Special ids.
pub(crate) const N_SPECIAL: usize = 256;
/// Time that an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn ranks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../chat/tests/data/small.tiktoken")
}

/// A random model in `dir`/model that speaks: a golden's sizes, the test tokenizer's vocabulary.
pub(crate) fn model(dir: &Path) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/goldens/d/int4/config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(16_384);
    config["eos_token_id"] = json!(N_VOCAB - 1);
    let (path, out) = (dir.join("config.json"), dir.join("model"));
    std::fs::write(&path, config.to_string()).unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_perilune"))
        .args(["random", "--layers", "2", "--seed", "1", "--vocab", &N_VOCAB.to_string()])
        .args(["--config".as_ref(), path.as_os_str(), "--out".as_ref(), out.as_os_str()])
        .args(["--tokenizer".as_ref(), ranks().as_os_str()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    out
}

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn start(model: &Path, args: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_perilune"))
            .args(["serve", "--listen", "127.0.0.1:0", "--cache-tokens", "65536"])
            .args(args)
            .args(["--data".as_ref(), data.path().as_os_str(), model.as_os_str()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address =
            lines.find_map(|line| line.unwrap().strip_prefix("address  http://").map(str::to_owned));
        Self { child, address: address.expect("the server says its address"), _data: data }
    }

    fn send(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Asks `/v1/chat/completions`.
    pub(crate) fn chat(&self, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let (status, text) = self.send(&format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The same where it must succeed.
    pub(crate) fn answer(&self, body: &Value) -> Value {
        let (status, answer) = self.chat(body);
        assert_eq!(status, 200, "{body}: {answer}");
        answer
    }

    /// A figure of the engine's books.
    pub(crate) fn books(&self, figure: &str) -> u64 {
        let (_, text) = self.send("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let name = format!("perilune_engine{{figure=\"{figure}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }
}

/// Sends all at once; the answers in order.
pub(crate) fn at_once(server: &Server, bodies: &[Value]) -> Vec<(u16, Value)> {
    let start = std::sync::Barrier::new(bodies.len());
    let ask = |body| {
        start.wait();
        server.chat(body)
    };
    let ask = &ask;
    std::thread::scope(|scope| {
        let asked: Vec<_> = bodies.iter().map(|body| scope.spawn(move || ask(body))).collect();
        asked.into_iter().map(|answer| answer.join().unwrap()).collect()
    })
}
