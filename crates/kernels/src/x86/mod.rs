//! Versions for x86-64: the same bits as [`crate::reference`], more lanes at a time.
//!
//! The staircase: `avx2` keeps 16 lanes in two registers and sums products of 8-bit codes by `maddubs` and
//! `madd`; `avx512` keeps them in one and sums by `vpdpbusd`; `amx` is the same but for many rows by many.

pub(crate) mod amx;
pub(crate) mod avx2;
pub(crate) mod avx512;

use crate::versions::{Int4, Int8};
use crate::{GROUP, QUAD};
use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

/// Bytes ahead of the codes being read that are asked for: a stream crosses pages, where the processor's own
/// prefetching ends.
const AHEAD: usize = 2_048;

/// Quads ahead of the one being read that are asked for in each row of a tile: its rows are as many streams, more than the
/// processor follows by itself.
const TILE_AHEAD: usize = 2;

/// Weights whose rows are read side by side.
trait Streams: Copy {
    /// Ask for the codes of a quad of a row.
    fn ask_quad(self, row: usize, quad: usize);
    /// Ask for the scales from `group` of a row on.
    fn ask_scales(self, row: usize, group: usize);
    /// What is worth asking for while `n_rows` rows are multiplied: where the codes of as many more stand, and their bytes.
    fn next_rows(self, n_rows: usize) -> (*const u8, usize);
}

impl Streams for Int4<'_> {
    #[inline(always)]
    fn ask_quad(self, row: usize, quad: usize) {
        let at = row * self.n_groups * (GROUP / 2) + quad * (QUAD / 2);
        prefetch::<1>(self.packed.as_ptr().wrapping_add(at));
    }

    #[inline(always)]
    fn ask_scales(self, row: usize, group: usize) {
        prefetch::<1>(self.scales.as_ptr().wrapping_add(row * self.n_groups + group).cast());
    }

    #[inline(always)]
    fn next_rows(self, n_rows: usize) -> (*const u8, usize) {
        let n_bytes = n_rows * self.n_groups * (GROUP / 2);
        (self.packed.as_ptr().wrapping_add(n_bytes), n_bytes)
    }
}

impl Streams for Int8<'_> {
    #[inline(always)]
    fn ask_quad(self, row: usize, quad: usize) {
        prefetch::<2>(self.codes.as_ptr().wrapping_add(row * self.stride + quad * QUAD).cast());
    }

    #[inline(always)]
    fn ask_scales(self, row: usize, group: usize) {
        prefetch::<1>(self.scales.as_ptr().wrapping_add(row * self.n_groups + group).cast());
    }

    /// Nothing: twice the bytes, and asking for them took longer than it saved.
    #[inline(always)]
    fn next_rows(self, _n_rows: usize) -> (*const u8, usize) {
        (self.codes.as_ptr().cast(), 0)
    }
}

/// Ask for what stands [`TILE_AHEAD`] quads on in a row of a tile; past its end, in that of the next `n_rows` rows.
#[inline(always)]
fn ask_ahead<W: Streams>(w: W, row: usize, n_rows: usize, quad: usize, n_groups: usize) {
    let (at, n_quads) = (quad + TILE_AHEAD, n_groups.div_ceil(4));
    if at < n_quads { w.ask_quad(row, at) } else { w.ask_quad(row + n_rows, (at - n_quads).min(quad)) }
}

/// Ask for the scales from `group` of a row of a tile on; past its end, for the first of the next `n_rows` rows.
#[inline(always)]
fn ask_scales_ahead<W: Streams>(w: W, row: usize, n_rows: usize, group: usize, n_groups: usize) {
    if group < n_groups { w.ask_scales(row, group) } else { w.ask_scales(row + n_rows, 0) }
}

/// Ask for `N` lines from `at` on, wherever that is, into the first-level cache.
#[inline(always)]
fn prefetch<const N: usize>(at: *const u8) {
    lines::<_MM_HINT_T0, N>(at);
}

/// The same into the second-level cache: beside loads of whole lines what comes to the first too early is in the way.
#[inline(always)]
fn prefetch_second<const N: usize>(at: *const u8) {
    lines::<_MM_HINT_T1, N>(at);
}

#[inline(always)]
fn lines<const HINT: i32, const N: usize>(at: *const u8) {
    for line in 0..N {
        // SAFETY: a prefetch reads nothing that the program can see and does not fault.
        unsafe { _mm_prefetch::<HINT>(at.wrapping_add(line * 64).cast()) };
    }
}
