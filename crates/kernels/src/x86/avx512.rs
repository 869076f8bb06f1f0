//! AVX-512 F, BW, VL and VNNI: 16 lanes in one register; 8-bit products summed by fours in one instruction.
//!
//! One row of weights (decode) goes four quads at a time: a quad's nibbles come apart with one shift and two masks,
//! and a small tree of shuffles leaves 16 group sums in the 16 lanes of the definition. A tile of 16 rows (prefill)
//! is transposed so that lanes are rows of weights: eight instructions then make 16 group sums without a shuffle.

use super::avx2;
use crate::lanes::Lanes;
use crate::quant::QuantRow;
use crate::reference::{TILE_ROWS, stored_width};
use crate::{GROUP, LANES, QUAD};
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

/// Groups whose sums fill a register: four quads.
const GROUPS: usize = LANES;
/// Rows of x that a tile serves in registers.
const TILE_X: usize = 8;

/// Weights of one or more rows as bytes, and how they meet 8-bit activations.
trait Codes: Copy {
    /// Unsigned codes of even and of odd columns from the two halves of [`Codes::raw`], transposed or not.
    unsafe fn split(raw: [__m512i; 2]) -> [__m512i; 2];
    /// The bytes of one quad: packed nibbles (twice), or even and odd columns. Packed groups from `n_groups` on are
    /// zero nibbles.
    unsafe fn raw(self, row: usize, quad: usize, n_groups: usize) -> [__m512i; 2];
    /// Words of a quad differ between the two halves of [`Codes::raw`].
    const TWO_WORDS: bool;
    /// The correction for the codes' offset, from -8 times the sum of a group's activations.
    unsafe fn correction(minus_eight_sums: __m512i) -> __m512i;
    /// Scales of groups `group..group + n` of row `row`, the other lanes zero.
    unsafe fn scales(self, row: usize, group: usize, n: usize) -> __m512;
}

/// Packed INT4 with BF16 scales: rows of `n_groups` groups.
#[derive(Clone, Copy)]
struct Int4<'a> {
    packed: &'a [u8],
    scales: &'a [bf16],
    n_groups: usize,
}

impl Codes for Int4<'_> {
    const TWO_WORDS: bool = false;

    #[inline(always)]
    unsafe fn raw(self, row: usize, quad: usize, n_groups: usize) -> [__m512i; 2] {
        let at = (row * self.n_groups + quad * 4) * (GROUP / 2);
        let n_bytes = (n_groups - quad * 4) * (GROUP / 2);
        // SAFETY: `n_bytes` bytes of this row follow `at`, and no more than 64 are read.
        unsafe {
            let from = self.packed.as_ptr().add(at).cast::<i8>();
            let bytes = match n_bytes {
                64.. => _mm512_loadu_si512(from.cast()),
                _ => _mm512_maskz_loadu_epi8((1u64 << n_bytes) - 1, from),
            };
            [bytes, bytes]
        }
    }

    #[inline(always)]
    unsafe fn split(raw: [__m512i; 2]) -> [__m512i; 2] {
        // SAFETY: arithmetic only.
        unsafe {
            let low = _mm512_set1_epi8(15);
            [_mm512_and_si512(raw[0], low), _mm512_and_si512(_mm512_srli_epi16::<4>(raw[0]), low)]
        }
    }

    #[inline(always)]
    unsafe fn correction(minus_eight_sums: __m512i) -> __m512i {
        minus_eight_sums
    }

    #[inline(always)]
    unsafe fn scales(self, row: usize, group: usize, n: usize) -> __m512 {
        // SAFETY: `n` scales from `group` of this row are in bounds by the caller; bf16 is its bits.
        unsafe {
            let from = self.scales.as_ptr().add(row * self.n_groups + group).cast::<u16>();
            if n == GROUPS { F32x16::load_bf16(from).0 } else { F32x16::load_part_bf16(from, n).0 }
        }
    }
}

/// Signed bytes in stored order with `f32` scales: rows of `n_groups` groups in whole quads.
#[derive(Clone, Copy)]
struct Int8<'a> {
    codes: &'a [i8],
    scales: &'a [f32],
    n_groups: usize,
}

impl Codes for Int8<'_> {
    const TWO_WORDS: bool = true;

    #[inline(always)]
    unsafe fn raw(self, row: usize, quad: usize, _n_groups: usize) -> [__m512i; 2] {
        let at = row * stored_width(self.n_groups * GROUP) + quad * QUAD;
        // SAFETY: rows hold whole quads.
        unsafe {
            let from = self.codes.as_ptr().add(at);
            [_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(QUAD / 2).cast())]
        }
    }

    #[inline(always)]
    unsafe fn split(raw: [__m512i; 2]) -> [__m512i; 2] {
        // SAFETY: arithmetic only; w + 128 as unsigned.
        unsafe { raw.map(|codes| _mm512_xor_si512(codes, _mm512_set1_epi8(-128))) }
    }

    #[inline(always)]
    unsafe fn correction(minus_eight_sums: __m512i) -> __m512i {
        // SAFETY: arithmetic only; -128 times the sums.
        unsafe { _mm512_slli_epi32::<4>(minus_eight_sums) }
    }

    #[inline(always)]
    unsafe fn scales(self, row: usize, group: usize, n: usize) -> __m512 {
        // SAFETY: `n` scales from `group` of this row are in bounds by the caller.
        unsafe {
            let from = self.scales.as_ptr().add(row * self.n_groups + group);
            if n == GROUPS { F32x16::load(from).0 } else { F32x16::load_part(from, n).0 }
        }
    }
}

/// The sums of 16 groups in order, from four quads of partial sums whose 128-bit lane i belongs to group i.
#[inline(always)]
unsafe fn group_sums(quads: [__m512i; 4]) -> __m512i {
    // SAFETY: arithmetic only.
    unsafe {
        let pairs = |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low, high) = (pairs(quads[0], quads[1]), pairs(quads[2], quads[3]));
        let sums = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(order, sums)
    }
}

/// Rows of x with one row of weights, weights unpacked once for all of them.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn dots_tile<C: Codes, const T: usize>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    assert!(
        x.len() == T && x.iter().all(|x| x.scales.len() >= n_groups && x.codes.len() >= n_groups * GROUP)
    );
    // SAFETY: rows of x are zero-padded to whole quads and whole runs of 16 scales; `w` has `n_groups` groups.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); T];
        for base in (0..n_groups).step_by(GROUPS) {
            let n = GROUPS.min(n_groups - base);
            let mut parts = [[_mm512_setzero_si512(); 4]; T];
            for i in 0..n.div_ceil(4) {
                let quad = base / 4 + i;
                let codes = C::split(w.raw(0, quad, n_groups));
                for t in 0..T {
                    let from = x[t].codes.as_ptr().add(quad * QUAD);
                    let even = _mm512_loadu_si512(from.cast());
                    let odd = _mm512_loadu_si512(from.add(QUAD / 2).cast());
                    let part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes[0], even);
                    parts[t][i] = _mm512_dpbusd_epi32(part, codes[1], odd);
                }
            }
            let scales = w.scales(0, base, n);
            for t in 0..T {
                let corrections = _mm512_loadu_si512(x[t].corrections.as_ptr().add(base).cast());
                let total = _mm512_add_epi32(group_sums(parts[t]), C::correction(corrections));
                let both = _mm512_mul_ps(scales, _mm512_loadu_ps(x[t].scales.as_ptr().add(base)));
                sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), both, sums[t]);
            }
        }
        for t in 0..T {
            out[t] = F32x16(sums[t]).fold_add();
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
                3 => dots_tile::<C, 3>(x, w, n_groups, out),
                2 => dots_tile::<C, 2>(x, w, n_groups, out),
                _ => dots_tile::<C, 1>(x, w, n_groups, out),
            }
        }
    }
}

/// Word j of row i to word i of row j.
#[inline(always)]
unsafe fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: arithmetic only.
    unsafe {
        let mut pairs = [_mm512_setzero_si512(); 16];
        for i in 0..8 {
            pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = [_mm512_setzero_si512(); 16];
        for i in 0..4 {
            for half in 0..2 {
                let (a, b) = (pairs[4 * i + half], pairs[4 * i + 2 + half]);
                fours[4 * i + 2 * half] = _mm512_unpacklo_epi64(a, b);
                fours[4 * i + 2 * half + 1] = _mm512_unpackhi_epi64(a, b);
            }
        }
        let mut words = [_mm512_setzero_si512(); 16];
        for i in 0..4 {
            let (low, high) = (
                [
                    _mm512_shuffle_i32x4::<0x88>(fours[i], fours[4 + i]),
                    _mm512_shuffle_i32x4::<0xdd>(fours[i], fours[4 + i]),
                ],
                [
                    _mm512_shuffle_i32x4::<0x88>(fours[8 + i], fours[12 + i]),
                    _mm512_shuffle_i32x4::<0xdd>(fours[8 + i], fours[12 + i]),
                ],
            );
            words[i] = _mm512_shuffle_i32x4::<0x88>(low[0], high[0]);
            words[4 + i] = _mm512_shuffle_i32x4::<0x88>(low[1], high[1]);
            words[8 + i] = _mm512_shuffle_i32x4::<0xdd>(low[0], high[0]);
            words[12 + i] = _mm512_shuffle_i32x4::<0xdd>(low[1], high[1]);
        }
        words
    }
}

/// Running sums of one row of x with 16 rows of weights: 16 rows for each of the 16 lanes of the definition.
type Sums = [__m512; LANES];

/// Up to [`TILE_X`] rows of x with 16 rows of weights, lanes across the rows of weights.
#[inline(always)]
unsafe fn tile_block<C: Codes>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    assert!(x.len() <= TILE_X && out.len() == x.len() * TILE_ROWS);
    assert!(x.iter().all(|x| x.scales.len() >= n_groups && x.codes.len() >= n_groups * GROUP));
    // SAFETY: as in `dots_tile`, for each of the 16 rows of `w`.
    unsafe {
        let mut sums: [Sums; TILE_X] = [[_mm512_setzero_ps(); LANES]; TILE_X];
        for base in (0..n_groups).step_by(GROUPS) {
            let n = GROUPS.min(n_groups - base);
            let scales = transpose(std::array::from_fn(|row| _mm512_castps_si512(w.scales(row, base, n))));
            for quad in base / 4..(base + n).div_ceil(4) {
                let raw: [[__m512i; 2]; 16] = std::array::from_fn(|row| w.raw(row, quad, n_groups));
                let first = transpose(raw.map(|raw| raw[0]));
                let second = if C::TWO_WORDS { transpose(raw.map(|raw| raw[1])) } else { first };
                for i in 0..4.min(n_groups - quad * 4) {
                    let group = quad * 4 + i;
                    let words: [[__m512i; 2]; 4] =
                        std::array::from_fn(|word| C::split([first[4 * i + word], second[4 * i + word]]));
                    let scales = _mm512_castsi512_ps(scales[group % GROUPS]);
                    tile_group::<C>(x, &words, quad * QUAD + i * (GROUP / 2), group, scales, &mut sums);
                }
            }
        }
        for (out, sums) in out.chunks_exact_mut(TILE_ROWS).zip(sums) {
            _mm512_storeu_ps(out.as_mut_ptr(), fold_lanes(sums));
        }
    }
}

/// One group of 16 rows of weights with every row of x.
#[inline(always)]
unsafe fn tile_group<C: Codes>(
    x: &[QuantRow<'_>],
    words: &[[__m512i; 2]; 4],
    at: usize,
    group: usize,
    scales: __m512,
    sums: &mut [Sums; TILE_X],
) {
    // SAFETY: 16 even codes at `at` and 16 odd ones half a quad further are in bounds by the caller.
    unsafe {
        for (t, x) in x.iter().enumerate() {
            let from = x.codes.as_ptr().add(at);
            let word = |at: usize| _mm512_set1_epi32(from.add(at).cast::<i32>().read_unaligned());
            let corrections = C::correction(_mm512_set1_epi32(*x.corrections.get_unchecked(group)));
            // Two chains, or each of the eight sums would wait for the one before it.
            let (mut even, mut odd) = (corrections, _mm512_setzero_si512());
            for (i, words) in words.iter().enumerate() {
                even = _mm512_dpbusd_epi32(even, words[0], word(4 * i));
                odd = _mm512_dpbusd_epi32(odd, words[1], word(QUAD / 2 + 4 * i));
            }
            let total = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
            let both = _mm512_mul_ps(scales, _mm512_set1_ps(*x.scales.get_unchecked(group)));
            let sum = sums.get_unchecked_mut(t).get_unchecked_mut(group % LANES);
            *sum = _mm512_fmadd_ps(total, both, *sum);
        }
    }
}

/// The sum of 16 lanes folded by halves, for 16 rows at once.
#[inline(always)]
unsafe fn fold_lanes(mut lanes: Sums) -> __m512 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            // SAFETY: arithmetic only.
            lanes[i] = unsafe { _mm512_add_ps(lanes[i], lanes[i + width]) };
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
unsafe fn tile<C: Codes>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    for (x, out) in x.chunks(TILE_X).zip(out.chunks_mut(TILE_X * TILE_ROWS)) {
        // SAFETY: the caller's contract.
        unsafe { tile_block(x, w, n_groups, out) }
    }
}

/// See [`crate::reference::dots_q4`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn dots_q4(x: &[QuantRow<'_>], packed: &[u8], scales: &[bf16], out: &mut [f32]) {
    let n_groups = scales.len();
    assert_eq!(packed.len(), n_groups * GROUP / 2);
    // SAFETY: the features are enabled here; the row holds a group of bytes for every scale.
    unsafe { dots(x, Int4 { packed, scales, n_groups }, n_groups, out) }
}

/// See [`crate::reference::dots_q8`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn dots_q8(x: &[QuantRow<'_>], codes: &[i8], scales: &[f32], out: &mut [f32]) {
    let n_groups = scales.len();
    assert_eq!(codes.len(), stored_width(n_groups * GROUP));
    // SAFETY: the features are enabled here; the row holds whole quads for its scales.
    unsafe { dots(x, Int8 { codes, scales, n_groups }, n_groups, out) }
}

/// See [`crate::reference::tile_q4`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn tile_q4(x: &[QuantRow<'_>], packed: &[u8], scales: &[bf16], out: &mut [f32]) {
    let n_groups = scales.len() / TILE_ROWS;
    assert_eq!((packed.len(), scales.len()), (TILE_ROWS * n_groups * GROUP / 2, TILE_ROWS * n_groups));
    // SAFETY: the features are enabled here; 16 rows hold a group of bytes for every scale.
    unsafe { tile(x, Int4 { packed, scales, n_groups }, n_groups, out) }
}

/// See [`crate::reference::tile_q8`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn tile_q8(x: &[QuantRow<'_>], codes: &[i8], scales: &[f32], out: &mut [f32]) {
    let n_groups = scales.len() / TILE_ROWS;
    assert_eq!(
        (codes.len(), scales.len()),
        (TILE_ROWS * stored_width(n_groups * GROUP), TILE_ROWS * n_groups)
    );
    // SAFETY: the features are enabled here; 16 rows hold whole quads for their scales.
    unsafe { tile(x, Int8 { codes, scales, n_groups }, n_groups, out) }
}
