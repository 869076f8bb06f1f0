//! What this machine can do, measured: the limits that benches print beside what they achieved.

use crate::LANES;
use crate::cpu::{Cpu, dispatch};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bytes read by each thread before it takes the next part.
const PART_BYTES: usize = 1 << 20;

/// Read bandwidth in bytes a second over `bytes` of anonymous memory on all threads of `cpu`, best of `n_runs` (at
/// least 1).
///
/// Allocates `bytes`, and writes them once before the clock starts.
pub fn read_bandwidth(cpu: &Cpu, bytes: usize, n_runs: usize) -> f64 {
    let mut buffer = crate::map::huge_zeros::<u64>(bytes / 8);
    buffer.fill(1);
    let n_parts = buffer.len().div_ceil(PART_BYTES / 8);
    let total = AtomicU64::new(0);
    let mut best = f64::INFINITY;
    for _ in 0..n_runs.max(1) {
        let start = Instant::now();
        cpu.pool().run(n_parts, &|i| {
            let part = &buffer[i * PART_BYTES / 8..((i + 1) * PART_BYTES / 8).min(buffer.len())];
            total.fetch_add(sum(part), Ordering::Relaxed);
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    assert_eq!(total.load(Ordering::Relaxed), (buffer.len() * n_runs.max(1)) as u64);
    (buffer.len() * 8) as f64 / best
}

/// Several running sums, so that loads and not the adder's latency are measured.
fn sum(part: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    let (chunks, rest) = part.as_chunks::<32>();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
    }
    sums.iter().chain(rest).fold(0, |a, b| a.wrapping_add(*b))
}

/// Multiply-adds a task of [`multiply_add_peak`] makes.
const PEAK_ROUNDS: usize = 1 << 22;

/// Floating-point operations a second (a fused multiply-add counts two) in `f32` registers on all threads of `cpu`,
/// best of `n_runs` (at least 1).
pub fn multiply_add_peak(cpu: &Cpu, n_runs: usize) -> f64 {
    let n_tasks = cpu.pool().n_threads() * 8;
    let mut best = f64::INFINITY;
    for _ in 0..n_runs.max(1) {
        let start = Instant::now();
        cpu.pool().run(n_tasks, &|i| {
            std::hint::black_box(dispatch!(cpu.isa(), multiply_adds(1.0 - i as f32 * 1e-9, PEAK_ROUNDS)));
        });
        best = best.min(start.elapsed().as_secs_f64());
    }
    (2 * LANES * PEAK_ROUNDS * n_tasks) as f64 / best
}

/// Rounds a task of [`integer_peak`] makes.
const INTEGER_ROUNDS: usize = 1 << 18;

/// Operations a second on 8-bit integers, summed in 32 bits (a multiply-add counts two), on all threads of `cpu`,
/// best of `n_runs` (at least 1).
pub fn integer_peak(cpu: &Cpu, n_runs: usize) -> f64 {
    let n_tasks = cpu.pool().n_threads() * 8;
    let made = AtomicU64::new(0);
    let mut best = 0.0f64;
    for _ in 0..n_runs.max(1) {
        made.store(0, Ordering::Relaxed);
        let start = Instant::now();
        cpu.pool().run(n_tasks, &|_| {
            let n = dispatch!(cpu.isa(), integer_multiply_adds(INTEGER_ROUNDS));
            made.fetch_add(n as u64, Ordering::Relaxed);
        });
        best = best.max(2.0 * made.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64());
    }
    best
}
