//! A model's endpoint that says what a test wants.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

/// A policy that asks before every write.
pub(crate) const ASK_WRITES: &str = r#"
version = 1
otherwise = "ask"

[[rule]]
name = "writes"
decision = "ask"
reason = "writes are asked"
tools = ["write_file"]
match = [{ tool = "write_file", write = "a.txt" }]
no_match = [{ tool = "read_file", read = "a.txt" }]
"#;

/// Answers each request with the next of `answers`; the last one again and again. Null never answers, and what has a
/// status is a failure.
/// Returns its `--upstream`.
pub(crate) fn endpoint(answers: Vec<Value>) -> String {
    telling_endpoint(answers).0
}

/// The same, and a word for each request that comes.
pub(crate) fn telling_endpoint(answers: Vec<Value>) -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("http://{}/v1#scripted", listener.local_addr().unwrap());
    let (asked, is_asked) = channel();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        let (mut last, mut unanswered) = (Value::Null, Vec::new());
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            // Few tests listen.
            let _ = asked.send(());
            last = answers.next().unwrap_or(last);
            match last {
                Value::Null => unanswered.push(stream),
                _ => answer(stream, &last),
            }
        }
    });
    (place, is_asked)
}

/// The body of a request; nothing where whoever asks was killed.
pub(crate) fn request(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut n_bytes = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(length) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            n_bytes = length.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; n_bytes];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn answer(mut stream: TcpStream, message: &Value) {
    let _ = request(&stream);
    let finish = if message["tool_calls"].is_array() { "tool_calls" } else { "stop" };
    let whole = json!({
        "id": "a", "object": "chat.completion", "created": 1, "model": "scripted",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    });
    let status = message["status"].as_str().unwrap_or("200 OK");
    let body = message.get("body").unwrap_or(&whole).to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
    // A run that was killed does not read it.
    let _ = stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
}

pub(crate) fn call(name: &str, arguments: &Value) -> Value {
    let function = json!({"name": name, "arguments": arguments.to_string()});
    let calls = json!([{"id": "c", "type": "function", "function": function}]);
    json!({"role": "assistant", "content": "", "reasoning_content": "next", "tool_calls": calls})
}

pub(crate) fn words(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}
