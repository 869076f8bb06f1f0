//! Products at K2's widths: check, then time, then name the roof.
//!
//! `cargo bench -p perilune-kernels [-- --threads N --isa NAME]`. Weights come in as many copies as exceed the caches, so a
//! decode-shaped product reads memory; figures are the median of several runs beside the limits of this machine.

#![allow(clippy::print_stdout)]

use half::bf16;
use perilune_kernels::cpu::{Cpu, Isa};
use perilune_kernels::experts::{ExpertScratch, Loads, SwiGlu, routed};
use perilune_kernels::matmul::{Rows, matmul};
use perilune_kernels::matrix::{Matrix, MatrixData};
use perilune_kernels::quant::QuantRows;
use perilune_kernels::router::Chosen;
use perilune_kernels::{GROUP, probe};
use std::time::Instant;

const HIDDEN: usize = 7168;
const EXPERT: usize = 2048;
const RUNS: usize = 7;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn int4(rng: &mut Rng, n: usize, k: usize) -> Matrix {
    let packed: Vec<u8> = (0..n * k / 16).flat_map(|_| rng.next().to_le_bytes()).collect();
    let scales: Vec<bf16> = (0..n * k / GROUP).map(|_| bf16::from_f32(0.01 + 0.001 * rng.unit())).collect();
    Matrix::new(n, k, MatrixData::Int4 { packed: packed.into(), scales: scales.into() })
}

fn dense(rng: &mut Rng, n: usize, k: usize) -> Matrix {
    let values: Vec<bf16> = (0..n * k).map(|_| bf16::from_f32(0.05 * rng.unit())).collect();
    Matrix::new(n, k, MatrixData::Bf16(values.into()))
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn time(mut f: impl FnMut(usize)) -> f64 {
    f(0);
    let run = |i: usize, f: &mut dyn FnMut(usize)| {
        let start = Instant::now();
        f(i);
        start.elapsed().as_secs_f64()
    };
    median((1..=RUNS).map(|i| run(i, &mut f)).collect())
}

struct Bench {
    cpu: Cpu,
    scalar: Cpu,
    read: f64,
}

impl Bench {
    fn product(&self, label: &str, copies: &[Matrix], t: usize, eight_bit: bool) {
        let w = &copies[0];
        let rng = &mut Rng(7);
        let x: Vec<f32> = (0..t * w.n_cols()).map(|_| rng.unit()).collect();
        let mut quantized = QuantRows::default();
        quantized.fill(&self.cpu, &x, w.n_cols());
        let rows = if eight_bit { Rows::Q8(&quantized) } else { Rows::f32(&x, w.n_cols()) };
        let mut out = vec![0.0f32; t * w.n_rows()];
        let mut expect = out.clone();
        if t <= 4 {
            matmul(&self.cpu, rows, w, &mut out);
            matmul(&self.scalar, rows, w, &mut expect);
            assert_eq!(out, expect, "{label}: checked against the scalar reference before it is timed");
        }
        let seconds = time(|i| matmul(&self.cpu, rows, &copies[i % copies.len()], &mut out));
        self.line(label, w.form_name(), t, w.bytes(), 2.0 * (t * w.n_rows() * w.n_cols()) as f64, seconds);
    }

    fn line(&self, label: &str, form: &str, t: usize, bytes: usize, ops: f64, seconds: f64) {
        println!(
            "{label:<26} {form:<9} T {t:>4}: {:>8.3} ms {:>7.1} GB/s ({:>3.0} % of read limit) {:>8.1} GOP/s",
            seconds * 1e3,
            bytes as f64 / seconds / 1e9,
            100.0 * bytes as f64 / seconds / self.read,
            ops / seconds / 1e9
        );
    }

    /// Eight experts of `experts` for each of `t` rows, in turn.
    fn experts(&self, label: &str, experts: &[SwiGlu], t: usize) {
        let rng = &mut Rng(9);
        let x: Vec<f32> = (0..t * HIDDEN).map(|_| rng.unit()).collect();
        let mut quantized = QuantRows::default();
        quantized.fill(&self.cpu, &x, HIDDEN);
        let mut out = vec![0.0f32; x.len()];
        let mut scratch = ExpertScratch::default();
        let n = experts.len();
        let mut bytes = 0;
        let seconds = time(|run| {
            let choose =
                |t: usize, k: usize| Chosen { expert_idx: (((t + run) * 8 + k) * 7 % n) as u32, weight: 0.1 };
            let chosen: Vec<Vec<Chosen>> = (0..t).map(|t| (0..8).map(|k| choose(t, k)).collect()).collect();
            let loads = Loads::group(&chosen, n);
            let one = experts[0].gate.bytes() * 3;
            bytes = one * n.min(8 * t);
            routed(&self.cpu, Rows::Q8(&quantized), experts, &loads, &mut scratch, &mut out);
        });
        self.line(label, "int4-g32", t, bytes, 2.0 * (t * 8 * 3 * EXPERT * HIDDEN) as f64, seconds);
    }
}

fn main() {
    let value_of = |flag: &str| std::env::args().skip_while(|arg| arg != flag).nth(1);
    let n_threads = value_of("--threads").and_then(|n| n.parse().ok()).unwrap_or_else(Cpu::n_available);
    let only = value_of("--isa");
    let is_asked = |isa: &Isa| *isa != Isa::Scalar && only.as_ref().is_none_or(|only| only == isa.name());
    for isa in Isa::ALL.into_iter().filter(is_asked) {
        let Some(cpu) = Cpu::with_isa(isa, n_threads) else {
            println!("{}: skipped, this processor lacks it", isa.name());
            continue;
        };
        let read = probe::read_bandwidth(&cpu, 2 << 30, 5);
        let peak = probe::multiply_add_peak(&cpu, 5);
        println!(
            "{}, {n_threads} threads: reads {:.1} GB/s, f32 {:.0} GFLOP/s",
            isa.name(),
            read / 1e9,
            peak / 1e9
        );
        let scalar = Cpu::with_isa(Isa::Scalar, n_threads).expect("the scalar kernels run everywhere");
        let bench = Bench { cpu, scalar, read };
        let rng = &mut Rng(3);
        let experts: Vec<SwiGlu> = (0..48)
            .map(|_| SwiGlu {
                gate: int4(rng, EXPERT, HIDDEN),
                up: int4(rng, EXPERT, HIDDEN),
                down: int4(rng, HIDDEN, EXPERT),
            })
            .collect();
        bench.experts("eight experts a row", &experts, 1);
        bench.experts("eight experts a row", &experts, 16);
        bench.experts("eight experts a row", &experts, 66);
        let gates: Vec<Matrix> = experts.iter().map(|e| e.gate.clone()).collect();
        drop(experts);
        bench.product("expert gate", &gates, 1, true);
        bench.product("expert gate", &gates, 11, true);
        bench.product("expert gate", &gates, 1, false);
        bench.product("expert gate", &gates, 32, false);
        drop(gates);
        let bf16s: Vec<Matrix> = (0..6).map(|_| dense(rng, HIDDEN, 8192)).collect();
        bench.product("attention output", &bf16s, 1, false);
        bench.product("attention output", &bf16s, 128, false);
        let int8s: Vec<Matrix> = bf16s.iter().map(|w| w.to_int8(&bench.cpu)).collect();
        drop(bf16s);
        bench.product("attention output", &int8s, 1, true);
        bench.product("attention output", &int8s, 16, true);
        bench.product("attention output", &int8s, 128, true);
    }
}
