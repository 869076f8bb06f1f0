//! What one draw with top-p costs over a vocabulary of Kimi K2's size: the definition and the buckets, in one run.
//!
//! `cargo run --release -p perilune-engine --example nucleus`

#![allow(clippy::print_stdout)]

use perilune_engine::nucleus::{Buckets, Candidate, plain};
use perilune_engine::sampler::{Allowed, Sampler, Sampling, Scratch};
use std::time::Instant;

/// Vocabulary of Kimi K2 (its `config.json`).
const VOCAB: usize = 163_840;
const N_RUNS: usize = 40;

/// Logits whose spread is `scale`, nearly normal.
fn logits(scale: f32, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..VOCAB).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * scale).collect()
}

/// The median of some runs, milliseconds.
fn median_ms(mut run: impl FnMut(usize)) -> f64 {
    let mut times: Vec<f64> = (0..N_RUNS)
        .map(|at| {
            let since = Instant::now();
            run(at);
            since.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[N_RUNS / 2]
}

fn main() {
    println!("{VOCAB} logits, median of {N_RUNS} runs, ms");
    println!(
        "{:>7} {:>6} {:>8} {:>8} {:>8} {:>11}",
        "spread", "top_p", "nucleus", "plain", "buckets", "whole draw"
    );
    let (mut buckets, mut scratch) = (Buckets::default(), Scratch::default());
    for scale in [0.2, 1.0, 2.0, 4.0] {
        let row = logits(scale, 1);
        let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let candidates: Vec<Candidate> = (0..).zip(row.iter().map(|l| (f64::from(*l) - max).exp())).collect();
        for top_p in [0.5, 0.95] {
            let mut kept = candidates.clone();
            plain(&mut kept, top_p);
            let copied = |keep: &mut dyn FnMut(&mut Vec<Candidate>)| {
                let mut copies: Vec<_> = (0..N_RUNS).map(|_| candidates.clone()).collect();
                median_ms(|at| keep(&mut copies[at]))
            };
            let slow = copied(&mut |candidates| plain(candidates, top_p));
            let fast = copied(&mut |candidates| buckets.keep(candidates, top_p));
            let sampling = Sampling { temperature: 1.0, top_p: top_p as f32, seed: 1, ..Sampling::default() };
            let sampler = Sampler::new(sampling, &[]);
            let whole = median_ms(|at| {
                sampler.sample(&row, at, Allowed::default(), &mut scratch);
            });
            println!("{scale:>7} {top_p:>6} {:>8} {slow:>8.2} {fast:>8.2} {whole:>11.2}", kept.len());
        }
    }
}
