//! The plain scalar form of every operation: the definition that all other versions must equal bit for bit.
//! Derivatives (`..._back_row`) are the exception: other versions may sum them in another order.

use crate::quant::QuantRow;
use crate::{GROUP, LANES, QUAD};
use half::bf16;

/// Constants of [`exp`]: Cephes' `expf` (S. L. Moshier), argument range cut to normal results.
pub mod exp_constants {
    /// Below this the result would be subnormal; it is computed as `exp(MIN)`, about 1.2e-38.
    pub const MIN: f32 = -87.336_54;
    /// Above this the scale factor 2^n would leave the `f32` range.
    pub const MAX: f32 = 88.02;
    /// log2(e).
    pub const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// -ln 2, high part: few enough bits that its product with n is exact.
    pub const NEG_LN2_HI: f32 = -0.693_359_4;
    /// -ln 2, the rest.
    pub const NEG_LN2_LO: f32 = 2.121_944_4e-4;
    /// Polynomial of (e^r - 1 - r) / r^2, highest power first.
    pub const POLY: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5.000_000_3e-1];
}

/// e^x within 2 units in the last place for x in -87.3..88.0; NaN stays NaN.
pub fn exp(x: f32) -> f32 {
    use exp_constants as c;
    let x = if c::MIN > x { c::MIN } else { x };
    let x = if c::MAX < x { c::MAX } else { x };
    let n = (x * c::LOG2_E).round_ties_even();
    let r = n.mul_add(c::NEG_LN2_HI, x);
    let r = n.mul_add(c::NEG_LN2_LO, r);
    let p = c::POLY[1..].iter().fold(c::POLY[0], |p, &coefficient| p.mul_add(r, coefficient));
    let y = p.mul_add(r * r, r) + 1.0;
    y * f32::from_bits(((n as i32 + 127) as u32) << 23)
}

/// 1 / (1 + e^-x).
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(0.0 - x))
}

/// Sum of 16 lanes, folded by halves: 16, 8, 4, 2, 1.
pub fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Inner product of `x` `[K]` and `w` `[K]` in [`LANES`] partial sums of fused multiply-adds.
pub fn dot(x: &[f32], w: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (k, (a, b)) in x.iter().zip(w).enumerate() {
        lanes[k % LANES] = a.mul_add(*b, lanes[k % LANES]);
    }
    fold(lanes)
}

/// As [`dot`] with BF16 weights `w` `[K]`, widened without rounding.
pub fn dot_bf16(x: &[f32], w: &[bf16]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (k, (a, b)) in x.iter().zip(w).enumerate() {
        lanes[k % LANES] = a.mul_add(b.to_f32(), lanes[k % LANES]);
    }
    fold(lanes)
}

/// Codes that a row of `n_cols` columns is stored as: whole quads of [`QUAD`], zeros past the columns.
pub const fn stored_width(n_cols: usize) -> usize {
    n_cols.div_ceil(QUAD) * QUAD
}

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Codes from one row of 8-bit weights to the next: where sixteen rows side by side would share a few sets of a cache, a line
/// of zeros stands between them.
pub const fn weight_stride(n_cols: usize) -> usize {
    /// Lines of a row at whose multiples rows crowd each other out.
    const N_CROWDED: usize = 16;
    let width = stored_width(n_cols);
    if width.is_multiple_of(LINE * N_CROWDED) { width + LINE } else { width }
}

/// Where the code of column `k` stands in a stored row: in each quad of four groups the even columns of each group
/// come first, then the odd ones, the order in which the nibbles of packed INT4 words come apart.
pub const fn stored_position(k: usize) -> usize {
    let (quad, group, column) = (k / QUAD, k % QUAD / GROUP, k % GROUP);
    quad * QUAD + (column % 2) * (QUAD / 2) + group * (GROUP / 2) + column / 2
}

/// Inner product of one row of 8-bit activations and one row of 8-bit weights, both in stored order.
///
/// `x`, `w`: [stored K] codes; `x_scales`, `w_scales`: `[G]`. The products of a group are summed as integers,
/// exactly; the sum of group g, times the product of its two scales, goes to lane g % [`LANES`].
pub fn dot_q8(x: &[i8], x_scales: &[f32], w: &[i8], w_scales: &[bf16]) -> f32 {
    let code = |k: usize| i32::from(w[stored_position(k)]);
    dot_groups(x, x_scales, w_scales.len(), code, |group| w_scales[group].to_f32())
}

/// As [`dot_q8`] with packed INT4 weights: `w` [K/2] bytes, low nibble the lower column, value `nibble - 8`
/// (compressed-tensors `pack-quantized`); `w_scales` `[G]`.
pub fn dot_q4(x: &[i8], x_scales: &[f32], w: &[u8], w_scales: &[bf16]) -> f32 {
    let code = |k: usize| i32::from(if k.is_multiple_of(2) { w[k / 2] & 15 } else { w[k / 2] >> 4 }) - 8;
    dot_groups(x, x_scales, w_scales.len(), code, |group| w_scales[group].to_f32())
}

/// [`dot`] of each of the T rows `x` `[K]` with each row of `w` [N, K]; `out` [T, N].
pub fn band_f32(x: &[&[f32]], w: &[f32], out: &mut [f32]) {
    each_pair(x, w, out, dot);
}

/// [`dot_bf16`] of each of the T rows `x` `[K]` with each row of `w` [N, K]; `out` [T, N].
pub fn band_bf16(x: &[&[f32]], w: &[bf16], out: &mut [f32]) {
    each_pair(x, w, out, dot_bf16);
}

fn each_pair<W>(x: &[&[f32]], w: &[W], out: &mut [f32], dot: impl Fn(&[f32], &[W]) -> f32) {
    let n_rows = out.len() / x.len().max(1);
    for (x, out) in x.iter().zip(out.chunks_exact_mut(n_rows.max(1))) {
        w.chunks_exact(x.len()).zip(out).for_each(|(w, out)| *out = dot(x, w));
    }
}

/// [`dot_q8`] of each of the T rows `x` with each of N = `n_rows` rows of weights (at most [`TILE_ROWS`]): `w` [N,
/// [`weight_stride`] of K], `w_scales` [N, G], `out` [T, N].
pub fn band_q8(x: &[QuantRow<'_>], w: &[i8], w_scales: &[bf16], n_rows: usize, out: &mut [f32]) {
    let (stride, n_groups) = (w.len() / n_rows, w_scales.len() / n_rows);
    for (x, out) in x.iter().zip(out.chunks_exact_mut(n_rows)) {
        for (row, out) in out.iter_mut().enumerate() {
            let (w, scales) = (&w[row * stride..][..stride], &w_scales[row * n_groups..][..n_groups]);
            *out = dot_q8(x.codes, x.scales, w, scales);
        }
    }
}

/// [`dot_q4`] of each of the T rows `x` with each of N = `n_rows` rows of weights (at most [`TILE_ROWS`]): `w` [N,
/// K/2], `w_scales` [N, G], `out` [T, N].
pub fn band_q4(x: &[QuantRow<'_>], w: &[u8], w_scales: &[bf16], n_rows: usize, out: &mut [f32]) {
    let (width, n_groups) = (w.len() / n_rows, w_scales.len() / n_rows);
    for (x, out) in x.iter().zip(out.chunks_exact_mut(n_rows)) {
        for (row, out) in out.iter_mut().enumerate() {
            let (w, scales) = (&w[row * width..][..width], &w_scales[row * n_groups..][..n_groups]);
            *out = dot_q4(x.codes, x.scales, w, scales);
        }
    }
}

/// BF16 as `f32`, without rounding; both of one length.
pub fn widen_bf16(x: &[bf16], out: &mut [f32]) {
    x.iter().zip(out).for_each(|(x, out)| *out = x.to_f32());
}

/// `out[c] += sum over j of p[j] * rows[j * stride + c]`, one fused multiply-add each, `j` ascending: `p` `[J]`,
/// `rows` J rows `stride` elements apart, `out` at most `stride` long.
pub fn weighted_sum(p: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
    for (c, out) in out.iter_mut().enumerate() {
        *out = p.iter().enumerate().fold(*out, |acc, (j, p)| p.mul_add(rows[j * stride + c], acc));
    }
}

fn dot_groups(
    x: &[i8],
    x_scales: &[f32],
    n_groups: usize,
    code: impl Fn(usize) -> i32,
    scale: impl Fn(usize) -> f32,
) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for group in 0..n_groups {
        let columns = group * GROUP..(group + 1) * GROUP;
        let sum: i32 = columns.map(|k| i32::from(x[stored_position(k)]) * code(k)).sum();
        let lane = &mut lanes[group % LANES];
        *lane = (sum as f32).mul_add(scale(group) * x_scales[group], *lane);
    }
    fold(lanes)
}

/// Rows of weights in a tile of [`tile_q4`] and [`tile_q8`], and at most in a band.
pub const TILE_ROWS: usize = 16;

/// As [`band_q4`] with N = [`TILE_ROWS`], for many rows of x.
pub fn tile_q4(x: &[QuantRow<'_>], w: &[u8], w_scales: &[bf16], out: &mut [f32]) {
    band_q4(x, w, w_scales, TILE_ROWS, out);
}

/// As [`band_q8`] with N = [`TILE_ROWS`], for many rows of x.
pub fn tile_q8(x: &[QuantRow<'_>], w: &[i8], w_scales: &[bf16], out: &mut [f32]) {
    band_q8(x, w, w_scales, TILE_ROWS, out);
}

/// Quantise one row `x` `[K]` to 8 bits a value, scale max|x|/127 per group of 32.
///
/// Writes `codes` [stored K] (columns past K stay as they are), `scales` `[G]` and `corrections` `[G]`: -8 times the
/// sum of a group's codes, what turns a product with raw nibbles into one with `nibble - 8`.
pub fn quantize_row(x: &[f32], codes: &mut [i8], scales: &mut [f32], corrections: &mut [i32]) {
    for (group, values) in x.chunks_exact(GROUP).enumerate() {
        // As integers NaN is above infinity, so a NaN in the group makes the scale NaN and nothing hides it.
        let amax = f32::from_bits(values.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0));
        let (scale, inverse) = group_scale(amax);
        scales[group] = scale;
        let mut sum = 0;
        for (column, value) in values.iter().enumerate() {
            let code = (value * inverse).round_ties_even() as i8;
            codes[stored_position(group * GROUP + column)] = code;
            sum += i32::from(code);
        }
        corrections[group] = -8 * sum;
    }
}

/// A group whose largest magnitude is below this is stored as zeros: 127 over it might not be finite.
pub const GROUP_MAX_TINY: f32 = 1e-36;

/// Scale `amax / 127` of a group of 8-bit codes with largest magnitude `amax`, and its inverse; NaN and infinity give
/// a scale that no product hides.
#[inline(always)]
pub fn group_scale(amax: f32) -> (f32, f32) {
    let inverse = if amax >= GROUP_MAX_TINY { 127.0 / amax } else { 0.0 };
    (if amax < GROUP_MAX_TINY { 0.0 } else { amax / 127.0 }, inverse)
}

/// Encode one row `w` `[K]` of weights: `codes` [stored K] in stored order (columns past K stay as they are),
/// `scales` `[G]` that are [`weight_scale`] of each group.
pub fn encode_row(w: &[f32], codes: &mut [i8], scales: &mut [bf16]) {
    for (group, values) in w.chunks_exact(GROUP).enumerate() {
        let amax = f32::from_bits(values.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap_or(0));
        let (scale, inverse) = weight_scale(amax);
        scales[group] = scale;
        for (column, value) in values.iter().enumerate() {
            codes[stored_position(group * GROUP + column)] = (value * inverse).round_ties_even() as i8;
        }
    }
}

/// BF16 scale of a group of 8-bit weights with largest magnitude `amax`, and its inverse: [`group_scale`], rounded up
/// to BF16, so that no code leaves -127..=127.
#[inline(always)]
pub fn weight_scale(amax: f32) -> (bf16, f32) {
    let (scale, _) = group_scale(amax);
    if scale.is_nan() {
        return (bf16::NAN, f32::NAN);
    }
    let rounded = bf16::from_bits((scale.to_bits().wrapping_add(0xffff) >> 16) as u16);
    (rounded, if scale == 0.0 { 0.0 } else { 1.0 / rounded.to_f32() })
}

/// One row of packed INT4 as `f32`: `out[k] = (nibble - 8) * scale`, without rounding. `w` [K/2] bytes, `scales`
/// `[G]`, `out` `[K]`.
pub fn dequantize_q4_row(w: &[u8], scales: &[bf16], out: &mut [f32]) {
    for (k, slot) in out.iter_mut().enumerate() {
        let byte = w[k / 2];
        let nibble = if k.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
        *slot = (f32::from(nibble) - 8.0) * scales[k / GROUP].to_f32();
    }
}

/// One row of 8-bit weights in stored order as `f32`, code times scale without rounding: `w` [stored K], `scales`
/// `[G]`, `out` `[K]`.
pub fn dequantize_q8_row(w: &[i8], scales: &[bf16], out: &mut [f32]) {
    for (k, slot) in out.iter_mut().enumerate() {
        *slot = f32::from(w[stored_position(k)]) * scales[k / GROUP].to_f32();
    }
}

/// `y[i] = fma(a, x[i], y[i])` for every element of the shorter.
pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    for (x, y) in x.iter().zip(y) {
        *y = a.mul_add(*x, *y);
    }
}

/// Factor of a row of `n` elements in RMSNorm from its sum of squares; NaN where the sum overflowed, or a row of
/// zeros would hide it.
#[inline(always)]
pub fn rms_scale(sum_of_squares: f32, n: usize, eps: f32) -> f32 {
    if sum_of_squares == f32::INFINITY {
        return f32::NAN;
    }
    1.0 / (sum_of_squares / n as f32 + eps).sqrt()
}

/// RMSNorm of one row: `x * (1 / sqrt(mean(x^2) + eps)) * weight` (Zhang and Sennrich 2019), all `[C]`.
pub fn rms_norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = rms_scale(dot(x, x), x.len(), eps);
    for ((x, w), out) in x.iter().zip(weight).zip(out) {
        *out = x * scale * w;
    }
}

/// `gate * sigmoid(gate) * up`, element by element, into `gate`; both of one length.
pub fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = *g * sigmoid(*g) * u;
    }
}

/// `x[k] = e^(x[k] - max)` in place; returns their sum, in [`LANES`] partial sums folded by halves.
pub fn exp_row(x: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (k, value) in x.iter_mut().enumerate() {
        *value = exp(*value - max);
        lanes[k % LANES] += *value;
    }
    fold(lanes)
}

/// The largest value of a row (minus infinity for none). A NaN may be passed over: [`exp_row`] brings it back.
pub fn max_row(x: &[f32]) -> f32 {
    x.iter().fold(f32::NEG_INFINITY, |m, &v| if m > v { m } else { v })
}

/// Softmax of one row in place; returns the row's maximum.
pub fn softmax_row(x: &mut [f32]) -> f32 {
    let max = max_row(x);
    let inverse = 1.0 / exp_row(x, max);
    x.iter_mut().for_each(|value| *value *= inverse);
    max
}

/// `out[t, n] = dot(x[t], w[n])`: `x` [T, K], `w` [N, K], `out` [T, N], K = `k`.
pub fn products(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    let n_w = w.len() / k;
    for (x, out) in x.chunks_exact(k).zip(out.chunks_exact_mut(n_w)) {
        w.chunks_exact(k).zip(out).for_each(|(w, out)| *out = dot(x, w));
    }
}

/// Attention logits of queries [T, D] against J keys, D = `width`, with the rotated part from column `nope` on:
/// `out[t, j] = (dot(nope parts) + dot(rotated parts)) * scale`, `out` [T, J]. Keys stand in panels of 16 side by side,
/// [keys / 16, D, 16], the last one filled up; there may be more than J.
pub fn scores(q: &[f32], panels: &[f32], nope: usize, width: usize, scale: f32, out: &mut [f32]) {
    let n_keys = out.len() / (q.len() / width).max(1);
    for j in 0..n_keys {
        let panel = &panels[j / LANES * LANES * width..][..LANES * width];
        let key: Vec<f32> = panel.iter().skip(j % LANES).step_by(LANES).copied().collect();
        for (q, out) in q.chunks_exact(width).zip(out.chunks_exact_mut(n_keys)) {
            out[j] = (dot(&q[..nope], &key[..nope]) + dot(&q[nope..], &key[nope..])) * scale;
        }
    }
}

/// Sizes and strides of [`accumulate`]: A [m, k], B [k, n], C [m, n], all in elements.
#[derive(Clone, Copy, Debug)]
pub struct Product {
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Elements from a row of A to the next.
    pub a_row: usize,
    /// Elements from a column of A to the next.
    pub a_col: usize,
    /// Elements from a row of B to the next.
    pub b_row: usize,
    /// Elements from a row of C to the next.
    pub c_row: usize,
}

impl Product {
    /// Whether there is nothing to add.
    pub(crate) fn is_empty(&self) -> bool {
        self.m == 0 || self.n == 0 || self.k == 0
    }

    /// Panic unless all elements are inside the three slices.
    pub(crate) fn check(&self, a: &[f32], b: &[f32], c: &[f32]) {
        if self.is_empty() {
            return;
        }
        assert!((self.m - 1) * self.a_row + (self.k - 1) * self.a_col < a.len(), "A is inside its slice");
        assert!((self.k - 1) * self.b_row + self.n <= b.len(), "B is inside its slice");
        assert!((self.m - 1) * self.c_row + self.n <= c.len(), "C is inside its slice");
    }
}

/// `c[i, j] += sum over p, ascending, of a[i, p] * b[p, j]`, one fused multiply-add each.
///
/// # Panics
/// If an element lies outside its slice.
pub fn accumulate(g: &Product, a: &[f32], b: &[f32], c: &mut [f32]) {
    g.check(a, b, c);
    for i in 0..g.m {
        for p in 0..g.k {
            let a = a[i * g.a_row + p * g.a_col];
            axpy(a, &b[p * g.b_row..][..g.n], &mut c[i * g.c_row..][..g.n]);
        }
    }
}

/// Row t of `out` [T, D] is the sum of the first `first + t + 1` rows of `values` [J, D], D = `width`, weighted by
/// row t of `p`, whose rows are `p_row` elements apart.
pub fn causal_sums(p: &[f32], p_row: usize, first: usize, values: &[f32], width: usize, out: &mut [f32]) {
    for (t, out) in out.chunks_exact_mut(width).enumerate() {
        out.fill(0.0);
        weighted_sum(&p[t * p_row..][..first + t + 1], values, width, out);
    }
}

/// What is kept of a row of attention for its derivative (Dao et al. 2022).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AttentionRow {
    /// Largest logit, after the scale.
    pub max: f32,
    /// One over the sum of `e^(logit - max)`.
    pub inverse: f32,
}

/// [`softmax_row`] that tells the sum's inverse too.
pub fn softmax_with_stats(x: &mut [f32]) -> AttentionRow {
    let max = max_row(x);
    let inverse = 1.0 / exp_row(x, max);
    x.iter_mut().for_each(|value| *value *= inverse);
    AttentionRow { max, inverse }
}

/// Derivative of a softmax row, all `[J]`: from inner products `s` (before `scale`) and the probabilities' gradient
/// `dp`, `s` becomes the probabilities and `dp` the gradient of `s`. `delta` is the inner product of probabilities
/// and `dp`.
pub fn softmax_back_row(s: &mut [f32], dp: &mut [f32], row: AttentionRow, scale: f32, delta: f32) {
    for (s, dp) in s.iter_mut().zip(dp) {
        let p = exp(*s * scale - row.max) * row.inverse;
        (*s, *dp) = (p, (*dp - delta) * p * scale);
    }
}

/// Derivative of [`silu_mul`]: `gate` and `up` become their gradients, from that of the product, `dh`; all of one
/// length.
pub fn silu_mul_back(gate: &mut [f32], up: &mut [f32], dh: &[f32]) {
    for ((gate, up), d) in gate.iter_mut().zip(up).zip(dh) {
        let (g, u, s) = (*gate, *up, sigmoid(*gate));
        (*gate, *up) = (d * u * ((g * (1.0 - s) + 1.0) * s), d * g * s);
    }
}

/// [`sigmoid`] of every element, in place.
pub fn sigmoids(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = sigmoid(*x));
}

/// [`silu_mul`] into `out`, keeping its inputs; all of one length.
pub fn silu_mul_into(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((g, u), out) in gate.iter().zip(up).zip(out) {
        *out = *g * sigmoid(*g) * u;
    }
}

/// Derivative of [`rms_norm_row`], all `[C]`: adds to `dx` and `dweight` from the output's gradient `dy`. Other
/// versions may sum in another order.
pub fn rms_norm_back_row(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let scale = rms_scale(dot(x, x), x.len(), eps);
    let along: f32 = (0..x.len()).map(|i| dy[i] * weight[i] * x[i]).sum();
    let pull = along * scale * scale * scale / x.len() as f32;
    for i in 0..x.len() {
        dx[i] += dy[i] * weight[i] * scale - x[i] * pull;
        dweight[i] += dy[i] * x[i] * scale;
    }
}

/// `rounds` multiply-adds of 16 lanes by `factor`, on 12 running values in turn; their sum, so that none is left out.
pub fn multiply_adds(factor: f32, rounds: usize) -> f32 {
    let mut values = [[1.0f32; LANES]; 12];
    for _ in 0..rounds / 12 {
        values.iter_mut().flatten().for_each(|v| *v = v.mul_add(factor, 1e-9));
    }
    values.iter().map(|lanes| fold(*lanes)).sum()
}

/// `rounds` of multiplying the bytes of 12 running values by a constant and adding the products by fours to 32-bit
/// sums; returns the number of products made.
pub fn integer_multiply_adds(rounds: usize) -> usize {
    let mut values = [[1i32; 8]; 12];
    for _ in 0..rounds {
        for value in values.iter_mut().flatten() {
            let sum: i32 = value.to_ne_bytes().iter().map(|byte| i32::from(*byte) * 3).sum();
            *value = value.wrapping_add(sum);
        }
    }
    std::hint::black_box(values);
    rounds * size_of_val(&values)
}
