//! NEON: 16 lanes in four registers; 8-bit products by `smull` and `smlal`, then `sadalp`.

use super::Products;
use crate::LANES;
use crate::lanes::Lanes;
use std::arch::aarch64::*;

/// Lanes 0..4, 4..8, 8..12 and 12..16.
#[derive(Clone, Copy)]
pub(super) struct F32x16(pub(super) [float32x4_t; 4]);

/// The four registers of an expression of one.
macro_rules! each {
    (|$i:ident| $value:expr) => {{
        let of = |$i: usize| $value;
        F32x16([of(0), of(1), of(2), of(3)])
    }};
}

macro_rules! per_quarter {
    ($(fn $f:ident = $intrinsic:ident;)*) => {
        $(
            #[inline(always)]
            unsafe fn $f(self, b: Self) -> Self {
                // SAFETY: arithmetic only; NEON is the caller's contract.
                unsafe { each!(|i| $intrinsic(self.0[i], b.0[i])) }
            }
        )*
    };
}

impl Lanes for F32x16 {
    const IS_WIDE: bool = false;

    per_quarter! {
        fn add = vaddq_f32;
        fn sub = vsubq_f32;
        fn mul = vmulq_f32;
        fn div = vdivq_f32;
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: arithmetic only.
        unsafe { F32x16([vdupq_n_f32(value); 4]) }
    }

    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Self {
        // SAFETY: 16 values are readable by the caller.
        unsafe { each!(|i| vld1q_f32(ptr.add(4 * i))) }
    }

    #[inline(always)]
    unsafe fn load_bf16(ptr: *const u16) -> Self {
        // SAFETY: 16 values are readable by the caller.
        unsafe { each!(|i| vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(ptr.add(4 * i))))) }
    }

    #[inline(always)]
    unsafe fn load_i8(ptr: *const i8) -> Self {
        // SAFETY: 16 bytes are readable by the caller.
        unsafe {
            let codes = vld1q_s8(ptr);
            let (low, high) = (vmovl_s8(vget_low_s8(codes)), vmovl_high_s8(codes));
            F32x16([
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ])
        }
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: 16 values are writable by the caller.
        unsafe {
            for i in 0..4 {
                vst1q_f32(ptr.add(4 * i), self.0[i]);
            }
        }
    }

    #[inline(always)]
    unsafe fn prefetch(_ptr: *const u8) {}

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: arithmetic only.
        unsafe { each!(|i| vfmaq_f32(c.0[i], self.0[i], b.0[i])) }
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: arithmetic only. (`fmax` would give NaN for a NaN on either side.)
        unsafe { each!(|i| vbslq_f32(vcgtq_f32(self.0[i], b.0[i]), self.0[i], b.0[i])) }
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: as for `max`.
        unsafe { each!(|i| vbslq_f32(vcltq_f32(self.0[i], b.0[i]), self.0[i], b.0[i])) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: arithmetic only.
        unsafe { each!(|i| vrndnq_f32(self.0[i])) }
    }

    #[inline(always)]
    unsafe fn pow2(self) -> Self {
        // SAFETY: arithmetic only.
        unsafe {
            each!(|i| {
                let biased = vaddq_s32(vcvtq_s32_f32(self.0[i]), vdupq_n_s32(127));
                vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
            })
        }
    }

    #[inline(always)]
    unsafe fn fold_add(self) -> f32 {
        // SAFETY: arithmetic only.
        unsafe {
            let four = fold_to_four(self);
            vaddv_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }

    #[inline(always)]
    unsafe fn fold_tile(sums: &[Self; LANES]) -> Self {
        // SAFETY: arithmetic only.
        unsafe {
            F32x16([fold_column(sums, 0), fold_column(sums, 1), fold_column(sums, 2), fold_column(sums, 3)])
        }
    }
}

/// Column `t` of a tile, each lane the fold of one sum.
#[inline(always)]
unsafe fn fold_column(sums: &[F32x16; LANES], t: usize) -> float32x4_t {
    // SAFETY: arithmetic only.
    unsafe {
        let (a, b) = (fold_to_four(sums[t]), fold_to_four(sums[4 + t]));
        let (c, d) = (fold_to_four(sums[8 + t]), fold_to_four(sums[12 + t]));
        vpaddq_f32(fold_pairs(a, b), fold_pairs(c, d))
    }
}

/// Lanes 8 apart, then 4 apart.
#[inline(always)]
unsafe fn fold_to_four(v: F32x16) -> float32x4_t {
    // SAFETY: arithmetic only.
    unsafe { vaddq_f32(vaddq_f32(v.0[0], v.0[2]), vaddq_f32(v.0[1], v.0[3])) }
}

/// Lanes 0 + 2 and 1 + 3 of `a`, then of `b`.
#[inline(always)]
unsafe fn fold_pairs(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: arithmetic only.
    unsafe {
        vaddq_f32(
            vcombine_f32(vget_low_f32(a), vget_low_f32(b)),
            vcombine_f32(vget_high_f32(a), vget_high_f32(b)),
        )
    }
}

crate::versions::f32_ops!(F32x16, "neon");

/// Products widened to 16 bits: two of them fit, one factor not being -128.
struct Widened;

impl Products for Widened {
    #[inline(always)]
    unsafe fn add(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: arithmetic only.
        unsafe {
            let pairs = vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b);
            vpadalq_s16(sum, pairs)
        }
    }
}

crate::versions::integer_ops!("neon", super::band::<Widened, _>, super::tile::<Widened, _>);

/// See [`crate::reference::integer_multiply_adds`].
#[target_feature(enable = "neon")]
pub(crate) fn integer_multiply_adds(rounds: usize) -> usize {
    // SAFETY: the features are enabled here.
    unsafe { super::integer_multiply_adds::<Widened>(rounds) }
}
