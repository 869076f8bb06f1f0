//! NEON with dot products of 8-bit codes (`sdot`, Armv8.2 and later).

use super::Products;
/// All others: what is defined below stands before what a glob brings.
pub(crate) use super::neon::*;
use std::arch::aarch64::{int8x16_t, int32x4_t};
use std::arch::asm;

/// `sum` and four products each, in 32 bits. The intrinsic is not stable yet (rust-lang/rust#117224).
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers; the feature is enabled here.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Products summed by fours.
struct ByFours;

impl Products for ByFours {
    #[inline(always)]
    unsafe fn add(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the feature is the caller's contract.
        unsafe { sdot(sum, a, b) }
    }
}

crate::versions::integer_ops!("neon,dotprod", super::band::<ByFours, _>, super::tile::<ByFours, _>);

/// See [`crate::reference::integer_multiply_adds`].
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn integer_multiply_adds(rounds: usize) -> usize {
    // SAFETY: the features are enabled here.
    unsafe { super::integer_multiply_adds::<ByFours>(rounds) }
}
