//! Multi-head latent attention (MLA; DeepSeek-V2 report, section 2.1) over a paged cache, causal.
//!
//! Three forms of one function, up to rounding. [`expanded`] reads keys and values that were expanded when they were cached: the
//! form training differentiates. [`from_latents`] expands them block by block on the way: prefill over a latent
//! cache. [`absorbed`] moves the up-projections to the query's side and reads latents alone: decode.
//! All three walk the context in blocks at fixed positions, so a row's result depends on its own context only.

mod absorbed;
mod from_latents;

pub use absorbed::{AbsorbScratch, absorbed};
pub use from_latents::{from_latents, from_latents_bytes};

use crate::cpu::{Cpu, dispatch};
use crate::reference::stored_width;
use crate::shared::Shared;
use crate::{BLOCK_TOKENS, GROUP, reference};
use half::bf16;

/// Widths of the attention, in elements.
#[derive(Clone, Copy, Debug)]
pub struct MlaShape {
    /// H, `num_attention_heads`.
    pub n_heads: usize,
    /// Width of a head's query and key without position, `qk_nope_head_dim`.
    pub nope: usize,
    /// Width of a head's rotated query, and of the one rotated key that all heads share, `qk_rope_head_dim`.
    pub rope: usize,
    /// Width of a head's value, `v_head_dim`.
    pub v: usize,
    /// R, width of the latent, `kv_lora_rank`.
    pub rank: usize,
}

impl MlaShape {
    /// Width of a head's query: `nope`, then `rope`.
    pub fn query(&self) -> usize {
        self.nope + self.rope
    }

    /// Rows of a head in kv_b: `nope` of the key, then `v` of the value.
    pub fn key_value(&self) -> usize {
        self.nope + self.v
    }

    /// Elements a token has in a cache of latents: the normed latent `[R]`, then the rotated shared key `[rope]`.
    pub fn latent_width(&self) -> usize {
        self.rank + self.rope
    }

    /// Elements a token has in a cache of expanded keys and values: [H, nope + v], then the rotated shared key
    /// `[rope]`.
    pub fn expanded_width(&self) -> usize {
        self.n_heads * self.key_value() + self.rope
    }
}

/// A sequence's cached latents, first block first: each block [64, R + rope], rows past the context unread.
#[derive(Clone, Copy)]
pub enum Latents<'a> {
    /// In `f32`.
    F32(&'a [&'a [f32]]),
    /// In BF16.
    Bf16(&'a [&'a [bf16]]),
    /// In 8 bits, each row as [`reference::encode_row`] writes it with zeros up to a whole group.
    Int8 {
        /// Blocks [64, stored width] of codes ([`stored_width`] of R + rope).
        codes: &'a [&'a [i8]],
        /// Blocks [64, groups] of one scale a group, R + rope over 32 rounded up.
        scales: &'a [&'a [bf16]],
    },
}

impl<'a> Latents<'a> {
    /// The first `n_tokens` rows of block `block_idx` as `f32`: in place, or widened into `buffer`.
    fn rows(
        self,
        cpu: &Cpu,
        block_idx: usize,
        n_tokens: usize,
        width: usize,
        buffer: &'a mut [f32],
    ) -> &'a [f32] {
        let n = n_tokens * width;
        match self {
            Latents::F32(blocks) => &blocks[block_idx][..n],
            Latents::Bf16(blocks) => {
                dispatch!(cpu.isa(), widen_bf16(&blocks[block_idx][..n], &mut buffer[..n]));
                &buffer[..n]
            }
            Latents::Int8 { codes, scales } => {
                let rows = buffer[..n].chunks_exact_mut(width);
                let codes = codes[block_idx].chunks_exact(stored_width(width));
                let scales = scales[block_idx].chunks_exact(width.div_ceil(GROUP));
                let n_whole = width / GROUP;
                for ((row, codes), scales) in rows.zip(codes).zip(scales) {
                    let (whole, rest) = row.split_at_mut(n_whole * GROUP);
                    dispatch!(cpu.isa(), dequantize_q8_row(codes, &scales[..n_whole], whole));
                    for (value, k) in rest.iter_mut().zip(n_whole * GROUP..) {
                        *value = f32::from(codes[reference::stored_position(k)]) * scales[n_whole].to_f32();
                    }
                }
                &buffer[..n]
            }
        }
    }
}

/// What the three forms have in common: the queries of T rows.
pub struct Query<'a> {
    /// Widths.
    pub shape: MlaShape,
    /// Queries [T, H, nope + rope], their last `rope` rotated.
    pub q: &'a [f32],
    /// Absolute position of each row `[T]`; row t sees positions `0..=positions[t]`, all cached already.
    pub positions: &'a [usize],
    /// Factor of every score before the softmax.
    pub scale: f32,
}

impl Query<'_> {
    fn head(&self, t: usize, h: usize) -> (&[f32], &[f32]) {
        let width = self.shape.query();
        let at = (t * self.shape.n_heads + h) * width;
        self.q[at..at + width].split_at(self.shape.nope)
    }
}

/// Attention over cached keys and values: `blocks` [64, H (nope + v) + rope] each, first to last; `out` [T, H, v].
///
/// # Panics
/// If a slice is shorter than the query's shape and positions ask.
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
        if self.max >= max {
            // e^0, as below, without computing it.
            return 1.0;
        }
        let next = if self.max > max { self.max } else { max };
        let factor = if self.max == f32::NEG_INFINITY { 0.0 } else { reference::exp(self.max - next) };
        self.max = next;
        self.sum *= factor;
        factor
    }
}
