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
