//! Tokens a second of a training step on random weights and tokens: forward, backward and the optimizer's update.
//!
//! `cargo run --release -p perilune-train --example train_speed -- [--shape small|wide] [--threads 2] [--steps 4]
//! [--rows 4096] [--length 1024] [--opt none|adamw|muon] [--int4]`

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use perilune_kernels::cpu::Cpu;
use perilune_model::config::Config;
use perilune_model::train::{Batch, Options, Parameters, Pass, Quant};
use perilune_train::optim::{Optimizer, Settings};
use perilune_train::recipe::OptimizerKind;
use std::time::Instant;

/// A rate like any other: the cost of a step does not depend on it.
const SETTINGS: Settings = Settings { lr: 1e-3, adamw_lr: 1e-3, weight_decay: 0.1, grad_clip: 1.0 };

/// The embedded model's shape, and that of the PyTorch program it is compared with.
fn config(shape: &str) -> Config {
    let (small, wide) = (
        include_str!("../../model/tests/data/train_small.json"),
        include_str!("../../model/tests/data/train_wide.json"),
    );
    Config::from_json(if shape == "wide" { wide } else { small }).unwrap()
}

fn flag(name: &str, otherwise: usize) -> usize {
    text(name).map_or(otherwise, |value| value.parse().unwrap())
}

fn text(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| arg != name).nth(1)
}

fn main() {
    let config = config(&text("--shape").unwrap_or_default());
    let (rows, length) = (flag("--rows", 4096), flag("--length", 1024));
    let cpu = Cpu::new(flag("--threads", 2));
    let quant = if std::env::args().any(|arg| arg == "--int4") { Quant::Int4Experts } else { Quant::Off };
    let options = Options { quant, seq_aux_alpha: 1e-4 };
    let mut parameters = Parameters::random(&config, 1);
    let mut optimizer = match text("--opt").unwrap_or_default().as_str() {
        "adamw" => Some(Optimizer::new(OptimizerKind::AdamW, &parameters)),
        "muon" => Some(Optimizer::new(OptimizerKind::Muon, &parameters)),
        _ => None,
    };
    let batch = batch(config.vocab_size, rows, length);
    let mut pass = Pass::new(&config).unwrap();
    let mut gradients = parameters.gradients();
    println!("{} parameters, {rows} tokens a step, {}", parameters.flat().len(), cpu.isa().name());
    let (mut walls, mut cpu_walls) = (Vec::new(), Vec::new());
    for i in 0..=flag("--steps", 4) {
        let (start, cpu_start) = (Instant::now(), cpu_seconds());
        gradients.zero();
        let stats = pass.forward_backward(&cpu, &parameters, &batch, &options, &mut gradients).unwrap();
        if let Some(optimizer) = &mut optimizer {
            gradients.scale((1.0 / stats.weight_sum) as f32);
            let norms = optimizer.norms(&cpu, &gradients);
            optimizer.step(&cpu, &mut parameters, &gradients, norms, SETTINGS);
        }
        let (wall, used) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu_start);
        println!(
            "step {i}: {wall:.3} s wall, {used:.3} s cpu, loss {:.4}",
            stats.loss_sum / stats.weight_sum
        );
        if i > 0 {
            walls.push(wall);
            cpu_walls.push(used);
        }
    }
    walls.sort_by(f64::total_cmp);
    cpu_walls.sort_by(f64::total_cmp);
    let n = rows as f64;
    println!(
        "tokens/s: median {:.0}, best {:.0}; a cpu-second: median {:.0}, best {:.0}",
        n / walls[walls.len() / 2],
        n / walls[0],
        n / cpu_walls[cpu_walls.len() / 2],
        n / cpu_walls[0]
    );
}

fn batch(vocab_size: usize, rows: usize, length: usize) -> Batch {
    let mut state = 1u64;
    let mut id = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u32 % vocab_size as u32
    };
    let ids: Vec<u32> = (0..rows + 1).map(|_| id()).collect();
    Batch {
        ids: ids[..rows].to_vec(),
        lengths: vec![length; rows / length],
        targets: ids[1..].to_vec(),
        weights: vec![1.0; rows],
    }
}

/// Processor time of all threads of this process.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
