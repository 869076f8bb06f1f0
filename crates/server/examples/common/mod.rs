//! A client of plain HTTP/1.1 for the examples that load a running server: no library between it and the socket.

#![allow(dead_code, clippy::print_stdout, clippy::unwrap_used)]

use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A streamed answer as it came.
#[derive(Default)]
pub(crate) struct Answer {
    /// When each event came.
    pub(crate) at: Vec<Instant>,
    /// The events' data.
    pub(crate) data: Vec<String>,
}

impl Answer {
    /// Whether it ended as it should.
    pub(crate) fn is_whole(&self) -> bool {
        self.data.last().is_some_and(|data| data == "[DONE]")
    }

    /// Moments of the events that carried a piece of the answer.
    pub(crate) fn pieces(&self) -> Vec<Instant> {
        let is_piece = |data: &&String| data.contains("\"content\":\"") && !data.contains("\"content\":\"\"");
        let both = self.at.iter().zip(&self.data);
        both.filter(|(_, data)| is_piece(data) || data.contains("reasoning_content"))
            .map(|(at, _)| *at)
            .collect()
    }
}

/// Sends a chat request over a connection that stays open.
pub(crate) async fn send(stream: &mut TcpStream, body: &str) -> std::io::Result<()> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await
}

/// Reads a streamed answer to its end, or as far as it came.
pub(crate) async fn read(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let (mut answer, mut text, mut buffer) = (Answer::default(), String::new(), vec![0; 16 << 10]);
    loop {
        let n = stream.read(&mut buffer).await?;
        let now = Instant::now();
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            if let Some(at) = event.find("data: ") {
                answer.at.push(now);
                answer.data.push(event[at + 6..].trim_end().to_owned());
            }
        }
        // The chunk of length zero ends the body.
        if n == 0
            || text.ends_with("0\r\n\r\n")
            || text.starts_with("HTTP/1.1 4")
            || text.starts_with("HTTP/1.1 5")
        {
            return Ok(answer);
        }
    }
}

/// One streamed answer over a connection of its own.
pub(crate) async fn ask(address: &str, body: &Value) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    send(&mut stream, &body.to_string()).await?;
    read(&mut stream).await
}

/// One answer in full, which must come.
pub(crate) async fn whole(address: &str, path: &str, body: &Value) -> Value {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// The server's figures.
pub(crate) async fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let get = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// One figure of them.
pub(crate) fn figure(text: &str, name: &str) -> f64 {
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse().unwrap();
    text.lines().find(|line| line.starts_with(name)).map_or(0.0, value)
}

/// Distances between moments, sorted.
pub(crate) fn gaps(at: &[Instant]) -> Vec<Duration> {
    let mut gaps: Vec<Duration> = at.windows(2).map(|w| w[1] - w[0]).collect();
    gaps.sort_unstable();
    gaps
}

/// The value below which `share` of the sorted ones lie, milliseconds.
pub(crate) fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len() - 1);
    sorted[at].as_secs_f64() * 1e3
}

/// Lines of a process's memory and processor time.
pub(crate) fn process(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let is_wanted = |line: &&str| ["VmRSS", "VmHWM", "Threads"].iter().any(|name| line.starts_with(name));
    status.lines().filter(is_wanted).map(|line| line.replace('\t', " ")).collect::<Vec<_>>().join(", ")
}
