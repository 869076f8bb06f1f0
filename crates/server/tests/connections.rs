//! Readers who are slow, half gone or gone, on real sockets.

#![allow(clippy::unwrap_used)]

mod common;

use common::{House, chat};
use perilune_server::answer::UNREAD_EVENTS_MAX;
use perilune_server::store::{Period, Status, Store};
use serde_json::{Value, json};
use std::future::Future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const PATIENCE: Duration = Duration::from_secs(60);
/// Tokens of a long answer: more than may wait for a reader.
const N_LONG: usize = 15_000;

/// Sends a request over a connection whose own buffer is small; nothing is read yet.
async fn ask(address: SocketAddr, body: &Value) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    stream
}

/// A streamed answer that goes on for `n_tokens`.
fn long(house: &House, n_tokens: usize, more: &Value) -> Value {
    let text = house.script(&format!("<think>{}", "on and on ".repeat(n_tokens)));
    let mut body = chat(&text, &json!({ "stream": true, "max_tokens": n_tokens }));
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let (mut text, mut buffer) = (String::new(), vec![0; 4096]);
    while !text.contains(end) {
        let n = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(n > 0, "the stream ended before {end:?}: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < PATIENCE, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_too_slow_are_cut_off_by_a_written_limit_and_others_are_served() {
    let store = Store::in_memory().unwrap();
    let house = House::with(Duration::ZERO, store.clone());
    let address = house.listen().await;
    // Log-probabilities make the events large, so that the system's buffers hold few of them.
    let wide = json!({ "logprobs": true, "top_logprobs": 20 });
    let silent = ask(address, &long(&house, N_LONG, &wide)).await;
    let mut crawling = ask(address, &long(&house, N_LONG, &wide)).await;
    let crawl = tokio::spawn(async move {
        while crawling.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut reading = ask(address, &long(&house, 300, &json!({}))).await;
    let whole = read_until(&mut reading, "[DONE]").await;
    // All but the marker that opens the thought.
    assert_eq!(whole.matches("reasoning_content").count(), 299, "the others get their answers whole");
    until("both slow readers' work is stopped", || async { house.engine.stats().cancelled == 2 }).await;
    let stats = house.engine.stats();
    assert_eq!((stats.running, stats.blocks_used), ([0, 0], 0), "their blocks are free");
    let n_generated = stats.generated_tokens as usize - 300;
    assert!(n_generated > 2 * UNREAD_EVENTS_MAX - 2, "{n_generated} tokens: cut off before the limit");
    assert!(n_generated < 2 * N_LONG, "{n_generated} tokens: nobody was cut off");
    drop(silent);
    crawl.abort();
    let lines = || async { store.lines(Period::default(), 10).await.unwrap() };
    until("all three are settled", || async { lines().await.iter().all(|l| l.status != Status::Open) }).await;
    let lines = lines().await;
    assert_eq!(lines.iter().filter(|line| line.status == Status::Cancelled).count(), 2, "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.status == Status::Done).count(), 1, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_comes_back_too_late_is_told_why() {
    let house = House::new();
    let address = house.listen().await;
    let wide = json!({ "logprobs": true, "top_logprobs": 20 });
    let mut stream = ask(address, &long(&house, N_LONG, &wide)).await;
    until("the slow reader's work is stopped", || async { house.engine.stats().cancelled == 1 }).await;
    let text = read_until(&mut stream, "slow_reader").await;
    assert!(text.contains(&format!("more than {UNREAD_EVENTS_MAX} tokens")) && !text.contains("[DONE]"));
}

/// A client leaves in the middle of an answer; the tokens generated after it did.
async fn tokens_after_leaving(leave: impl AsyncFnOnce(TcpStream) -> Option<TcpStream>) -> u64 {
    let step = Duration::from_secs(1);
    let store = Store::in_memory().unwrap();
    let house = House::with(step, store.clone());
    let address = house.listen().await;
    let mut stream = ask(address, &long(&house, 5_000, &json!({}))).await;
    read_until(&mut stream, "reasoning_content").await;
    let before = house.engine.stats().generated_tokens;
    let _kept = leave(stream).await;
    until("the work stops", || async { house.engine.stats().running == [0, 0] }).await;
    let after = house.engine.stats().generated_tokens;
    let line = async || {
        store.flush().await.unwrap();
        store.lines(Period::default(), 1).await.unwrap().remove(0)
    };
    until("the line is settled", || async { line().await.status != Status::Open }).await;
    let line = line().await;
    assert_eq!(line.status, Status::Cancelled);
    assert!(line.usage.completion_tokens > 0 && line.usage.completion_tokens <= after, "{line:?}");
    after - before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_stops_its_work_within_one_step() {
    // The step in which it leaves, and the one that had been read but not yet counted.
    let n = tokens_after_leaving(async |stream| {
        drop(stream);
        None
    });
    assert!(n.await <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_socket_stops_its_work_within_one_step() {
    let n = tokens_after_leaving(async |mut stream| {
        stream.shutdown().await.unwrap();
        Some(stream)
    });
    assert!(n.await <= 2);
}
