//! The `f32` operations once more, over [`Lanes`]: same order of operations as [`crate::reference`], several
//! rows at a time where that saves loads.
//!
//! Every function here is unsafe for one reason: it may run only where the processor has the features of `L`.

use crate::lanes::Lanes;
use crate::reference::{group_scale, rms_scale, stored_position, weight_scale};
pub(crate) use crate::tiles::*;
use crate::{GROUP, LANES, QUAD};
use half::bf16;

/// Bytes ahead of the weights being read that are asked for.
const AHEAD: usize = 1_024;

/// Rows of weights to be multiplied, one after the other: how to read 16 of their elements.
trait Row: Copy {
    unsafe fn lanes<L: Lanes>(self, at: usize) -> L;
    unsafe fn lanes_part<L: Lanes>(self, at: usize, n: usize) -> L;
    /// Ask for what stands [`AHEAD`] of element `at`.
    unsafe fn prefetch<L: Lanes>(self, at: usize);
    fn len(self) -> usize;
}

impl Row for &[f32] {
    #[inline(always)]
    unsafe fn lanes<L: Lanes>(self, at: usize) -> L {
        // SAFETY: `at + 16 <= len` by the caller.
        unsafe { L::load(self.as_ptr().add(at)) }
    }
    #[inline(always)]
    unsafe fn lanes_part<L: Lanes>(self, at: usize, n: usize) -> L {
        // SAFETY: `at + n <= len` by the caller.
        unsafe { L::load_part(self.as_ptr().add(at), n) }
    }
    #[inline(always)]
    unsafe fn prefetch<L: Lanes>(self, at: usize) {
        // SAFETY: features are the caller's contract.
        unsafe { L::prefetch(self.as_ptr().wrapping_add(at).cast::<u8>().wrapping_add(AHEAD)) }
    }
    #[inline(always)]
    fn len(self) -> usize {
        <[f32]>::len(self)
    }
}

impl Row for &[bf16] {
    #[inline(always)]
    unsafe fn lanes<L: Lanes>(self, at: usize) -> L {
        // SAFETY: `at + 16 <= len` by the caller; bf16 is its bits.
        unsafe { L::load_bf16(self.as_ptr().add(at).cast()) }
    }
    #[inline(always)]
    unsafe fn lanes_part<L: Lanes>(self, at: usize, n: usize) -> L {
        // SAFETY: `at + n <= len` by the caller; bf16 is its bits.
        unsafe { L::load_part_bf16(self.as_ptr().add(at).cast(), n) }
    }
    #[inline(always)]
    unsafe fn prefetch<L: Lanes>(self, at: usize) {
        // SAFETY: features are the caller's contract.
        unsafe { L::prefetch(self.as_ptr().wrapping_add(at).cast::<u8>().wrapping_add(AHEAD)) }
    }
    #[inline(always)]
    fn len(self) -> usize {
        <[bf16]>::len(self)
    }
}

/// Run a block for each run of up to 16 elements, `$at` the first and `$n` their number. (A closure would not have the
/// features of the function around it, and the compiler may leave it out of line.)
macro_rules! for_each_run {
    ($len:expr, |$at:ident, $n:ident| $block:block) => {
        let len: usize = $len;
        let mut $at = 0;
        while $at < len {
            let $n = LANES.min(len - $at);
            $block
            $at += LANES;
        }
    };
}
pub(crate) use for_each_run;

/// `X` rows of x with rows `first..first + W` of weights, each pair's lanes in a register of its own: few chains of
/// additions would wait for themselves.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn block_of_dots<L: Lanes, R: Row, const X: usize, const W: usize>(
    x: &[&[f32]],
    w: R,
    first: usize,
    n_rows: usize,
    out: &mut [f32],
) {
    let k = x[0].len();
    assert!(x.len() == X && x.iter().all(|x| x.len() == k) && (first + W) * k <= w.len());
    assert!(out.len() == X * n_rows && first + W <= n_rows);
    let x: [*const f32; X] = std::array::from_fn(|t| x[t].as_ptr());
    // SAFETY: all reads below `k` elements of rows that have `k`.
    unsafe {
        let mut sums = [[L::splat(0.0); X]; W];
        let whole = k / LANES * LANES;
        let mut at = 0;
        while at < whole {
            let mut rows = [L::splat(0.0); X];
            for t in 0..X {
                rows[t] = L::load(x[t].add(at));
            }
            for n in 0..W {
                w.prefetch::<L>((first + n) * k + at);
                let w = w.lanes::<L>((first + n) * k + at);
                for t in 0..X {
                    sums[n][t] = rows[t].fma(w, sums[n][t]);
                }
            }
            at += LANES;
        }
        if whole < k {
            for n in 0..W {
                let w = w.lanes_part::<L>((first + n) * k + whole, k - whole);
                for t in 0..X {
                    sums[n][t] = L::load_part(x[t].add(whole), k - whole).fma(w, sums[n][t]);
                }
            }
        }
        for n in 0..W {
            for t in 0..X {
                out[t * n_rows + first + n] = sums[n][t].fold_add();
            }
        }
    }
}

/// `X` rows of x with all rows of weights.
#[inline(always)]
unsafe fn rows_of_dots<L: Lanes, R: Row, const X: usize, const W: usize>(
    x: &[&[f32]],
    w: R,
    n_rows: usize,
    out: &mut [f32],
) {
    let mut first = 0;
    // SAFETY: features are the caller's contract.
    unsafe {
        while first + W <= n_rows {
            block_of_dots::<L, R, X, W>(x, w, first, n_rows, out);
            first += W;
        }
        while first < n_rows {
            block_of_dots::<L, R, X, 1>(x, w, first, n_rows, out);
            first += 1;
        }
    }
}

#[inline(always)]
unsafe fn band<L: Lanes, R: Row>(x: &[&[f32]], w: R, out: &mut [f32]) {
    let n_rows = out.len() / x.len().max(1);
    let mut t = 0;
    // SAFETY: features are the caller's contract.
    unsafe {
        while L::IS_WIDE && t + 4 <= x.len() {
            rows_of_dots::<L, R, 4, 4>(&x[t..t + 4], w, n_rows, &mut out[t * n_rows..(t + 4) * n_rows]);
            t += 4;
        }
        while t + 2 <= x.len() {
            rows_of_dots::<L, R, 2, 2>(&x[t..t + 2], w, n_rows, &mut out[t * n_rows..(t + 2) * n_rows]);
            t += 2;
        }
        if t < x.len() {
            rows_of_dots::<L, R, 1, 4>(&x[t..], w, n_rows, &mut out[t * n_rows..]);
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn dot<L: Lanes>(x: &[f32], w: &[f32]) -> f32 {
    let mut out = [0.0];
    // SAFETY: features are the caller's contract.
    unsafe { block_of_dots::<L, &[f32], 1, 1>(&[x], w, 0, 1, &mut out) };
    out[0]
}

#[inline(always)]
pub(crate) unsafe fn band_f32<L: Lanes>(x: &[&[f32]], w: &[f32], out: &mut [f32]) {
    // SAFETY: features are the caller's contract.
    unsafe { band::<L, &[f32]>(x, w, out) }
}

#[inline(always)]
pub(crate) unsafe fn band_bf16<L: Lanes>(x: &[&[f32]], w: &[bf16], out: &mut [f32]) {
    // SAFETY: features are the caller's contract.
    unsafe { band::<L, &[bf16]>(x, w, out) }
}

#[inline(always)]
pub(crate) unsafe fn widen_bf16<L: Lanes>(x: &[bf16], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    let (len, out) = (out.len(), out.as_mut_ptr());
    for_each_run!(len, |at, n| {
        // SAFETY: runs stay below the common length.
        unsafe {
            let lanes: L = if n == LANES { x.lanes(at) } else { x.lanes_part(at, n) };
            store(lanes, out.add(at), n);
        }
    });
}

#[inline(always)]
unsafe fn add_columns<L: Lanes, W: Row, const N: usize>(
    p: &[f32],
    rows: W,
    stride: usize,
    at: usize,
    out: *mut f32,
) {
    // SAFETY: `at + 16 N` columns exist in every row and in `out` by the caller.
    unsafe {
        let mut sums = [L::splat(0.0); N];
        (0..N).for_each(|i| sums[i] = L::load(out.add(at + i * LANES)));
        for (j, &p) in p.iter().enumerate() {
            let p = L::splat(p);
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = p.fma(rows.lanes::<L>(j * stride + at + i * LANES), *sum);
            }
        }
        (0..N).for_each(|i| sums[i].store(out.add(at + i * LANES)));
    }
}

#[inline(always)]
unsafe fn weighted<L: Lanes, W: Row>(p: &[f32], rows: W, stride: usize, out: &mut [f32]) {
    let n = out.len();
    assert!(n <= stride && (p.is_empty() || (p.len() - 1) * stride + n <= rows.len()));
    let out = out.as_mut_ptr();
    let mut at = 0;
    // SAFETY: columns `at..` below `n` of rows below `p.len()` are inside `rows` by the assertion.
    unsafe {
        while at + 8 * LANES <= n {
            add_columns::<L, W, 8>(p, rows, stride, at, out);
            at += 8 * LANES;
        }
        while at + LANES <= n {
            add_columns::<L, W, 1>(p, rows, stride, at, out);
            at += LANES;
        }
        if at < n {
            let mut sum = L::load_part(out.add(at), n - at);
            for (j, &p) in p.iter().enumerate() {
                sum = L::splat(p).fma(rows.lanes_part::<L>(j * stride + at, n - at), sum);
            }
            sum.store_part(out.add(at), n - at);
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn weighted_sum<L: Lanes>(p: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
    // SAFETY: features are the caller's contract.
    unsafe { weighted::<L, &[f32]>(p, rows, stride, out) }
}

#[inline(always)]
pub(crate) unsafe fn load<L: Lanes>(x: *const f32, n: usize) -> L {
    // SAFETY: `n` elements are readable by the caller.
    unsafe { if n == LANES { L::load(x) } else { L::load_part(x, n) } }
}

#[inline(always)]
pub(crate) unsafe fn store<L: Lanes>(value: L, x: *mut f32, n: usize) {
    // SAFETY: `n` elements are writable by the caller.
    unsafe { if n == LANES { value.store(x) } else { value.store_part(x, n) } }
}

#[inline(always)]
pub(crate) unsafe fn axpy<L: Lanes>(a: f32, x: &[f32], y: &mut [f32]) {
    assert!(x.len() >= y.len());
    let (x, len, y) = (x.as_ptr(), y.len(), y.as_mut_ptr());
    for_each_run!(len, |at, n| {
        // SAFETY: runs stay below `len`, which both slices have.
        unsafe {
            let sum = L::splat(a).fma(load::<L>(x.add(at), n), load::<L>(y.add(at), n));
            store(sum, y.add(at), n);
        }
    });
}

#[inline(always)]
pub(crate) unsafe fn rms_norm_row<L: Lanes>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(weight.len() == x.len() && out.len() == x.len());
    // SAFETY: features are the caller's contract; runs stay below the common length.
    unsafe {
        let scale = rms_scale(dot::<L>(x, x), x.len(), eps);
        let (x, weight, len, out) = (x.as_ptr(), weight.as_ptr(), x.len(), out.as_mut_ptr());
        for_each_run!(len, |at, n| {
            let y = load::<L>(x.add(at), n).mul(L::splat(scale)).mul(load::<L>(weight.add(at), n));
            store(y, out.add(at), n);
        });
    }
}

#[inline(always)]
pub(crate) unsafe fn silu_mul<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    assert!(gate.len() == up.len());
    let (len, gate, up) = (gate.len(), gate.as_mut_ptr(), up.as_ptr());
    for_each_run!(len, |at, n| {
        // SAFETY: runs stay below the common length.
        unsafe {
            let g = load::<L>(gate.add(at), n);
            store(g.mul(g.sigmoid()).mul(load::<L>(up.add(at), n)), gate.add(at), n);
        }
    });
}

#[inline(always)]
pub(crate) unsafe fn exp_row<L: Lanes>(x: &mut [f32], max: f32) -> f32 {
    let (len, x) = (x.len(), x.as_mut_ptr());
    let mut lanes = [0.0f32; LANES];
    // SAFETY: runs stay below `len`; lanes past a short run add nothing.
    unsafe {
        let mut sum = L::splat(0.0);
        for_each_run!(len, |at, n| {
            let e = load::<L>(x.add(at), n).sub(L::splat(max)).exp();
            store(e, x.add(at), n);
            if n == LANES {
                sum = sum.add(e);
            }
        });
        sum.store(lanes.as_mut_ptr());
        let whole = len / LANES * LANES;
        for k in whole..len {
            lanes[k - whole] += *x.add(k);
        }
        L::load(lanes.as_ptr()).fold_add()
    }
}

#[inline(always)]
pub(crate) unsafe fn softmax_row<L: Lanes>(x: &mut [f32]) -> f32 {
    // SAFETY: features are the caller's contract.
    let max = unsafe { max_row::<L>(x) };
    // SAFETY: as above.
    let inverse = 1.0 / unsafe { exp_row::<L>(x, max) };
    x.iter_mut().for_each(|value| *value *= inverse);
    max
}

/// The two halves of a group.
#[inline(always)]
unsafe fn load_group<L: Lanes>(values: &[f32; GROUP]) -> (L, L) {
    // SAFETY: 16 lanes at 0 and 16 of an array of 32.
    unsafe { (L::load(values.as_ptr()), L::load(values.as_ptr().add(LANES))) }
}

/// Codes of a group into their places from `even` on.
#[inline(always)]
unsafe fn encode_group<L: Lanes>((a, b): (L, L), inverse: f32, even: usize, codes: &mut [i8]) {
    let codes = &mut codes[even..even + QUAD / 2 + GROUP / 2];
    // SAFETY: the codes of even columns are the first 16 of these, those of odd columns the last.
    unsafe {
        let (even, odd) = (codes.as_mut_ptr(), codes.as_mut_ptr().add(QUAD / 2));
        let inverse = L::splat(inverse);
        a.mul(inverse).store_codes(b.mul(inverse), even, odd);
    }
}

#[inline(always)]
pub(crate) unsafe fn quantize_row<L: Lanes>(
    x: &[f32],
    codes: &mut [i8],
    scales: &mut [f32],
    corrections: &mut [i32],
) {
    for (group, values) in x.as_chunks::<GROUP>().0.iter().enumerate() {
        let even = stored_position(group * GROUP);
        // SAFETY: features are the caller's contract.
        unsafe {
            let (a, b) = load_group::<L>(values);
            let (scale, inverse) = group_scale(a.magnitude(b));
            scales[group] = scale;
            encode_group((a, b), inverse, even, codes);
        }
        let columns = [even, even + QUAD / 2].map(|at| &codes[at..at + GROUP / 2]);
        corrections[group] = -8 * columns.into_iter().flatten().map(|code| i32::from(*code)).sum::<i32>();
    }
}

#[inline(always)]
pub(crate) unsafe fn encode_row<L: Lanes>(w: &[f32], codes: &mut [i8], scales: &mut [bf16]) {
    for (group, values) in w.as_chunks::<GROUP>().0.iter().enumerate() {
        // SAFETY: features are the caller's contract.
        unsafe {
            let (a, b) = load_group::<L>(values);
            let (scale, inverse) = weight_scale(a.magnitude(b));
            scales[group] = scale;
            encode_group((a, b), inverse, stored_position(group * GROUP), codes);
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn dequantize_q4_row<L: Lanes>(w: &[u8], scales: &[bf16], out: &mut [f32]) {
    for ((bytes, scale), out) in
        w.as_chunks::<{ GROUP / 2 }>().0.iter().zip(scales).zip(out.as_chunks_mut::<GROUP>().0)
    {
        let scale = scale.to_f32();
        let mut codes = [0i8; GROUP];
        for (byte, pair) in bytes.iter().zip(codes.as_chunks_mut::<2>().0) {
            *pair = [(byte & 15) as i8 - 8, (byte >> 4) as i8 - 8];
        }
        // SAFETY: 16 lanes at 0 and 16 of arrays of 32.
        unsafe {
            for at in [0, LANES] {
                L::load_i8(codes.as_ptr().add(at)).mul(L::splat(scale)).store(out.as_mut_ptr().add(at));
            }
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn dequantize_q8_row<L: Lanes>(w: &[i8], scales: &[bf16], out: &mut [f32]) {
    for (group, (scale, out)) in scales.iter().zip(out.as_chunks_mut::<GROUP>().0).enumerate() {
        let even = stored_position(group * GROUP);
        let (even, odd) = (&w[even..even + GROUP / 2], &w[even + QUAD / 2..even + QUAD / 2 + GROUP / 2]);
        let mut codes = [0i8; GROUP];
        for (k, pair) in codes.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            *pair = [even[k], odd[k]];
        }
        // SAFETY: 16 lanes at 0 and 16 of arrays of 32.
        unsafe {
            for at in [0, LANES] {
                let lanes = L::load_i8(codes.as_ptr().add(at)).mul(L::splat(scale.to_f32()));
                lanes.store(out.as_mut_ptr().add(at));
            }
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn multiply_adds<L: Lanes>(factor: f32, rounds: usize) -> f32 {
    // SAFETY: arithmetic only; features are the caller's contract.
    unsafe {
        let (factor, step) = (L::splat(factor), L::splat(1e-9));
        let mut values = [L::splat(1.0); 12];
        for _ in 0..rounds / 12 {
            values.iter_mut().for_each(|v| *v = v.fma(factor, step));
        }
        values.iter().map(|v| v.fold_add()).sum()
    }
}
