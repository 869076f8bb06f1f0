//! What a step costs beside the model: the engine over a model that answers at once.
//!
//! `cargo run --release -p perilune-engine --example overhead`

#![allow(clippy::print_stdout)]

use perilune_engine::forward::{ForwardModel, Forwarded};
use perilune_engine::request::{Delivery, Request};
use perilune_engine::sampler::Sampling;
use perilune_engine::{Engine, Settings};
use perilune_model::forward::Segment;
use std::time::{Duration, Instant};

/// Gives the same logits for every row.
struct Instantly {
    row: Vec<f32>,
    spent: Duration,
}

impl ForwardModel for Instantly {
    fn vocab_size(&self) -> usize {
        self.row.len()
    }

    fn n_positions_max(&self) -> usize {
        1 << 18
    }

    fn n_blocks(&self) -> usize {
        1 << 14
    }

    fn phases_differ(&self) -> bool {
        true
    }

    fn forward(&mut self, segments: &[Segment<'_>]) -> Result<Forwarded, String> {
        let start = Instant::now();
        let logits = self.row.repeat(segments.len());
        self.spent += start.elapsed();
        Ok(Forwarded { logits, weight_bytes: 0 })
    }
}

fn measure(vocab_size: usize, n_sequences: usize, sampling: &Sampling) {
    let row = (0..vocab_size).map(|i| (i * 7_919 % 10_007) as f32 / 1_000.0).collect();
    let model = Instantly { row, spent: Duration::ZERO };
    let begin = Instant::now();
    let clock = Box::new(move || begin.elapsed());
    let settings = Settings { n_running_max: 1_024, prefill_tokens_max: 1 << 20, ..Settings::default() };
    let mut engine = Engine::new(model, settings, clock);
    let n_steps = if vocab_size > 10_000 { 20 } else { 500 };
    for i in 0..n_sequences {
        let request = Request {
            sampling: Sampling { seed: i as u64, ..sampling.clone() },
            ..Request::greedy(vec![i as u32 % 100; 500], n_steps + 10)
        };
        engine.submit(request, Box::new(|_| Delivery::Taken)).expect("the request fits the cache");
    }
    (0..5).for_each(|_| {
        engine.step();
    });
    let (start, spent) = (Instant::now(), engine.model().spent);
    (0..n_steps).for_each(|_| {
        engine.step();
    });
    let own = start.elapsed() - (engine.model().spent - spent);
    let step_us = own.as_secs_f64() * 1e6 / n_steps as f64;
    println!(
        "V {vocab_size:6}  {n_sequences:4} sequences  temperature {:.1} top_p {:.2}: {step_us:9.1} us a step, {:7.2} us a token",
        sampling.temperature,
        sampling.top_p,
        step_us / n_sequences as f64
    );
}

fn main() {
    let sampled = Sampling { temperature: 1.0, ..Sampling::default() };
    let nucleus = Sampling { temperature: 1.0, top_p: 0.95, ..Sampling::default() };
    for vocab_size in [128, 163_840] {
        for n_sequences in [1, 16, 64, 512] {
            if vocab_size * n_sequences <= 163_840 * 64 {
                [&Sampling::default(), &sampled, &nucleus]
                    .iter()
                    .for_each(|s| measure(vocab_size, n_sequences, s));
            }
        }
    }
}
