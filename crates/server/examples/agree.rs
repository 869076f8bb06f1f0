//! How often greedy tokens agree between two running servers of one model, with the prefix cache and without it.
//!
//! `cargo run --release -p perilune-server --example agree -- RANKS WITH WITHOUT [DIALOGUES]`, where RANKS is the model's
//! tiktoken.model and WITHOUT the address of a `perilune serve MODEL --no-prefix-cache`. Dialogues of token ids, each
//! prompt the one before with its answer and something new, as in a tool loop; both servers are asked with the history
//! that WITHOUT wrote, so each turn compares one answer. On the exact path all must agree to the bit. On the fast path
//! decode and prefill round differently, and a reused prefix holds tokens that decode wrote.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

mod common;

use common::whole;
use perilune_chat::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Turns of a dialogue.
const N_TURNS: usize = 6;
/// Tokens of an answer.
const N_TOKENS: usize = 70;

/// Counts over all answers.
#[derive(Default)]
struct Counts {
    n_answers: usize,
    n_equal_answers: usize,
    n_bit_equal: usize,
    n_tokens: usize,
    /// Before an answer first differs.
    n_equal: usize,
    /// Largest difference of a log-probability while tokens agree.
    largest: f64,
    n_cached: u64,
}

/// Token ids of the ordinary tokens by their text, and a bias that allows no others.
fn ordinary(ranks: &str) -> (HashMap<String, u32>, Value) {
    let tokenizer = Tokenizer::from_ranks(&std::fs::read(ranks).unwrap(), None).unwrap();
    let (mut ids, mut bias) = (HashMap::new(), Map::new());
    for id in 0..tokenizer.n_vocab() as u32 {
        let text = tokenizer.token_bytes(id).and_then(|bytes| std::str::from_utf8(bytes).ok());
        match text.filter(|_| !tokenizer.is_special(id)) {
            Some(text) => {
                ids.insert(text.to_owned(), id);
            }
            None => {
                bias.insert(id.to_string(), json!(-100));
            }
        }
    }
    (ids, bias.into())
}

fn tokens(answer: &Value) -> Vec<(String, f64)> {
    let logprobs = &answer["choices"][0]["logprobs"];
    let column = |name: &str| logprobs[name].as_array().unwrap().clone();
    let both = column("tokens").into_iter().zip(column("token_logprobs"));
    both.map(|(token, logprob)| (token.as_str().unwrap().to_owned(), logprob.as_f64().unwrap())).collect()
}

impl Counts {
    fn take(&mut self, with: &Value, without: &Value) {
        let (a, b) = (tokens(with), tokens(without));
        let n = a.iter().zip(&b).take_while(|(a, b)| a.0 == b.0).count();
        self.n_answers += 1;
        self.n_equal_answers += usize::from(n == b.len() && a.len() == b.len());
        self.n_bit_equal += usize::from(a == b);
        self.n_tokens += b.len();
        self.n_equal += n;
        let far = a[..n].iter().zip(&b).map(|(a, b)| (a.1 - b.1).abs());
        self.largest = far.fold(self.largest, f64::max);
        self.n_cached += with["usage"]["cached_tokens"].as_u64().unwrap();
    }
}

/// Six turns; `ids` are the ordinary tokens' by their text.
async fn dialogue(
    servers: [&str; 2],
    number: usize,
    ids: &HashMap<String, u32>,
    bias: &Value,
    counts: &mut Counts,
) {
    let mut all: Vec<u32> = ids.values().copied().collect();
    all.sort_unstable();
    let some = |n: usize, salt: usize| {
        let all = &all;
        (0..n).map(move |i| all[(salt * 7919 + i * i * 31 + i * 17) % all.len()])
    };
    let mut context: Vec<u32> = some(100, number).collect();
    for turn in 0..N_TURNS {
        let body = json!({ "prompt": context, "temperature": 0, "max_tokens": N_TOKENS, "logprobs": 1, "logit_bias": bias });
        let [with, without] = servers;
        let with = whole(with, "/v1/completions", &body).await;
        let without = whole(without, "/v1/completions", &body).await;
        counts.take(&with, &without);
        context.extend(tokens(&without).iter().map(|(text, _)| ids[text]));
        context.extend(some(20, number * 100 + turn));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [ranks, with, without, rest @ ..] = args.as_slice() else {
        eprintln!("usage: agree RANKS WITH WITHOUT [DIALOGUES]");
        std::process::exit(2);
    };
    let n_dialogues: usize = rest.first().map_or(20, |n| n.parse().unwrap());
    let (ids, bias) = ordinary(ranks);
    let mut counts = Counts::default();
    for number in 0..n_dialogues {
        dialogue([with, without], number, &ids, &bias, &mut counts).await;
    }
    let Counts { n_answers, n_equal_answers, n_bit_equal, n_tokens, n_equal, largest, n_cached } = counts;
    println!("{n_answers} answers, {n_tokens} tokens, {n_cached} tokens of prompts found cached");
    println!(
        "greedy tokens agree: {n_equal} before an answer first differs ({:.2} %)",
        share(n_equal, n_tokens)
    );
    println!(
        "answers equal in all tokens: {n_equal_answers}; in all log-probabilities, to the bit: {n_bit_equal}"
    );
    println!("largest difference of a log-probability while tokens agree: {largest:.1e}");
}

fn share(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}
