//! The operations of training on every instruction set present. Forward ones and products back have the bits of the scalar
//! reference; the other derivatives keep their own order of summation and are close to it, the same for any number of
//! threads.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use perilune_kernels::attention::{self, MlaShape, Query};
use perilune_kernels::cpu::{Cpu, Isa};
use perilune_kernels::matmul::{Rows, matmul};
use perilune_kernels::matrix::Matrix;
use perilune_kernels::quant::{int4_scale, pack_int4, round_int4};
use perilune_kernels::reference::{self, AttentionRow};
use perilune_kernels::train::attention::{Grads, Inputs};
use perilune_kernels::train::elementwise::{self, NormInput, TokenLoss};
use perilune_kernels::train::product::{self, GradGroup, Store};
use perilune_kernels::train::{Group, attention as causal};
use perilune_kernels::{BLOCK_TOKENS, GROUP, norm};
use std::ops::Range;

/// Largest difference of a derivative from the scalar one, relative to the largest value.
const TOLERANCE: f32 = 2e-5;

/// SplitMix64: the values depend on the seed alone.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        let value = |bits: u64| (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        (0..n).map(|_| value(self.next())).collect()
    }
}

/// Every set of kernels that this machine runs, on one thread and on three; the scalar one first.
fn cpus() -> Vec<Cpu> {
    for isa in Isa::ALL.iter().filter(|isa| !isa.is_present()) {
        println!("skipped {}: this processor lacks it", isa.name());
    }
    Isa::ALL.iter().flat_map(|&isa| [1, 3].map(|n| Cpu::with_isa(isa, n))).flatten().collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// `f` gives the same bits on every set.
fn exact(what: &str, f: impl Fn(&Cpu) -> Vec<f32>) -> Vec<f32> {
    let cpus = cpus();
    let expect = f(&cpus[0]);
    for cpu in &cpus[1..] {
        assert_eq!(bits(&f(cpu)), bits(&expect), "{what} on {}", cpu.isa().name());
    }
    expect
}

/// `f` is close to the scalar result on every set, and the same for 1 and 3 threads.
fn close(what: &str, f: impl Fn(&Cpu) -> Vec<f32>) {
    let cpus = cpus();
    let expect = f(&cpus[0]);
    let largest = expect.iter().fold(1e-30f32, |m, v| m.max(v.abs()));
    for pair in cpus.chunks(2) {
        let (one, three) = (f(&pair[0]), f(&pair[1]));
        assert_eq!(bits(&one), bits(&three), "{what} on {}: threads", pair[0].isa().name());
        for (i, (got, expect)) in one.iter().zip(&expect).enumerate() {
            let off = (got - expect).abs() / largest;
            assert!(off <= TOLERANCE, "{what} on {}: element {i} is off by {off:e}", pair[0].isa().name());
        }
    }
}

/// Rows, K and N; multiples of no tile among them.
const SHAPES: [[usize; 3]; 7] =
    [[1, 16, 16], [7, 40, 5], [64, 192, 96], [131, 33, 47], [200, 96, 64], [66, 250, 208], [400, 35, 70]];

#[test]
fn products_have_the_bits_of_matmul() {
    for [t, k, n] in SHAPES {
        let mut rng = Rng(1);
        let (x, w) = (rng.values(t * k), rng.values(n * k));
        let found = exact("forward", |cpu| {
            let mut out = vec![f32::NAN; t * n];
            product::forward(cpu, &x, k, &[Group { rows: 0..t, w: &w }], &mut out);
            out
        });
        let mut out = vec![0.0; t * n];
        matmul(&Cpu::new(1), Rows::f32(&x, k), &Matrix::from_f32(n, k, w.clone()), &mut out);
        assert_eq!(bits(&found), bits(&out), "{t} {k} {n}");
    }
}

/// Two groups with a gap between them, and an empty one.
fn ranges(t: usize) -> [Range<usize>; 3] {
    [0..t / 3, t / 3..t / 3, t / 2..t]
}

#[test]
fn products_go_back_group_by_group() {
    for [t, k, n] in SHAPES {
        let mut rng = Rng(2);
        let (x, w, dy) = (rng.values(t * k), rng.values(3 * n * k), rng.values(t * n));
        let start = rng.values(t * k);
        for store in [Store::Overwrite, Store::Accumulate] {
            exact("input", |cpu| {
                let mut dx = start.clone();
                let groups: Vec<Group<'_>> =
                    ranges(t).into_iter().zip(w.chunks(n * k)).map(|(rows, w)| Group { rows, w }).collect();
                product::backward_input(cpu, &dy, k, &groups, store, &mut dx);
                dx
            });
        }
        exact("weight", |cpu| {
            let mut dw = w.clone();
            // The first group's gradient stands last.
            let place = |i: usize| (2 - i) * n * k..(3 - i) * n * k;
            let groups: Vec<GradGroup> = ranges(t)
                .into_iter()
                .enumerate()
                .map(|(i, rows)| GradGroup { rows, place: place(i) })
                .collect();
            product::backward_weight(cpu, &dy, &x, k, &groups, &mut dw);
            assert_eq!(dw[n * k..2 * n * k], w[n * k..2 * n * k], "an empty group adds nothing");
            dw
        });
    }
}

#[test]
#[should_panic(expected = "gradients share nothing")]
fn gradients_in_one_place_are_refused() {
    let groups = [0..4, 4..8].map(|rows| GradGroup { rows, place: 0..16 });
    product::backward_weight(&Cpu::new(1), &[0.0; 32], &[0.0; 32], 4, &groups, &mut [0.0; 16]);
}

/// Widths that are whole registers, that are not, and that are less than a quarter of one.
const MLA_SHAPES: [MlaShape; 4] = [
    MlaShape { n_heads: 2, nope: 32, rope: 16, v: 32, rank: 16 },
    MlaShape { n_heads: 3, nope: 24, rope: 8, v: 20, rank: 16 },
    MlaShape { n_heads: 2, nope: 21, rope: 6, v: 33, rank: 16 },
    MlaShape { n_heads: 1, nope: 5, rope: 2, v: 3, rank: 16 },
];

#[test]
fn attention_has_the_bits_of_the_cached_form_and_goes_back() {
    let lengths = [vec![1], vec![70, 3, 130], vec![64, 65]];
    for (s, lengths) in MLA_SHAPES.into_iter().flat_map(|s| lengths.iter().map(move |it| (s, it))) {
        let mut rng = Rng(3);
        let t: usize = lengths.iter().sum();
        let q = rng.values(t * s.n_heads * s.query());
        let kv = rng.values(t * s.n_heads * s.key_value());
        let latents = rng.values(t * s.latent_width());
        let dout = rng.values(t * s.n_heads * s.v);
        let mut first = 0;
        let sequences: Vec<Range<usize>> = lengths
            .iter()
            .map(|n| {
                first += n;
                first - n..first
            })
            .collect();
        let inputs =
            Inputs { shape: s, q: &q, kv: &kv, latents: &latents, sequences: &sequences, scale: 1.3 };
        let forward = |cpu: &Cpu| {
            let mut out = vec![f32::NAN; t * s.n_heads * s.v];
            let mut rows = vec![AttentionRow::default(); t * s.n_heads];
            let top = causal::forward(cpu, &inputs, &mut out, &mut rows);
            (out, rows, top)
        };
        let found = exact("attention", |cpu| {
            let (out, _, top) = forward(cpu);
            [out, top].concat()
        });
        let mut cached = Vec::new();
        for rows in &sequences {
            cached.extend(cached_attention(&inputs, rows));
        }
        assert_eq!(bits(&found[..cached.len()]), bits(&cached), "{lengths:?}");
        close("attention back", |cpu| {
            let (out, rows, _) = forward(cpu);
            let (mut dq, mut dkv, mut dl) =
                (vec![f32::NAN; q.len()], vec![f32::NAN; kv.len()], vec![0.0; latents.len()]);
            let grads = Grads { q: &mut dq, kv: &mut dkv, latents: &mut dl };
            causal::backward(cpu, &inputs, (&out, &rows), &dout, grads);
            [dq, dkv, dl].concat()
        });
    }
}

/// The form that serves, over one sequence.
fn cached_attention(x: &Inputs<'_>, rows: &Range<usize>) -> Vec<f32> {
    let s = x.shape;
    let width = s.expanded_width();
    let mut cache = vec![0.0f32; rows.len().div_ceil(BLOCK_TOKENS) * BLOCK_TOKENS * width];
    for (i, t) in rows.clone().enumerate() {
        let row = &mut cache[i * width..(i + 1) * width];
        let n = s.n_heads * s.key_value();
        row[..n].copy_from_slice(&x.kv[t * n..(t + 1) * n]);
        row[n..].copy_from_slice(&x.latents[t * s.latent_width() + s.rank..(t + 1) * s.latent_width()]);
    }
    let blocks: Vec<&[f32]> = cache.chunks(BLOCK_TOKENS * width).collect();
    let positions: Vec<usize> = (0..rows.len()).collect();
    let span = rows.start * s.n_heads * s.query()..rows.end * s.n_heads * s.query();
    let query = Query { shape: s, q: &x.q[span], positions: &positions, scale: x.scale };
    let mut out = vec![0.0; rows.len() * s.n_heads * s.v];
    attention::expanded(&Cpu::new(1), &query, &blocks, &mut out);
    out
}

#[test]
fn rows_agree() {
    let (t, c, stride) = (130, 70, 75);
    let mut rng = Rng(4);
    let (x, dy, weight) = (rng.values(t * stride), rng.values(t * c), rng.values(c));
    let found = exact("norm", |cpu| {
        let mut out = vec![f32::NAN; t * c];
        elementwise::rms_norm(cpu, &x, stride, &weight, 1e-5, &mut out);
        out
    });
    let mut out = vec![0.0; t * c];
    norm::rms_norm(&Cpu::new(1), &x, stride, &weight, 1e-5, &mut out);
    assert_eq!(bits(&found), bits(&out));
    close("norm back", |cpu| {
        let (mut dx, mut dweight) = (x.clone(), weight.clone());
        let input = NormInput { x: &x, stride, weight: &weight, eps: 1e-5 };
        elementwise::rms_norm_back(cpu, &input, &dy, &mut dx, &mut dweight);
        [dx, dweight].concat()
    });
    let (gate, up) = (rng.values(9001), rng.values(9001));
    exact("silu", |cpu| {
        let mut out = vec![0.0; gate.len()];
        elementwise::silu_mul(cpu, &gate, &up, &mut out);
        let mut expect = gate.clone();
        reference::silu_mul(&mut expect, &up);
        assert_eq!(bits(&out), bits(&expect));
        elementwise::sigmoid(cpu, &mut out);
        out
    });
    close("silu back", |cpu| {
        let (mut gate, mut up) = (gate.clone(), up.clone());
        let dh = up.clone();
        elementwise::silu_mul_back(cpu, &mut gate, &mut up, &dh);
        [gate, up].concat()
    });
}

#[test]
fn cross_entropy_is_that_of_plain_arithmetic() {
    let (t, v) = (9, 203);
    let mut rng = Rng(5);
    let logits: Vec<f32> = rng.values(t * v).iter().map(|x| x * 8.0).collect();
    let targets: Vec<u32> = (0..t).map(|i| (i * 20) as u32).collect();
    let weights = rng.values(t);
    close("cross-entropy", |cpu| {
        let (mut grads, mut losses) = (logits.clone(), vec![TokenLoss::default(); t]);
        elementwise::cross_entropy(cpu, &mut grads, &targets, &weights, &mut losses);
        for (i, (row, loss)) in logits.chunks(v).zip(&losses).enumerate() {
            let sum: f64 = row.iter().map(|l| f64::from(*l).exp()).sum();
            let expect = sum.ln() - f64::from(row[targets[i] as usize]);
            assert!((f64::from(loss.loss) - expect).abs() < 1e-5, "{} against {expect}", loss.loss);
            assert_eq!(loss.is_correct, row.iter().all(|l| *l <= row[targets[i] as usize]));
            let p = f64::from(row[3]).exp() / sum - f64::from(u8::from(targets[i] == 3));
            assert!((f64::from(grads[i * v + 3]) - f64::from(weights[i]) * p).abs() < 1e-6);
        }
        grads
    });
}

#[test]
fn int4_packs_what_it_rounds_to() {
    let mut rng = Rng(6);
    let mut w = rng.values(64 * GROUP);
    w[..GROUP].fill(0.0);
    w[GROUP..2 * GROUP].iter_mut().for_each(|w| *w *= 1e-5);
    w[2 * GROUP] = 1e30;
    let mut rounded = vec![0.0; w.len()];
    round_int4(&w, &mut rounded);
    let (mut packed, mut scales) = (vec![0u8; w.len() / 2], vec![half::bf16::ZERO; w.len() / GROUP]);
    pack_int4(&w, &mut packed, &mut scales);
    let mut unpacked = vec![0.0; w.len()];
    reference::dequantize_q4_row(&packed, &scales, &mut unpacked);
    assert_eq!(unpacked, rounded);
    for (group, (w, rounded)) in w.chunks(GROUP).zip(rounded.chunks(GROUP)).enumerate() {
        let scale = int4_scale(w).to_f32();
        for (w, r) in w.iter().zip(rounded) {
            let code = (w / scale).round_ties_even().clamp(-7.0, 7.0);
            assert_eq!(code * scale, *r, "group {group}");
        }
    }
    let mut again = vec![0.0; w.len()];
    round_int4(&rounded, &mut again);
    assert_eq!(bits(&again), bits(&rounded), "rounding twice is rounding once");
    assert!(int4_scale(&[1.0, f32::NAN]).is_nan(), "a NaN shows");
}
