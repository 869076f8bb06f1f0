//! A block's attention part, `x + o(attention(norm(x)))`, and its derivative.

use super::mlp::{back_input, back_weight, product};
use super::places::LayerPlaces;
use perilune_kernels::attention::MlaShape;
use perilune_kernels::cpu::Cpu;
use perilune_kernels::reference::AttentionRow;
use perilune_kernels::rope::RopeTable;
use perilune_kernels::train::attention::{self, Grads, Inputs};
use perilune_kernels::train::elementwise::{NormInput, add, rms_norm, rms_norm_back};
use perilune_kernels::train::for_chunks;
use perilune_kernels::train::product::Store;
use std::ops::Range;

/// Rows that a task rotates.
const ROWS_PER_TASK: usize = 64;

/// What every layer of a pass shares.
pub(super) struct Frame<'a> {
    pub(super) cpu: &'a Cpu,
    /// The weights as the pass sees them.
    pub(super) w: &'a [f32],
    /// C.
    pub(super) c: usize,
    pub(super) shape: MlaShape,
    pub(super) q_rank: usize,
    /// Epsilon of block norms, and of latent norms.
    pub(super) eps: (f32, f32),
    pub(super) scale: f32,
    pub(super) rope: &'a RopeTable,
    pub(super) sequences: &'a [Range<usize>],
}

/// What the derivative needs of one block's attention.
#[derive(Default)]
pub(super) struct AttendTape {
    /// The block's input [T, C].
    pub(super) x: Vec<f32>,
    normed: Vec<f32>,
    q_a: Vec<f32>,
    q_a_normed: Vec<f32>,
    /// Rotated queries.
    q: Vec<f32>,
    /// Raw latents, and rotated shared keys.
    kv: Vec<f32>,
    latents: Vec<f32>,
    expanded: Vec<f32>,
    attended: Vec<f32>,
    rows: Vec<AttentionRow>,
    /// Largest logit of each head.
    pub(super) max_logit: Vec<f32>,
}

/// Buffers of the derivative, shared by the blocks.
#[derive(Default)]
pub(super) struct AttendScratch {
    attended: Vec<f32>,
    q: Vec<f32>,
    q_a_normed: Vec<f32>,
    q_a: Vec<f32>,
    kv: Vec<f32>,
    latents: Vec<f32>,
    expanded: Vec<f32>,
    normed: Vec<f32>,
}

impl AttendTape {
    fn inputs<'a>(&'a self, f: &Frame<'a>) -> Inputs<'a> {
        Inputs {
            shape: f.shape,
            q: &self.q,
            kv: &self.expanded,
            latents: &self.kv,
            sequences: f.sequences,
            scale: f.scale,
        }
    }

    /// From the block's input, set before, to `out` [T, C], what attention leaves in the stream.
    pub(super) fn forward(&mut self, f: &Frame<'_>, p: &LayerPlaces, out: &mut Vec<f32>) {
        let (cpu, w, s) = (f.cpu, f.w, f.shape);
        let n_rows = self.x.len() / f.c;
        self.normed.resize(self.x.len(), 0.0);
        rms_norm(cpu, &self.x, f.c, &w[p.input_norm.clone()], f.eps.0, &mut self.normed);
        product(cpu, w, &p.q_a, &self.normed, f.c, &mut self.q_a);
        product(cpu, w, &p.kv_a, &self.normed, f.c, &mut self.kv);
        self.q_a_normed.resize(self.q_a.len(), 0.0);
        rms_norm(cpu, &self.q_a, f.q_rank, &w[p.q_a_norm.clone()], f.eps.1, &mut self.q_a_normed);
        product(cpu, w, &p.q_b, &self.q_a_normed, f.q_rank, &mut self.q);
        let rotate = |t: usize, x: &mut [f32]| f.rope.rotate(t, x);
        for_rotated(cpu, &mut self.q, (s.n_heads, s.query(), s.nope), rotate);
        self.latents.resize(n_rows * s.rank, 0.0);
        let norm = &w[p.kv_a_norm.clone()];
        rms_norm(cpu, &self.kv, s.latent_width(), norm, f.eps.1, &mut self.latents);
        for_rotated(cpu, &mut self.kv, (1, s.latent_width(), s.rank), rotate);
        product(cpu, w, &p.kv_b, &self.latents, s.rank, &mut self.expanded);
        let (mut attended, mut rows) = (std::mem::take(&mut self.attended), std::mem::take(&mut self.rows));
        attended.resize(n_rows * s.n_heads * s.v, 0.0);
        rows.resize(n_rows * s.n_heads, AttentionRow::default());
        self.max_logit = attention::forward(cpu, &self.inputs(f), &mut attended, &mut rows);
        (self.attended, self.rows) = (attended, rows);
        product(cpu, w, &p.o, &self.attended, s.n_heads * s.v, out);
        add(cpu, out, &self.x);
    }

    /// `dx` [T, C] is the gradient of the output and becomes that of the input; gradients of weights are added.
    pub(super) fn backward(
        &self,
        f: &Frame<'_>,
        p: &LayerPlaces,
        s: &mut AttendScratch,
        dx: &mut [f32],
        dw: &mut [f32],
    ) {
        let (cpu, w, shape) = (f.cpu, f.w, f.shape);
        let width = shape.n_heads * shape.v;
        back_weight(cpu, &p.o, dx, &self.attended, width, dw);
        back_input(cpu, w, &p.o, dx, width, Store::Overwrite, &mut s.attended);
        s.q.resize(self.q.len(), 0.0);
        s.expanded.resize(self.expanded.len(), 0.0);
        s.kv.clear();
        s.kv.resize(self.kv.len(), 0.0);
        let grads = Grads { q: &mut s.q, kv: &mut s.expanded, latents: &mut s.kv };
        attention::backward(cpu, &self.inputs(f), (&self.attended, &self.rows), &s.attended, grads);
        let rotate = |t: usize, x: &mut [f32]| f.rope.rotate_back(t, x);
        for_rotated(cpu, &mut s.q, (shape.n_heads, shape.query(), shape.nope), rotate);
        for_rotated(cpu, &mut s.kv, (1, shape.latent_width(), shape.rank), rotate);
        self.backward_latents(f, p, s, dw);
        self.backward_queries(f, p, s, dw);
        let c = f.c;
        back_weight(cpu, &p.q_a, &s.q_a, &self.normed, c, dw);
        back_weight(cpu, &p.kv_a, &s.kv, &self.normed, c, dw);
        back_input(cpu, w, &p.q_a, &s.q_a, c, Store::Overwrite, &mut s.normed);
        back_input(cpu, w, &p.kv_a, &s.kv, c, Store::Accumulate, &mut s.normed);
        let input = NormInput { x: &self.x, stride: c, weight: &w[p.input_norm.clone()], eps: f.eps.0 };
        rms_norm_back(cpu, &input, &s.normed, dx, &mut dw[p.input_norm.clone()]);
    }

    /// From `s.expanded` to the raw latents in `s.kv`.
    fn backward_latents(&self, f: &Frame<'_>, p: &LayerPlaces, s: &mut AttendScratch, dw: &mut [f32]) {
        let (cpu, w, rank) = (f.cpu, f.w, f.shape.rank);
        back_weight(cpu, &p.kv_b, &s.expanded, &self.latents, rank, dw);
        back_input(cpu, w, &p.kv_b, &s.expanded, rank, Store::Overwrite, &mut s.latents);
        let input = NormInput {
            x: &self.kv,
            stride: f.shape.latent_width(),
            weight: &w[p.kv_a_norm.clone()],
            eps: f.eps.1,
        };
        rms_norm_back(cpu, &input, &s.latents, &mut s.kv, &mut dw[p.kv_a_norm.clone()]);
    }

    /// From `s.q` to `s.q_a`.
    fn backward_queries(&self, f: &Frame<'_>, p: &LayerPlaces, s: &mut AttendScratch, dw: &mut [f32]) {
        let (cpu, w, rank) = (f.cpu, f.w, f.q_rank);
        back_weight(cpu, &p.q_b, &s.q, &self.q_a_normed, rank, dw);
        back_input(cpu, w, &p.q_b, &s.q, rank, Store::Overwrite, &mut s.q_a_normed);
        s.q_a.clear();
        s.q_a.resize(self.q_a.len(), 0.0);
        let input = NormInput { x: &self.q_a, stride: rank, weight: &w[p.q_a_norm.clone()], eps: f.eps.1 };
        rms_norm_back(cpu, &input, &s.q_a_normed, &mut s.q_a, &mut dw[p.q_a_norm.clone()]);
    }
}

/// Apply `rotate` to columns `first..` of each of `n` parts of `width` of every row.
fn for_rotated(
    cpu: &Cpu,
    x: &mut [f32],
    (n, width, first): (usize, usize, usize),
    rotate: impl Fn(usize, &mut [f32]) + Sync,
) {
    for_chunks(cpu, x, ROWS_PER_TASK * n * width, |i, rows| {
        for (t, row) in (i * ROWS_PER_TASK..).zip(rows.chunks_exact_mut(n * width)) {
            row.chunks_exact_mut(width).for_each(|part| rotate(t, &mut part[first..]));
        }
    });
}
