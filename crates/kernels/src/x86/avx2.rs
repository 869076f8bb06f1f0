//! AVX2 with FMA and F16C: 16 lanes in two registers; 8-bit products by `maddubs`, then `madd`.

use crate::lanes::Lanes;
use crate::quant::QuantRow;
use crate::{GROUP, LANES};
use half::bf16;
use std::arch::x86_64::*;

/// Lanes 0..8 and 8..16.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m256, __m256);

macro_rules! per_half {
    ($(fn $f:ident = $intrinsic:ident;)*) => {
        $(
            #[inline(always)]
            unsafe fn $f(self, b: Self) -> Self {
                // SAFETY: arithmetic only; AVX is the caller's contract.
                unsafe { F32x16($intrinsic(self.0, b.0), $intrinsic(self.1, b.1)) }
            }
        )*
    };
}

impl Lanes for F32x16 {
    per_half! {
        fn add = _mm256_add_ps;
        fn sub = _mm256_sub_ps;
        fn mul = _mm256_mul_ps;
        fn div = _mm256_div_ps;
        fn max = _mm256_max_ps;
        fn min = _mm256_min_ps;
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: arithmetic only.
        unsafe { F32x16(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Self {
        // SAFETY: 16 values are readable by the caller.
        unsafe { F32x16(_mm256_loadu_ps(ptr), _mm256_loadu_ps(ptr.add(8))) }
    }

    #[inline(always)]
    unsafe fn load_bf16(ptr: *const u16) -> Self {
        // SAFETY: 16 values are readable by the caller.
        unsafe {
            let widen = |at: usize| {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(ptr.add(at).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            };
            F32x16(widen(0), widen(8))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(ptr: *const i8) -> Self {
        // SAFETY: 16 bytes are readable by the caller.
        unsafe {
            let widen =
                |at: usize| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(ptr.add(at).cast())));
            F32x16(widen(0), widen(8))
        }
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: 16 values are writable by the caller.
        unsafe {
            _mm256_storeu_ps(ptr, self.0);
            _mm256_storeu_ps(ptr.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: arithmetic only.
        unsafe { F32x16(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: arithmetic only.
        unsafe { F32x16(_mm256_round_ps::<NEAREST>(self.0), _mm256_round_ps::<NEAREST>(self.1)) }
    }

    #[inline(always)]
    unsafe fn pow2(self) -> Self {
        // SAFETY: arithmetic only.
        unsafe {
            let power = |n: __m256| {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            };
            F32x16(power(self.0), power(self.1))
        }
    }

    #[inline(always)]
    unsafe fn fold_add(self) -> f32 {
        // SAFETY: arithmetic only.
        unsafe { fold8(_mm256_add_ps(self.0, self.1)) }
    }
}

/// Fold eight lanes by halves: 8, 4, 2, 1.
#[inline(always)]
pub(super) unsafe fn fold8(v: __m256) -> f32 {
    // SAFETY: arithmetic only.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

super::f32_ops!(F32x16, "avx2,fma,f16c");

/// Weights of one group as bytes, and how their products with 8-bit activations are summed by fours.
trait Codes: Copy {
    /// One group's codes in stored order.
    unsafe fn group(self, group: usize) -> __m256i;
    /// Eight sums of four products (`i32`).
    unsafe fn sums(codes: __m256i, x: __m256i, corrections: *const i32) -> __m256i;
    fn scale(self, group: usize) -> f32;
}

/// Packed INT4 with BF16 scales.
#[derive(Clone, Copy)]
struct Int4<'a>(&'a [u8], &'a [bf16]);

impl Codes for Int4<'_> {
    #[inline(always)]
    unsafe fn group(self, group: usize) -> __m256i {
        // SAFETY: 16 bytes of group `group` are in bounds by the caller.
        unsafe {
            let bytes = _mm_loadu_si128(self.0.as_ptr().add(group * (GROUP / 2)).cast());
            let both =
                _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(bytes), _mm_srli_epi16::<4>(bytes));
            _mm256_and_si256(both, _mm256_set1_epi8(15))
        }
    }

    #[inline(always)]
    unsafe fn sums(codes: __m256i, x: __m256i, corrections: *const i32) -> __m256i {
        // SAFETY: 8 corrections are readable by the caller; nibble sums fit 16 bits (2 * 15 * 127).
        unsafe {
            let fours = _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1));
            _mm256_add_epi32(fours, _mm256_loadu_si256(corrections.cast()))
        }
    }

    #[inline(always)]
    fn scale(self, group: usize) -> f32 {
        self.1[group].to_f32()
    }
}

/// Signed bytes with `f32` scales.
#[derive(Clone, Copy)]
struct Int8<'a>(&'a [i8], &'a [f32]);

impl Codes for Int8<'_> {
    #[inline(always)]
    unsafe fn group(self, group: usize) -> __m256i {
        // SAFETY: 32 bytes of group `group` are in bounds by the caller.
        unsafe { _mm256_loadu_si256(self.0.as_ptr().add(group * GROUP).cast()) }
    }

    #[inline(always)]
    unsafe fn sums(codes: __m256i, x: __m256i, _corrections: *const i32) -> __m256i {
        // SAFETY: arithmetic only; |w| * x with the sign of w moved to x: pairs fit 16 bits (2 * 127 * 127).
        unsafe {
            let pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(codes, codes), _mm256_sign_epi8(x, codes));
            _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
        }
    }

    #[inline(always)]
    fn scale(self, group: usize) -> f32 {
        self.1[group]
    }
}

#[inline(always)]
unsafe fn dots_tile<C: Codes, const T: usize>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    assert!(x.len() == T && x.iter().all(|x| x.scales.len() == n_groups));
    // SAFETY: every row has `n_groups` groups of codes, scales and corrections.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; T];
        for group in 0..n_groups {
            let codes = w.group(group);
            let scale = w.scale(group);
            for t in 0..T {
                let x_codes = _mm256_loadu_si256(x[t].codes.as_ptr().add(group * GROUP).cast());
                let dot = C::sums(codes, x_codes, x[t].corrections.as_ptr().add(group * (GROUP / 4)));
                let both = _mm256_set1_ps(scale * x[t].scales.get_unchecked(group));
                let sum = &mut sums[t][group % 2];
                *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), both, *sum);
            }
        }
        for t in 0..T {
            out[t] = fold8(_mm256_add_ps(sums[t][0], sums[t][1]));
        }
    }
}

#[inline(always)]
unsafe fn dots<C: Codes>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    for (x, out) in x.chunks(4).zip(out.chunks_mut(4)) {
        // SAFETY: features and lengths are the caller's contract.
        unsafe {
            match x.len() {
                4 => dots_tile::<C, 4>(x, w, n_groups, out),
                _ => (0..x.len())
                    .for_each(|t| dots_tile::<C, 1>(&x[t..t + 1], w, n_groups, &mut out[t..t + 1])),
            }
        }
    }
}

/// See [`crate::reference::dots_q4`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dots_q4(x: &[QuantRow<'_>], w: &[u8], w_scales: &[bf16], out: &mut [f32]) {
    assert_eq!(w.len(), w_scales.len() * GROUP / 2);
    // SAFETY: the features are enabled here; `w` holds a group of bytes for every scale.
    unsafe { dots(x, Int4(w, w_scales), w_scales.len(), out) }
}

/// See [`crate::reference::dots_q8`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn dots_q8(x: &[QuantRow<'_>], w: &[i8], w_scales: &[f32], out: &mut [f32]) {
    assert_eq!(w.len(), w_scales.len() * GROUP);
    // SAFETY: the features are enabled here; `w` holds a group of bytes for every scale.
    unsafe { dots(x, Int8(w, w_scales), w_scales.len(), out) }
}

const _: () = assert!(LANES == 2 * (GROUP / 4));
