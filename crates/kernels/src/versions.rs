//! What the versions for one instruction set share: their functions by macros, and the two forms of quantised weights.

use crate::GROUP;
use crate::reference::weight_stride;
use half::bf16;

/// Packed INT4 with BF16 scales: rows of `n_groups` groups.
#[derive(Clone, Copy)]
pub(crate) struct Int4<'a> {
    pub(crate) packed: &'a [u8],
    pub(crate) scales: &'a [bf16],
    pub(crate) n_groups: usize,
}

/// Signed bytes in stored order with BF16 scales: rows of `n_groups` groups, `stride` codes from one to the next.
#[derive(Clone, Copy)]
pub(crate) struct Int8<'a> {
    pub(crate) codes: &'a [i8],
    pub(crate) scales: &'a [bf16],
    pub(crate) n_groups: usize,
    pub(crate) stride: usize,
}

impl<'a> Int4<'a> {
    /// Rows that hold a group of bytes for every scale.
    #[inline]
    pub(crate) fn new(packed: &'a [u8], scales: &'a [bf16], n_rows: usize) -> Self {
        let n_groups = scales.len() / n_rows;
        assert_eq!((packed.len(), scales.len()), (n_rows * n_groups * GROUP / 2, n_rows * n_groups));
        Int4 { packed, scales, n_groups }
    }
}

impl<'a> Int8<'a> {
    /// Rows that hold whole quads for their scales.
    #[inline]
    pub(crate) fn new(codes: &'a [i8], scales: &'a [bf16], n_rows: usize) -> Self {
        let n_groups = scales.len() / n_rows;
        let stride = weight_stride(n_groups * GROUP);
        assert_eq!((codes.len(), scales.len()), (n_rows * stride, n_rows * n_groups));
        Int8 { codes, scales, n_groups, stride }
    }
}

/// The products of 8-bit rows with either form of weights, from a band's and a tile's, their features enabled.
macro_rules! integer_ops {
    ($features:literal, $band:path, $tile:path) => {
        $crate::versions::integer_ops! { @form $features, $band, $tile, Int4, u8, band_q4, tile_q4 }
        $crate::versions::integer_ops! { @form $features, $band, $tile, Int8, i8, band_q8, tile_q8 }
    };
    (@form $features:literal, $band:path, $tile:path, $form:ident, $code:ty, $band_f:ident, $tile_f:ident) => {
        /// See the function of that name in [`crate::reference`].
        #[target_feature(enable = $features)]
        pub(crate) fn $band_f(
            x: &[$crate::quant::QuantRow<'_>],
            codes: &[$code],
            scales: &[half::bf16],
            n_rows: usize,
            out: &mut [f32],
        ) {
            let w = $crate::versions::$form::new(codes, scales, n_rows);
            // SAFETY: the features are enabled here; the rows hold codes for every scale.
            unsafe { $band(x, w, n_rows, w.n_groups, out) }
        }

        /// See the function of that name in [`crate::reference`].
        #[target_feature(enable = $features)]
        pub(crate) fn $tile_f(
            x: &[$crate::quant::QuantRow<'_>],
            codes: &[$code],
            scales: &[half::bf16],
            out: &mut [f32],
        ) {
            let w = $crate::versions::$form::new(codes, scales, $crate::reference::TILE_ROWS);
            // SAFETY: the features are enabled here; 16 rows hold codes for every scale.
            unsafe { $tile(x, w, w.n_groups, out) }
        }
    };
}
pub(crate) use integer_ops;

/// Instantiate the operations of [`crate::simd`] for one implementation of `Lanes` inside functions that
/// enable its features.
macro_rules! f32_ops {
    ($lanes:ty, $features:literal) => {
        $crate::versions::versions! { $lanes, $features,
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
            fn scores(q: &[f32], panels: &[f32], nope: usize, width: usize, scale: f32, out: &mut [f32]);
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
