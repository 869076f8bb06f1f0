//! AVX-512 F, BW, VL and VNNI: 16 lanes in one register; 8-bit products summed by fours in one instruction.
//!
//! For few rows of x (decode) a row of weights goes four quads at a time: a quad's nibbles come apart with one shift
//! and two masks, and a small tree of shuffles leaves 16 group sums in the 16 lanes of the definition. For many
//! (prefill) a tile of 16 rows is transposed so that lanes are rows of weights: eight instructions then make 16 group
//! sums without a shuffle.

use super::{AHEAD, Streams, ask_ahead, ask_scales_ahead, avx2, prefetch, prefetch_second};
use crate::lanes::Lanes;
use crate::quant::QuantRow;
use crate::reference::TILE_ROWS;
use crate::simd::store;
use crate::versions::{Int4, Int8};
use crate::{GROUP, LANES, QUAD};
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::mem::MaybeUninit;

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
    const IS_WIDE: bool = true;

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
    unsafe fn prefetch(ptr: *const u8) {
        prefetch::<1>(ptr);
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

    #[inline(always)]
    unsafe fn fold_tile(sums: &[Self; LANES]) -> Self {
        // SAFETY: arithmetic only.
        unsafe {
            let mut eights = [_mm512_setzero_ps(); 8];
            for i in 0..8 {
                let (a, b) = (sums[2 * i].0, sums[2 * i + 1].0);
                eights[i] =
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
            }
            let mut fours = [_mm512_setzero_ps(); 4];
            for i in 0..4 {
                let (a, b) = (eights[2 * i], eights[2 * i + 1]);
                fours[i] =
                    _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            }
            let mut twos = [_mm512_setzero_ps(); 2];
            for i in 0..2 {
                let (a, b) = (fours[2 * i], fours[2 * i + 1]);
                twos[i] = _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xee>(a, b));
            }
            let [a, b] = twos;
            F32x16(_mm512_add_ps(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b)))
        }
    }

    #[inline(always)]
    unsafe fn magnitude(self, b: Self) -> f32 {
        // SAFETY: arithmetic only.
        unsafe {
            let bits = _mm512_set1_epi32(0x7fff_ffff);
            let a = _mm512_and_si512(_mm512_castps_si512(self.0), bits);
            let b = _mm512_and_si512(_mm512_castps_si512(b.0), bits);
            f32::from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(a, b)))
        }
    }

    #[inline(always)]
    unsafe fn store_codes(self, b: Self, even: *mut i8, odd: *mut i8) {
        // SAFETY: 16 codes are writable by the caller.
        unsafe {
            let order = avx2::parted();
            let (a, b) = (_mm_shuffle_epi8(codes(self.0), order), _mm_shuffle_epi8(codes(b.0), order));
            _mm_storeu_si128(even.cast(), _mm_unpacklo_epi64(a, b));
            _mm_storeu_si128(odd.cast(), _mm_unpackhi_epi64(a, b));
        }
    }
}

/// Nearest integers as bytes, ties to even; of NaN 0.
#[inline(always)]
unsafe fn codes(v: __m512) -> __m128i {
    // SAFETY: arithmetic only.
    unsafe {
        let is_number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(v, v);
        _mm512_cvtepi32_epi8(_mm512_maskz_cvtps_epi32(is_number, v))
    }
}

crate::versions::f32_ops!(F32x16, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni");

/// Groups whose sums fill a register: four quads.
const GROUPS: usize = LANES;
/// Rows of x that a tile serves at a time: their running sums stay in the first-level cache.
const TILE_X: usize = 16;

/// Weights of one or more rows as bytes, and how they meet 8-bit activations.
pub(super) trait Codes: Streams {
    /// Unsigned codes of even and of odd columns from the two halves of [`Codes::raw`], transposed or not.
    unsafe fn split(raw: [__m512i; 2]) -> [__m512i; 2];
    /// Signed codes of even and of odd columns from the two halves of [`Codes::raw`].
    unsafe fn signed(raw: [__m512i; 2]) -> [__m512i; 2];
    /// The bytes of one quad, of whose groups `n <= 4` are there: packed nibbles (twice), those of the others zero, or
    /// even and odd columns.
    unsafe fn raw(self, row: usize, quad: usize, n: usize) -> [__m512i; 2];
    /// Words of a quad differ between the two halves of [`Codes::raw`].
    const TWO_WORDS: bool;
    /// The correction for the codes' offset, from -8 times the sum of a group's activations.
    unsafe fn correction(minus_eight_sums: __m512i) -> __m512i;
    /// Scales of groups `group..group + n` of row `row`, the other lanes zero.
    unsafe fn scales(self, row: usize, group: usize, n: usize) -> __m512;
    /// Ask for what stands [`AHEAD`] of the 16 groups from `group`.
    fn prefetch(self, row: usize, group: usize);
}

impl Codes for Int4<'_> {
    const TWO_WORDS: bool = false;

    #[inline(always)]
    unsafe fn raw(self, row: usize, quad: usize, n: usize) -> [__m512i; 2] {
        let at = (row * self.n_groups + quad * 4) * (GROUP / 2);
        // SAFETY: `n` groups of this row follow `at`, and no more are read.
        unsafe {
            let from = self.packed.as_ptr().add(at).cast::<i8>();
            let bytes = match n {
                4 => _mm512_loadu_si512(from.cast()),
                _ => _mm512_maskz_loadu_epi8((1u64 << (n * (GROUP / 2))) - 1, from),
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
    unsafe fn signed(raw: [__m512i; 2]) -> [__m512i; 2] {
        // SAFETY: arithmetic only; a nibble is its value + 8.
        unsafe {
            let ([even, odd], eight) = (Self::split(raw), _mm512_set1_epi8(8));
            [_mm512_sub_epi8(even, eight), _mm512_sub_epi8(odd, eight)]
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
            load_scales(from, n)
        }
    }

    #[inline(always)]
    fn prefetch(self, row: usize, group: usize) {
        let at = row * self.n_groups + group;
        prefetch_second::<4>(self.packed.as_ptr().wrapping_add(at * GROUP / 2 + AHEAD));
        prefetch_second::<1>(self.scales.as_ptr().wrapping_add(at + AHEAD / (GROUP / 2)).cast());
    }
}

/// `n <= 16` scales, the other lanes zero.
#[inline(always)]
unsafe fn load_scales(from: *const u16, n: usize) -> __m512 {
    // SAFETY: `n` scales are readable by the caller.
    unsafe { if n == GROUPS { F32x16::load_bf16(from).0 } else { F32x16::load_part_bf16(from, n).0 } }
}

impl Codes for Int8<'_> {
    const TWO_WORDS: bool = true;

    #[inline(always)]
    unsafe fn raw(self, row: usize, quad: usize, _n: usize) -> [__m512i; 2] {
        let at = row * self.stride + quad * QUAD;
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
    unsafe fn signed(raw: [__m512i; 2]) -> [__m512i; 2] {
        raw
    }

    #[inline(always)]
    unsafe fn correction(minus_eight_sums: __m512i) -> __m512i {
        // SAFETY: arithmetic only; -128 times the sums.
        unsafe { _mm512_slli_epi32::<4>(minus_eight_sums) }
    }

    #[inline(always)]
    unsafe fn scales(self, row: usize, group: usize, n: usize) -> __m512 {
        // SAFETY: `n` scales from `group` of this row are in bounds by the caller; bf16 is its bits.
        unsafe { load_scales(self.scales.as_ptr().add(row * self.n_groups + group).cast(), n) }
    }

    #[inline(always)]
    fn prefetch(self, row: usize, group: usize) {
        let at = row * self.stride + group * GROUP;
        prefetch_second::<8>(self.codes.as_ptr().wrapping_add(at + AHEAD).cast());
        let scale = row * self.n_groups + group + AHEAD / GROUP;
        prefetch_second::<1>(self.scales.as_ptr().wrapping_add(scale).cast());
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

/// `n <= 16` groups from `base` on of one row of weights, unpacked once for `T` rows of x: their sums, times both scales,
/// are added to `sums`.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn add_groups<C: Codes, const T: usize>(
    x: &[QuantRow<'_>; T],
    w: C,
    row: usize,
    base: usize,
    n: usize,
    sums: &mut [__m512; T],
) {
    // SAFETY: the caller's contract, that of `row_sums`.
    unsafe {
        w.prefetch(row, base);
        let mut parts = [[_mm512_setzero_si512(); 4]; T];
        for i in 0..4 {
            if 4 * i < n {
                let quad = base / 4 + i;
                let codes = C::split(w.raw(row, quad, 4.min(n - 4 * i)));
                for t in 0..T {
                    let from = x[t].codes.as_ptr().add(quad * QUAD);
                    let even = _mm512_loadu_si512(from.cast());
                    let odd = _mm512_loadu_si512(from.add(QUAD / 2).cast());
                    let part = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes[0], even);
                    parts[t][i] = _mm512_dpbusd_epi32(part, codes[1], odd);
                }
            }
        }
        let scales = w.scales(row, base, n);
        for t in 0..T {
            let corrections = _mm512_loadu_si512(x[t].corrections.as_ptr().add(base).cast());
            let total = _mm512_add_epi32(group_sums(parts[t]), C::correction(corrections));
            let both = _mm512_mul_ps(scales, _mm512_loadu_ps(x[t].scales.as_ptr().add(base)));
            sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), both, sums[t]);
        }
    }
}

/// Running sums of `T` rows of x with one row of weights.
///
/// Whole runs of 16 groups go apart from what is left: there every length is known when this is compiled.
#[inline(always)]
unsafe fn row_sums<C: Codes, const T: usize>(
    x: &[QuantRow<'_>; T],
    w: C,
    row: usize,
    n_groups: usize,
) -> [__m512; T] {
    // SAFETY: rows of x are zero-padded to whole quads and whole runs of 16 scales; `w` has `n_groups` groups.
    unsafe {
        let mut sums = [_mm512_setzero_ps(); T];
        let n_whole = n_groups / GROUPS * GROUPS;
        for base in (0..n_whole).step_by(GROUPS) {
            add_groups::<C, T>(x, w, row, base, GROUPS, &mut sums);
        }
        if n_whole < n_groups {
            add_groups::<C, T>(x, w, row, n_whole, n_groups - n_whole, &mut sums);
        }
        sums
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
    assert!(n_rows <= TILE_ROWS && x.len() == T && out.len() == T * n_rows);
    assert!(x.iter().all(|x| x.holds(n_groups)));
    let x: [QuantRow<'_>; T] = std::array::from_fn(|t| x[t]);
    // SAFETY: rows of x hold `n_groups` groups by the assertion, `w` has `n_rows` rows of them by the caller.
    unsafe {
        let mut sums = [[F32x16(_mm512_setzero_ps()); TILE_ROWS]; T];
        for row in 0..n_rows {
            let row_sums = row_sums::<C, T>(&x, w, row, n_groups);
            for t in 0..T {
                sums[t][4 * (row % 4) + row / 4] = F32x16(row_sums[t]);
            }
        }
        for t in 0..T {
            store(F32x16::fold_tile(&sums[t]), out.as_mut_ptr().add(t * n_rows), n_rows);
        }
    }
}

#[inline(always)]
unsafe fn band<C: Codes>(x: &[QuantRow<'_>], w: C, n_rows: usize, n_groups: usize, out: &mut [f32]) {
    for (x, out) in x.chunks(4).zip(out.chunks_mut(4 * n_rows)) {
        // SAFETY: features and lengths are the caller's contract.
        unsafe {
            match x.len() {
                4 => band_of::<C, 4>(x, w, n_rows, n_groups, out),
                3 => band_of::<C, 3>(x, w, n_rows, n_groups, out),
                2 => band_of::<C, 2>(x, w, n_rows, n_groups, out),
                _ => band_of::<C, 1>(x, w, n_rows, n_groups, out),
            }
        }
    }
}

/// Word j of row i to word i of row j.
#[inline(always)]
pub(super) unsafe fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
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
pub(super) type Sums = [__m512; LANES];

/// Words of one group of 16 rows: even and odd codes of four columns each.
type Words = [[__m512i; 2]; 4];

/// Run a block for each group of a tile: its words and scales, each register the 16 rows of weights. (A closure would
/// not have the features of the function around it.)
macro_rules! for_each_group {
    ($codes:ty, ($w:expr, $n_groups:expr), |$group:ident, $words:ident, $scales:ident| $block:block) => {
        let (w, n_groups): ($codes, usize) = ($w, $n_groups);
        for base in (0..n_groups).step_by(GROUPS) {
            let n = GROUPS.min(n_groups - base);
            let mut scales = [_mm512_setzero_si512(); 16];
            for row in 0..16 {
                scales[row] = _mm512_castps_si512(w.scales(row, base, n));
                ask_scales_ahead(w, row, TILE_ROWS, base + GROUPS, n_groups);
            }
            let scales = transpose(scales);
            for quad in base / 4..(base + n).div_ceil(4) {
                let mut raw = [[_mm512_setzero_si512(); 16]; 2];
                for row in 0..16 {
                    [raw[0][row], raw[1][row]] = w.raw(row, quad, 4.min(n_groups - quad * 4));
                    ask_ahead(w, row, TILE_ROWS, quad, n_groups);
                }
                let first = transpose(raw[0]);
                let second = if <$codes>::TWO_WORDS { transpose(raw[1]) } else { first };
                for i in 0..4.min(n_groups - quad * 4) {
                    let $group = quad * 4 + i;
                    let mut $words: Words = [[_mm512_setzero_si512(); 2]; 4];
                    for word in 0..4 {
                        $words[word] = <$codes>::split([first[4 * i + word], second[4 * i + word]]);
                    }
                    let $scales = _mm512_castsi512_ps(scales[$group % GROUPS]);
                    $block
                }
            }
        }
    };
}

/// Running sums of up to [`TILE_X`] rows of x.
type TileSums = [MaybeUninit<Sums>; TILE_X];

/// Sums of `n` rows, zero.
#[inline(always)]
unsafe fn clear(sums: &mut TileSums, n: usize) {
    for sums in &mut sums[..n] {
        // SAFETY: arithmetic only.
        sums.write(unsafe { [_mm512_setzero_ps(); LANES] });
    }
}

/// Fold the sums of every row of `out`, whose sums were cleared before.
#[inline(always)]
unsafe fn fold_sums(sums: &TileSums, out: &mut [f32]) {
    for (out, sums) in out.chunks_exact_mut(TILE_ROWS).zip(sums) {
        // SAFETY: initialised by `clear`.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), fold_lanes(sums.assume_init())) };
    }
}

/// Up to [`TILE_X`] rows of x with 16 rows of weights, lanes across the rows of weights.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn tile_once<C: Codes>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    let mut sums: TileSums = [const { MaybeUninit::uninit() }; TILE_X];
    // SAFETY: the caller's contract.
    unsafe {
        clear(&mut sums, x.len());
        for_each_group!(C, (w, n_groups), |group, words, scales| {
            tile_group::<C>(x, &words, group, scales, &mut sums);
        });
        fold_sums(&sums, out);
    }
}

/// A group of a tile, unpacked.
#[derive(Clone, Copy)]
struct Unpacked {
    words: Words,
    scales: __m512,
}

thread_local! {
    /// The tile that [`tile_often`] unpacks once for many rows of x.
    static UNPACKED: RefCell<Vec<Unpacked>> = const { RefCell::new(Vec::new()) };
}

/// Many rows of x with 16 rows of weights, unpacked once.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
unsafe fn tile_often<C: Codes>(x: &[QuantRow<'_>], w: C, n_groups: usize, out: &mut [f32]) {
    let mut unpacked = UNPACKED.take();
    unpacked.clear();
    unpacked.reserve(n_groups);
    let mut sums: TileSums = [const { MaybeUninit::uninit() }; TILE_X];
    // SAFETY: the caller's contract.
    unsafe {
        for_each_group!(C, (w, n_groups), |_group, words, scales| {
            unpacked.push(Unpacked { words, scales });
        });
        for (x, out) in x.chunks(TILE_X).zip(out.chunks_mut(TILE_X * TILE_ROWS)) {
            clear(&mut sums, x.len());
            for (group, unpacked) in unpacked.iter().enumerate() {
                let Unpacked { words, scales } = *unpacked;
                tile_group::<C>(x, &words, group, scales, &mut sums);
            }
            fold_sums(&sums, out);
        }
    }
    UNPACKED.set(unpacked);
}

/// One group of 16 rows of weights with every row of x.
#[inline(always)]
unsafe fn tile_group<C: Codes>(
    x: &[QuantRow<'_>],
    words: &Words,
    group: usize,
    scales: __m512,
    sums: &mut TileSums,
) {
    let at = group / 4 * QUAD + group % 4 * (GROUP / 2);
    // SAFETY: 16 even codes at `at` and 16 odd ones half a quad further are in bounds by the caller, who has made sums
    // for as many rows.
    unsafe {
        for (t, x) in x.iter().enumerate() {
            let from = x.codes.as_ptr().add(at);
            // Sixteen rows are as many streams, more than the processor follows by itself.
            if group.is_multiple_of(4) {
                prefetch::<2>(from.wrapping_add(QUAD).cast());
            }
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
            let sum = sums.get_unchecked_mut(t).assume_init_mut().get_unchecked_mut(group % LANES);
            *sum = _mm512_fmadd_ps(total, both, *sum);
        }
    }
}

/// The sum of 16 lanes folded by halves, for 16 rows at once.
#[inline(always)]
pub(super) unsafe fn fold_lanes(mut lanes: Sums) -> __m512 {
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
    assert!(out.len() == x.len() * TILE_ROWS && x.iter().all(|x| x.holds(n_groups)));
    // SAFETY: rows of x hold `n_groups` groups; `w` has 16 rows of them by the caller.
    unsafe {
        if x.len() <= TILE_X { tile_once(x, w, n_groups, out) } else { tile_often(x, w, n_groups, out) }
    }
}

/// See [`crate::reference::integer_multiply_adds`].
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn integer_multiply_adds(rounds: usize) -> usize {
    let factor = _mm512_set1_epi8(3);
    let mut values = [_mm512_set1_epi32(1); 12];
    for _ in 0..rounds {
        values.iter_mut().for_each(|v| *v = _mm512_dpbusd_epi32(*v, *v, factor));
    }
    std::hint::black_box(values);
    rounds * values.len() * size_of::<__m512i>()
}

crate::versions::integer_ops!("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni", band, tile);
