//! Loads a running server on this machine: its own share of the wait for the first token, and many streams at once.
//!
//! `cargo run --release -p perilune-server --example load -- ADDRESS STREAMS REQUESTS [PID [MAX_TOKENS]]` keeps STREAMS
//! streamed answers open at once until REQUESTS are done, then prints the server's histograms (so this client's
//! slowness is not in them) and, with PID, its memory and its idle processor time.
//!
//! The model is made once, tiny, from a config of the goldens:
//!
//! ```sh
//! cargo build --release -p perilune
//! jq '.max_position_embeddings = 16384 | .eos_token_id = 2047' crates/model/tests/goldens/d/int4/config.json > tiny.json
//! target/release/perilune random --layers 2 --seed 1 --vocab 2048 --config tiny.json --out tiny \
//!     --tokenizer crates/chat/tests/data/small.tiktoken
//! target/release/perilune serve tiny --data scratch --cache-tokens 262144 & PID=$!
//! cargo run --release -p perilune-server --example load -- 127.0.0.1:8080 32 2500 $PID
//! cargo run --release -p perilune-server --example load -- 127.0.0.1:8080 1000 1000 $PID 2000
//! ```
//!
//! On a machine where others work, run server and example with `nice -n -15`.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod common;

use common::{figure, metrics, process, read, send};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Ids of the test tokenizer's special tokens, made unlikely so that an answer is as long as was asked.
const SPECIAL_IDS: std::ops::Range<u32> = 1792..2048;
/// Pause between two looks at a server under load.
const LOOK: Duration = Duration::from_secs(2);
/// Time over which idle processor time is counted.
const REST: Duration = Duration::from_secs(5);

/// What all workers share.
struct Work {
    address: String,
    body: String,
    next: AtomicUsize,
    whole: AtomicUsize,
    tokens: AtomicUsize,
    n_requests: usize,
}

fn body(max_tokens: usize) -> String {
    let mut body = json!({
        "messages": [{ "role": "user", "content": "Hello there" }], "stream": true, "max_tokens": max_tokens,
        "thinking": { "type": "disabled" },
    });
    if max_tokens > 6 {
        let bias: serde_json::Map<_, _> = SPECIAL_IDS.map(|id| (id.to_string(), json!(-100))).collect();
        body["logit_bias"] = bias.into();
    }
    body.to_string()
}

/// Prints which share of a histogram's values lies under each of its bounds.
fn shares(text: &str, name: &str) {
    let count = figure(text, &format!("{name}_count"));
    println!("{name}: {count} values");
    for line in text.lines().filter(|line| line.starts_with(&format!("{name}_bucket"))) {
        let bound = line.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
        let share = 100.0 * figure(line, name) / count;
        println!("  <= {bound:>7} s  {share:6.2} %");
        if share >= 100.0 {
            break;
        }
    }
}

/// Asks again and again until enough were asked.
async fn work(work: Arc<Work>) {
    let mut stream = TcpStream::connect(&work.address).await.unwrap();
    while work.next.fetch_add(1, Ordering::Relaxed) < work.n_requests {
        let answer = match send(&mut stream, &work.body).await {
            Ok(()) => read(&mut stream).await.unwrap_or_default(),
            Err(_) => common::Answer::default(),
        };
        work.tokens.fetch_add(answer.pieces().len(), Ordering::Relaxed);
        if answer.is_whole() {
            work.whole.fetch_add(1, Ordering::Relaxed);
        } else {
            stream = TcpStream::connect(&work.address).await.unwrap();
        }
    }
}

/// Looks at the server until the workers are done; the most answers it had open at once.
async fn watch(work: Arc<Work>, pid: Option<String>) {
    let (since, mut most) = (Instant::now(), 0.0);
    loop {
        tokio::time::sleep(if most > 0.0 { LOOK } else { LOOK / 4 }).await;
        let open = figure(&metrics(&work.address).await, "perilune_open_answers");
        if open > most {
            most = open;
            let memory = pid.as_deref().map(process).unwrap_or_default();
            println!("{:6.1} s: {open} answers open at once; {memory}", since.elapsed().as_secs_f64());
        }
    }
}

/// Processor time that a process took while nobody asked anything.
async fn rest(pid: &str) {
    // utime and stime, the 14th and 15th fields, in ticks of 10 ms.
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split(' ').filter_map(|field| field.parse().ok()).collect();
        fields[10] + fields[11]
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = ticks();
    tokio::time::sleep(REST).await;
    let used_ms = (ticks() - before) * 10;
    println!("idle: {used_ms} ms of processor time in {} s; {}", REST.as_secs(), process(pid));
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, n_streams, n_requests, rest_of @ ..] = args.as_slice() else {
        eprintln!("usage: load ADDRESS STREAMS REQUESTS [PID [MAX_TOKENS]]");
        std::process::exit(2);
    };
    let (n_streams, n_requests): (usize, usize) = (n_streams.parse().unwrap(), n_requests.parse().unwrap());
    let (pid, max_tokens) = (rest_of.first().cloned(), rest_of.get(1).map_or(6, |n| n.parse().unwrap()));
    let zero = || AtomicUsize::new(0);
    let all = Arc::new(Work {
        address: address.clone(),
        body: body(max_tokens),
        next: zero(),
        whole: zero(),
        tokens: zero(),
        n_requests,
    });
    let since = Instant::now();
    let watcher = tokio::spawn(watch(Arc::clone(&all), pid.clone()));
    let workers: Vec<_> = (0..n_streams).map(|_| tokio::spawn(work(Arc::clone(&all)))).collect();
    for worker in workers {
        worker.await.unwrap();
    }
    watcher.abort();
    let (seconds, tokens) = (since.elapsed().as_secs_f64(), all.tokens.load(Ordering::Relaxed));
    let whole = all.whole.load(Ordering::Relaxed);
    println!("{whole} of {n_requests} answers whole in {seconds:.1} s, {n_streams} at once, {tokens} pieces");
    let text = metrics(address).await;
    for name in ["perilune_prepare_seconds", "perilune_deliver_seconds", "perilune_overhead_seconds"] {
        shares(&text, name);
    }
    if let Some(pid) = pid {
        rest(&pid).await;
    }
}
