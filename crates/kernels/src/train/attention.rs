//! Causal attention over expanded keys and values of whole sequences, and its derivative.
//!
//! Forward gives the bits of [`crate::attention::expanded`]. Backward makes the probabilities again, block by block
//! of queries, from each row's maximum and sum (Dao et al. 2022).

use crate::LANES;
use crate::attention::MlaShape;
use crate::cpu::{Cpu, dispatch};
use crate::reference::{AttentionRow, Product};
use crate::shared::Shared;
use std::ops::Range;

/// Queries whose scores are held at a time.
const QUERIES: usize = 64;

/// What attention reads, for all T rows of the packed sequences.
pub struct Inputs<'a> {
    /// Widths.
    pub shape: MlaShape,
    /// Rotated queries [T, H, nope + rope].
    pub q: &'a [f32],
    /// Each head's key without position, then its value [T, H, nope + v].
    pub kv: &'a [f32],
    /// Rotated shared keys: the last `rope` of each row of [T, R + rope]; the latents before them are not read.
    pub latents: &'a [f32],
    /// Rows of each sequence; a row sees its own sequence up to itself.
    pub sequences: &'a [Range<usize>],
    /// Factor of every logit before the softmax.
    pub scale: f32,
}

/// One head's queries, keys and values of one sequence, side by side.
struct Head {
    q: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Inputs<'_> {
    fn head(&self, rows: &Range<usize>, h: usize) -> Head {
        let s = self.shape;
        let (width, kv_width) = (s.query(), s.key_value());
        let mut head = Head {
            q: Vec::with_capacity(rows.len() * width),
            keys: Vec::with_capacity(rows.len() * width),
            values: Vec::with_capacity(rows.len() * s.v),
        };
        for t in rows.clone() {
            let q = (t * s.n_heads + h) * width;
            head.q.extend_from_slice(&self.q[q..q + width]);
            let kv = &self.kv[(t * s.n_heads + h) * kv_width..][..kv_width];
            head.keys.extend_from_slice(&kv[..s.nope]);
            head.keys
                .extend_from_slice(&self.latents[t * s.latent_width() + s.rank..(t + 1) * s.latent_width()]);
            head.values.extend_from_slice(&kv[s.nope..]);
        }
        head
    }

    fn n_rows(&self) -> usize {
        self.q.len() / (self.shape.n_heads * self.shape.query())
    }
}

/// Attention of every row: fills `out` [T, H, v] and `stats` [H, T]; returns the largest logit of each head `[H]`,
/// after the scale, over the pairs that see each other.
pub fn forward(cpu: &Cpu, x: &Inputs<'_>, out: &mut [f32], stats: &mut [AttentionRow]) -> Vec<f32> {
    let (s, n_rows) = (x.shape, x.n_rows());
    let (out, stats_of) = (Shared::new(out), Shared::new(stats));
    cpu.pool().run(x.sequences.len() * s.n_heads, &|i| {
        let (rows, h) = (&x.sequences[i / s.n_heads], i % s.n_heads);
        let head = x.head(rows, h);
        let keys = panels(&head.keys, s.query(), LANES);
        let (mut scores, mut sums) = (Vec::new(), vec![0.0f32; QUERIES * s.v]);
        for first in (0..rows.len()).step_by(QUERIES) {
            let n = QUERIES.min(rows.len() - first);
            let n_keys = first + n;
            scores.resize(n * n_keys, 0.0);
            let q = &head.q[first * s.query()..n_keys * s.query()];
            dispatch!(cpu.isa(), scores(q, &keys, s.nope, s.query(), x.scale, &mut scores));
            let start = h * n_rows + rows.start + first;
            // SAFETY: these rows of this head belong to this task.
            let stats = unsafe { stats_of.part(start..start + n) };
            for (t, (row, stats)) in scores.chunks_exact_mut(n_keys).zip(stats).enumerate() {
                *stats = dispatch!(cpu.isa(), softmax_with_stats(&mut row[..first + t + 1]));
            }
            let sums = &mut sums[..n * s.v];
            dispatch!(cpu.isa(), causal_sums(&scores, n_keys, first, &head.values, s.v, sums));
            for (t, sums) in (rows.start + first..).zip(sums.chunks_exact(s.v)) {
                let at = (t * s.n_heads + h) * s.v;
                // SAFETY: head h of these rows belongs to this task.
                unsafe { out.part(at..at + s.v) }.copy_from_slice(sums);
            }
        }
    });
    let top = |stats: &[AttentionRow]| stats.iter().fold(f32::NEG_INFINITY, |m, row| m.max(row.max));
    stats.chunks_exact(n_rows.max(1)).map(top).collect()
}

/// Gradients of [`forward`]'s inputs, overwritten.
pub struct Grads<'a> {
    /// That of the queries [T, H, nope + rope].
    pub q: &'a mut [f32],
    /// That of keys and values [T, H, nope + v].
    pub kv: &'a mut [f32],
    /// [T, R + rope]: the shared keys' part is overwritten, that of the latents stays.
    pub latents: &'a mut [f32],
}

/// Derivative of [`forward`]: from its `out` [T, H, v], its `stats` [H, T] and the gradient `dout` [T, H, v].
pub fn backward(
    cpu: &Cpu,
    x: &Inputs<'_>,
    (out, stats): (&[f32], &[AttentionRow]),
    dout: &[f32],
    grads: Grads<'_>,
) {
    let (s, n_rows) = (x.shape, x.n_rows());
    // Rotated keys are shared by the heads: each head leaves its part, and they are summed in the order of the heads.
    let mut key_parts = vec![0.0f32; s.n_heads * n_rows * s.rope];
    {
        let parts = Shared::new(&mut key_parts);
        let (dq_of, dkv_of) = (Shared::new(grads.q), Shared::new(grads.kv));
        cpu.pool().run(x.sequences.len() * s.n_heads, &|i| {
            let (rows, h) = (&x.sequences[i / s.n_heads], i % s.n_heads);
            let back = HeadBack::run(cpu, x, (out, &stats[h * n_rows..(h + 1) * n_rows]), dout, rows, h);
            for (i, t) in rows.clone().enumerate() {
                let at = t * s.n_heads + h;
                let part = (h * n_rows + t) * s.rope;
                // SAFETY: head h of these rows belongs to this task.
                let (dq, dkv, part) = unsafe {
                    (
                        dq_of.part(at * s.query()..(at + 1) * s.query()),
                        dkv_of.part(at * s.key_value()..(at + 1) * s.key_value()),
                        parts.part(part..part + s.rope),
                    )
                };
                dq.copy_from_slice(&back.dq[i * s.query()..(i + 1) * s.query()]);
                let (nope, rope) = back.dkeys[i * s.query()..(i + 1) * s.query()].split_at(s.nope);
                dkv[..s.nope].copy_from_slice(nope);
                dkv[s.nope..].copy_from_slice(&back.dvalues[i * s.v..(i + 1) * s.v]);
                part.copy_from_slice(rope);
            }
        });
    }
    super::for_chunks(cpu, grads.latents, s.latent_width(), |t, row| {
        for (d, slot) in row[s.rank..].iter_mut().enumerate() {
            *slot = (0..s.n_heads).map(|h| key_parts[(h * n_rows + t) * s.rope + d]).sum();
        }
    });
}

/// One head's gradients over one sequence.
struct HeadBack {
    dq: Vec<f32>,
    dkeys: Vec<f32>,
    dvalues: Vec<f32>,
}

impl HeadBack {
    fn run(
        cpu: &Cpu,
        x: &Inputs<'_>,
        (out, stats): (&[f32], &[AttentionRow]),
        dout: &[f32],
        rows: &Range<usize>,
        h: usize,
    ) -> HeadBack {
        let s = x.shape;
        let head = x.head(rows, h);
        let n = rows.len();
        let (keys_t, values_t) = (panels(&head.keys, s.query(), n), panels(&head.values, s.v, n));
        let mut back = HeadBack {
            dq: vec![0.0; n * s.query()],
            dkeys: vec![0.0; n * s.query()],
            dvalues: vec![0.0; n * s.v],
        };
        let mut dsums = vec![0.0f32; QUERIES * s.v];
        let (mut p, mut dp) = (Vec::new(), Vec::new());
        for first in (0..n).step_by(QUERIES) {
            let (m, n_keys) = (QUERIES.min(n - first), n.min(first + QUERIES));
            let dsums = &mut dsums[..m * s.v];
            let mut deltas = [0.0f32; QUERIES];
            for (i, row) in dsums.chunks_exact_mut(s.v).enumerate() {
                let at = ((rows.start + first + i) * s.n_heads + h) * s.v;
                row.copy_from_slice(&dout[at..at + s.v]);
                deltas[i] = dispatch!(cpu.isa(), dot(row, &out[at..at + s.v]));
            }
            let q = &head.q[first * s.query()..(first + m) * s.query()];
            for (values, width, rows, rows_t) in
                [(&mut p, s.query(), q, &keys_t), (&mut dp, s.v, &*dsums, &values_t)]
            {
                values.clear();
                values.resize(m * n_keys, 0.0);
                let g = Product { m, n: n_keys, k: width, a_row: width, a_col: 1, b_row: n, c_row: n_keys };
                dispatch!(cpu.isa(), accumulate(&g, rows, rows_t, values));
            }
            for (i, (p, dp)) in p.chunks_exact_mut(n_keys).zip(dp.chunks_exact_mut(n_keys)).enumerate() {
                let (seen, stats) = (first + i + 1, stats[rows.start + first + i]);
                let (p_seen, dp_seen) = (&mut p[..seen], &mut dp[..seen]);
                dispatch!(cpu.isa(), softmax_back_row(p_seen, dp_seen, stats, x.scale, deltas[i]));
                p[seen..].fill(0.0);
                dp[seen..].fill(0.0);
            }
            back.take_in(cpu, s, first, (&p, &dp), (q, dsums), &head.keys);
        }
        back
    }

    /// Add a block of queries' part: `p` and `ds` [m, keys], `q` [m, width], `dsums` [m, v].
    fn take_in(
        &mut self,
        cpu: &Cpu,
        s: MlaShape,
        first: usize,
        (p, ds): (&[f32], &[f32]),
        (q, dsums): (&[f32], &[f32]),
        keys: &[f32],
    ) {
        let m = dsums.len() / s.v;
        let (n_keys, width) = (p.len() / m, s.query());
        let to_keys = |n: usize| Product { m: n_keys, n, k: m, a_row: 1, a_col: n_keys, b_row: n, c_row: n };
        dispatch!(cpu.isa(), accumulate(&to_keys(s.v), p, dsums, &mut self.dvalues));
        dispatch!(cpu.isa(), accumulate(&to_keys(width), ds, q, &mut self.dkeys));
        let g = Product { m, n: width, k: n_keys, a_row: n_keys, a_col: 1, b_row: width, c_row: width };
        dispatch!(cpu.isa(), accumulate(&g, ds, keys, &mut self.dq[first * width..(first + m) * width]));
    }
}

/// Rows of `x` [T, C] in panels of `side` rows side by side, [T / side, C, side], the last filled up with zeros.
fn panels(x: &[f32], width: usize, side: usize) -> Vec<f32> {
    let n = x.len() / width;
    let mut out = vec![0.0f32; n.div_ceil(side) * side * width];
    for (x, panel) in x.chunks(side * width).zip(out.chunks_exact_mut(side * width)) {
        // Sixteen rows at a time fill whole cache lines of the panel, whose rows may all fall into one cache set.
        for (i, rows) in x.chunks(LANES * width).enumerate() {
            for (c, out) in panel.chunks_exact_mut(side).enumerate() {
                let column = rows.iter().skip(c).step_by(width);
                out[i * LANES..].iter_mut().zip(column).for_each(|(out, x)| *out = *x);
            }
        }
    }
    out
}
