//! Decode over a cache of latents: up-projections moved to the query's side and behind the weighted mean.

use super::{Latents, Query, Running};
use crate::BLOCK_TOKENS;
use crate::cpu::{Cpu, dispatch};
use crate::matrix::Matrix;
use crate::quant::dequantize_rows;
use crate::reference::{self, Product};
use crate::shared::{Scratch, Shared};

/// Tokens whose scores are taken at a time: a whole number of blocks, so partial sums lie at fixed places.
const SPAN_TOKENS: usize = 8 * BLOCK_TOKENS;
/// Most heads that share one reading of the latents.
const HEADS_MAX: usize = 16;
/// Fewest, where there are more threads than heads keep busy.
const HEADS_MIN: usize = 4;
/// Rows of kv_b that are decoded at a time.
const DECODED: usize = 16;

/// Buffers of [`absorbed`], kept between calls; they grow to the largest.
#[derive(Default)]
pub struct AbsorbScratch {
    /// [T, H, R + rope]: `W_UK^T q_nope`, then q_rope.
    queries: Vec<f32>,
    /// [T, groups, spans, heads].
    states: Vec<Running>,
    /// [T, groups, spans, heads, R].
    sums: Vec<f32>,
}

/// How a call is cut into tasks: each a row, a group of heads and a span of tokens. The cut changes no result.
#[derive(Clone, Copy)]
struct Cut {
    heads: usize,
    n_groups: usize,
    n_spans: usize,
}

impl Cut {
    fn new(cpu: &Cpu, query: &Query<'_>) -> Self {
        let (n, n_heads) = (query.positions.len(), query.shape.n_heads);
        let n_spans = query.positions.iter().max().map_or(0, |p| p / SPAN_TOKENS + 1);
        let share = n * n_heads * n_spans / (2 * cpu.pool().n_threads());
        let heads = share.clamp(HEADS_MIN, HEADS_MAX) / 4 * 4;
        Cut { heads, n_groups: n_heads.div_ceil(heads), n_spans }
    }

    /// Where (row, head, span) stands among states and sums.
    fn slot(&self, t: usize, h: usize, span: usize) -> usize {
        ((t * self.n_groups + h / self.heads) * self.n_spans + span) * self.heads + h % self.heads
    }
}

/// Attention over latents alone: queries are taken through W_UK before, results through W_UV after.
///
/// `kv_b` [H (nope + v), R], W_UK and W_UV of each head one after the other; row t sees `latents[t]`, so T rows of
/// several sequences go together; `out` [T, H, v].
///
/// # Panics
/// If `latents` has not T entries, or a slice is shorter than its shape.
pub fn absorbed(
    cpu: &Cpu,
    query: &Query<'_>,
    kv_b: &Matrix,
    latents: &[Latents<'_>],
    s: &mut AbsorbScratch,
    out: &mut [f32],
) {
    let (shape, n) = (query.shape, query.positions.len());
    assert_eq!(latents.len(), n, "each row has its latents");
    let cut = Cut::new(cpu, query);
    let n_slots = n * cut.n_groups * cut.n_spans * cut.heads;
    s.queries.resize(n * shape.n_heads * shape.latent_width(), 0.0);
    s.states.resize(n_slots, Running::EMPTY);
    s.sums.resize(n_slots * shape.rank, 0.0);
    absorb(cpu, query, kv_b, &mut s.queries);
    let (queries, states, sums) = (&s.queries, Shared::new(&mut s.states), Shared::new(&mut s.sums));
    cpu.pool().run(n * cut.n_groups * cut.n_spans, &|i| {
        let slots = i * cut.heads..(i + 1) * cut.heads;
        // SAFETY: the slots of a task are its own.
        let (states, sums) = unsafe {
            (states.part(slots.clone()), sums.part(slots.start * shape.rank..slots.end * shape.rank))
        };
        attend_span(cpu, query, queries, latents, cut, i, states, sums);
    });
    unabsorb(cpu, query, kv_b, cut, &s.states, &s.sums, out);
}

/// `W_UK^T q_nope`, then q_rope, for every row and head.
fn absorb(cpu: &Cpu, query: &Query<'_>, kv_b: &Matrix, queries: &mut [f32]) {
    let (shape, n) = (query.shape, query.positions.len());
    let width = shape.latent_width();
    let queries = Shared::new(queries);
    cpu.pool().run(shape.n_heads, &|h| {
        let mut scratch = Scratch::take();
        let head = |t: usize| {
            let at = (t * shape.n_heads + h) * width;
            // SAFETY: head h of every row belongs to this task, which holds one part at a time.
            unsafe { queries.part(at..at + width) }
        };
        for t in 0..n {
            let (latent, rope) = head(t).split_at_mut(shape.rank);
            latent.fill(0.0);
            rope.copy_from_slice(query.head(t, h).1);
        }
        for first in (0..shape.nope).step_by(DECODED) {
            let rows = first..(first + DECODED).min(shape.nope);
            let decoded = scratch.first(rows.len() * shape.rank);
            let at = h * shape.key_value();
            dequantize_rows(cpu.isa(), kv_b, at + rows.start..at + rows.end, decoded);
            for t in 0..n {
                let q = &query.head(t, h).0[rows.clone()];
                let latent = &mut head(t)[..shape.rank];
                dispatch!(cpu.isa(), weighted_sum(q, decoded, shape.rank, latent));
            }
        }
    });
}

/// Task `i`: a row's group of heads against one span of its tokens.
#[allow(clippy::too_many_arguments)]
fn attend_span(
    cpu: &Cpu,
    query: &Query<'_>,
    queries: &[f32],
    latents: &[Latents<'_>],
    cut: Cut,
    i: usize,
    states: &mut [Running],
    sums: &mut [f32],
) {
    let (shape, width) = (query.shape, query.shape.latent_width());
    let (t, group, span) = (i / cut.n_spans / cut.n_groups, i / cut.n_spans % cut.n_groups, i % cut.n_spans);
    let first = group * cut.heads;
    let n_heads = cut.heads.min(shape.n_heads - first);
    let n_tokens = (query.positions[t] + 1).saturating_sub(span * SPAN_TOKENS).min(SPAN_TOKENS);
    let at = (t * shape.n_heads + first) * width;
    let queries = &queries[at..at + n_heads * width];
    let mut scratch = Scratch::take();
    let (scores, rest) = scratch
        .first(n_heads * (SPAN_TOKENS + BLOCK_TOKENS) + BLOCK_TOKENS * width)
        .split_at_mut(n_heads * SPAN_TOKENS);
    let (products, buffer) = rest.split_at_mut(n_heads * BLOCK_TOKENS);
    let block = |at: usize| {
        (span * (SPAN_TOKENS / BLOCK_TOKENS) + at / BLOCK_TOKENS, BLOCK_TOKENS.min(n_tokens - at))
    };
    for at in (0..n_tokens).step_by(BLOCK_TOKENS) {
        let (block_idx, n) = block(at);
        let rows = latents[t].rows(cpu, block_idx, n, width, buffer);
        let products = &mut products[..n_heads * n];
        dispatch!(cpu.isa(), products(queries, rows, width, products));
        for (h, products) in products.chunks_exact(n).enumerate() {
            let scores = &mut scores[h * SPAN_TOKENS + at..][..n];
            scores.iter_mut().zip(products).for_each(|(score, product)| *score = *product * query.scale);
        }
    }
    for (scores, state) in scores.chunks_exact_mut(SPAN_TOKENS).zip(states) {
        let scores = &mut scores[..n_tokens];
        state.max = dispatch!(cpu.isa(), max_row(scores));
        state.sum = dispatch!(cpu.isa(), exp_row(scores, state.max));
    }
    sums.fill(0.0);
    for at in (0..n_tokens).step_by(BLOCK_TOKENS) {
        let (block_idx, n) = block(at);
        let rows = latents[t].rows(cpu, block_idx, n, width, buffer);
        let g = Product {
            m: n_heads,
            n: shape.rank,
            k: n,
            a_row: SPAN_TOKENS,
            a_col: 1,
            b_row: width,
            c_row: shape.rank,
        };
        dispatch!(cpu.isa(), accumulate(&g, &scores[at..], rows, sums));
    }
}

/// `out[t, h] = W_UV` times the mean latent of all spans.
fn unabsorb(
    cpu: &Cpu,
    query: &Query<'_>,
    kv_b: &Matrix,
    cut: Cut,
    states: &[Running],
    sums: &[f32],
    out: &mut [f32],
) {
    let (shape, n) = (query.shape, query.positions.len());
    let out = Shared::new(out);
    cpu.pool().run(shape.n_heads, &|h| {
        let (mut means, mut scratch) = (Scratch::take(), Scratch::take());
        let means = means.first(n * shape.rank);
        for (t, mean) in means.chunks_exact_mut(shape.rank).enumerate() {
            let span = |span: usize| {
                let slot = cut.slot(t, h, span);
                (states[slot], &sums[slot * shape.rank..(slot + 1) * shape.rank])
            };
            join_spans((0..cut.n_spans).map(span), mean);
        }
        for first in (0..shape.v).step_by(DECODED) {
            let rows = first..(first + DECODED).min(shape.v);
            let (decoded, dots) =
                scratch.first(rows.len() * (shape.rank + 1)).split_at_mut(rows.len() * shape.rank);
            let at = h * shape.key_value() + shape.nope;
            dequantize_rows(cpu.isa(), kv_b, at + rows.start..at + rows.end, decoded);
            for (t, mean) in means.chunks_exact(shape.rank).enumerate() {
                dispatch!(cpu.isa(), band_f32(&[mean], decoded, dots));
                let at = (t * shape.n_heads + h) * shape.v;
                // SAFETY: head h of every row belongs to this task.
                let out = unsafe { out.part(at + rows.start..at + rows.end) };
                out.copy_from_slice(dots);
            }
        }
    });
}

/// The weighted mean latent `[R]` of all spans, first to last.
fn join_spans<'s>(spans: impl Iterator<Item = (Running, &'s [f32])>, mean: &mut [f32]) {
    let mut running = Running::EMPTY;
    mean.fill(0.0);
    for (state, sums) in spans {
        if state.sum == 0.0 {
            continue;
        }
        let factor = running.rescale(state.max);
        let weight = reference::exp(state.max - running.max);
        running.sum += state.sum * weight;
        mean.iter_mut().zip(sums).for_each(|(l, s)| *l = *l * factor + s * weight);
    }
    mean.iter_mut().for_each(|l| *l /= running.sum);
}
