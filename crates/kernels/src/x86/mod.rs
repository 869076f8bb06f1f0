//! Versions for x86-64: the same bits as [`crate::reference`], more lanes at a time.
//!
//! The staircase: `avx2` keeps 16 lanes in two registers and sums products of 8-bit codes by `maddubs` and
//! `madd`; `avx512` keeps them in one and sums by `vpdpbusd`.

pub(crate) mod avx2;
pub(crate) mod avx512;

/// Instantiate the operations of [`crate::simd`] for one implementation of `Lanes` inside functions that
/// enable its features.
macro_rules! f32_ops {
    ($lanes:ty, $features:literal) => {
        $crate::x86::versions! { $lanes, $features,
            fn dot(x: &[f32], w: &[f32]) -> f32;
            fn dots_f32(x: &[&[f32]], w: &[f32], out: &mut [f32]);
            fn dots_bf16(x: &[&[f32]], w: &[half::bf16], out: &mut [f32]);
            fn weighted_sum(p: &[f32], rows: &[f32], stride: usize, out: &mut [f32]);
            fn weighted_sum_bf16(p: &[f32], rows: &[half::bf16], stride: usize, out: &mut [f32]);
            fn axpy(a: f32, x: &[f32], y: &mut [f32]);
            fn rms_norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
            fn silu_mul(gate: &mut [f32], up: &[f32]);
            fn exp_row(x: &mut [f32], max: f32) -> f32;
            fn softmax_row(x: &mut [f32]) -> f32;
            fn quantize_row(x: &[f32], codes: &mut [i8], scales: &mut [f32], corrections: &mut [i32]);
            fn dequantize_q8_row(w: &[i8], scales: &[f32], out: &mut [f32]);
            fn multiply_adds(factor: f32, rounds: usize) -> f32;
            fn dequantize_q4_row(w: &[u8], scales: &[half::bf16], out: &mut [f32]);
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
