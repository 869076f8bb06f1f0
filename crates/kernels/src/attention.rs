//! Multi-head latent attention (DeepSeek-V2 report, section 2.1) over a paged cache, causal.
//!
//! Three forms of one function. [`expanded`] reads keys and values that were expanded when they were cached: the
//! form training differentiates. [`from_latents`] expands them block by block on the way: prefill over a latent
//! cache. [`absorbed`] moves the up-projections to the query's side and reads latents alone: decode.
//! All three walk the context in blocks at fixed positions, so a row's result depends on its own context only.

use crate::cpu::{Cpu, dispatch};
use crate::matrix::Matrix;
use crate::quant::dequantize_rows;
use crate::shared::Shared;
use crate::{BLOCK_TOKENS, reference};
use half::bf16;

/// Tokens whose scores [`absorbed`] takes at a time: a whole number of blocks, so partial sums lie at fixed places.
const SPAN_TOKENS: usize = 8 * BLOCK_TOKENS;
/// Heads that share one reading of the latents in [`absorbed`].
const HEADS_PER_TASK: usize = 4;

/// Widths of the attention.
#[derive(Clone, Copy, Debug)]
pub struct MlaShape {
    /// H.
    pub n_heads: usize,
    /// Width of a head's part without position.
    pub nope: usize,
    /// Width of the rotated part.
    pub rope: usize,
    /// Width of a head's value.
    pub v: usize,
    /// R, width of the latent.
    pub rank: usize,
}

impl MlaShape {
    /// Width of a head's query: nope, then rope.
    pub fn query(&self) -> usize {
        self.nope + self.rope
    }

    /// Width of a head's rows in kv_b: nope, then v.
    pub fn key_value(&self) -> usize {
        self.nope + self.v
    }

    /// Values a token in a cache of latents: the normed latent, then the rotated shared key.
    pub fn latent_width(&self) -> usize {
        self.rank + self.rope
    }

    /// Values a token in a cache of expanded keys and values: every head's nope and v, then the rotated key.
    pub fn expanded_width(&self) -> usize {
        self.n_heads * self.key_value() + self.rope
    }
}

/// A sequence's cached latents: blocks of [`BLOCK_TOKENS`] rows of [`MlaShape::latent_width`].
#[derive(Clone, Copy)]
pub enum Latents<'a> {
    /// In `f32`.
    F32(&'a [&'a [f32]]),
    /// In BF16.
    Bf16(&'a [&'a [bf16]]),
}

/// What the three forms have in common.
pub struct Query<'a> {
    /// Widths.
    pub shape: MlaShape,
    /// [T, H, nope + rope], rotated.
    pub q: &'a [f32],
    /// Absolute position of each row; row t sees positions `0..=positions[t]`, all cached already.
    pub positions: &'a [usize],
    /// Factor of every score.
    pub scale: f32,
}

impl Query<'_> {
    fn head(&self, t: usize, h: usize) -> (&[f32], &[f32]) {
        let width = self.shape.query();
        let at = (t * self.shape.n_heads + h) * width;
        self.q[at..at + width].split_at(self.shape.nope)
    }
}

/// Attention over cached keys and values: `blocks` of [`BLOCK_TOKENS`] rows of [`MlaShape::expanded_width`].
///
pub fn expanded(cpu: &Cpu, query: &Query<'_>, blocks: &[&[f32]], out: &mut [f32]) {
    let shape = query.shape;
    let out = Shared::new(out);
    cpu.pool().run(query.positions.len() * shape.n_heads, &|i| {
        let (t, h) = (i / shape.n_heads, i % shape.n_heads);
        // SAFETY: each (row, head) belongs to one task.
        let out = unsafe { out.part(i * shape.v..(i + 1) * shape.v) };
        expanded_row(cpu, query, blocks, t, h, out);
    });
}

fn expanded_row(cpu: &Cpu, query: &Query<'_>, blocks: &[&[f32]], t: usize, h: usize, out: &mut [f32]) {
    let (shape, isa) = (query.shape, cpu.isa());
    let width = shape.expanded_width();
    let (q_nope, q_rope) = query.head(t, h);
    let at_nope = h * shape.key_value();
    let n_context = query.positions[t] + 1;
    let mut scores = vec![0.0f32; n_context];
    for (j, score) in scores.iter_mut().enumerate() {
        let row = &blocks[j / BLOCK_TOKENS][j % BLOCK_TOKENS * width..][..width];
        let (k_nope, k_rope) = (&row[at_nope..at_nope + shape.nope], &row[width - shape.rope..]);
        let dots = (dispatch!(isa, dot(q_nope, k_nope)), dispatch!(isa, dot(q_rope, k_rope)));
        *score = (dots.0 + dots.1) * query.scale;
    }
    dispatch!(isa, softmax_row(&mut scores));
    out.fill(0.0);
    for (p, block) in scores.chunks(BLOCK_TOKENS).zip(blocks) {
        let values = &block[at_nope + shape.nope..];
        dispatch!(isa, weighted_sum(p, values, width, out));
    }
}

/// Running state of a softmax over blocks of scores (Milakov and Gimelshein 2018).
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
}

impl Running {
    const EMPTY: Running = Running { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Take in scores with maximum `max`; returns the factor for what was summed before.
    fn rescale(&mut self, max: f32) -> f32 {
        let next = if self.max > max { self.max } else { max };
        let factor = if self.max == f32::NEG_INFINITY { 0.0 } else { reference::exp(self.max - next) };
        self.max = next;
        self.sum *= factor;
        factor
    }
}

/// Attention that expands keys and values from latents, one block at a time for all rows of a head.
///
/// `kv_b` [H (nope + v), R], `out` [T, H, v].
pub fn from_latents(cpu: &Cpu, query: &Query<'_>, kv_b: &Matrix, latents: Latents<'_>, out: &mut [f32]) {
    let shape = query.shape;
    let out = Shared::new(out);
    cpu.pool().run(shape.n_heads, &|h| {
        let mut head = Head::new(cpu, query, kv_b, h);
        let n_context = query.positions.iter().max().map_or(0, |p| p + 1);
        for start in (0..n_context).step_by(BLOCK_TOKENS) {
            head.expand(cpu, latents, start / BLOCK_TOKENS);
            head.attend(cpu, query, h, start);
        }
        for (t, state) in head.states.iter().enumerate() {
            let at = (t * shape.n_heads + h) * shape.v;
            // SAFETY: head h of every row belongs to this task.
            let out = unsafe { out.part(at..at + shape.v) };
            let sums = &head.sums[t * shape.v..(t + 1) * shape.v];
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum / state.sum);
        }
    });
}

/// One head's work in [`from_latents`].
struct Head {
    shape: MlaShape,
    /// This head's rows of kv_b [nope + v, R].
    weights: Vec<f32>,
    /// Keys of the current block [64, nope + rope].
    keys: Vec<f32>,
    /// Values of the current block [64, v].
    values: Vec<f32>,
    states: Vec<Running>,
    sums: Vec<f32>,
}

impl Head {
    fn new(cpu: &Cpu, query: &Query<'_>, kv_b: &Matrix, h: usize) -> Self {
        let shape = query.shape;
        let n_rows = shape.key_value();
        let mut weights = vec![0.0; n_rows * shape.rank];
        dequantize_rows(cpu.isa(), kv_b, h * n_rows..(h + 1) * n_rows, &mut weights);
        let n = query.positions.len();
        Head {
            shape,
            weights,
            keys: vec![0.0; BLOCK_TOKENS * shape.query()],
            values: vec![0.0; BLOCK_TOKENS * shape.v],
            states: vec![Running::EMPTY; n],
            sums: vec![0.0; n * shape.v],
        }
    }

    fn expand(&mut self, cpu: &Cpu, latents: Latents<'_>, block_idx: usize) {
        let shape = self.shape;
        let rows: Vec<&[f32]> = self.weights.chunks_exact(shape.rank).collect();
        let mut row_out = vec![0.0f32; shape.key_value()];
        for j in 0..BLOCK_TOKENS {
            let span = j * shape.latent_width()..(j + 1) * shape.latent_width();
            let key = &mut self.keys[j * shape.query()..(j + 1) * shape.query()];
            match latents {
                Latents::F32(blocks) => {
                    let (latent, rope) = blocks[block_idx][span].split_at(shape.rank);
                    dispatch!(cpu.isa(), dots_f32(&rows, latent, &mut row_out));
                    key[shape.nope..].copy_from_slice(rope);
                }
                Latents::Bf16(blocks) => {
                    let (latent, rope) = blocks[block_idx][span].split_at(shape.rank);
                    dispatch!(cpu.isa(), dots_bf16(&rows, latent, &mut row_out));
                    key[shape.nope..].iter_mut().zip(rope).for_each(|(key, rope)| *key = rope.to_f32());
                }
            }
            key[..shape.nope].copy_from_slice(&row_out[..shape.nope]);
            self.values[j * shape.v..(j + 1) * shape.v].copy_from_slice(&row_out[shape.nope..]);
        }
    }

    fn attend(&mut self, cpu: &Cpu, query: &Query<'_>, h: usize, start: usize) {
        let shape = self.shape;
        let keys: Vec<&[f32]> = self.keys.chunks_exact(shape.query()).collect();
        let mut scores = [0.0f32; BLOCK_TOKENS];
        for (t, &position) in query.positions.iter().enumerate() {
            if position < start {
                continue;
            }
            let n = BLOCK_TOKENS.min(position + 1 - start);
            let at = (t * shape.n_heads + h) * shape.query();
            let q = &query.q[at..at + shape.query()];
            let scores = &mut scores[..n];
            dispatch!(cpu.isa(), dots_f32(&keys[..n], q, scores));
            scores.iter_mut().for_each(|score| *score *= query.scale);
            let state = &mut self.states[t];
            let factor = state.rescale(reference::max_row(scores));
            state.sum += dispatch!(cpu.isa(), exp_row(scores, state.max));
            let sums = &mut self.sums[t * shape.v..(t + 1) * shape.v];
            sums.iter_mut().for_each(|sum| *sum *= factor);
            dispatch!(cpu.isa(), weighted_sum(scores, &self.values, shape.v, sums));
        }
    }
}

/// Attention over latents alone: queries are taken through W_UK before, results through W_UV after.
///
/// `kv_b` [H (nope + v), R], `out` [T, H, v].
pub fn absorbed(cpu: &Cpu, query: &Query<'_>, kv_b: &Matrix, latents: Latents<'_>, out: &mut [f32]) {
    let shape = query.shape;
    let n = query.positions.len();
    let absorbed = absorb(cpu, query, kv_b);
    let n_spans = query.positions.iter().max().map_or(0, |p| p / SPAN_TOKENS + 1);
    let n_groups = shape.n_heads.div_ceil(HEADS_PER_TASK);
    let mut states = vec![Running::EMPTY; n * shape.n_heads * n_spans];
    let mut sums = vec![0.0f32; n * shape.n_heads * n_spans * shape.rank];
    {
        let (states, sums) = (Shared::new(&mut states), Shared::new(&mut sums));
        cpu.pool().run(n * n_groups * n_spans, &|i| {
            let (t, group, span) = (i / n_spans / n_groups, i / n_spans % n_groups, i % n_spans);
            let first = group * HEADS_PER_TASK;
            let n_heads = HEADS_PER_TASK.min(shape.n_heads - first);
            let n_tokens = (query.positions[t] + 1).saturating_sub(span * SPAN_TOKENS).min(SPAN_TOKENS);
            let slot = |h: usize| (t * shape.n_heads + h) * n_spans + span;
            let width = shape.latent_width();
            let at = (t * shape.n_heads + first) * width;
            let queries: Vec<&[f32]> = absorbed[at..at + n_heads * width].chunks_exact(width).collect();
            let mut scores = span_scores(cpu, query, latents, &queries, span, n_tokens);
            for (i, scores) in scores.chunks_mut(SPAN_TOKENS).enumerate() {
                let (scores, slot) = (&mut scores[..n_tokens], slot(first + i));
                // SAFETY: the slots of (row, head, span) belong to this task.
                let (state, sums) = unsafe {
                    (
                        &mut states.part(slot..slot + 1)[0],
                        sums.part(slot * shape.rank..(slot + 1) * shape.rank),
                    )
                };
                state.max = reference::max_row(scores);
                state.sum = dispatch!(cpu.isa(), exp_row(scores, state.max));
                sum_latents(cpu, scores, latents, span, width, sums);
            }
        });
    }
    let out = Shared::new(out);
    cpu.pool().run(n * shape.n_heads, &|i| {
        let slots = i * n_spans..(i + 1) * n_spans;
        let (states, sums) =
            (&states[slots.clone()], &sums[slots.start * shape.rank..slots.end * shape.rank]);
        let latent = join_spans(states, sums, shape.rank);
        // SAFETY: each (row, head) belongs to one task.
        let out = unsafe { out.part(i * shape.v..(i + 1) * shape.v) };
        let first = i % shape.n_heads * shape.key_value() + shape.nope;
        let mut row = vec![0.0f32; shape.rank];
        for (d, out) in out.iter_mut().enumerate() {
            dequantize_rows(cpu.isa(), kv_b, first + d..first + d + 1, &mut row);
            *out = dispatch!(cpu.isa(), dot(&latent, &row));
        }
    });
}

/// [T, H, R + rope]: `W_UK^T q_nope`, then q_rope.
fn absorb(cpu: &Cpu, query: &Query<'_>, kv_b: &Matrix) -> Vec<f32> {
    let shape = query.shape;
    let width = shape.latent_width();
    let mut absorbed = vec![0.0f32; query.positions.len() * shape.n_heads * width];
    let shared = Shared::new(&mut absorbed);
    cpu.pool().run(query.positions.len() * shape.n_heads, &|i| {
        // SAFETY: each (row, head) belongs to one task.
        let (latent, rope) = unsafe { shared.part(i * width..(i + 1) * width) }.split_at_mut(shape.rank);
        let (q_nope, q_rope) = query.head(i / shape.n_heads, i % shape.n_heads);
        let first = i % shape.n_heads * shape.key_value();
        let mut row = vec![0.0f32; shape.rank];
        for (d, &q) in q_nope.iter().enumerate() {
            dequantize_rows(cpu.isa(), kv_b, first + d..first + d + 1, &mut row);
            dispatch!(cpu.isa(), axpy(q, &row, latent));
        }
        rope.copy_from_slice(q_rope);
    });
    absorbed
}

/// Scores of several heads against one span: [heads, SPAN_TOKENS].
fn span_scores(
    cpu: &Cpu,
    query: &Query<'_>,
    latents: Latents<'_>,
    queries: &[&[f32]],
    span: usize,
    n_tokens: usize,
) -> Vec<f32> {
    let width = query.shape.latent_width();
    let mut scores = vec![0.0f32; queries.len() * SPAN_TOKENS];
    let mut dots = [0.0f32; HEADS_PER_TASK];
    let dots = &mut dots[..queries.len()];
    for j in 0..n_tokens {
        let block_idx = (span * SPAN_TOKENS + j) / BLOCK_TOKENS;
        let row = j % BLOCK_TOKENS * width..(j % BLOCK_TOKENS + 1) * width;
        match latents {
            Latents::F32(blocks) => dispatch!(cpu.isa(), dots_f32(queries, &blocks[block_idx][row], dots)),
            Latents::Bf16(blocks) => dispatch!(cpu.isa(), dots_bf16(queries, &blocks[block_idx][row], dots)),
        }
        dots.iter().enumerate().for_each(|(h, dot)| scores[h * SPAN_TOKENS + j] = dot * query.scale);
    }
    scores
}

/// `sums += sum over the span's tokens of p * latent`.
fn sum_latents(cpu: &Cpu, p: &[f32], latents: Latents<'_>, span: usize, width: usize, sums: &mut [f32]) {
    for (i, p) in p.chunks(BLOCK_TOKENS).enumerate() {
        let block_idx = span * (SPAN_TOKENS / BLOCK_TOKENS) + i;
        match latents {
            Latents::F32(blocks) => dispatch!(cpu.isa(), weighted_sum(p, blocks[block_idx], width, sums)),
            Latents::Bf16(blocks) => {
                dispatch!(cpu.isa(), weighted_sum_bf16(p, blocks[block_idx], width, sums))
            }
        }
    }
}

/// The weighted mean latent `[R]` of all spans, first to last.
fn join_spans(states: &[Running], sums: &[f32], rank: usize) -> Vec<f32> {
    let mut running = Running::EMPTY;
    let mut latent = vec![0.0f32; rank];
    for (state, sums) in states.iter().zip(sums.chunks_exact(rank)) {
        if state.sum == 0.0 {
            continue;
        }
        let factor = running.rescale(state.max);
        let weight = reference::exp(state.max - running.max);
        running.sum += state.sum * weight;
        latent.iter_mut().zip(sums).for_each(|(l, s)| *l = *l * factor + s * weight);
    }
    latent.iter_mut().for_each(|l| *l /= running.sum);
    latent
}
