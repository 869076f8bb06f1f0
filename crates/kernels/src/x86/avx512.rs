//! AVX-512 F, BW, VL and VNNI: 16 lanes in one register; 8-bit products summed by fours in one instruction,
//! two groups at a time.

use super::avx2;
use crate::GROUP;
use crate::lanes::Lanes;
use crate::quant::QuantRow;
use half::bf16;
use std::arch::x86_64::*;

/// Sixteen lanes.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

macro_rules! whole {
    ($(fn $f:ident = $intrinsic:ident;)*) => {
        $(
            #[inline(always)]
            unsafe fn $f(self, b: Self) -> Self {
                // SAFETY: arithmetic only; AVX-512 F is the caller's contract.
                unsafe { F32x16($intrinsic(self.0, b.0)) }
            }
        )*
    };
}

impl Lanes for F32x16 {
    whole! {
        fn add = _mm512_add_ps;
        fn sub = _mm512_sub_ps;
        fn mul = _mm512_mul_ps;
        fn div = _mm512_div_ps;
        fn max = _mm512_max_ps;
        fn min = _mm512_min_ps;
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: arithmetic only.
        unsafe { F32x16(_mm512_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Self {
        // SAFETY: 16 values are readable by the caller.
        unsafe { F32x16(_mm512_loadu_ps(ptr)) }
    }

    #[inline(always)]
    unsafe fn load_bf16(ptr: *const u16) -> Self {
        // SAFETY: 16 values are readable by the caller.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(ptr.cast()));
            F32x16(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(ptr: *const i8) -> Self {
        // SAFETY: 16 bytes are readable by the caller.
        unsafe { F32x16(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(ptr.cast())))) }
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: 16 values are writable by the caller.
        unsafe { _mm512_storeu_ps(ptr, self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: arithmetic only.
        unsafe { F32x16(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: arithmetic only.
        unsafe { F32x16(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)) }
    }

    #[inline(always)]
    unsafe fn pow2(self) -> Self {
        // SAFETY: arithmetic only.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            F32x16(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased)))
        }
    }

    #[inline(always)]
    unsafe fn fold_add(self) -> f32 {
        // SAFETY: arithmetic only.
        unsafe {
            let low = _mm512_castps512_ps256(self.0);
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            avx2::fold8(_mm256_add_ps(low, high))
        }
    }
}

super::f32_ops!(F32x16, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni");

/// Scales taken at a time: 16 groups, eight pairs.
const SCALES: usize = 16;

/// Weights of groups as bytes, and how their products with 8-bit activations are summed by fours.
trait Codes: Copy {
    /// Codes of groups `group` and `group + 1` in stored order.
    unsafe fn pair(self, group: usize) -> __m512i;
    /// Codes of group `group` alone, the upper half zero weights.
    unsafe fn single(self, group: usize) -> __m512i;
    /// Sixteen sums of four products (`i32`), given the activations' corrections.
    unsafe fn sums(codes: __m512i, x: __m512i, corrections: __m512i) -> __m512i;
    /// Scales of groups `group..group + n`, the other lanes zero.
    unsafe fn scales(self, group: usize, n: usize) -> __m512;
}

/// Packed INT4 with BF16 scales.
#[derive(Clone, Copy)]
struct Int4<'a>(&'a [u8], &'a [bf16]);

impl Int4<'_> {
    /// 16 bytes in each half of `bytes` to 32 nibbles each: low nibbles, then high ones.
    #[inline(always)]
    unsafe fn unpack(bytes: __m256i) -> __m512i {
        // SAFETY: arithmetic only.
        unsafe {
            let twice = _mm512_permutexvar_epi64(
                _mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3),
                _mm512_castsi256_si512(bytes),
            );
            let shifted = _mm512_srlv_epi64(twice, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4));
            _mm512_and_si512(shifted, _mm512_set1_epi8(15))
        }
    }
}

impl Codes for Int4<'_> {
    #[inline(always)]
    unsafe fn pair(self, group: usize) -> __m512i {
        // SAFETY: 32 bytes from group `group` are in bounds by the caller.
        unsafe { Self::unpack(_mm256_loadu_si256(self.0.as_ptr().add(group * (GROUP / 2)).cast())) }
    }

    #[inline(always)]
    unsafe fn single(self, group: usize) -> __m512i {
        // SAFETY: 16 bytes of group `group` are in bounds by the caller.
        unsafe {
            let bytes = _mm_loadu_si128(self.0.as_ptr().add(group * (GROUP / 2)).cast());
            Self::unpack(_mm256_zextsi128_si256(bytes))
        }
    }

    #[inline(always)]
    unsafe fn sums(codes: __m512i, x: __m512i, corrections: __m512i) -> __m512i {
        // SAFETY: arithmetic only.
        unsafe { _mm512_dpbusd_epi32(corrections, codes, x) }
    }

    #[inline(always)]
    unsafe fn scales(self, group: usize, n: usize) -> __m512 {
        // SAFETY: `n` scales from `group` are in bounds by the caller; bf16 is its bits.
        unsafe {
            let from = self.1.as_ptr().add(group).cast::<u16>();
            if n == SCALES { F32x16::load_bf16(from).0 } else { F32x16::load_part_bf16(from, n).0 }
        }
    }
}

/// Signed bytes with `f32` scales.
#[derive(Clone, Copy)]
struct Int8<'a>(&'a [i8], &'a [f32]);

impl Codes for Int8<'_> {
    #[inline(always)]
    unsafe fn pair(self, group: usize) -> __m512i {
        // SAFETY: 64 bytes from group `group` are in bounds by the caller.
        unsafe { _mm512_loadu_si512(self.0.as_ptr().add(group * GROUP).cast()) }
    }

    #[inline(always)]
    unsafe fn single(self, group: usize) -> __m512i {
        // SAFETY: 32 bytes of group `group` are in bounds by the caller.
        unsafe { _mm512_zextsi256_si512(_mm256_loadu_si256(self.0.as_ptr().add(group * GROUP).cast())) }
    }

    #[inline(always)]
    unsafe fn sums(codes: __m512i, x: __m512i, corrections: __m512i) -> __m512i {
        // SAFETY: arithmetic only; w + 128 as unsigned, and -128 times the sums of x is 16 corrections.
        unsafe {
            let offset = _mm512_xor_si512(codes, _mm512_set1_epi8(-128));
            _mm512_dpbusd_epi32(_mm512_slli_epi32::<4>(corrections), offset, x)
        }
    }

    #[inline(always)]
    unsafe fn scales(self, group: usize, n: usize) -> __m512 {
        // SAFETY: `n` scales from `group` are in bounds by the caller.
        unsafe {
            let from = self.1.as_ptr().add(group);
            if n == SCALES { F32x16::load(from).0 } else { F32x16::load_part(from, n).0 }
        }
    }
}

/// Lane numbers that spread scale `2 i` over lanes 0..8 and scale `2 i + 1` over lanes 8..16.
#[inline(always)]
unsafe fn spread(pair_idx: usize) -> __m512i {
    // SAFETY: arithmetic only.
    unsafe {
        let low = _mm512_set1_epi32(2 * pair_idx as i32);
        _mm512_mask_add_epi32(low, 0xff00, low, _mm512_set1_epi32(1))
    }
}

#[inline(always)]
unsafe fn dots_tile<C: Codes, const T: usize>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    assert!(x.len() == T && x.iter().all(|x| x.scales.len() == n_groups));
    // SAFETY: every row has `n_groups` groups of codes, scales and corrections; an odd last group is read alone.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); T];
        let mut base = 0;
        while base < n_groups {
            let n = SCALES.min(n_groups - base);
            let w_scales = w.scales(base, n);
            let mut scales = [_mm512_setzero_ps(); T];
            for t in 0..T {
                let from = x[t].scales.as_ptr().add(base);
                let x_scales = if n == SCALES { F32x16::load(from) } else { F32x16::load_part(from, n) };
                scales[t] = _mm512_mul_ps(w_scales, x_scales.0);
            }
            for pair_idx in 0..n / 2 {
                let group = base + 2 * pair_idx;
                let (codes, lanes) = (w.pair(group), spread(pair_idx));
                for t in 0..T {
                    let x_codes = _mm512_loadu_si512(x[t].codes.as_ptr().add(group * GROUP).cast());
                    let corrections =
                        _mm512_loadu_si512(x[t].corrections.as_ptr().add(group * (GROUP / 4)).cast());
                    let dot = _mm512_cvtepi32_ps(C::sums(codes, x_codes, corrections));
                    sums[t] = _mm512_fmadd_ps(dot, _mm512_permutexvar_ps(lanes, scales[t]), sums[t]);
                }
            }
            if n % 2 == 1 {
                let group = base + n - 1;
                let (codes, lanes) = (w.single(group), spread(n / 2));
                for t in 0..T {
                    let x_codes = _mm256_loadu_si256(x[t].codes.as_ptr().add(group * GROUP).cast());
                    let corrections =
                        _mm256_loadu_si256(x[t].corrections.as_ptr().add(group * (GROUP / 4)).cast());
                    let dot =
                        C::sums(codes, _mm512_zextsi256_si512(x_codes), _mm512_zextsi256_si512(corrections));
                    let scale = _mm512_permutexvar_ps(lanes, scales[t]);
                    sums[t] = _mm512_mask3_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sums[t], 0x00ff);
                }
            }
            base += n;
        }
        for t in 0..T {
            out[t] = F32x16(sums[t]).fold_add();
        }
    }
}

#[inline(always)]
unsafe fn dots<C: Codes>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    for (x, out) in x.chunks(8).zip(out.chunks_mut(8)) {
        // SAFETY: features and lengths are the caller's contract.
        unsafe {
            match x.len() {
                8 => dots_tile::<C, 8>(x, w, n_groups, out),
                4 => dots_tile::<C, 4>(x, w, n_groups, out),
                _ => (0..x.len())
                    .for_each(|t| dots_tile::<C, 1>(&x[t..t + 1], w, n_groups, &mut out[t..t + 1])),
            }
        }
    }
}

/// See [`crate::reference::dots_q4`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn dots_q4(x: &[QuantRow<'_>], w: &[u8], w_scales: &[bf16], out: &mut [f32]) {
    assert_eq!(w.len(), w_scales.len() * GROUP / 2);
    // SAFETY: the features are enabled here; `w` holds a group of bytes for every scale.
    unsafe { dots(x, Int4(w, w_scales), w_scales.len(), out) }
}

/// See [`crate::reference::dots_q8`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn dots_q8(x: &[QuantRow<'_>], w: &[i8], w_scales: &[f32], out: &mut [f32]) {
    assert_eq!(w.len(), w_scales.len() * GROUP);
    // SAFETY: the features are enabled here; `w` holds a group of bytes for every scale.
    unsafe { dots(x, Int8(w, w_scales), w_scales.len(), out) }
}
