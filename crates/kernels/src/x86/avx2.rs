//! AVX2 with FMA and F16C: 16 lanes in two registers; 8-bit products by `maddubs`, then `madd`.
//!
//! For few rows of x (decode) a row of weights goes eight groups at a time, for many (prefill) a tile of rows is
//! transposed so that lanes are rows of weights; nibbles stay raw and unsigned, so that eight pairs of products fit 16
//! bits before they are widened.

use super::{AHEAD, Streams, ask_ahead, ask_scales_ahead, prefetch};
use crate::lanes::Lanes;
use crate::quant::QuantRow;
use crate::reference::TILE_ROWS;
use crate::versions::{Int4, Int8};
use crate::{GROUP, LANES, QUAD};
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
    const IS_WIDE: bool = false;

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
    unsafe fn prefetch(ptr: *const u8) {
        prefetch::<1>(ptr);
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

    #[inline(always)]
    unsafe fn fold_tile(sums: &[Self; LANES]) -> Self {
        // SAFETY: arithmetic only.
        unsafe { F32x16(fold_columns(sums, 0), fold_columns(sums, 2)) }
    }

    #[inline(always)]
    unsafe fn magnitude(self, b: Self) -> f32 {
        // SAFETY: arithmetic only.
        unsafe {
            let a = _mm256_max_epu32(magnitudes(self.0), magnitudes(self.1));
            let eight = _mm256_max_epu32(a, _mm256_max_epu32(magnitudes(b.0), magnitudes(b.1)));
            let four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
            let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0x4e>(four));
            let one = _mm_max_epu32(two, _mm_shuffle_epi32::<0xb1>(two));
            f32::from_bits(_mm_cvtsi128_si32(one).cast_unsigned())
        }
    }

    #[inline(always)]
    unsafe fn store_codes(self, b: Self, even: *mut i8, odd: *mut i8) {
        // SAFETY: 16 codes are writable by the caller.
        unsafe {
            let a = _mm256_packs_epi32(integers(self.0), integers(self.1));
            let b = _mm256_packs_epi32(integers(b.0), integers(b.1));
            // Columns 0..4, 8..12, 16..20 and 24..28 in the lower half, the others in the upper.
            let bytes = _mm256_shuffle_epi8(_mm256_packs_epi16(a, b), _mm256_broadcastsi128_si256(parted()));
            let (a, b) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
            _mm_storeu_si128(even.cast(), _mm_unpacklo_epi16(a, b));
            _mm_storeu_si128(odd.cast(), _mm_unpackhi_epi16(a, b));
        }
    }
}

/// Bits without the sign.
#[inline(always)]
unsafe fn magnitudes(v: __m256) -> __m256i {
    // SAFETY: arithmetic only.
    unsafe { _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fff_ffff)) }
}

/// Nearest integers, ties to even; of NaN 0.
#[inline(always)]
unsafe fn integers(v: __m256) -> __m256i {
    // SAFETY: arithmetic only.
    unsafe { _mm256_cvtps_epi32(_mm256_and_ps(v, _mm256_cmp_ps::<_CMP_ORD_Q>(v, v))) }
}

/// The order that brings the even bytes of a register before the odd ones.
#[inline(always)]
pub(super) unsafe fn parted() -> __m128i {
    // SAFETY: arithmetic only.
    unsafe { _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15) }
}

/// Columns `t` and `t + 1` of a tile, each lane the fold of one sum: lanes 8, 4, 2 and 1 apart as `fold_add` has them,
/// and each step leaves more sums in a register, the first column's in its lower half.
#[inline(always)]
unsafe fn fold_columns(sums: &[F32x16; LANES], t: usize) -> __m256 {
    // SAFETY: arithmetic only.
    unsafe {
        let mut fours = [_mm256_setzero_ps(); 4];
        let mut n = 0;
        while n < 4 {
            let (a, b) = (sums[4 * n + t], sums[4 * n + t + 1]);
            let (a, b) = (_mm256_add_ps(a.0, a.1), _mm256_add_ps(b.0, b.1));
            fours[n] =
                _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
            n += 1;
        }
        let (a, b) = (fold_pairs(fours[0], fours[1]), fold_pairs(fours[2], fours[3]));
        _mm256_add_ps(_mm256_shuffle_ps::<0x88>(a, b), _mm256_shuffle_ps::<0xdd>(a, b))
    }
}

/// In each half: lanes 0 + 2 and 1 + 3 of `a`, then of `b`.
#[inline(always)]
unsafe fn fold_pairs(a: __m256, b: __m256) -> __m256 {
    // SAFETY: arithmetic only.
    unsafe {
        let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
        let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
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

crate::versions::f32_ops!(F32x16, "avx2,fma,f16c");

/// Groups whose sums fill a register: four pairs.
const GROUPS: usize = 8;
/// Rows of weights whose words fill a register.
const ROWS: usize = 8;
/// Rows of x that a tile serves at a time: their running sums stay in the first-level cache.
const TILE_X: usize = 16;
/// Groups whose bytes fill a register.
const PAIR: usize = 2;

/// Weights of one or more rows as bytes, and how they meet 8-bit activations.
trait Codes: Streams {
    /// Words of a pair differ between the two halves of [`Codes::raw`].
    const TWO_WORDS: bool;
    /// Bytes of groups `2 pair` and, where it `is_whole`, `2 pair + 1` of row `row`: packed nibbles (twice), or even and odd
    /// columns.
    unsafe fn raw(self, row: usize, pair: usize, is_whole: bool) -> [__m256i; 2];
    /// Even and odd columns' codes.
    unsafe fn split(raw: [__m256i; 2]) -> [__m256i; 2];
    /// Sums of four neighbouring products of even and of odd columns together, as `i32`.
    unsafe fn sums(codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i;
    /// Codes have a sign; else they are nibbles, 8 too large.
    const SIGNED: bool;
    /// What a group's sum lacks, from -8 times the sum of its activations.
    unsafe fn correction(minus_eight_sums: __m256i) -> __m256i;
    /// Scales of groups `group..group + n` of row `row`, the other lanes zero.
    unsafe fn scales(self, row: usize, group: usize, n: usize) -> __m256;
    /// Ask for what stands [`AHEAD`] of the 8 groups from `group`.
    fn prefetch(self, row: usize, group: usize);
}

/// `n <= 8` BF16 scales, the other lanes zero.
#[inline(always)]
unsafe fn load_scales(from: *const u16, n: usize) -> __m256 {
    // SAFETY: `n` scales are readable by the caller.
    unsafe {
        let bits = if n == GROUPS {
            _mm_loadu_si128(from.cast())
        } else {
            let mut buf = [0u16; GROUPS];
            std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), n);
            _mm_loadu_si128(buf.as_ptr().cast())
        };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }
}

impl Codes for Int4<'_> {
    const TWO_WORDS: bool = false;
    const SIGNED: bool = false;

    #[inline(always)]
    unsafe fn raw(self, row: usize, pair: usize, is_whole: bool) -> [__m256i; 2] {
        let at = (row * self.n_groups + pair * PAIR) * (GROUP / 2);
        // SAFETY: this row's groups from `at` are in bounds; an odd last group is read alone.
        unsafe {
            let from = self.packed.as_ptr().add(at);
            let bytes = match is_whole {
                true => _mm256_loadu_si256(from.cast()),
                false => _mm256_zextsi128_si256(_mm_loadu_si128(from.cast())),
            };
            [bytes, bytes]
        }
    }

    #[inline(always)]
    unsafe fn split(raw: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: arithmetic only.
        unsafe {
            let low = _mm256_set1_epi8(15);
            [_mm256_and_si256(raw[0], low), _mm256_and_si256(_mm256_srli_epi16::<4>(raw[0]), low)]
        }
    }

    #[inline(always)]
    unsafe fn sums(codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: arithmetic only; two pairs of nibble products fit 16 bits (4 * 15 * 127).
        unsafe {
            let even = _mm256_maddubs_epi16(codes[0], x[0]);
            let both = _mm256_add_epi16(even, _mm256_maddubs_epi16(codes[1], x[1]));
            _mm256_madd_epi16(both, _mm256_set1_epi16(1))
        }
    }

    #[inline(always)]
    unsafe fn correction(minus_eight_sums: __m256i) -> __m256i {
        minus_eight_sums
    }

    #[inline(always)]
    unsafe fn scales(self, row: usize, group: usize, n: usize) -> __m256 {
        // SAFETY: `n` scales from `group` of this row are in bounds by the caller; bf16 is its bits.
        unsafe { load_scales(self.scales.as_ptr().add(row * self.n_groups + group).cast(), n) }
    }

    #[inline(always)]
    fn prefetch(self, row: usize, group: usize) {
        let at = row * self.n_groups + group;
        prefetch::<2>(self.packed.as_ptr().wrapping_add(at * GROUP / 2 + AHEAD));
        if group.is_multiple_of(4 * GROUPS) {
            prefetch::<1>(self.scales.as_ptr().wrapping_add(at + AHEAD / (GROUP / 2)).cast());
        }
    }
}

impl Int8<'_> {
    /// Products of signed codes: the weight's sign moves to x; a pair fits 16 bits (2 * 127 * 127).
    #[inline(always)]
    unsafe fn fours(codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: arithmetic only.
        unsafe {
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
            _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
        }
    }
}

impl Codes for Int8<'_> {
    const TWO_WORDS: bool = true;
    const SIGNED: bool = true;

    #[inline(always)]
    unsafe fn raw(self, row: usize, pair: usize, _is_whole: bool) -> [__m256i; 2] {
        let at = row * self.stride + pair_position(pair);
        // SAFETY: rows hold whole quads.
        unsafe {
            let from = self.codes.as_ptr().add(at);
            [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(QUAD / 2).cast())]
        }
    }

    #[inline(always)]
    unsafe fn split(raw: [__m256i; 2]) -> [__m256i; 2] {
        raw
    }

    #[inline(always)]
    unsafe fn sums(codes: [__m256i; 2], x: [__m256i; 2]) -> __m256i {
        // SAFETY: arithmetic only.
        unsafe { _mm256_add_epi32(Self::fours(codes[0], x[0]), Self::fours(codes[1], x[1])) }
    }

    #[inline(always)]
    unsafe fn correction(_minus_eight_sums: __m256i) -> __m256i {
        // SAFETY: arithmetic only; signed codes need none.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn scales(self, row: usize, group: usize, n: usize) -> __m256 {
        // SAFETY: `n` scales from `group` of this row are in bounds by the caller; bf16 is its bits.
        unsafe { load_scales(self.scales.as_ptr().add(row * self.n_groups + group).cast(), n) }
    }

    #[inline(always)]
    fn prefetch(self, row: usize, group: usize) {
        let at = row * self.stride + group * GROUP;
        prefetch::<4>(self.codes.as_ptr().wrapping_add(at + AHEAD).cast());
        if group.is_multiple_of(4 * GROUPS) {
            let scale = row * self.n_groups + group + AHEAD / GROUP;
            prefetch::<1>(self.scales.as_ptr().wrapping_add(scale).cast());
        }
    }
}

/// Where the even codes of groups `2 pair` and `2 pair + 1` stand in a stored row; the odd ones are half a quad on.
#[inline(always)]
fn pair_position(pair: usize) -> usize {
    pair / 2 * QUAD + pair % 2 * GROUP
}

/// The sums of eight groups in order, from four pairs of partial sums whose 128-bit lane i belongs to group i.
#[inline(always)]
unsafe fn group_sums(pairs: [__m256i; 4]) -> __m256i {
    // SAFETY: arithmetic only.
    unsafe {
        let join = |a, b| _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (low, high) = (join(pairs[0], pairs[1]), join(pairs[2], pairs[3]));
        let sums = _mm256_add_epi32(_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high));
        _mm256_permutevar8x32_epi32(sums, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
    }
}

/// `n <= 8` groups from `base` on of one row of weights, unpacked once for `T` rows of x: their sums, times both scales,
/// are added to `sums`.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn add_groups<C: Codes, const T: usize>(
    x: &[QuantRow<'_>; T],
    w: C,
    row: usize,
    base: usize,
    n: usize,
    sums: &mut [__m256; T],
) {
    // SAFETY: the caller's contract, that of `row_dots`.
    unsafe {
        w.prefetch(row, base);
        let mut parts = [[_mm256_setzero_si256(); GROUPS / PAIR]; T];
        for i in 0..GROUPS / PAIR {
            if i * PAIR < n {
                let pair = base / PAIR + i;
                let codes = C::split(w.raw(row, pair, (i + 1) * PAIR <= n));
                for t in 0..T {
                    let from = x[t].codes.as_ptr().add(pair_position(pair));
                    let x = [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(QUAD / 2).cast())];
                    parts[t][i] = C::sums(codes, x);
                }
            }
        }
        let scales = w.scales(row, base, n);
        for t in 0..T {
            let corrections = _mm256_loadu_si256(x[t].corrections.as_ptr().add(base).cast());
            let total = _mm256_add_epi32(group_sums(parts[t]), C::correction(corrections));
            let both = _mm256_mul_ps(scales, _mm256_loadu_ps(x[t].scales.as_ptr().add(base)));
            sums[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), both, sums[t]);
        }
    }
}

/// Products of `T` rows of x with one row of weights.
///
/// Whole runs of 16 groups, eight for each register of sums, go apart from what is left: there every length is known
/// when this is compiled.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn row_dots<C: Codes, const T: usize>(
    x: &[QuantRow<'_>; T],
    w: C,
    row: usize,
    n_groups: usize,
) -> [f32; T] {
    // SAFETY: rows of x are zero-padded to whole quads and whole runs of 16 scales; `w` has `n_groups` groups.
    unsafe {
        let (mut low, mut high) = ([_mm256_setzero_ps(); T], [_mm256_setzero_ps(); T]);
        let n_whole = n_groups / LANES * LANES;
        for base in (0..n_whole).step_by(LANES) {
            add_groups::<C, T>(x, w, row, base, GROUPS, &mut low);
            add_groups::<C, T>(x, w, row, base + GROUPS, GROUPS, &mut high);
        }
        if n_whole < n_groups {
            add_groups::<C, T>(x, w, row, n_whole, GROUPS.min(n_groups - n_whole), &mut low);
        }
        if n_whole + GROUPS < n_groups {
            add_groups::<C, T>(x, w, row, n_whole + GROUPS, n_groups - n_whole - GROUPS, &mut high);
        }
        let mut dots = [0.0; T];
        for t in 0..T {
            dots[t] = fold8(_mm256_add_ps(low[t], high[t]));
        }
        dots
    }
}

/// `T` rows of x with up to 16 rows of weights, one after the other.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn band_of<C: Codes, const T: usize>(
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
        let dots = unsafe { row_dots::<C, T>(&x, w, row, n_groups) };
        for t in 0..T {
            out[t * n_rows + row] = dots[t];
        }
    }
}

#[inline(always)]
unsafe fn band<C: Codes>(x: &[QuantRow<'_>], w: C, n_rows: usize, n_groups: usize, out: &mut [f32]) {
    for (x, out) in x.chunks(2).zip(out.chunks_mut(2 * n_rows)) {
        // SAFETY: features and lengths are the caller's contract.
        unsafe {
            match x.len() {
                2 => band_of::<C, 2>(x, w, n_rows, n_groups, out),
                _ => band_of::<C, 1>(x, w, n_rows, n_groups, out),
            }
        }
    }
}

/// Word j of row i to word i of row j.
#[inline(always)]
unsafe fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: arithmetic only.
    unsafe {
        let mut pairs = [_mm256_setzero_si256(); 8];
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
        }
        let mut fours = [_mm256_setzero_si256(); 8];
        for i in 0..2 {
            for half in 0..2 {
                let (a, b) = (pairs[4 * i + half], pairs[4 * i + 2 + half]);
                fours[4 * i + 2 * half] = _mm256_unpacklo_epi64(a, b);
                fours[4 * i + 2 * half + 1] = _mm256_unpackhi_epi64(a, b);
            }
        }
        let mut words = [_mm256_setzero_si256(); 8];
        for i in 0..4 {
            words[i] = _mm256_permute2x128_si256::<0x20>(fours[i], fours[4 + i]);
            words[4 + i] = _mm256_permute2x128_si256::<0x31>(fours[i], fours[4 + i]);
        }
        words
    }
}

/// Rows of x that [`nibble_group`] takes together: two registers of sums for each, and the weights of one word beside.
const GROUP_X: usize = 4;
/// Running sums of one row of x with `H` times 8 rows of weights, for each of the 16 lanes of the definition.
type Sums<const H: usize> = [[__m256; H]; LANES];

/// A group of a tile's weights: codes word by word, even columns, then odd, and the scales.
struct TileGroup<const H: usize> {
    words: [[__m256i; H]; 8],
    scales: [__m256; H],
}

/// Up to [`TILE_X`] rows of x with `8 H` rows of a tile from `first` on, lanes across the rows of weights.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn tile_block<C: Codes, const H: usize>(
    x: &[QuantRow<'_>],
    w: C,
    first: usize,
    n_groups: usize,
    out: &mut [f32],
) {
    assert!(x.len() <= TILE_X && out.len() == x.len() * TILE_ROWS);
    assert!(x.iter().all(|x| x.holds(n_groups)));
    // SAFETY: as in `row_dots`, for each of the rows of `w`.
    unsafe {
        let zero = _mm256_setzero_si256();
        let mut sums: [Sums<H>; TILE_X] = [[[_mm256_setzero_ps(); H]; LANES]; TILE_X];
        let mut tile = TileGroup { words: [[zero; H]; 8], scales: [_mm256_setzero_ps(); H] };
        let (mut scales, mut even, mut odd) = ([[zero; ROWS]; H], [[zero; ROWS]; H], [[zero; ROWS]; H]);
        for base in (0..n_groups).step_by(GROUPS) {
            let n = GROUPS.min(n_groups - base);
            for half in 0..H {
                for row in 0..ROWS {
                    let row_of_tile = first + half * ROWS + row;
                    scales[half][row] = _mm256_castps_si256(w.scales(row_of_tile, base, n));
                    ask_scales_ahead(w, row_of_tile, H * ROWS, base + 2 * GROUPS, n_groups);
                }
                scales[half] = transpose(scales[half]);
            }
            for pair in base / PAIR..(base + n).div_ceil(PAIR) {
                let is_whole = n_groups - pair * PAIR >= PAIR;
                for half in 0..H {
                    for row in 0..ROWS {
                        let row_of_tile = first + half * ROWS + row;
                        [even[half][row], odd[half][row]] = w.raw(row_of_tile, pair, is_whole);
                        if (pair * PAIR).is_multiple_of(4) {
                            ask_ahead(w, row_of_tile, H * ROWS, pair * PAIR / 4, n_groups);
                        }
                    }
                    even[half] = transpose(even[half]);
                    odd[half] = if C::TWO_WORDS { transpose(odd[half]) } else { even[half] };
                }
                for i in 0..PAIR.min(n_groups - pair * PAIR) {
                    let group = pair * PAIR + i;
                    for half in 0..H {
                        for word in 0..4 {
                            let codes = C::split([even[half][4 * i + word], odd[half][4 * i + word]]);
                            tile.words[word][half] = codes[0];
                            tile.words[4 + word][half] = codes[1];
                        }
                        tile.scales[half] = _mm256_castsi256_ps(scales[half][group % GROUPS]);
                    }
                    let at = pair_position(pair) + i * (GROUP / 2);
                    match C::SIGNED {
                        true => signed_group(x, &tile, at, group, &mut sums),
                        false => nibble_groups(x, &tile, at, group, &mut sums),
                    }
                }
            }
        }
        for (out, sums) in out.chunks_exact_mut(TILE_ROWS).zip(&mut sums) {
            for half in 0..H {
                _mm256_storeu_ps(out[first + half * ROWS..][..ROWS].as_mut_ptr(), fold_lanes(sums, half));
            }
        }
    }
}

/// Four codes of a row of x from `at` on, in every lane.
#[inline(always)]
unsafe fn spread(x: &QuantRow<'_>, at: usize) -> __m256i {
    // SAFETY: four codes from `at` are in bounds by the caller.
    unsafe { _mm256_set1_epi32(x.codes.as_ptr().add(at).cast::<i32>().read_unaligned()) }
}

/// Add a group's integer sums, times its scales, to the running sums of a row of x.
#[inline(always)]
unsafe fn add_scaled(total: __m256i, scales: __m256, x: &QuantRow<'_>, group: usize, slot: &mut __m256) {
    // SAFETY: the group is one of x by the caller.
    unsafe {
        let both = _mm256_mul_ps(scales, _mm256_set1_ps(*x.scales.get_unchecked(group)));
        *slot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total), both, *slot);
    }
}

/// One group of a tile of signed codes with every row of x: four words of weights and their magnitudes fill half of
/// the registers, so even columns go first and their sums wait.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn signed_group<const H: usize>(
    x: &[QuantRow<'_>],
    tile: &TileGroup<H>,
    at: usize,
    group: usize,
    sums: &mut [Sums<H>; TILE_X],
) {
    // SAFETY: at most `TILE_X` rows; 16 even codes at `at` and 16 odd ones half a quad further are in bounds, and so
    // is the group, by the caller. A pair of products fits 16 bits (2 * 127 * 127).
    unsafe {
        let ones = _mm256_set1_epi16(1);
        for half in 0..H {
            let mut evens = [_mm256_setzero_si256(); TILE_X];
            for odd in 0..2 {
                let (mut words, mut sizes) = ([_mm256_setzero_si256(); 4], [_mm256_setzero_si256(); 4]);
                for i in 0..4 {
                    words[i] = tile.words[4 * odd + i][half];
                    sizes[i] = _mm256_abs_epi8(words[i]);
                }
                for (t, x) in x.iter().enumerate() {
                    let at = at + odd * (QUAD / 2);
                    let mut parts = [_mm256_setzero_si256(); 4];
                    for i in 0..4 {
                        let signed = _mm256_sign_epi8(spread(x, at + 4 * i), words[i]);
                        parts[i] = _mm256_madd_epi16(_mm256_maddubs_epi16(sizes[i], signed), ones);
                    }
                    let (a, b) = (_mm256_add_epi32(parts[0], parts[1]), _mm256_add_epi32(parts[2], parts[3]));
                    let sum = _mm256_add_epi32(a, b);
                    let even = evens.get_unchecked_mut(t);
                    if odd == 0 {
                        *even = sum;
                        continue;
                    }
                    let slot = &mut sums.get_unchecked_mut(t).get_unchecked_mut(group % LANES)[half];
                    add_scaled(_mm256_add_epi32(*even, sum), tile.scales[half], x, group, slot);
                }
            }
        }
    }
}

/// One group of a tile of nibbles with every row of x.
#[inline(always)]
unsafe fn nibble_groups<const H: usize>(
    x: &[QuantRow<'_>],
    tile: &TileGroup<H>,
    at: usize,
    group: usize,
    sums: &mut [Sums<H>; TILE_X],
) {
    let mut t = 0;
    // SAFETY: as in `nibble_group`, for the rows from `t` on.
    unsafe {
        while t + GROUP_X <= x.len() {
            nibble_group::<GROUP_X, H>(&x[t..], tile, at, group, &mut sums[t..]);
            t += GROUP_X;
        }
        match x.len() - t {
            3 => nibble_group::<3, H>(&x[t..], tile, at, group, &mut sums[t..]),
            2 => nibble_group::<2, H>(&x[t..], tile, at, group, &mut sums[t..]),
            1 => nibble_group::<1, H>(&x[t..], tile, at, group, &mut sums[t..]),
            _ => {}
        }
    }
}

/// One group of a tile of nibbles with `X` rows of x.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn nibble_group<const X: usize, const H: usize>(
    x: &[QuantRow<'_>],
    tile: &TileGroup<H>,
    at: usize,
    group: usize,
    sums: &mut [Sums<H>],
) {
    // SAFETY: `X` rows are there; 16 even codes at `at` and 16 odd ones half a quad further are in bounds, and so is
    // the group, by the caller. Eight pairs of products fit 16 bits (16 * 15 * 127).
    unsafe {
        let mut pairs = [[_mm256_setzero_si256(); H]; X];
        for word in 0..8 {
            let nibbles = tile.words[word];
            let at = at + word / 4 * (QUAD / 2) + word % 4 * 4;
            for t in 0..X {
                let codes = spread(x.get_unchecked(t), at);
                for half in 0..H {
                    let products = _mm256_maddubs_epi16(nibbles[half], codes);
                    pairs[t][half] = _mm256_add_epi16(pairs[t][half], products);
                }
            }
        }
        let ones = _mm256_set1_epi16(1);
        for t in 0..X {
            let x = x.get_unchecked(t);
            let correction = _mm256_set1_epi32(*x.corrections.get_unchecked(group));
            let slots = sums.get_unchecked_mut(t).get_unchecked_mut(group % LANES);
            for half in 0..H {
                let total = _mm256_add_epi32(_mm256_madd_epi16(pairs[t][half], ones), correction);
                add_scaled(total, tile.scales[half], x, group, &mut slots[half]);
            }
        }
    }
}

/// The sum of 16 lanes folded by halves, for the 8 rows of a tile's half at once.
#[inline(always)]
unsafe fn fold_lanes<const H: usize>(lanes: &mut Sums<H>, half: usize) -> __m256 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            // SAFETY: arithmetic only.
            lanes[i][half] = unsafe { _mm256_add_ps(lanes[i][half], lanes[i + width][half]) };
        }
        width /= 2;
    }
    lanes[0][half]
}

#[inline(always)]
unsafe fn tile<C: Codes>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    for (x, out) in x.chunks(TILE_X).zip(out.chunks_mut(TILE_X * TILE_ROWS)) {
        // SAFETY: the caller's contract.
        unsafe {
            if C::SIGNED {
                // Sixteen rows of bytes, the rows of x and twice the sums would not stay in the first-level cache.
                tile_block::<C, 1>(x, w, 0, n_groups, out);
                tile_block::<C, 1>(x, w, ROWS, n_groups, out);
            } else {
                tile_block::<C, 2>(x, w, 0, n_groups, out);
            }
        }
    }
}

/// See [`crate::reference::integer_multiply_adds`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn integer_multiply_adds(rounds: usize) -> usize {
    let (factor, ones) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
    let mut values = [_mm256_set1_epi32(1); 12];
    for _ in 0..rounds {
        values.iter_mut().for_each(|v| {
            let sums = _mm256_madd_epi16(_mm256_maddubs_epi16(*v, factor), ones);
            *v = _mm256_add_epi32(*v, sums);
        });
    }
    std::hint::black_box(values);
    rounds * values.len() * size_of::<__m256i>()
}

crate::versions::integer_ops!("avx2,fma,f16c", band, tile);

const _: () = assert!(TILE_ROWS == 2 * ROWS && LANES == 2 * GROUPS);
