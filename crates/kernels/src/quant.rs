//! Quantised rows: 8-bit activations made on the fly, weights decoded or re-encoded row by row.

use crate::cpu::{Cpu, Isa, dispatch};
use crate::matrix::{Matrix, MatrixData};
use crate::shared::Shared;
use crate::{GROUP, reference};
use half::bf16;
use std::ops::Range;

/// Rows a task of [`encode_int8`] and [`QuantRows::fill`] takes.
const ROWS_PER_TASK: usize = 16;

/// Activations in 8 bits: T rows of K codes in stored order with a scale per group of 32.
#[derive(Default)]
pub struct QuantRows {
    n_cols: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    corrections: Vec<i32>,
}

/// One row of [`QuantRows`].
#[derive(Clone, Copy)]
pub struct QuantRow<'a> {
    /// [K] codes in stored order.
    pub codes: &'a [i8],
    /// [G] scales.
    pub scales: &'a [f32],
    /// [K/4] `-8 * (sum of four codes)`.
    pub corrections: &'a [i32],
}

impl QuantRows {
    /// Quantise `x` [T, K] (K a multiple of 32), reusing this buffer's memory.
    pub fn fill(&mut self, cpu: &Cpu, x: &[f32], n_cols: usize) {
        assert_eq!(n_cols % GROUP, 0, "8-bit activations come in groups of 32");
        self.n_cols = n_cols;
        self.codes.resize(x.len(), 0);
        self.scales.resize(x.len() / GROUP, 0.0);
        self.corrections.resize(x.len() / 4, 0);
        let n_rows = x.len() / n_cols;
        let (codes, scales, corrections) =
            (Shared::new(&mut self.codes), Shared::new(&mut self.scales), Shared::new(&mut self.corrections));
        cpu.pool().run(n_rows.div_ceil(ROWS_PER_TASK), &|task_idx| {
            for row in task_idx * ROWS_PER_TASK..((task_idx + 1) * ROWS_PER_TASK).min(n_rows) {
                let span = |unit: usize| row * n_cols / unit..(row + 1) * n_cols / unit;
                // SAFETY: each row belongs to one task.
                let (codes, scales, corrections) =
                    unsafe { (codes.part(span(1)), scales.part(span(GROUP)), corrections.part(span(4))) };
                let x = &x[span(1)];
                dispatch!(cpu.isa(), quantize_row(x, codes, scales, corrections));
            }
        });
    }

    /// Bytes that `n_values` take: a code and a share of a correction each, and a scale per group.
    pub fn bytes(n_values: usize) -> usize {
        n_values + n_values / 4 * size_of::<i32>() + n_values / GROUP * size_of::<f32>()
    }

    /// T.
    pub fn n_rows(&self) -> usize {
        self.codes.len() / self.n_cols.max(1)
    }

    /// K.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Row `row_idx`.
    #[inline]
    pub fn row(&self, row_idx: usize) -> QuantRow<'_> {
        let span = |unit: usize| row_idx * self.n_cols / unit..(row_idx + 1) * self.n_cols / unit;
        QuantRow {
            codes: &self.codes[span(1)],
            scales: &self.scales[span(GROUP)],
            corrections: &self.corrections[span(4)],
        }
    }
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
                reference::dequantize_q8_row(
                    &codes.as_slice()[span(1)],
                    &scales.as_slice()[span(GROUP)],
                    out,
                );
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
    let mut codes = vec![0i8; n_rows * n_cols];
    let mut scales = vec![0f32; n_rows * n_cols / GROUP];
    let (codes_out, scales_out) = (Shared::new(&mut codes), Shared::new(&mut scales));
    cpu.pool().run(n_rows.div_ceil(ROWS_PER_TASK), &|task_idx| {
        let mut row_f32 = vec![0f32; n_cols];
        let mut corrections = vec![0i32; n_cols / 4];
        for row in task_idx * ROWS_PER_TASK..((task_idx + 1) * ROWS_PER_TASK).min(n_rows) {
            dequantize_rows(cpu.isa(), matrix, row..row + 1, &mut row_f32);
            let span = |unit: usize| row * n_cols / unit..(row + 1) * n_cols / unit;
            // SAFETY: each row belongs to one task.
            let (codes, scales) = unsafe { (codes_out.part(span(1)), scales_out.part(span(GROUP))) };
            dispatch!(cpu.isa(), quantize_row(&row_f32, codes, scales, &mut corrections));
        }
    });
    Matrix::new(n_rows, n_cols, MatrixData::Int8 { codes: codes.into(), scales: scales.into() })
}

/// BF16 of `code * scale` (nearest, ties to even): the weight as the compressed-tensors library gives it.
pub fn dequantized_bf16(nibble: u8, scale: bf16) -> bf16 {
    bf16::from_f32((f32::from(nibble) - 8.0) * scale.to_f32())
}
