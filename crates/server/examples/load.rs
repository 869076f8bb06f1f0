//! Loads a running server on this machine and prints its own share of the wait for the first token.
//!
//! `cargo run --release -p perilune-server --example load -- 127.0.0.1:8080 STREAMS REQUESTS [PID]`: keeps STREAMS
//! streamed answers open at once until REQUESTS are done, then reads the server's figures (and, with PID, its memory
//! one second after the start). The shares are the server's histograms, so this client's slowness is not in them.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BODY: &str = r#"{"messages":[{"role":"user","content":"Hello there"}],"stream":true,"max_tokens":6,"thinking":{"type":"disabled"}}"#;

/// One streamed answer; whether it came whole.
async fn ask(stream: &mut TcpStream) -> std::io::Result<bool> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        BODY.len()
    );
    stream.write_all(format!("{head}{BODY}").as_bytes()).await?;
    let (mut text, mut buffer) = (String::new(), vec![0; 16 << 10]);
    // The chunk of length zero ends the body.
    while !text.ends_with("\r\n0\r\n\r\n") {
        let n = stream.read(&mut buffer).await?;
        if n == 0 || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5") {
            return Ok(false);
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    Ok(text.contains("[DONE]"))
}

async fn metrics(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let get = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(get.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Prints which share of a histogram's values lies under each of its bounds.
fn shares(text: &str, name: &str) {
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    let count = text.lines().find(|line| line.starts_with(&format!("{name}_count"))).map_or(0.0, value);
    println!("{name}: {count} values");
    for line in text.lines().filter(|line| line.starts_with(&format!("{name}_bucket"))) {
        let bound = line.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
        let share = 100.0 * value(line) / count;
        println!("  <= {bound:>7} s  {share:6.2} %");
        if share >= 100.0 {
            break;
        }
    }
}

/// Asks again and again until enough were asked.
async fn work(address: String, next: Arc<AtomicUsize>, whole: Arc<AtomicUsize>, n_requests: usize) {
    let mut stream = TcpStream::connect(&address).await.unwrap();
    while next.fetch_add(1, Ordering::Relaxed) < n_requests {
        if ask(&mut stream).await.unwrap_or(false) {
            whole.fetch_add(1, Ordering::Relaxed);
        } else {
            stream = TcpStream::connect(&address).await.unwrap();
        }
    }
}

async fn memory(pid: &str) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("Threads"));
    lines.for_each(|line| println!("{line}"));
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, n_streams, n_requests, rest @ ..] = args.as_slice() else {
        eprintln!("usage: load ADDRESS STREAMS REQUESTS [PID]");
        std::process::exit(2);
    };
    let (n_streams, n_requests): (usize, usize) = (n_streams.parse().unwrap(), n_requests.parse().unwrap());
    let (next, whole, since) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Instant::now());
    let start = |_| tokio::spawn(work(address.clone(), Arc::clone(&next), Arc::clone(&whole), n_requests));
    let workers: Vec<_> = (0..n_streams).map(start).collect();
    if let [pid] = rest {
        memory(pid).await;
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let (whole, seconds) = (whole.load(Ordering::Relaxed), since.elapsed().as_secs_f64());
    println!("{whole} of {n_requests} answers whole in {seconds:.1} s, {n_streams} at once");
    let text = metrics(address).await;
    shares(&text, "perilune_prepare_seconds");
    shares(&text, "perilune_deliver_seconds");
}
