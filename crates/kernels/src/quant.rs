//! Quantised rows: 8-bit activations made on the fly, weights decoded or re-encoded row by row.

use crate::cpu::{Cpu, Isa, dispatch};
use crate::map::huge_zeros;
use crate::matrix::{Matrix, MatrixData};
use crate::reference::{LINE, stored_position, stored_width, weight_stride};
use crate::shared::Shared;
use crate::{GROUP, LANES, QUAD};
use half::bf16;
use std::ops::Range;

/// Largest magnitude of an INT4 code that this program writes: -7..=7 of the -8..=7 that a nibble holds.
const INT4_CODE_MAX: f32 = 7.0;
/// Least magnitude that an INT4 scale is made for: a group whose largest is below it gets the scale of this one, so
/// that no scale is zero.
const INT4_AMAX_MIN: f32 = 7e-5;

/// Scale of a group of INT4 weights `[32]`: `bf16(max(amax, 7e-5) / 7)`, amax its largest magnitude; NaN where the
/// group holds one.
///
/// With this scale a group that was rounded once is not changed by rounding it again.
pub fn int4_scale(group: &[f32]) -> bf16 {
    // As integers NaN is above infinity, so it cannot hide.
    let amax = f32::from_bits(group.iter().map(|w| w.to_bits() & 0x7fff_ffff).max().unwrap_or(0));
    let amax = if amax < INT4_AMAX_MIN { INT4_AMAX_MIN } else { amax };
    bf16::from_f32(amax / INT4_CODE_MAX)
}

/// Code of an INT4 weight under the group's scale, as a float: `w / scale` rounded to the nearest of -7..=7, ties to
/// even.
#[inline(always)]
fn int4_code(w: f32, scale: f32) -> f32 {
    /// Adding and taking away 1.5 * 2^23 rounds a small float to the nearest integer, ties to even.
    const ROUND: f32 = 12_582_912.0;
    let clamped = (w / scale).clamp(-2.0 * INT4_CODE_MAX, 2.0 * INT4_CODE_MAX);
    ((clamped + ROUND) - ROUND).clamp(-INT4_CODE_MAX, INT4_CODE_MAX)
}

/// Weights as INT4 holds them, codes times scales: `w` and `out` of one length, whole groups of 32 along K.
pub fn round_int4(w: &[f32], out: &mut [f32]) {
    for (w, out) in w.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
        let scale = int4_scale(w).to_f32();
        w.iter().zip(out).for_each(|(w, out)| *out = int4_code(*w, scale) * scale);
    }
}

/// Weights as BF16 holds them (nearest, ties to even): `w` and `out` of one length.
pub fn round_bf16(w: &[f32], out: &mut [f32]) {
    w.iter().zip(out).for_each(|(w, out)| *out = bf16::from_f32(*w).to_f32());
}

/// One row `w` `[K]` in the published packing (compressed-tensors `pack-quantized`): `packed` [K/2] bytes (low nibble
/// first, value + 8), `scales` [K/32].
///
/// What it unpacks to are the values of [`round_int4`].
pub fn pack_int4(w: &[f32], packed: &mut [u8], scales: &mut [bf16]) {
    for ((w, packed), slot) in w.chunks(GROUP).zip(packed.chunks_mut(GROUP / 2)).zip(scales) {
        *slot = int4_scale(w);
        let nibble = |w: f32| (int4_code(w, slot.to_f32()) + 8.0) as u8;
        for (pair, byte) in w.as_chunks::<2>().0.iter().zip(packed) {
            *byte = nibble(pair[0]) | nibble(pair[1]) << 4;
        }
    }
}

/// Rows a task of [`encode_int8`] and [`QuantRows::fill`] takes.
const ROWS_PER_TASK: usize = 16;

/// Activations in 8 bits: T rows of K codes in stored order ([`crate::reference::stored_position`]), with an `f32`
/// scale per group of 32.
#[derive(Default)]
pub struct QuantRows {
    n_rows: usize,
    n_cols: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    corrections: Vec<i32>,
}

/// One row of [`QuantRows`]: value k is code times its group's scale. Past the row's own groups everything is zero.
#[derive(Clone, Copy)]
pub struct QuantRow<'a> {
    /// Codes in -127..=127 in stored order, in whole quads of [`crate::QUAD`].
    pub codes: &'a [i8],
    /// A scale per group, `[G]`, in whole runs of [`LANES`].
    pub scales: &'a [f32],
    /// `-8 * (sum of the group's codes)`, likewise: what a product with raw nibbles (value + 8) lacks.
    pub corrections: &'a [i32],
}

impl QuantRow<'_> {
    /// Whether its codes, scales and corrections reach as far as `n_groups`, in whole runs.
    #[inline]
    pub(crate) fn holds(&self, n_groups: usize) -> bool {
        let n_runs = n_groups.next_multiple_of(LANES);
        self.codes.len() >= stored_width(n_groups * GROUP)
            && self.scales.len() >= n_runs
            && self.corrections.len() >= n_runs
    }
}

impl QuantRows {
    /// Quantise `x` [T, K], K = `n_cols`, reusing this buffer's memory ([`crate::reference::quantize_row`]).
    ///
    /// # Panics
    /// If K is not a multiple of 32.
    pub fn fill(&mut self, cpu: &Cpu, x: &[f32], n_cols: usize) {
        let n_rows = x.len() / n_cols;
        self.make_room(n_rows, n_cols);
        let (codes, scales, corrections) =
            (Shared::new(&mut self.codes), Shared::new(&mut self.scales), Shared::new(&mut self.corrections));
        cpu.pool().run(n_rows.div_ceil(ROWS_PER_TASK), &|task_idx| {
            for row in task_idx * ROWS_PER_TASK..((task_idx + 1) * ROWS_PER_TASK).min(n_rows) {
                let (of_codes, of_groups) = spans(row, n_cols);
                // SAFETY: each row belongs to one task.
                let (codes, scales, corrections) = unsafe {
                    (codes.part(of_codes), scales.part(of_groups.clone()), corrections.part(of_groups))
                };
                let x = &x[row * n_cols..(row + 1) * n_cols];
                dispatch!(cpu.isa(), quantize_row(x, codes, scales, corrections));
            }
        });
    }

    /// Room for `n_rows` rows of `n_cols`, zeros past the columns.
    fn make_room(&mut self, n_rows: usize, n_cols: usize) {
        assert_eq!(n_cols % GROUP, 0, "8-bit activations come in groups of 32");
        if self.n_cols != n_cols {
            // What another width left behind must not stand in the padding.
            self.codes.clear();
            self.scales.clear();
            self.corrections.clear();
        }
        (self.n_cols, self.n_rows) = (n_cols, n_rows);
        let [code_stride, group_stride] = strides(n_cols);
        self.codes.resize(n_rows * code_stride, 0);
        self.scales.resize(n_rows * group_stride, 0.0);
        self.corrections.resize(n_rows * group_stride, 0);
    }

    /// Quantise the first `n_cols` columns of rows on this thread: `x` [T, `stride`].
    pub(crate) fn fill_here(&mut self, isa: Isa, x: &[f32], stride: usize, n_cols: usize) {
        self.make_room(x.len() / stride, n_cols);
        for (row, x) in x.chunks_exact(stride).enumerate() {
            let (codes, groups) = spans(row, n_cols);
            let (codes, scales) = (&mut self.codes[codes], &mut self.scales[groups.clone()]);
            dispatch!(isa, quantize_row(&x[..n_cols], codes, scales, &mut self.corrections[groups]));
        }
    }

    /// Take over the first `n_cols` columns of rows that are encoded already ([`crate::reference::encode_row`]): each its codes
    /// and its scales.
    pub(crate) fn take_encoded<'r>(
        &mut self,
        rows: impl ExactSizeIterator<Item = (&'r [i8], &'r [bf16])>,
        n_cols: usize,
    ) {
        self.make_room(rows.len(), n_cols);
        for (row, (codes, scales)) in rows.enumerate() {
            let (of_codes, of_groups) = spans(row, n_cols);
            for (group, scale) in scales.iter().take(n_cols / GROUP).enumerate() {
                let even = stored_position(group * GROUP);
                let mut sum = 0;
                for at in [even, even + QUAD / 2] {
                    let part = &codes[at..at + GROUP / 2];
                    self.codes[of_codes.clone()][at..at + GROUP / 2].copy_from_slice(part);
                    sum += part.iter().map(|code| i32::from(*code)).sum::<i32>();
                }
                self.scales[of_groups.start + group] = scale.to_f32();
                self.corrections[of_groups.start + group] = -8 * sum;
            }
        }
    }

    /// Bytes that `n_rows` rows of `n_cols` take, codes, scales and corrections.
    pub fn bytes(n_rows: usize, n_cols: usize) -> usize {
        let [code_stride, group_stride] = strides(n_cols);
        n_rows * (code_stride + group_stride * (size_of::<f32>() + size_of::<i32>()))
    }

    /// T.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// K.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Row `row_idx`.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub fn row(&self, row_idx: usize) -> QuantRow<'_> {
        let (codes, groups) = spans(row_idx, self.n_cols);
        QuantRow {
            codes: &self.codes[codes],
            scales: &self.scales[groups.clone()],
            corrections: &self.corrections[groups],
        }
    }
}

/// Codes and groups from one row of [`QuantRows`] to the next: an odd number of cache lines, so that the same column of
/// many rows does not fall into a few sets of a cache, as it would with widths such as 8,192.
fn strides(n_cols: usize) -> [usize; 2] {
    let odd = |bytes: usize| (bytes.div_ceil(LINE) | 1) * LINE;
    [odd(stored_width(n_cols)), odd(padded_groups(n_cols) * size_of::<f32>()) / size_of::<f32>()]
}

/// Where a row stands among the codes, and among the scales and corrections.
fn spans(row_idx: usize, n_cols: usize) -> (Range<usize>, Range<usize>) {
    let [codes, groups] = strides(n_cols).map(|stride| row_idx * stride);
    (codes..codes + stored_width(n_cols), groups..groups + padded_groups(n_cols))
}

/// Groups of a row of [`QuantRows`]: whole runs of [`LANES`].
fn padded_groups(n_cols: usize) -> usize {
    (n_cols / GROUP).next_multiple_of(LANES)
}

/// Rows `rows` of `matrix` as `f32` into `out` [rows, K], exactly.
pub(crate) fn dequantize_rows(isa: Isa, matrix: &Matrix, rows: Range<usize>, out: &mut [f32]) {
    let n_cols = matrix.n_cols();
    for (row, out) in rows.zip(out.chunks_exact_mut(n_cols)) {
        let span = |unit: usize| row * n_cols / unit..(row + 1) * n_cols / unit;
        match matrix.data() {
            MatrixData::F32(w) => out.copy_from_slice(&w.as_slice()[span(1)]),
            MatrixData::Bf16(w) => {
                dispatch!(isa, widen_bf16(&w.as_slice()[span(1)], out));
            }
            MatrixData::Int8 { codes, scales } => {
                let stride = weight_stride(n_cols);
                let codes = &codes.as_slice()[row * stride..(row + 1) * stride];
                let scales = &scales.as_slice()[span(GROUP)];
                dispatch!(isa, dequantize_q8_row(codes, scales, out));
            }
            MatrixData::Int4 { packed, scales } => {
                let (packed, scales) = (&packed.as_slice()[span(2)], &scales.as_slice()[span(GROUP)]);
                dispatch!(isa, dequantize_q4_row(packed, scales, out));
            }
        }
    }
}

/// Re-encode a matrix in 8 bits; see [`Matrix::to_int8`].
pub(crate) fn encode_int8(cpu: &Cpu, matrix: &Matrix) -> Matrix {
    let (n_rows, n_cols) = (matrix.n_rows(), matrix.n_cols());
    let (stride, n_groups) = (weight_stride(n_cols), n_cols / GROUP);
    let mut codes = huge_zeros(n_rows * stride);
    let mut scales = vec![bf16::ZERO; n_rows * n_groups];
    let (codes_out, scales_out) = (Shared::new(&mut codes), Shared::new(&mut scales));
    cpu.pool().run(n_rows.div_ceil(ROWS_PER_TASK), &|task_idx| {
        let mut row_f32 = vec![0f32; n_cols];
        for row in task_idx * ROWS_PER_TASK..((task_idx + 1) * ROWS_PER_TASK).min(n_rows) {
            dequantize_rows(cpu.isa(), matrix, row..row + 1, &mut row_f32);
            let span = |width: usize| row * width..(row + 1) * width;
            // SAFETY: each row belongs to one task.
            let (codes, scales) = unsafe { (codes_out.part(span(stride)), scales_out.part(span(n_groups))) };
            dispatch!(cpu.isa(), encode_row(&row_f32, codes, scales));
        }
    });
    Matrix::new(n_rows, n_cols, MatrixData::Int8 { codes: codes.into(), scales: scales.into() })
}

/// BF16 of `(nibble - 8) * scale` (nearest, ties to even): the weight as the compressed-tensors library gives it.
pub fn dequantized_bf16(nibble: u8, scale: bf16) -> bf16 {
    bf16::from_f32((f32::from(nibble) - 8.0) * scale.to_f32())
}
