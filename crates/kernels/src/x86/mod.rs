//! Versions for x86-64: the same bits as [`crate::reference`], more lanes at a time.
//!
//! The staircase: `avx2` keeps 16 lanes in two registers and sums products of 8-bit codes by `maddubs` and
//! `madd`; `avx512` keeps them in one and sums by `vpdpbusd`.

pub(crate) mod avx2;
pub(crate) mod avx512;

/// Bytes ahead of the codes being read that are asked for: a stream crosses pages, where the processor's own
/// prefetching ends.
const AHEAD: usize = 2_048;

/// Ask for `N` lines from `at` on, wherever that is.
#[inline(always)]
fn prefetch<const N: usize>(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for line in 0..N {
        // SAFETY: a prefetch reads nothing that the program can see and does not fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(line * 64).cast()) };
    }
}

/// The products of 8-bit rows from a module's `Int4`, `Int8`, `band` and `tile`, its features enabled.
macro_rules! integer_ops {
    ($features:literal) => {
        /// See [`crate::reference::band_q4`].
        #[target_feature(enable = $features)]
        pub(crate) fn band_q4(
            x: &[QuantRow<'_>],
            packed: &[u8],
            scales: &[bf16],
            n_rows: usize,
            out: &mut [f32],
        ) {
            let n_groups = scales.len() / n_rows;
            assert_eq!((packed.len(), scales.len()), (n_rows * n_groups * GROUP / 2, n_rows * n_groups));
            // SAFETY: the features are enabled here; the rows hold a group of bytes for every scale.
            unsafe { band(x, Int4 { packed, scales, n_groups }, n_rows, n_groups, out) }
        }

        /// See [`crate::reference::band_q8`].
        #[target_feature(enable = $features)]
        pub(crate) fn band_q8(
            x: &[QuantRow<'_>],
            codes: &[i8],
            scales: &[bf16],
            n_rows: usize,
            out: &mut [f32],
        ) {
            let n_groups = scales.len() / n_rows;
            let width = stored_width(n_groups * GROUP);
            assert_eq!((codes.len(), scales.len()), (n_rows * width, n_rows * n_groups));
            // SAFETY: the features are enabled here; the rows hold whole quads for their scales.
            unsafe { band(x, Int8 { codes, scales, n_groups }, n_rows, n_groups, out) }
        }

        /// See [`crate::reference::tile_q4`].
        #[target_feature(enable = $features)]
        pub(crate) fn tile_q4(x: &[QuantRow<'_>], packed: &[u8], scales: &[bf16], out: &mut [f32]) {
            let n_groups = scales.len() / TILE_ROWS;
            assert_eq!(
                (packed.len(), scales.len()),
                (TILE_ROWS * n_groups * GROUP / 2, TILE_ROWS * n_groups)
            );
            // SAFETY: the features are enabled here; 16 rows hold a group of bytes for every scale.
            unsafe { tile(x, Int4 { packed, scales, n_groups }, n_groups, out) }
        }

        /// See [`crate::reference::tile_q8`].
        #[target_feature(enable = $features)]
        pub(crate) fn tile_q8(x: &[QuantRow<'_>], codes: &[i8], scales: &[bf16], out: &mut [f32]) {
            let n_groups = scales.len() / TILE_ROWS;
            let width = stored_width(n_groups * GROUP);
            assert_eq!((codes.len(), scales.len()), (TILE_ROWS * width, TILE_ROWS * n_groups));
            // SAFETY: the features are enabled here; 16 rows hold whole quads for their scales.
            unsafe { tile(x, Int8 { codes, scales, n_groups }, n_groups, out) }
        }
    };
}
pub(crate) use integer_ops;

/// Instantiate the operations of [`crate::simd`] for one implementation of `Lanes` inside functions that
/// enable its features.
macro_rules! f32_ops {
    ($lanes:ty, $features:literal) => {
        $crate::x86::versions! { $lanes, $features,
            fn dot(x: &[f32], w: &[f32]) -> f32;
            fn band_f32(x: &[&[f32]], w: &[f32], out: &mut [f32]);
            fn band_bf16(x: &[&[f32]], w: &[half::bf16], out: &mut [f32]);
            fn widen_bf16(x: &[half::bf16], out: &mut [f32]);
            fn weighted_sum(p: &[f32], rows: &[f32], stride: usize, out: &mut [f32]);
            fn axpy(a: f32, x: &[f32], y: &mut [f32]);
            fn rms_norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
            fn silu_mul(gate: &mut [f32], up: &[f32]);
            fn exp_row(x: &mut [f32], max: f32) -> f32;
            fn max_row(x: &[f32]) -> f32;
            fn softmax_row(x: &mut [f32]) -> f32;
            fn quantize_row(x: &[f32], codes: &mut [i8], scales: &mut [f32], corrections: &mut [i32]);
            fn encode_row(w: &[f32], codes: &mut [i8], scales: &mut [half::bf16]);
            fn dequantize_q8_row(w: &[i8], scales: &[half::bf16], out: &mut [f32]);
            fn multiply_adds(factor: f32, rounds: usize) -> f32;
            fn dequantize_q4_row(w: &[u8], scales: &[half::bf16], out: &mut [f32]);
            fn products(x: &[f32], w: &[f32], k: usize, out: &mut [f32]);
            fn scores(q: &[f32], keys: &[f32], nope: usize, width: usize, scale: f32, out: &mut [f32]);
            fn accumulate(g: &$crate::reference::Product, a: &[f32], b: &[f32], c: &mut [f32]);
            fn causal_sums(p: &[f32], p_row: usize, first: usize, values: &[f32], width: usize, out: &mut [f32]);
            fn softmax_with_stats(x: &mut [f32]) -> $crate::reference::AttentionRow;
            fn softmax_back_row(s: &mut [f32], dp: &mut [f32], row: $crate::reference::AttentionRow, scale: f32, delta: f32);
            fn silu_mul_back(gate: &mut [f32], up: &mut [f32], dh: &[f32]);
            fn sigmoids(x: &mut [f32]);
            fn silu_mul_into(gate: &[f32], up: &[f32], out: &mut [f32]);
            fn rms_norm_back_row(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dweight: &mut [f32]);
        }
    };
}
pub(crate) use f32_ops;

/// Each function's version for lanes `$lanes`, its features enabled.
macro_rules! versions {
    ($lanes:ty, $features:literal,
        $(fn $f:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        $(
            #[target_feature(enable = $features)]
            pub(crate) fn $f($($arg: $type),*) $(-> $ret)? {
                // SAFETY: the features that the lanes need are enabled here.
                unsafe { $crate::simd::$f::<$lanes>($($arg),*) }
            }
        )*
    };
}
pub(crate) use versions;
