//! `y = W x` for T rows at once, rows of W spread over threads.

use crate::GROUP;
use crate::cpu::{Cpu, dispatch};
use crate::matrix::{Matrix, MatrixData};
use crate::quant::{self, QuantRow, QuantRows};
use crate::reference::{TILE_ROWS, stored_width};
use crate::shared::Shared;
use std::ops::Range;

/// Rows of W a task takes: their bytes stay in the second-level cache while all rows of x pass.
pub(crate) const ROWS_PER_TASK: usize = TILE_ROWS;
/// Fewest rows of x for which transposing a tile of W pays.
const TILE_X_MIN: usize = 5;
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

    /// The rows `which` (from 1 to [`BLOCK`]) side by side, whatever lies between them.
    pub(crate) fn gather(&self, which: &[u32]) -> Gathered<'a> {
        let n = which.len();
        let at = |i: usize| which[i.min(n - 1)] as usize;
        match *self {
            Rows::F32 { x, n_cols } => {
                Gathered::F32(std::array::from_fn(|i| &x[at(i) * n_cols..(at(i) + 1) * n_cols]), n)
            }
            Rows::Q8(x) => Gathered::Q8(std::array::from_fn(|i| x.row(at(i))), n),
        }
    }
}

/// Some rows of a [`Rows`], ready to be multiplied; made once a task, so its size does not matter.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Gathered<'a> {
    F32([&'a [f32]; BLOCK], usize),
    Q8([QuantRow<'a>; BLOCK], usize),
}

impl Gathered<'_> {
    /// Inner products with rows `rows` of `w` (at most [`ROWS_PER_TASK`]): `out` [T, rows].
    pub(crate) fn products(
        &self,
        cpu: &Cpu,
        w: &Matrix,
        rows: Range<usize>,
        decoded: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        match self {
            Gathered::F32(x, n) => products_f32(cpu, &x[..*n], w, rows, decoded, out),
            Gathered::Q8(x, n) => products_q8(cpu, &x[..*n], w, rows, out),
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
            let mut products = [0.0f32; BLOCK * ROWS_PER_TASK];
            let products = &mut products[..block.len() * rows.len()];
            x.gather(block).products(cpu, w, rows.clone(), &mut decoded, products);
            for (&t, products) in block.iter().zip(products.chunks_exact(rows.len())) {
                let first = t as usize * n_rows + rows.start;
                // SAFETY: rows of W belong to one task each, so each (t, n) is written once.
                unsafe { out.part(first..first + rows.len()) }.copy_from_slice(products);
            }
        }
    });
}

/// Products of `f32` rows; quantised weights are decoded row by row.
fn products_f32(
    cpu: &Cpu,
    x: &[&[f32]],
    w: &Matrix,
    rows: Range<usize>,
    decoded: &mut Vec<f32>,
    out: &mut [f32],
) {
    let n_rows = rows.len();
    for (i, n) in rows.enumerate() {
        let mut dots = [0.0f32; BLOCK];
        let dots = &mut dots[..x.len()];
        let span = n * w.n_cols()..(n + 1) * w.n_cols();
        match w.data() {
            MatrixData::F32(values) => dispatch!(cpu.isa(), dots_f32(x, &values.as_slice()[span], dots)),
            MatrixData::Bf16(values) => dispatch!(cpu.isa(), dots_bf16(x, &values.as_slice()[span], dots)),
            MatrixData::Int8 { .. } | MatrixData::Int4 { .. } => {
                decoded.resize(w.n_cols(), 0.0);
                quant::dequantize_rows(cpu.isa(), w, n..n + 1, decoded);
                dispatch!(cpu.isa(), dots_f32(x, decoded, dots))
            }
        }
        dots.iter().enumerate().for_each(|(t, dot)| out[t * n_rows + i] = *dot);
    }
}

/// Products of 8-bit rows with INT4 or 8-bit weights: by tiles where enough rows share them, else row by row.
fn products_q8(cpu: &Cpu, x: &[QuantRow<'_>], w: &Matrix, rows: Range<usize>, out: &mut [f32]) {
    let n_rows = rows.len();
    let by_tile = n_rows == TILE_ROWS && x.len() >= TILE_X_MIN;
    let groups = |n: usize| n * w.n_cols() / GROUP;
    match w.data() {
        MatrixData::Int4 { packed, scales } => {
            let (packed, scales) = (packed.as_slice(), scales.as_slice());
            let part = |rows: Range<usize>| {
                let (first, end) = (groups(rows.start), groups(rows.end));
                (&packed[first * GROUP / 2..end * GROUP / 2], &scales[first..end])
            };
            if by_tile {
                let (packed, scales) = part(rows);
                return dispatch!(cpu.isa(), tile_q4(x, packed, scales, out));
            }
            each_row(x.len(), rows, out, |n, dots| {
                let (packed, scales) = part(n..n + 1);
                dispatch!(cpu.isa(), dots_q4(x, packed, scales, dots))
            });
        }
        MatrixData::Int8 { codes, scales } => {
            let (codes, scales, width) = (codes.as_slice(), scales.as_slice(), stored_width(w.n_cols()));
            let part = |rows: Range<usize>| {
                (&codes[rows.start * width..rows.end * width], &scales[groups(rows.start)..groups(rows.end)])
            };
            if by_tile {
                let (codes, scales) = part(rows);
                return dispatch!(cpu.isa(), tile_q8(x, codes, scales, out));
            }
            each_row(x.len(), rows, out, |n, dots| {
                let (codes, scales) = part(n..n + 1);
                dispatch!(cpu.isa(), dots_q8(x, codes, scales, dots))
            });
        }
        MatrixData::F32(_) | MatrixData::Bf16(_) => panic!("integer products need integer weights"),
    }
}

/// Fill `out` [T, rows] from `dots(n, [T])` for each row n.
fn each_row(n_x: usize, rows: Range<usize>, out: &mut [f32], dots: impl Fn(usize, &mut [f32])) {
    let n_rows = rows.len();
    for (i, n) in rows.enumerate() {
        let mut column = [0.0f32; BLOCK];
        dots(n, &mut column[..n_x]);
        column[..n_x].iter().enumerate().for_each(|(t, dot)| out[t * n_rows + i] = *dot);
    }
}

/// Run `task` on ranges of rows that cover `0..n_rows`.
pub(crate) fn for_row_tasks(cpu: &Cpu, n_rows: usize, task: impl Fn(Range<usize>) + Sync) {
    cpu.pool().run(n_rows.div_ceil(ROWS_PER_TASK), &|task_idx| {
        task(task_idx * ROWS_PER_TASK..((task_idx + 1) * ROWS_PER_TASK).min(n_rows));
    });
}
