//! Quantised rows: 8-bit activations made on the fly, weights decoded or re-encoded row by row.

use crate::cpu::{Cpu, Isa, dispatch};
use crate::matrix::{Matrix, MatrixData};
use crate::reference::stored_width;
use crate::shared::Shared;
use crate::{GROUP, LANES};
use half::bf16;
use std::ops::Range;

/// Rows a task of [`encode_int8`] and [`QuantRows::fill`] takes.
const ROWS_PER_TASK: usize = 16;

/// Activations in 8 bits: T rows of K codes in stored order with a scale per group of 32.
#[derive(Default)]
pub struct QuantRows {
    n_rows: usize,
    n_cols: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    corrections: Vec<i32>,
}

/// One row of [`QuantRows`]; past the row's own groups everything is zero.
#[derive(Clone, Copy)]
pub struct QuantRow<'a> {
    /// Codes in stored order, whole quads.
    pub codes: &'a [i8],
    /// A scale per group, in whole runs of [`LANES`].
    pub scales: &'a [f32],
    /// `-8 * (sum of the group's codes)`, likewise.
    pub corrections: &'a [i32],
}

impl QuantRows {
    /// Quantise `x` [T, K] (K a multiple of 32), reusing this buffer's memory.
    pub fn fill(&mut self, cpu: &Cpu, x: &[f32], n_cols: usize) {
        assert_eq!(n_cols % GROUP, 0, "8-bit activations come in groups of 32");
        if self.n_cols != n_cols {
            // What another width left behind must not stand in the padding.
            self.codes.clear();
            self.scales.clear();
            self.corrections.clear();
        }
        (self.n_cols, self.n_rows) = (n_cols, x.len() / n_cols);
        let (width, n_groups) = (stored_width(n_cols), padded_groups(n_cols));
        self.codes.resize(self.n_rows * width, 0);
        self.scales.resize(self.n_rows * n_groups, 0.0);
        self.corrections.resize(self.n_rows * n_groups, 0);
        let n_rows = self.n_rows;
        let (codes, scales, corrections) =
            (Shared::new(&mut self.codes), Shared::new(&mut self.scales), Shared::new(&mut self.corrections));
        cpu.pool().run(n_rows.div_ceil(ROWS_PER_TASK), &|task_idx| {
            for row in task_idx * ROWS_PER_TASK..((task_idx + 1) * ROWS_PER_TASK).min(n_rows) {
                let span = |width: usize| row * width..(row + 1) * width;
                // SAFETY: each row belongs to one task.
                let (codes, scales, corrections) = unsafe {
                    (codes.part(span(width)), scales.part(span(n_groups)), corrections.part(span(n_groups)))
                };
                let x = &x[span(n_cols)];
                dispatch!(cpu.isa(), quantize_row(x, codes, scales, corrections));
            }
        });
    }

    /// Bytes that T rows of K take.
    pub fn bytes(n_rows: usize, n_cols: usize) -> usize {
        n_rows * (stored_width(n_cols) + padded_groups(n_cols) * (size_of::<f32>() + size_of::<i32>()))
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
    #[inline]
    pub fn row(&self, row_idx: usize) -> QuantRow<'_> {
        let span = |width: usize| row_idx * width..(row_idx + 1) * width;
        let groups = span(padded_groups(self.n_cols));
        QuantRow {
            codes: &self.codes[span(stored_width(self.n_cols))],
            scales: &self.scales[groups.clone()],
            corrections: &self.corrections[groups],
        }
    }
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
                let w = &w.as_slice()[span(1)];
                out.iter_mut().zip(w).for_each(|(out, w)| *out = w.to_f32());
            }
            MatrixData::Int8 { codes, scales } => {
                let width = stored_width(n_cols);
                let codes = &codes.as_slice()[row * width..(row + 1) * width];
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
    let (width, n_groups) = (stored_width(n_cols), n_cols / GROUP);
    let mut codes = vec![0i8; n_rows * width];
    let mut scales = vec![0f32; n_rows * n_groups];
    let (codes_out, scales_out) = (Shared::new(&mut codes), Shared::new(&mut scales));
    cpu.pool().run(n_rows.div_ceil(ROWS_PER_TASK), &|task_idx| {
        let mut row_f32 = vec![0f32; n_cols];
        let mut corrections = vec![0i32; n_groups];
        for row in task_idx * ROWS_PER_TASK..((task_idx + 1) * ROWS_PER_TASK).min(n_rows) {
            dequantize_rows(cpu.isa(), matrix, row..row + 1, &mut row_f32);
            let span = |width: usize| row * width..(row + 1) * width;
            // SAFETY: each row belongs to one task.
            let (codes, scales) = unsafe { (codes_out.part(span(width)), scales_out.part(span(n_groups))) };
            dispatch!(cpu.isa(), quantize_row(&row_f32, codes, scales, &mut corrections));
        }
    });
    Matrix::new(n_rows, n_cols, MatrixData::Int8 { codes: codes.into(), scales: scales.into() })
}

/// BF16 of `code * scale` (nearest, ties to even): the weight as the compressed-tensors library gives it.
pub fn dequantized_bf16(nibble: u8, scale: bf16) -> bf16 {
    bf16::from_f32((f32::from(nibble) - 8.0) * scale.to_f32())
}
