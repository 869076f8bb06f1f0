//! The `f32` operations once more, over [`Lanes`]: same order of operations as [`crate::reference`], several
//! rows at a time where that saves loads.
//!
//! Every function here is unsafe for one reason: it may run only where the processor has the features of `L`.

use crate::lanes::Lanes;
use crate::reference::{group_scale, rms_scale, stored_position};
use crate::{GROUP, LANES, QUAD};
use half::bf16;

/// Rows that one pass over a weight row serves.
const TILE: usize = 8;

/// One row of weights to be multiplied: how to read 16 of its elements.
trait Row: Copy {
    unsafe fn lanes<L: Lanes>(self, at: usize) -> L;
    unsafe fn lanes_part<L: Lanes>(self, at: usize, n: usize) -> L;
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
    fn len(self) -> usize {
        <[bf16]>::len(self)
    }
}

#[inline(always)]
unsafe fn dots_tile<L: Lanes, W: Row, const T: usize>(x: &[&[f32]], w: W, out: &mut [f32]) {
    let n = w.len();
    assert!(x.len() == T && out.len() == T && x.iter().all(|x| x.len() == n));
    // SAFETY: all reads below `n` elements of rows that have `n`.
    unsafe {
        let mut sums = [L::splat(0.0); T];
        let whole = n / LANES * LANES;
        let mut at = 0;
        while at < whole {
            let w = w.lanes::<L>(at);
            for t in 0..T {
                sums[t] = L::load(x[t].as_ptr().add(at)).fma(w, sums[t]);
            }
            at += LANES;
        }
        if whole < n {
            let w = w.lanes_part::<L>(whole, n - whole);
            for t in 0..T {
                sums[t] = L::load_part(x[t].as_ptr().add(whole), n - whole).fma(w, sums[t]);
            }
        }
        for t in 0..T {
            out[t] = sums[t].fold_add();
        }
    }
}

#[inline(always)]
unsafe fn dots<L: Lanes, W: Row>(x: &[&[f32]], w: W, out: &mut [f32]) {
    for (x, out) in x.chunks(TILE).zip(out.chunks_mut(TILE)) {
        // SAFETY: features are the caller's contract.
        unsafe {
            match x.len() {
                8 => dots_tile::<L, W, 8>(x, w, out),
                4 => dots_tile::<L, W, 4>(x, w, out),
                1 => dots_tile::<L, W, 1>(x, w, out),
                _ => (0..x.len()).for_each(|t| dots_tile::<L, W, 1>(&x[t..t + 1], w, &mut out[t..t + 1])),
            }
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn dot<L: Lanes>(x: &[f32], w: &[f32]) -> f32 {
    let mut out = [0.0];
    // SAFETY: features are the caller's contract.
    unsafe { dots_tile::<L, &[f32], 1>(&[x], w, &mut out) };
    out[0]
}

#[inline(always)]
pub(crate) unsafe fn dots_f32<L: Lanes>(x: &[&[f32]], w: &[f32], out: &mut [f32]) {
    // SAFETY: features are the caller's contract.
    unsafe { dots::<L, &[f32]>(x, w, out) }
}

#[inline(always)]
pub(crate) unsafe fn dots_bf16<L: Lanes>(x: &[&[f32]], w: &[bf16], out: &mut [f32]) {
    // SAFETY: features are the caller's contract.
    unsafe { dots::<L, &[bf16]>(x, w, out) }
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
pub(crate) unsafe fn weighted_sum_bf16<L: Lanes>(p: &[f32], rows: &[bf16], stride: usize, out: &mut [f32]) {
    // SAFETY: features are the caller's contract.
    unsafe { weighted::<L, &[bf16]>(p, rows, stride, out) }
}

/// Call `f(at, n)` for each run of up to 16 elements.
#[inline(always)]
fn for_each_run(len: usize, mut f: impl FnMut(usize, usize)) {
    let mut at = 0;
    while at < len {
        f(at, LANES.min(len - at));
        at += LANES;
    }
}

#[inline(always)]
unsafe fn load<L: Lanes>(x: *const f32, n: usize) -> L {
    // SAFETY: `n` elements are readable by the caller.
    unsafe { if n == LANES { L::load(x) } else { L::load_part(x, n) } }
}

#[inline(always)]
unsafe fn store<L: Lanes>(value: L, x: *mut f32, n: usize) {
    // SAFETY: `n` elements are writable by the caller.
    unsafe { if n == LANES { value.store(x) } else { value.store_part(x, n) } }
}

#[inline(always)]
pub(crate) unsafe fn axpy<L: Lanes>(a: f32, x: &[f32], y: &mut [f32]) {
    assert!(x.len() >= y.len());
    let (x, len, y) = (x.as_ptr(), y.len(), y.as_mut_ptr());
    // SAFETY: runs stay below `len`, which both slices have.
    for_each_run(len, |at, n| unsafe {
        let sum = L::splat(a).fma(load::<L>(x.add(at), n), load::<L>(y.add(at), n));
        store(sum, y.add(at), n);
    });
}

#[inline(always)]
pub(crate) unsafe fn rms_norm_row<L: Lanes>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(weight.len() == x.len() && out.len() == x.len());
    // SAFETY: features are the caller's contract; runs stay below the common length.
    unsafe {
        let scale = rms_scale(dot::<L>(x, x), x.len(), eps);
        let (x, weight, len, out) = (x.as_ptr(), weight.as_ptr(), x.len(), out.as_mut_ptr());
        for_each_run(len, |at, n| {
            let y = load::<L>(x.add(at), n).mul(L::splat(scale)).mul(load::<L>(weight.add(at), n));
            store(y, out.add(at), n);
        });
    }
}

#[inline(always)]
pub(crate) unsafe fn silu_mul<L: Lanes>(gate: &mut [f32], up: &[f32]) {
    assert!(gate.len() == up.len());
    let (len, gate, up) = (gate.len(), gate.as_mut_ptr(), up.as_ptr());
    // SAFETY: runs stay below the common length.
    for_each_run(len, |at, n| unsafe {
        let g = load::<L>(gate.add(at), n);
        store(g.mul(g.sigmoid()).mul(load::<L>(up.add(at), n)), gate.add(at), n);
    });
}

#[inline(always)]
pub(crate) unsafe fn exp_row<L: Lanes>(x: &mut [f32], max: f32) -> f32 {
    let (len, x) = (x.len(), x.as_mut_ptr());
    let mut lanes = [0.0f32; LANES];
    // SAFETY: runs stay below `len`; lanes past a short run add nothing.
    unsafe {
        let mut sum = L::splat(0.0);
        for_each_run(len, |at, n| {
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
    let max = crate::reference::max_row(x);
    // SAFETY: features are the caller's contract.
    let inverse = 1.0 / unsafe { exp_row::<L>(x, max) };
    x.iter_mut().for_each(|value| *value *= inverse);
    max
}

/// The reference's body: nothing here depends on an order of summation, so the compiler may widen it.
#[inline(always)]
pub(crate) unsafe fn quantize_row<L: Lanes>(
    x: &[f32],
    codes: &mut [i8],
    scales: &mut [f32],
    corrections: &mut [i32],
) {
    for (group, values) in x.as_chunks::<GROUP>().0.iter().enumerate() {
        let mut top = [0u32; 8];
        for (k, value) in values.iter().enumerate() {
            top[k % 8] = top[k % 8].max(value.to_bits() & 0x7fff_ffff);
        }
        let amax = f32::from_bits(top.into_iter().max().unwrap_or(0));
        let (scale, inverse) = group_scale(amax);
        scales[group] = scale;
        let mut rounded = [0.0f32; GROUP];
        // SAFETY: 16 lanes at 0 and 16 of arrays of 32.
        unsafe {
            for at in [0, LANES] {
                let scaled = L::load(values.as_ptr().add(at)).mul(L::splat(inverse)).round();
                scaled.store(rounded.as_mut_ptr().add(at));
            }
        }
        let even = stored_position(group * GROUP);
        let mut sum = 0;
        for k in 0..GROUP / 2 {
            let pair = [rounded[2 * k] as i32, rounded[2 * k + 1] as i32];
            codes[even + k] = pair[0] as i8;
            codes[even + QUAD / 2 + k] = pair[1] as i8;
            sum += pair[0] + pair[1];
        }
        corrections[group] = -8 * sum;
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
pub(crate) unsafe fn dequantize_q8_row<L: Lanes>(w: &[i8], scales: &[f32], out: &mut [f32]) {
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
                L::load_i8(codes.as_ptr().add(at)).mul(L::splat(*scale)).store(out.as_mut_ptr().add(at));
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
