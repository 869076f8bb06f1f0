//! `y = W x` for T rows at once, rows of W spread over threads.

use crate::GROUP;
use crate::cpu::{Cpu, dispatch};
use crate::matrix::{Matrix, MatrixData};
use crate::quant::{self, QuantRow, QuantRows};
use crate::shared::Shared;
use std::ops::Range;

/// Rows of W a task takes: their bytes stay in the second-level cache while all rows of x pass.
const ROWS_PER_TASK: usize = 16;
/// Rows of x whose bytes stay near while a task's rows of W pass over them.
pub(crate) const BLOCK: usize = 32;

/// Activations of T rows, in the form a product takes them.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// `f32` [T, K]: products are exact in the weights' values, whatever the form of the weights.
    F32 {
        /// The rows, one after the other.
        x: &'a [f32],
        /// K.
        n_cols: usize,
    },
    /// 8-bit rows: products with INT4 and 8-bit weights are summed as integers inside each group of 32.
    Q8(&'a QuantRows),
}

impl<'a> Rows<'a> {
    /// `f32` rows of width `n_cols`.
    pub fn f32(x: &'a [f32], n_cols: usize) -> Self {
        assert_eq!(x.len() % n_cols, 0, "x is whole rows of K");
        Rows::F32 { x, n_cols }
    }

    /// T.
    pub fn n_rows(&self) -> usize {
        match self {
            Rows::F32 { x, n_cols } => x.len() / n_cols,
            Rows::Q8(x) => x.n_rows(),
        }
    }

    /// K.
    pub fn n_cols(&self) -> usize {
        match self {
            Rows::F32 { n_cols, .. } => *n_cols,
            Rows::Q8(x) => x.n_cols(),
        }
    }

    /// Inner products of the rows `which` (at most [`BLOCK`]) with row `n` of `w`, into `out` [which].
    pub(crate) fn dots(
        &self,
        cpu: &Cpu,
        which: &[u32],
        w: &Matrix,
        n: usize,
        decoded: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let at = |i: usize| which[i.min(which.len() - 1)] as usize;
        match self {
            Rows::F32 { x, n_cols } => {
                let rows: [&[f32]; BLOCK] = std::array::from_fn(|i| &x[at(i) * n_cols..(at(i) + 1) * n_cols]);
                dots_f32(cpu, &rows[..which.len()], w, n, decoded, out);
            }
            Rows::Q8(x) => {
                let rows: [QuantRow<'_>; BLOCK] = std::array::from_fn(|i| x.row(at(i)));
                dots_integer(cpu, &rows[..which.len()], w, n, out);
            }
        }
    }
}

/// `out[t, n] = dot(x[t], W[n])`: `x` T rows of K, `w` [N, K], `out` [T, N].
///
/// 8-bit rows take INT4 or 8-bit weights only; other forms panic.
pub fn matmul(cpu: &Cpu, x: Rows<'_>, w: &Matrix, out: &mut [f32]) {
    let n_rows = w.n_rows();
    assert_eq!(x.n_cols(), w.n_cols(), "x has the K of W");
    assert_eq!(out.len(), x.n_rows() * n_rows, "out is T rows of N");
    let out = Shared::new(out);
    let which: Vec<u32> = (0..x.n_rows() as u32).collect();
    for_row_tasks(cpu, n_rows, |rows| {
        let mut decoded = Vec::new();
        for block in which.chunks(BLOCK) {
            for n in rows.clone() {
                let mut dots = [0.0f32; BLOCK];
                x.dots(cpu, block, w, n, &mut decoded, &mut dots[..block.len()]);
                for (&t, &dot) in block.iter().zip(&dots) {
                    // SAFETY: rows of W belong to one task each, so each (t, n) is written once.
                    unsafe { out.write(t as usize * n_rows + n, dot) };
                }
            }
        }
    });
}

/// Inner products of `f32` rows with row `n` of `w`; quantised rows are decoded first.
fn dots_f32(cpu: &Cpu, x: &[&[f32]], w: &Matrix, n: usize, decoded: &mut Vec<f32>, out: &mut [f32]) {
    let span = n * w.n_cols()..(n + 1) * w.n_cols();
    match w.data() {
        MatrixData::F32(values) => {
            let row = &values.as_slice()[span];
            dispatch!(cpu.isa(), dots_f32(x, row, out))
        }
        MatrixData::Bf16(values) => {
            let row = &values.as_slice()[span];
            dispatch!(cpu.isa(), dots_bf16(x, row, out))
        }
        MatrixData::Int8 { .. } | MatrixData::Int4 { .. } => {
            decoded.resize(w.n_cols(), 0.0);
            quant::dequantize_rows(cpu.isa(), w, n..n + 1, decoded);
            dispatch!(cpu.isa(), dots_f32(x, decoded, out))
        }
    }
}

/// Inner products of 8-bit rows with row `n` of `w` (INT4 or 8-bit).
fn dots_integer(cpu: &Cpu, x: &[QuantRow<'_>], w: &Matrix, n: usize, out: &mut [f32]) {
    let span = |unit: usize| n * w.n_cols() / unit..(n + 1) * w.n_cols() / unit;
    match w.data() {
        MatrixData::Int4 { packed, scales } => {
            let (packed, scales) = (&packed.as_slice()[span(2)], &scales.as_slice()[span(GROUP)]);
            dispatch!(cpu.isa(), dots_q4(x, packed, scales, out))
        }
        MatrixData::Int8 { codes, scales } => {
            let (codes, scales) = (&codes.as_slice()[span(1)], &scales.as_slice()[span(GROUP)]);
            dispatch!(cpu.isa(), dots_q8(x, codes, scales, out))
        }
        MatrixData::F32(_) | MatrixData::Bf16(_) => panic!("integer products need integer weights"),
    }
}

/// Run `task` on ranges of rows that cover `0..n_rows`.
pub(crate) fn for_row_tasks(cpu: &Cpu, n_rows: usize, task: impl Fn(Range<usize>) + Sync) {
    cpu.pool().run(n_rows.div_ceil(ROWS_PER_TASK), &|task_idx| {
        task(task_idx * ROWS_PER_TASK..((task_idx + 1) * ROWS_PER_TASK).min(n_rows));
    });
}
