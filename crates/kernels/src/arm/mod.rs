//! Versions for 64-bit Arm: the same bits as [`crate::reference`], more lanes at a time.
//!
//! The staircase: `neon` keeps 16 lanes in four registers and widens products of 8-bit codes to 16 bits before it sums
//! them; `dotprod` sums them by fours in one instruction. What both do with the sums of groups stands here: four groups
//! of a row of weights go at a time, and their sums come to stand in four of the 16 lanes of the definition.
//!
//! Nothing is asked for ahead: there is no stable intrinsic for it.

pub(crate) mod dotprod;
pub(crate) mod neon;

use crate::lanes::Lanes;
use crate::quant::QuantRow;
use crate::reference::{TILE_ROWS, stored_position};
use crate::versions::{Int4, Int8};
use crate::{GROUP, LANES, QUAD};
use neon::F32x16;
use std::arch::aarch64::*;

/// Groups whose sums fill a register: a quad.
const GROUPS: usize = QUAD / GROUP;
/// Rows of x that share one unpacking of the weights.
const X_MAX: usize = 4;

/// How 8-bit codes are multiplied.
///
/// # Safety
/// The method may be called only where the processor has the features of the implementing type.
trait Products {
    /// `sum` and the products of 16 codes in four parts. Of `a` and `b` one holds no -128.
    unsafe fn add(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;
}

/// Rows of weights as bytes, and how they meet 8-bit activations.
trait Codes: Copy {
    /// Codes of the even and of the odd columns of group `group` of row `row`.
    unsafe fn codes(self, row: usize, group: usize) -> [int8x16_t; 2];
    /// What the sums of four groups lack, from -8 times the sums of their activations.
    unsafe fn correction(minus_eight_sums: int32x4_t) -> int32x4_t;
    /// Bits of the scales from that of group `group` of row `row` on.
    unsafe fn scales(self, row: usize, group: usize) -> *const u16;
}

impl Codes for Int4<'_> {
    #[inline(always)]
    unsafe fn codes(self, row: usize, group: usize) -> [int8x16_t; 2] {
        let at = (row * self.n_groups + group) * (GROUP / 2);
        // SAFETY: the group is one of this row by the caller. The codes are raw nibbles, 8 too large.
        unsafe {
            let bytes = vld1q_u8(self.packed.as_ptr().add(at));
            let (low, high) = (vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes));
            [vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high)]
        }
    }

    #[inline(always)]
    unsafe fn correction(minus_eight_sums: int32x4_t) -> int32x4_t {
        minus_eight_sums
    }

    #[inline(always)]
    unsafe fn scales(self, row: usize, group: usize) -> *const u16 {
        // SAFETY: the group is one of this row by the caller; bf16 is its bits.
        unsafe { self.scales.as_ptr().add(row * self.n_groups + group).cast() }
    }
}

impl Codes for Int8<'_> {
    #[inline(always)]
    unsafe fn codes(self, row: usize, group: usize) -> [int8x16_t; 2] {
        let at = row * self.stride + stored_position(group * GROUP);
        // SAFETY: the group is one of this row by the caller, and rows hold whole quads.
        unsafe { load_group(self.codes.as_ptr().add(at)) }
    }

    #[inline(always)]
    unsafe fn correction(_minus_eight_sums: int32x4_t) -> int32x4_t {
        // SAFETY: arithmetic only; signed codes need none.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    unsafe fn scales(self, row: usize, group: usize) -> *const u16 {
        // SAFETY: the group is one of this row by the caller; bf16 is its bits.
        unsafe { self.scales.as_ptr().add(row * self.n_groups + group).cast() }
    }
}

/// Even columns' codes of a group in stored order, at `from`, and odd ones, half a quad further.
#[inline(always)]
unsafe fn load_group(from: *const i8) -> [int8x16_t; 2] {
    // SAFETY: both are readable by the caller.
    unsafe { [vld1q_s8(from), vld1q_s8(from.add(QUAD / 2))] }
}

/// `n <= 4` BF16 scales, the other lanes zero.
#[inline(always)]
unsafe fn load_scales(from: *const u16, n: usize) -> float32x4_t {
    let mut bits = [0u16; GROUPS];
    // SAFETY: `n` scales are readable by the caller.
    unsafe {
        std::ptr::copy_nonoverlapping(from, bits.as_mut_ptr(), n);
        vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(bits.as_ptr())))
    }
}

/// Add `n` groups from `first` on, the first of a quad, of one row of weights with `T` rows of x.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn add_groups<P: Products, C: Codes, const T: usize>(
    x: &[QuantRow<'_>; T],
    w: C,
    row: usize,
    first: usize,
    n: usize,
    sums: &mut [float32x4_t; T],
) {
    // SAFETY: rows of x are zero-padded to whole quads and whole runs of 16 scales; `w` has these groups by the caller.
    unsafe {
        let zero = vdupq_n_s32(0);
        let mut parts = [[zero; GROUPS]; T];
        for i in 0..n {
            let [even, odd] = w.codes(row, first + i);
            for t in 0..T {
                let x = load_group(x[t].codes.as_ptr().add(first * GROUP + i * (GROUP / 2)));
                parts[t][i] = P::add(P::add(zero, even, x[0]), odd, x[1]);
            }
        }
        let scales = load_scales(w.scales(row, first), n);
        for t in 0..T {
            let [a, b, c, d] = parts[t];
            let totals = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
            let corrections = C::correction(vld1q_s32(x[t].corrections.as_ptr().add(first)));
            let totals = vcvtq_f32_s32(vaddq_s32(totals, corrections));
            let both = vmulq_f32(scales, vld1q_f32(x[t].scales.as_ptr().add(first)));
            sums[t] = vfmaq_f32(sums[t], totals, both);
        }
    }
}

/// Products of `T` rows of x with one row of weights, weights unpacked once for all of them.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn row_dots<P: Products, C: Codes, const T: usize>(
    x: &[QuantRow<'_>; T],
    w: C,
    row: usize,
    n_groups: usize,
) -> [f32; T] {
    // SAFETY: rows of x hold `n_groups` groups and `w` has them by the caller.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); T]; LANES / GROUPS];
        for first in (0..n_groups).step_by(GROUPS) {
            let sums = &mut sums[first % LANES / GROUPS];
            // A number that is known at compile time leaves the sums of a whole quad in registers.
            match n_groups - first {
                GROUPS.. => add_groups::<P, C, T>(x, w, row, first, GROUPS, sums),
                n => add_groups::<P, C, T>(x, w, row, first, n, sums),
            }
        }
        let mut dots = [0.0; T];
        for t in 0..T {
            dots[t] = F32x16([sums[0][t], sums[1][t], sums[2][t], sums[3][t]]).fold_add();
        }
        dots
    }
}

/// `T` rows of x with up to 16 rows of weights, one after the other.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn band_of<P: Products, C: Codes, const T: usize>(
    x: &[QuantRow<'_>],
    w: C,
    n_rows: usize,
    n_groups: usize,
    out: &mut [f32],
) {
    assert!(x.len() == T && out.len() == T * n_rows && x.iter().all(|x| x.holds(n_groups)));
    let x: [QuantRow<'_>; T] = std::array::from_fn(|t| x[t]);
    for row in 0..n_rows {
        // SAFETY: rows of x hold `n_groups` groups by the assertion, `w` has `n_rows` rows of them by the caller.
        let dots = unsafe { row_dots::<P, C, T>(&x, w, row, n_groups) };
        for t in 0..T {
            out[t * n_rows + row] = dots[t];
        }
    }
}

#[inline(always)]
unsafe fn band<P: Products, C: Codes>(
    x: &[QuantRow<'_>],
    w: C,
    n_rows: usize,
    n_groups: usize,
    out: &mut [f32],
) {
    for (x, out) in x.chunks(X_MAX).zip(out.chunks_mut(X_MAX * n_rows)) {
        // SAFETY: features and lengths are the caller's contract.
        unsafe {
            match x.len() {
                X_MAX => band_of::<P, C, X_MAX>(x, w, n_rows, n_groups, out),
                3 => band_of::<P, C, 3>(x, w, n_rows, n_groups, out),
                2 => band_of::<P, C, 2>(x, w, n_rows, n_groups, out),
                _ => band_of::<P, C, 1>(x, w, n_rows, n_groups, out),
            }
        }
    }
}

/// Group sums come to stand in lanes without a transposed tile, so a tile is a band of 16 rows.
#[inline(always)]
unsafe fn tile<P: Products, C: Codes>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    // SAFETY: the caller's contract.
    unsafe { band::<P, C>(x, w, TILE_ROWS, n_groups, out) }
}

#[inline(always)]
unsafe fn integer_multiply_adds<P: Products>(rounds: usize) -> usize {
    // SAFETY: arithmetic only; features are the caller's contract.
    unsafe {
        let factor = vdupq_n_s8(3);
        let mut values = [vdupq_n_s32(1); 12];
        for _ in 0..rounds {
            for value in &mut values {
                *value = P::add(*value, vreinterpretq_s8_s32(*value), factor);
            }
        }
        std::hint::black_box(values);
        rounds * size_of_val(&values)
    }
}
