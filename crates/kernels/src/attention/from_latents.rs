//! Prefill over a cache of latents: keys and values expanded block by block, by integer products where both the cache and
//! kv_b hold rounded values.

use super::{Latents, MlaShape, Query, Running};
use crate::cpu::{Cpu, dispatch};
use crate::matmul::Rows;
use crate::matrix::Matrix;
use crate::quant::{QuantRows, dequantize_rows};
use crate::reference::{Product, stored_width};
use crate::shared::{Scratch, Shared};
use crate::{BLOCK_TOKENS, GROUP};

/// Rows whose scores with a block are taken at a time.
const ROWS: usize = 64;
/// Rows of a diagonal block that are summed together as far as all of them see.
const STRIP: usize = 8;

/// Attention that expands keys and values from latents, one block at a time for all rows of a head: the form for
/// prefill.
///
/// All T rows are of the one sequence whose latents these are. `kv_b` [H (nope + v), R], `out` [T, H, v]. Where `kv_b` takes
/// 8-bit rows ([`Matrix::is_integer`]) and latents are cached in BF16 or 8 bits, they enter as 8-bit rows, like the input of
/// any other product with it; latents in `f32` as they are.
///
/// # Panics
/// If a slice is shorter than the query's shape and positions ask.
pub fn from_latents(cpu: &Cpu, query: &Query<'_>, kv_b: &Matrix, latents: Latents<'_>, out: &mut [f32]) {
    let shape = query.shape;
    let out = Shared::new(out);
    let n_context = query.positions.iter().max().map_or(0, |p| p + 1);
    let in_8_bits = kv_b.is_integer() && !matches!(latents, Latents::F32(_));
    cpu.pool().run(shape.n_heads, &|h| {
        let mut scratch = Scratch::take();
        let mut head = Head::new(cpu, query, kv_b, in_8_bits, h, &mut scratch);
        for start in (0..n_context).step_by(BLOCK_TOKENS) {
            head.expand(cpu, kv_b, latents, start / BLOCK_TOKENS, BLOCK_TOKENS.min(n_context - start));
            head.attend(cpu, query, start);
        }
        for (t, (state, sums)) in head.states.iter().zip(head.sums.chunks_exact(shape.v)).enumerate() {
            let at = (t * shape.n_heads + h) * shape.v;
            // SAFETY: head h of every row belongs to this task.
            let out = unsafe { out.part(at..at + shape.v) };
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum / state.sum);
        }
    });
}

/// Bytes of the buffers that one task (a head) of [`from_latents`] takes for `n_rows` rows; at most one task a thread
/// runs at a time. What AMX packs beside them, up to 4 MB a thread for all products, is not counted.
pub fn from_latents_bytes(shape: &MlaShape, n_rows: usize) -> usize {
    size_of::<f32>() * (buffers(shape, n_rows, false).iter().sum::<usize>() + 2 * n_rows)
        + QuantRows::bytes(BLOCK_TOKENS, shape.rank)
}

/// Elements of the buffers of [`Head`], in its order.
fn buffers(shape: &MlaShape, n_rows: usize, in_8_bits: bool) -> [usize; 8] {
    let (weights, latents) = match in_8_bits {
        true => (0, 0),
        false => (shape.key_value() * shape.rank, BLOCK_TOKENS * shape.rank),
    };
    [
        n_rows * shape.query(),
        weights,
        BLOCK_TOKENS * shape.latent_width(),
        latents,
        BLOCK_TOKENS * shape.key_value().max(ROWS),
        BLOCK_TOKENS * shape.query(),
        BLOCK_TOKENS * shape.v,
        n_rows * shape.v,
    ]
}

/// One head's work in [`from_latents`].
struct Head<'s> {
    shape: MlaShape,
    head_idx: usize,
    /// This head's queries [T, nope + rope].
    queries: &'s mut [f32],
    /// This head's rows of kv_b [nope + v, R]; empty where latents enter in 8 bits.
    weights: &'s mut [f32],
    /// The current block's cached rows [64, R + rope].
    rows: &'s mut [f32],
    /// Their latents [64, R]; likewise.
    latents: &'s mut [f32],
    /// Their products with the weights [64, nope + v], or with a band of them; then scores [rows, 64].
    products: &'s mut [f32],
    /// Keys of the current block [64, nope + rope].
    keys: &'s mut [f32],
    /// Values of the current block [64, v].
    values: &'s mut [f32],
    /// Weighted values of every row [T, v].
    sums: &'s mut [f32],
    states: Vec<Running>,
    /// The current block's latents, where they enter in 8 bits.
    quantized: Option<QuantRows>,
}

impl<'s> Head<'s> {
    fn new(
        cpu: &Cpu,
        query: &Query<'_>,
        kv_b: &Matrix,
        in_8_bits: bool,
        h: usize,
        scratch: &'s mut Scratch,
    ) -> Self {
        let (shape, n) = (query.shape, query.positions.len());
        let sizes = buffers(&shape, n, in_8_bits);
        let mut free = scratch.first(sizes.iter().sum());
        let [queries, weights, rows, latents, products, keys, values, sums] = sizes.map(|size| {
            let (part, rest) = std::mem::take(&mut free).split_at_mut(size);
            free = rest;
            part
        });
        for (t, row) in queries.chunks_exact_mut(shape.query()).enumerate() {
            let (nope, rope) = query.head(t, h);
            row[..shape.nope].copy_from_slice(nope);
            row[shape.nope..].copy_from_slice(rope);
        }
        if !in_8_bits {
            let n_rows = shape.key_value();
            dequantize_rows(cpu.isa(), kv_b, h * n_rows..(h + 1) * n_rows, weights);
        }
        sums.fill(0.0);
        let states = vec![Running::EMPTY; n];
        let (head_idx, quantized) = (h, in_8_bits.then(QuantRows::default));
        Head {
            shape,
            head_idx,
            queries,
            weights,
            rows,
            latents,
            products,
            keys,
            values,
            sums,
            states,
            quantized,
        }
    }

    /// Keys and values of the first `n_tokens` of a block.
    fn expand(&mut self, cpu: &Cpu, kv_b: &Matrix, latents: Latents<'_>, block_idx: usize, n_tokens: usize) {
        let (shape, width) = (self.shape, self.shape.latent_width());
        let cached = latents.rows(cpu, block_idx, n_tokens, width, self.rows);
        let (query, of_head) = (shape.query(), shape.key_value());
        if let Some(quantized) = &mut self.quantized {
            match latents {
                Latents::Int8 { codes, scales } => {
                    let codes = codes[block_idx].chunks_exact(stored_width(width));
                    let scales = scales[block_idx].chunks_exact(width.div_ceil(GROUP));
                    quantized.take_encoded(codes.zip(scales).take(n_tokens), shape.rank);
                }
                _ => quantized.fill_here(cpu.isa(), cached, width, shape.rank),
            }
            let x = Rows::Q8(quantized).gather(0..n_tokens);
            let block = x.block(cpu, 0..n_tokens, kv_b);
            let (first, last) = (self.head_idx * of_head, (self.head_idx + 1) * of_head);
            let values_from = first + shape.nope;
            let parts = [
                (first..values_from, &mut *self.keys, query),
                (values_from..last, &mut *self.values, shape.v),
            ];
            for (part, out, stride) in parts {
                for rows in block.bands(part.clone()) {
                    let products = &mut self.products[..n_tokens * rows.len()];
                    block.products(cpu, kv_b, rows.clone(), products);
                    let at = rows.start - part.start;
                    for (out, products) in out.chunks_exact_mut(stride).zip(products.chunks_exact(rows.len()))
                    {
                        out[at..at + rows.len()].copy_from_slice(products);
                    }
                }
            }
        } else {
            for (row, latent) in cached.chunks_exact(width).zip(self.latents.chunks_exact_mut(shape.rank)) {
                latent.copy_from_slice(&row[..shape.rank]);
            }
            let latents = &self.latents[..n_tokens * shape.rank];
            let products = &mut self.products[..n_tokens * of_head];
            dispatch!(cpu.isa(), products(latents, self.weights, shape.rank, products));
            for (j, row) in products.chunks_exact(of_head).enumerate() {
                self.keys[j * query..][..shape.nope].copy_from_slice(&row[..shape.nope]);
                self.values[j * shape.v..(j + 1) * shape.v].copy_from_slice(&row[shape.nope..]);
            }
        }
        for (key, row) in self.keys.chunks_exact_mut(query).zip(cached.chunks_exact(width)) {
            key[shape.nope..].copy_from_slice(&row[shape.rank..]);
        }
    }

    /// Take the block from position `start` on into the sums of every row that sees some of it.
    fn attend(&mut self, cpu: &Cpu, query: &Query<'_>, start: usize) {
        let positions = query.positions;
        let mut t = 0;
        while t < positions.len() {
            let n = positions[t..].iter().take(ROWS).take_while(|p| **p >= start).count();
            if n > 0 {
                let seen = |p: &usize| (p + 1 - start).min(BLOCK_TOKENS);
                self.attend_rows(cpu, query.scale, t, positions[t..t + n].iter().map(seen));
            }
            t += n.max(1);
        }
    }

    /// The rows from `first` on with the block's first tokens, as many as `seen` says for each.
    fn attend_rows(
        &mut self,
        cpu: &Cpu,
        scale: f32,
        first: usize,
        seen: impl ExactSizeIterator<Item = usize> + Clone,
    ) {
        let (width, v, n) = (self.shape.query(), self.shape.v, seen.len());
        let n_keys = seen.clone().max().unwrap_or(0);
        let queries = &self.queries[first * width..(first + n) * width];
        let scores = &mut self.products[..n * n_keys];
        dispatch!(cpu.isa(), products(queries, &self.keys[..n_keys * width], width, scores));
        let sums = &mut self.sums[first * v..(first + n) * v];
        for (i, (scores, n_seen)) in scores.chunks_exact_mut(n_keys).zip(seen.clone()).enumerate() {
            let scores = &mut scores[..n_seen];
            scores.iter_mut().for_each(|score| *score *= scale);
            let state = &mut self.states[first + i];
            let factor = state.rescale(dispatch!(cpu.isa(), max_row(scores)));
            state.sum += dispatch!(cpu.isa(), exp_row(scores, state.max));
            if factor != 1.0 {
                sums[i * v..(i + 1) * v].iter_mut().for_each(|sum| *sum *= factor);
            }
        }
        // Rows that see all go together; of others a strip at a time, as far as its first row sees, then each by itself:
        // what a row does not see must not touch it, were it infinite.
        let strip = if seen.clone().min() == Some(n_keys) { n } else { STRIP };
        let seen: Vec<usize> = seen.collect();
        for ((seen, scores), sums) in
            seen.chunks(strip).zip(scores.chunks(strip * n_keys)).zip(sums.chunks_mut(strip * v))
        {
            let k = seen.iter().copied().min().unwrap_or(0);
            let g = Product { m: seen.len(), n: v, k, a_row: n_keys, a_col: 1, b_row: v, c_row: v };
            let shared = &scores[..(seen.len() - 1) * n_keys + k];
            dispatch!(cpu.isa(), accumulate(&g, shared, &self.values[..k * v], sums));
            for ((n_seen, scores), sums) in seen.iter().zip(scores.chunks(n_keys)).zip(sums.chunks_mut(v)) {
                let rest = &scores[k..*n_seen];
                dispatch!(cpu.isa(), weighted_sum(rest, &self.values[k * v..n_seen * v], v, sums));
            }
        }
    }
}
