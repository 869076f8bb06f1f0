//! One suite for every operation and every instruction set present: the same bits as the scalar reference, the
//! same bits for a row in any batch and on any number of threads, and close to plain f64 arithmetic.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use half::bf16;

use perilune_kernels::attention::{self, AbsorbScratch, Latents, MlaShape, Query};
use perilune_kernels::cpu::{Cpu, Isa};
use perilune_kernels::experts::{ExpertScratch, Loads, SwiGlu, routed, swiglu};
use perilune_kernels::logits::{arg_max, top_k};
use perilune_kernels::matmul::{Rows, matmul};
use perilune_kernels::matrix::{Matrix, MatrixData};
use perilune_kernels::pool::Binding;
use perilune_kernels::quant::{QuantRows, dequantized_bf16};
use perilune_kernels::reference::stored_width;
use perilune_kernels::router::{Chosen, RouterRule, choose};
use perilune_kernels::topology::Topology;
use perilune_kernels::{BLOCK_TOKENS, GROUP, activation, norm, reference};

/// SplitMix64: the values depend on the seed alone.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Roughly normal, with now and then a large or a zero value.
    fn value(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5).sum();
        match self.next() % 50 {
            0 => 0.0,
            1 => sum * 30.0,
            _ => sum,
        }
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.value()).collect()
    }

    fn bf16s(&mut self, n: usize) -> Vec<bf16> {
        (0..n).map(|_| bf16::from_f32(self.value())).collect()
    }
}

/// Every set that this machine runs, and a line for each it cannot; several threads also as if on two nodes.
fn cpus(n_threads: usize) -> Vec<Cpu> {
    let absent = |isa: &Isa| {
        if !isa.is_present() {
            println!("skipped {}: this processor lacks it", isa.name());
        }
    };
    let nodes = || Topology::simulated(&[n_threads - n_threads / 2, n_threads / 2]);
    let on = |&isa: &Isa| {
        let several = (n_threads > 1).then(|| Cpu::on(isa, nodes(), Binding::Free, n_threads)).flatten();
        [Cpu::with_isa(isa, n_threads), several].into_iter().flatten()
    };
    Isa::ALL.iter().inspect(|isa| absent(isa)).flat_map(on).collect()
}

/// The same result, to the bit, from every set of kernels; `f` gets the same seed each time.
fn check(what: &str, seed: u64, f: impl Fn(&Cpu, &mut Rng) -> Vec<f32>) -> Vec<f32> {
    let cpus = cpus(1);
    let expect = f(&cpus[0], &mut Rng(seed));
    for cpu in &cpus[1..] {
        same_bits(&format!("{what} on {}, seed {seed}", cpu.isa().name()), &f(cpu, &mut Rng(seed)), &expect);
    }
    expect
}

fn same_bits(what: &str, got: &[f32], expect: &[f32]) {
    assert_eq!(got.len(), expect.len(), "{what}");
    for (i, (got, expect)) in got.iter().zip(expect).enumerate() {
        assert_eq!(got.to_bits(), expect.to_bits(), "{what}: element {i} is {got}, expected {expect}");
    }
}

fn close(what: &str, got: &[f32], expect: &[f64], tolerance: f64) {
    let largest = expect.iter().fold(1e-30, |m: f64, v| m.max(v.abs()));
    for (i, (got, expect)) in got.iter().zip(expect).enumerate() {
        let off = (f64::from(*got) - expect).abs() / largest;
        assert!(off <= tolerance, "{what}: element {i} is {got}, expected {expect}, off {off:e}");
    }
}

const FORMS: [&str; 4] = ["f32", "bf16", "int8", "int4"];

fn matrix(rng: &mut Rng, form: &str, n: usize, k: usize) -> Matrix {
    let data = match form {
        "f32" => MatrixData::F32(rng.values(n * k).into()),
        "bf16" => MatrixData::Bf16(rng.bf16s(n * k).into()),
        "int8" => {
            let codes: Vec<i8> = (0..n * reference::weight_stride(k))
                .map(|_| (rng.next() % 255) as i8)
                .map(|c| c.max(-127))
                .collect();
            MatrixData::Int8 { codes: codes.into(), scales: rng.bf16s(n * k / GROUP).into() }
        }
        _ => {
            let packed: Vec<u8> = (0..n * k / 2).map(|_| rng.next() as u8).collect();
            MatrixData::Int4 { packed: packed.into(), scales: rng.bf16s(n * k / GROUP).into() }
        }
    };
    Matrix::new(n, k, data)
}

fn decoded(w: &Matrix) -> Vec<f32> {
    let mut out = vec![0.0; w.n_rows() * w.n_cols()];
    (0..w.n_rows()).zip(out.chunks_mut(w.n_cols())).for_each(|(row, out)| w.row(row, out));
    out
}

fn plain_product(x: &[f32], w: &[f32], n: usize, k: usize) -> Vec<f64> {
    let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    x.chunks(k).flat_map(|x| (0..n).map(move |row| dot(x, &w[row * k..(row + 1) * k]))).collect()
}

/// The values that 8-bit rows stand for.
fn rounded(x: &[f32], k: usize) -> Vec<f32> {
    let mut rows = QuantRows::default();
    rows.fill(&Cpu::new(1), x, k);
    let value = |t: usize, i: usize| {
        let row = rows.row(t);
        let code = row.codes[reference::stored_position(i)];
        f32::from(code) * row.scales[i / GROUP]
    };
    (0..x.len()).map(|at| value(at / k, at % k)).collect()
}

fn product(cpu: &Cpu, x: &[f32], w: &Matrix, eight_bit: bool) -> Vec<f32> {
    let k = w.n_cols();
    let mut out = vec![f32::NAN; x.len() / k * w.n_rows()];
    let mut quantized = QuantRows::default();
    let rows = if eight_bit {
        quantized.fill(cpu, x, k);
        Rows::Q8(&quantized)
    } else {
        Rows::f32(x, k)
    };
    matmul(cpu, rows, w, &mut out);
    out
}

#[test]
fn products_agree_in_every_form() {
    for (seed, (t, n, k)) in [
        (1, 5, 32),
        (3, 17, 96),
        (8, 33, 160),
        (13, 20, 544),
        (4, 7, 1088),
        (150, 19, 96),
        (1, 48, 1056),
        (5, 33, 1024),
        (17, 20, 2048),
        (40, 48, 2656),
    ]
    .iter()
    .enumerate()
    {
        for form in FORMS {
            let run = |eight_bit: bool| {
                check(&format!("matmul {form} {t}x{n}x{k} 8-bit {eight_bit}"), seed as u64, |cpu, rng| {
                    let w = matrix(rng, form, *n, *k);
                    product(cpu, &rng.values(t * k), &w, eight_bit)
                })
            };
            let rng = &mut Rng(seed as u64);
            let w = decoded(&matrix(rng, form, *n, *k));
            let x = rng.values(t * k);
            close(form, &run(false), &plain_product(&x, &w, *n, *k), 1e-5);
            if matches!(form, "int8" | "int4") {
                let expect = plain_product(&rounded(&x, *k), &w, *n, *k);
                close(&format!("{form} by 8-bit rows"), &run(true), &expect, 1e-5);
            }
        }
    }
}

#[test]
fn products_take_any_width_in_f32() {
    for k in [1, 7, 15, 16, 17, 31, 33, 100] {
        for form in ["f32", "bf16"] {
            check(&format!("{form} width {k}"), k as u64, |cpu, rng| {
                let w = matrix(rng, form, 3, k);
                product(cpu, &rng.values(9 * k), &w, false)
            });
        }
    }
}

#[test]
fn a_row_does_not_depend_on_batch_or_threads() {
    let (n, k) = (37, 256);
    for form in FORMS {
        for eight_bit in [false, true] {
            if eight_bit && matches!(form, "f32" | "bf16") {
                continue;
            }
            let rng = &mut Rng(11);
            let w = matrix(rng, form, n, k);
            let x = rng.values(64 * k);
            let expect = product(&Cpu::new(1), &x, &w, eight_bit);
            for n_threads in [1, 2, 3] {
                for cpu in cpus(n_threads) {
                    for batch in [1, 3, 64] {
                        let got: Vec<f32> =
                            x.chunks(batch * k).flat_map(|x| product(&cpu, x, &w, eight_bit)).collect();
                        same_bits(&format!("{form} batch {batch} threads {n_threads}"), &got, &expect);
                    }
                }
            }
        }
    }
}

#[test]
fn eight_bit_rows_agree_and_are_near() {
    for k in [32, 64, 224, 1024] {
        let what = format!("8-bit re-encoding of width {k}");
        let got = check(&what, k as u64, |cpu, rng| decoded(&matrix(rng, "f32", 6, k).to_int8(cpu)));
        let expect: Vec<f64> = Rng(k as u64).values(6 * k).into_iter().map(f64::from).collect();
        close(&what, &got, &expect, 1.0 / 250.0);
        let x = Rng(k as u64).values(6 * k);
        for (group, back) in x.chunks(GROUP).zip(rounded(&x, k).chunks(GROUP)) {
            let step = group.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0;
            assert!(
                group.iter().zip(back).all(|(a, b)| (a - b).abs() <= 0.5001 * step),
                "half a step at most"
            );
        }
    }
}

#[test]
fn a_nan_or_infinity_is_never_hidden_by_quantising() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for cpu in cpus(1) {
            let mut x = Rng(5).values(64);
            x[40] = bad;
            let w = matrix(&mut Rng(6), "int4", 3, 64);
            let y = product(&cpu, &x, &w, true);
            assert!(y.iter().all(|y| !y.is_finite()), "{bad} on {}: {y:?}", cpu.isa().name());
        }
    }
}

#[test]
fn groups_of_tiny_values_are_zeros_everywhere() {
    for largest in [0.0, f32::MIN_POSITIVE, 3e-37, 1e-36, 1e-30] {
        check("tiny values", 17, |cpu, rng| {
            let x: Vec<f32> = rng.values(64).iter().map(|v| v.clamp(-1.0, 1.0) * largest).collect();
            let w = matrix(rng, "int4", 3, 64);
            product(cpu, &x, &w, true)
        });
    }
}

#[test]
fn an_overflowing_norm_says_so() {
    for cpu in cpus(1) {
        let mut out = [0.0f32; 32];
        norm::rms_norm(&cpu, &[1e25; 32], 32, &[1.0; 32], 1e-5, &mut out);
        assert!(out.iter().all(|v| v.is_nan()), "{}: {out:?}", cpu.isa().name());
    }
}

#[test]
fn element_wise_operations_agree() {
    for n in [1, 16, 33, 128, 200] {
        let seed = n as u64;
        check("rms_norm", seed, |cpu, rng| {
            let (x, weight) = (rng.values(3 * (n + 2)), rng.values(n));
            let mut out = vec![0.0; 3 * n];
            norm::rms_norm(cpu, &x, n + 2, &weight, 1e-5, &mut out);
            out
        });
        let got = check("silu_mul", seed, |cpu, rng| {
            let (mut gate, up) = (rng.values(n), rng.values(n));
            activation::silu_mul(cpu, &mut gate, &up);
            gate
        });
        let rng = &mut Rng(seed);
        let (gate, up) = (rng.values(n), rng.values(n));
        let silu = |g: f32, u: f32| f64::from(g) / (1.0 + (-f64::from(g)).exp()) * f64::from(u);
        close("silu_mul", &got, &gate.iter().zip(&up).map(|(g, u)| silu(*g, *u)).collect::<Vec<_>>(), 1e-6);
    }
}

#[test]
fn exp_is_near_over_its_range() {
    for i in -873..=880 {
        let x = i as f32 * 0.1;
        let (got, expect) = (f64::from(reference::exp(x)), f64::from(x).exp());
        assert!((got / expect - 1.0).abs() < 3e-7, "exp({x}) = {got}, expected {expect}");
    }
    assert!(reference::exp(f32::NAN).is_nan());
    assert!(reference::exp(-1000.0) < 2e-38);
}

fn swiglus(rng: &mut Rng, form: &str, n: usize, c: usize, i: usize) -> Vec<SwiGlu> {
    (0..n)
        .map(|_| SwiGlu {
            gate: matrix(rng, form, i, c),
            up: matrix(rng, form, i, c),
            down: matrix(rng, form, c, i),
        })
        .collect()
}

fn routing(rng: &mut Rng, n_tokens: usize, n_experts: usize, k: usize) -> Vec<Vec<Chosen>> {
    let row = |rng: &mut Rng| {
        let mut chosen = top_k(&rng.values(n_experts), k);
        chosen.sort_unstable();
        chosen.into_iter().map(|e| Chosen { expert_idx: e as u32, weight: rng.value().abs() }).collect()
    };
    (0..n_tokens).map(|_| row(rng)).collect()
}

fn run_experts(
    cpu: &Cpu,
    x: &[f32],
    c: usize,
    experts: &[SwiGlu],
    chosen: &[Vec<Chosen>],
    eight_bit: bool,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len()];
    let mut quantized = QuantRows::default();
    quantized.fill(cpu, x, c);
    let rows = if eight_bit { Rows::Q8(&quantized) } else { Rows::f32(x, c) };
    let loads = Loads::group(chosen, experts.len());
    routed(cpu, rows, experts, &loads, &mut ExpertScratch::default(), &mut out);
    out
}

#[test]
fn routed_experts_agree_and_equal_one_expert_at_a_time() {
    let (t, e, k, c, i) = (70, 6, 2, 64, 96);
    for eight_bit in [false, true] {
        let got = check("routed experts", 21, |cpu, rng| {
            let experts = swiglus(rng, "int4", e, c, i);
            let (x, chosen) = (rng.values(t * c), routing(rng, t, e, k));
            run_experts(cpu, &x, c, &experts, &chosen, eight_bit)
        });
        let rng = &mut Rng(21);
        let experts = swiglus(rng, "int4", e, c, i);
        let (x, chosen) = (rng.values(t * c), routing(rng, t, e, k));
        let cpu = Cpu::new(2);
        let by_row: Vec<f32> = (0..t)
            .flat_map(|t| {
                run_experts(&cpu, &x[t * c..(t + 1) * c], c, &experts, &chosen[t..t + 1], eight_bit)
            })
            .collect();
        same_bits("one row at a time", &by_row, &got);
        for t in 0..t {
            let mut expect = vec![0.0f32; c];
            for choice in &chosen[t] {
                let (mut y, mut s) = (vec![0.0; c], ExpertScratch::default());
                let expert = &experts[choice.expert_idx as usize];
                let mut quantized = QuantRows::default();
                let x = &x[t * c..(t + 1) * c];
                quantized.fill(&cpu, x, c);
                let rows = if eight_bit { Rows::Q8(&quantized) } else { Rows::f32(x, c) };
                swiglu(&cpu, rows, expert, &mut s, &mut y);
                reference::axpy(choice.weight, &y, &mut expect);
            }
            same_bits("sum of experts", &got[t * c..(t + 1) * c], &expect);
        }
    }
}

struct Context {
    shape: MlaShape,
    q: Vec<f32>,
    positions: Vec<usize>,
    kv_b: Matrix,
    latents: Vec<Vec<f32>>,
}

impl Context {
    fn new(rng: &mut Rng, form: &str, n_context: usize, n_queries: usize) -> Self {
        // More than a quad and not whole ones; less where the context is long, or it would take long.
        let rank = if n_context < 500 { 160 } else { 64 };
        let shape = MlaShape { n_heads: 6, nope: 32, rope: 16, v: 24, rank };
        let blocks = n_context.div_ceil(BLOCK_TOKENS);
        Context {
            shape,
            q: rng.values(n_queries * shape.n_heads * shape.query()),
            positions: (n_context - n_queries..n_context).collect(),
            kv_b: matrix(rng, form, shape.n_heads * shape.key_value(), shape.rank),
            latents: (0..blocks)
                .map(|_| rng.bf16s(BLOCK_TOKENS * shape.latent_width()).iter().map(|v| v.to_f32()).collect())
                .collect(),
        }
    }

    fn query(&self) -> Query<'_> {
        Query { shape: self.shape, q: &self.q, positions: &self.positions, scale: 0.05 }
    }

    fn out(&self) -> Vec<f32> {
        vec![f32::NAN; self.positions.len() * self.shape.n_heads * self.shape.v]
    }

    fn with_latents(&self, form: &str, f: impl Fn(Latents<'_>, &mut [f32])) -> Vec<f32> {
        let mut out = self.out();
        match form {
            "bf16" => {
                let blocks: Vec<Vec<bf16>> =
                    self.latents.iter().map(|b| b.iter().map(|v| bf16::from_f32(*v)).collect()).collect();
                f(Latents::Bf16(&blocks.iter().map(Vec::as_slice).collect::<Vec<_>>()), &mut out);
            }
            "int8" => {
                let (codes, scales): (Vec<_>, Vec<_>) =
                    self.latents.iter().map(|b| self.in_8_bits(b)).unzip();
                let (codes, scales): (Vec<&[i8]>, Vec<&[bf16]>) =
                    (codes.iter().map(Vec::as_slice).collect(), scales.iter().map(Vec::as_slice).collect());
                f(Latents::Int8 { codes: &codes, scales: &scales }, &mut out);
            }
            _ => f(Latents::F32(&self.latents.iter().map(Vec::as_slice).collect::<Vec<_>>()), &mut out),
        }
        out
    }

    /// All queries, `n` in each pass.
    fn in_passes(&self, cpu: &Cpu, latents: &str, n: usize, is_absorbed: bool) -> Vec<f32> {
        let (q, out) = (self.shape.n_heads * self.shape.query(), self.shape.n_heads * self.shape.v);
        self.with_latents(latents, |latents, all| {
            for ((q, positions), out) in
                self.q.chunks(n * q).zip(self.positions.chunks(n)).zip(all.chunks_mut(n * out))
            {
                let query = Query { q, positions, ..self.query() };
                match is_absorbed {
                    true => absorbed(cpu, &query, &self.kv_b, latents, out),
                    false => attention::from_latents(cpu, &query, &self.kv_b, latents, out),
                }
            }
        })
    }

    /// A block's rows in 8 bits, each filled up to a whole group.
    fn in_8_bits(&self, block: &[f32]) -> (Vec<i8>, Vec<bf16>) {
        let width = self.shape.latent_width();
        let n_groups = width.div_ceil(GROUP);
        let mut all = (Vec::new(), Vec::new());
        for row in block.chunks(width) {
            let mut row = row.to_vec();
            row.resize(n_groups * GROUP, 0.0);
            let (mut codes, mut scales) = (vec![0; stored_width(width)], vec![bf16::ZERO; n_groups]);
            reference::encode_row(&row, &mut codes, &mut scales);
            all.0.extend(codes);
            all.1.extend(scales);
        }
        all
    }

    /// The same with latents that 8 bits hold as they are.
    fn rounded(mut self) -> Self {
        let width = self.shape.latent_width();
        for at in 0..self.latents.len() {
            let (codes, scales) = self.in_8_bits(&self.latents[at]);
            let rows = codes.chunks(stored_width(width)).zip(scales.chunks(width.div_ceil(GROUP)));
            for (row, (codes, scales)) in self.latents[at].chunks_mut(width).zip(rows) {
                reference::dequantize_q8_row(codes, scales, row);
            }
        }
        self
    }

    /// The same with latents, but not the keys of places beside them, as 8-bit rows hold them.
    fn with_rounded_content(mut self) -> Self {
        let (width, rank) = (self.shape.latent_width(), self.shape.rank);
        for row in self.latents.iter_mut().flat_map(|block| block.chunks_mut(width)) {
            let rounded = rounded(&row[..rank], rank);
            row[..rank].copy_from_slice(&rounded);
        }
        self
    }

    fn expand(&self, cpu: &Cpu) -> Vec<Vec<f32>> {
        let (shape, latent_width) = (self.shape, self.shape.latent_width());
        let row = |latent: &[f32]| {
            let mut keys_values = vec![0.0; shape.n_heads * shape.key_value()];
            matmul(cpu, Rows::f32(&latent[..shape.rank], shape.rank), &self.kv_b, &mut keys_values);
            keys_values.extend_from_slice(&latent[shape.rank..]);
            keys_values
        };
        self.latents.iter().map(|block| block.chunks(latent_width).flat_map(row).collect()).collect()
    }

    fn expanded(&self, cpu: &Cpu) -> Vec<f32> {
        let blocks = self.expand(cpu);
        let mut out = self.out();
        attention::expanded(
            cpu,
            &self.query(),
            &blocks.iter().map(Vec::as_slice).collect::<Vec<_>>(),
            &mut out,
        );
        out
    }

    /// Softmax attention in f64, straight from the definition.
    fn plain(&self) -> Vec<f64> {
        let (s, rows) = (self.shape, self.expand(&Cpu::with_isa(Isa::Scalar, 1).unwrap()).concat());
        let width = s.expanded_width();
        let mut out = Vec::new();
        for (t, position) in self.positions.iter().enumerate() {
            for h in 0..s.n_heads {
                let q = &self.q[(t * s.n_heads + h) * s.query()..][..s.query()];
                let score = |row: &[f32]| {
                    let nope = h * s.key_value()..h * s.key_value() + s.nope;
                    let key = row[nope].iter().chain(&row[width - s.rope..]);
                    q.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
                        * f64::from(0.05f32)
                };
                let context: Vec<&[f32]> = rows.chunks(width).take(position + 1).collect();
                let scores: Vec<f64> = context.iter().map(|row| score(row)).collect();
                let max = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for d in 0..s.v {
                    let value = |row: &[f32]| f64::from(row[h * s.key_value() + s.nope + d]);
                    out.push(
                        scores.iter().zip(&context).map(|(s, row)| (s - max).exp() / sum * value(row)).sum(),
                    );
                }
            }
        }
        out
    }
}

fn absorbed(cpu: &Cpu, query: &Query<'_>, kv_b: &Matrix, latents: Latents<'_>, out: &mut [f32]) {
    let each = vec![latents; query.positions.len()];
    attention::absorbed(cpu, query, kv_b, &each, &mut AbsorbScratch::default(), out);
}

#[test]
fn the_three_forms_of_attention_agree() {
    for (n_context, n_queries) in [(1, 1), (5, 5), (64, 2), (70, 7), (600, 3), (1100, 1)] {
        for form in FORMS {
            let seed = n_context as u64;
            let make = |rng: &mut Rng| Context::new(rng, form, n_context, n_queries);
            let plain = make(&mut Rng(seed)).plain();
            let what = format!("attention {form}, {n_queries} queries at {n_context}");
            close(&what, &check(&what, seed, |cpu, rng| make(rng).expanded(cpu)), &plain, 2e-5);
            let plain_8_bits = make(&mut Rng(seed)).rounded().plain();
            let is_integer = make(&mut Rng(seed)).kv_b.is_integer();
            for latents in ["f32", "bf16", "int8"] {
                let plain = if latents == "int8" { &plain_8_bits } else { &plain };
                // Integer products with kv_b take what is cached in BF16 in 8 bits.
                let plain_from_latents = match is_integer && latents == "bf16" {
                    true => &make(&mut Rng(seed)).with_rounded_content().plain(),
                    false => plain,
                };
                let run = |absorbed: bool| {
                    check(&format!("{what} absorbed {absorbed}"), seed, |cpu, rng| {
                        let context = make(rng);
                        context.with_latents(latents, |latents, out| match absorbed {
                            true => self::absorbed(cpu, &context.query(), &context.kv_b, latents, out),
                            false => {
                                attention::from_latents(cpu, &context.query(), &context.kv_b, latents, out)
                            }
                        })
                    })
                };
                close(&what, &run(true), plain, 2e-5);
                close(&what, &run(false), plain_from_latents, 2e-5);
            }
        }
    }
}

#[test]
fn attention_of_a_row_does_not_depend_on_the_rows_beside_it() {
    const N_ROWS: usize = 9;
    for (form, latents) in ["bf16", "int8"].iter().flat_map(|f| ["f32", "bf16", "int8"].map(|l| (*f, l))) {
        // Several spans of decode once; the other forms differ in what a block does.
        let last = if (form, latents) == ("bf16", "f32") { 699 } else { 149 };
        let mut context = Context::new(&mut Rng(3), form, last + 1, N_ROWS);
        for is_last_infinite in [false, true] {
            if is_last_infinite {
                let width = context.shape.latent_width();
                context.latents[last / BLOCK_TOKENS][last % BLOCK_TOKENS * width] = f32::INFINITY;
            }
            for is_absorbed in [true, false] {
                let run = |cpu: &Cpu, n: usize| context.in_passes(cpu, latents, n, is_absorbed);
                for cpu in cpus(2) {
                    let one = Cpu::with_isa(cpu.isa(), 1).unwrap();
                    let (together, alone) = (run(&one, N_ROWS), run(&cpu, 1));
                    // The last row alone sees the last token.
                    let n_finite = together.len() / N_ROWS * (N_ROWS - usize::from(is_last_infinite));
                    let what = format!("{form} {latents} absorbed {is_absorbed} infinite {is_last_infinite}");
                    same_bits(&what, &alone[..n_finite], &together[..n_finite]);
                    assert!(together[..n_finite].iter().all(|v| v.is_finite()), "{what}");
                    assert!(together[n_finite..].iter().all(|v| !v.is_finite()), "{what}");
                }
            }
        }
    }
    let context = Context::new(&mut Rng(3), "bf16", 700, N_ROWS);
    for cpu in cpus(2) {
        let one = Cpu::with_isa(cpu.isa(), 1).unwrap();
        same_bits("threads", &context.expanded(&cpu), &context.expanded(&one));
    }
}

#[test]
fn the_router_chooses_by_biased_score_and_weighs_by_score() {
    let rule = RouterRule { n_chosen: 2, n_group: 1, topk_group: 1, normalize: true, scale: 2.5 };
    let logits = [0.0, 2.0, 1.0, 2.0];
    let chosen = choose(&rule, &logits, &[5.0, 0.0, 0.0, 0.0]);
    let experts: Vec<u32> = chosen.iter().map(|c| c.expert_idx).collect();
    assert_eq!(experts, [0, 1], "the bias lifts 0; the tie of 1 and 3 goes to the lower index");
    let sum: f32 = chosen.iter().map(|c| c.weight).sum();
    assert!((sum - 2.5).abs() < 1e-5);
    let ratio = chosen[0].weight / chosen[1].weight;
    assert!((ratio - 0.5 / (1.0 / (1.0 + (-2.0f32).exp()))).abs() < 1e-6, "weights know nothing of the bias");
    let poisoned = choose(&rule, &[0.0, f32::NAN, 1.0, 2.0], &[0.0; 4]);
    assert!(poisoned.iter().all(|c| c.weight.is_nan()));
}

#[test]
fn groups_compete_before_experts_do() {
    let rule = RouterRule { n_chosen: 2, n_group: 2, topk_group: 1, normalize: false, scale: 1.0 };
    let chosen = choose(&rule, &[9.0, -9.0, 3.0, 3.0], &[0.0; 4]);
    assert_eq!(
        chosen.iter().map(|c| c.expert_idx).collect::<Vec<_>>(),
        [2, 3],
        "two good ones beat one best"
    );
}

#[test]
fn largest_values_ties_to_the_lower_index() {
    assert_eq!(top_k(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
    assert_eq!(top_k(&[1.0], 4), [0]);
    assert_eq!(arg_max(&[1.0, 3.0, 3.0]), Some(1));
    assert_eq!(arg_max(&[1.0, f32::NAN]), None);
    assert_eq!(arg_max(&[]), None);
}

#[test]
fn a_decoded_weight_rounds_once() {
    for bits in 0..=u16::MAX {
        let scale = bf16::from_bits(bits);
        if scale.is_finite() {
            for nibble in 0..16u8 {
                let exact = (f64::from(nibble) - 8.0) * f64::from(scale.to_f32());
                assert_eq!(dequantized_bf16(nibble, scale).to_bits(), bf16::from_f64(exact).to_bits());
            }
        }
    }
}
