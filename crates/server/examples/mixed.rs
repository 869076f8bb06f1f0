//! The two service classes of a running server under a mixed load, through HTTP: one latency stream after another
//! beside 16 throughput requests with prompts of about 2,000 tokens, and the same stream on the idle server.
//!
//! `cargo run --release -p perilune-server --example mixed -- ADDRESS [N_OTHERS]`. A model that is tiny but not
//! trivial (52 million weights, a millisecond a token) is made once:
//!
//! ```sh
//! cargo build --release -p perilune
//! jq '.hidden_size = 512 | .intermediate_size = 1024 | .moe_intermediate_size = 256 | .n_routed_experts = 32
//!     | .num_experts_per_tok = 4 | .num_attention_heads = 8 | .num_key_value_heads = 8 | .q_lora_rank = 256
//!     | .kv_lora_rank = 128 | .qk_rope_head_dim = 32 | .qk_nope_head_dim = 64 | .v_head_dim = 64
//!     | .max_position_embeddings = 16384 | .eos_token_id = 2047' crates/model/tests/goldens/d/int4/config.json > small.json
//! target/release/perilune random --layers 6 --seed 1 --vocab 2048 --config small.json --out small \
//!     --tokenizer crates/chat/tests/data/small.tiktoken
//! target/release/perilune serve small --data scratch --cache-tokens 65536 &
//! cargo run --release -p perilune-server --example mixed -- 127.0.0.1:8080
//! ```
//!
//! On a machine where others work, run server and example with `nice -n -15`.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod common;

use common::{Answer, ask, figure, gaps, metrics, quantile};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Words of a throughput request's prompt; the test tokenizer makes about 2,000 tokens of them.
const N_WORDS: usize = 1_000;
/// Tokens of a latency answer.
const N_TURBO: usize = 600;
/// Tokens of a throughput answer.
const N_STANDARD: usize = 100;
/// Ids of the test tokenizer's special tokens, made unlikely so that an answer is as long as was asked.
const SPECIAL_IDS: std::ops::Range<u32> = 1792..2048;

fn request(model: &str, n_words: usize, salt: usize, max_tokens: usize) -> Value {
    let word = |i: usize| {
        ["harbour ", "seven ", "lima ", "moon ", "water ", "north "][(i * i + salt * 7 + i / 5) % 6]
    };
    let text: String =
        std::iter::once(format!("{salt}: ")).chain((0..n_words).map(|i| word(i).to_owned())).collect();
    let bias: serde_json::Map<_, _> = SPECIAL_IDS.map(|id| (id.to_string(), json!(-100))).collect();
    json!({
        "model": model, "messages": [{ "role": "user", "content": text }], "stream": true, "max_tokens": max_tokens,
        "stream_options": { "include_usage": true }, "thinking": { "type": "disabled" }, "seed": salt, "logit_bias": bias,
    })
}

/// Prints the quantiles of the distances between pieces; the 95th percentile, milliseconds.
fn show(what: &str, gaps: &[Duration]) -> f64 {
    let at = |share| quantile(gaps, share);
    println!(
        "{what:22} {:6} gaps  p50 {:7.2}  p95 {:7.2}  p99 {:7.2}  max {:8.1} ms",
        gaps.len(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0)
    );
    at(0.95)
}

/// Latency answers one after another until `stop`, at least one.
async fn turbo(address: String, stop: Arc<AtomicBool>) -> Vec<Answer> {
    let mut answers = Vec::new();
    while answers.is_empty() || !stop.load(Ordering::Relaxed) {
        let body = request("kimi-k2-thinking-turbo", 40, 1_000 + answers.len(), N_TURBO);
        answers.push(ask(&address, &body).await.unwrap());
    }
    answers
}

fn all_gaps(answers: &[Answer]) -> Vec<Duration> {
    let mut all: Vec<Duration> = answers.iter().flat_map(|answer| gaps(&answer.pieces())).collect();
    all.sort_unstable();
    all
}

fn prompt_tokens(answer: &Answer) -> u64 {
    let usage = |data: &String| serde_json::from_str::<Value>(data).ok()?["usage"]["prompt_tokens"].as_u64();
    answer.data.iter().rev().find_map(usage).unwrap_or(0)
}

/// What became of the throughput requests.
fn standard(sent: Instant, answers: &[Answer]) {
    let mut firsts: Vec<Duration> = answers.iter().map(|answer| answer.pieces()[0] - sent).collect();
    firsts.sort_unstable();
    let last = answers.iter().flat_map(|answer| answer.at.last()).max().unwrap();
    let n_pieces: usize = answers.iter().map(|answer| answer.pieces().len()).sum();
    let n_prompt: Vec<u64> = answers.iter().map(prompt_tokens).collect();
    println!(
        "standard: prompts of {} to {} tokens; {} of {} answers whole, {n_pieces} pieces after {:.1} s; \
         first pieces after {:.1} to {:.1} s",
        n_prompt.iter().min().unwrap(),
        n_prompt.iter().max().unwrap(),
        answers.iter().filter(|answer| answer.is_whole()).count(),
        answers.len(),
        (*last - sent).as_secs_f64(),
        firsts[0].as_secs_f64(),
        firsts[firsts.len() - 1].as_secs_f64()
    );
    let longest = answers.iter().flat_map(|answer| gaps(&answer.pieces()).last().copied()).max().unwrap();
    println!("standard: longest silence between two pieces of one answer {:.2} s", longest.as_secs_f64());
}

// One thread: the client must not take the server's processors.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, rest @ ..] = args.as_slice() else {
        eprintln!("usage: mixed ADDRESS [N_OTHERS]");
        std::process::exit(2);
    };
    let n_others: usize = rest.first().map_or(16, |n| n.parse().unwrap());
    let mut idle = Vec::new();
    for i in 0..5 {
        idle.push(ask(address, &request("kimi-k2-thinking-turbo", 40, 900 + i, N_TURBO)).await.unwrap());
    }
    let idle_p95 = show("turbo, idle server", &all_gaps(&idle));
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let others: Vec<_> = (0..n_others)
        .map(|i| {
            let address = address.clone();
            tokio::spawn(async move {
                ask(&address, &request("kimi-k2-thinking", N_WORDS, i, N_STANDARD)).await.unwrap()
            })
        })
        .collect();
    let stream = tokio::spawn(turbo(address.clone(), Arc::clone(&stop)));
    let mut answers = Vec::new();
    for other in others {
        answers.push(other.await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    let turbo = stream.await.unwrap();
    let p95 = show(&format!("turbo, {n_others} others"), &all_gaps(&turbo));
    println!("p95 against the idle server's: {:.2} times, over {} answers", p95 / idle_p95, turbo.len());
    standard(sent, &answers);
    let text = metrics(address).await;
    let books = |name: &str| figure(&text, &format!("perilune_engine{{figure=\"{name}\"}}"));
    println!("steps {}, preemptions {}", books("steps"), books("preemptions"));
}
