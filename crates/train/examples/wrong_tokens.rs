//! Which tokens a checkpoint gets wrong on held-out sequences, in sight of the right ones before them:
//! `cargo run --release -p perilune-train --example wrong_tokens -- RUN FEED TOKENIZER [N_SEQUENCES] [N_SHOWN]`.
//!
//! Each wrong token is shown with the text before it, what was right and what was likeliest; in the end, the share of
//! right tokens and of right turns by the likelihood that the right token had.
#![allow(clippy::print_stdout)]

use perilune_chat::tokenizer::Tokenizer;
use perilune_kernels::cpu::Cpu;
use perilune_model::config::Config;
use perilune_model::train::{Options, Pass, Quant};
use perilune_train::checkpoint;
use perilune_train::eval::turns::Turns;
use perilune_train::feed::{self, Draw, pack};
use std::path::Path;

/// Tokens before a wrong one that are shown.
const N_BEFORE: usize = 24;
/// Tokens of a sequence.
const N_TOKENS: usize = 1_440;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, feed, words, rest @ ..] = arguments.as_slice() else {
        return Err("name a run, a feed and the tokenizer's folder".into());
    };
    let number = |i: usize, otherwise: u64| rest.get(i).map_or(Ok(otherwise), |text| text.parse());
    let (n_sequences, n_shown) = (number(0, 64)?, number(1, 60)?);
    let path = checkpoint::list(Path::new(run)).pop().ok_or("the run holds no checkpoint")?;
    let text = checkpoint::config_text(&path)?;
    let config = Config::from_json(&text)?;
    let params = checkpoint::load(&path, &config, &text, None)?.params;
    let tokenizer = Tokenizer::from_dir(Path::new(words))?;
    let draw = Draw { seed: 1, n_tokens: N_TOKENS, vocab_size: config.vocab_size, is_held_out: true };
    let feed = feed::open(feed, draw, Some(Path::new(words)))?;
    let (cpu, mut pass) = (Cpu::new(1), Pass::new(&config)?);
    let options = Options { quant: Quant::Int4Experts, seq_aux_alpha: 0.0 };
    let (mut turns, mut n_tokens, mut n_wrong, mut loss) = (Turns::default(), 0u64, 0u64, 0.0f64);
    for index in 0..n_sequences {
        let batch = pack(&[feed.sequence(index)]);
        let found = pass.evaluate(&cpu, &params, &batch, &options)?;
        turns = turns.and(Turns::count(&batch, &found.argmax));
        for at in (0..batch.ids.len()).filter(|at| batch.weights[*at] > 0.0) {
            n_tokens += 1;
            loss -= f64::from(found.log_probs[at]);
            if found.argmax[at] == batch.targets[at] {
                continue;
            }
            n_wrong += 1;
            if n_wrong <= n_shown {
                let before = tokenizer.decode(&batch.ids[(at + 1).saturating_sub(N_BEFORE)..=at]);
                let [right, likeliest] =
                    [batch.targets[at], found.argmax[at]].map(|id| tokenizer.decode(&[id]));
                println!(
                    "{index}:{at} {before:?} -> {right:?}, likeliest {likeliest:?}, p {:.3}",
                    found.log_probs[at].exp()
                );
            }
        }
    }
    println!(
        "{}: loss {:.5}, {n_wrong} of {n_tokens} tokens wrong, {} of {} turns right",
        path.display(),
        loss / n_tokens as f64,
        turns.n_exact,
        turns.n_turns
    );
    Ok(())
}
