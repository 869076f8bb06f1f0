//! `y = W x` for T rows at once, rows of W spread over threads.

use crate::GROUP;
use crate::cpu::{Cpu, Isa, dispatch};
use crate::matrix::{Matrix, MatrixData};
use crate::panels::Panels;
use crate::quant::{self, QuantRow, QuantRows};
use crate::reference::{TILE_ROWS, weight_stride};
use crate::shared::{Scratch, Shared};
use std::ops::Range;

/// Rows of W that a kernel takes at a time.
pub(crate) const BAND: usize = TILE_ROWS;
/// Most bands a task takes, one after the other in memory.
const BANDS_PER_TASK: usize = 16;
/// Tasks a thread should find at least, so that none waits long for another at the end.
const TASKS_PER_THREAD: usize = 16;
/// Rows of x that share one unpacking of a tile.
const BLOCK: usize = 128;

/// Activations of T rows, [T, K], in the form a product takes them.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// `f32` [T, K]: the weights enter with their own values, whatever their form; nothing is rounded but the sums.
    F32 {
        /// The rows, one after the other, [T, K].
        x: &'a [f32],
        /// K, in elements.
        n_cols: usize,
    },
    /// 8-bit rows: products with INT4 and 8-bit weights are summed as integers inside each group of 32.
    Q8(&'a QuantRows),
}

impl<'a> Rows<'a> {
    /// `f32` rows of `n_cols` elements.
    ///
    /// # Panics
    /// If `x` is not whole rows.
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

    /// The rows `which` side by side, whatever lies between them.
    pub(crate) fn gather(&self, which: impl Iterator<Item = usize>) -> Gathered<'a> {
        match *self {
            Rows::F32 { x, n_cols } => {
                Gathered::F32(which.map(|t| &x[t * n_cols..(t + 1) * n_cols]).collect())
            }
            Rows::Q8(x) => Gathered::Q8(which.map(|t| x.row(t)).collect()),
        }
    }
}

/// Some rows of a [`Rows`], ready to be multiplied.
pub(crate) enum Gathered<'a> {
    F32(Vec<&'a [f32]>),
    Q8(Vec<QuantRow<'a>>),
}

impl Gathered<'_> {
    /// Whether `n_x` of its rows meet a matrix such as `w` in panels.
    pub(crate) fn takes_panels(&self, cpu: &Cpu, n_x: usize, w: &Matrix) -> bool {
        cpu.isa() == Isa::Amx && matches!(self, Gathered::Q8(_)) && n_x >= panel_x_min(w)
    }

    /// Its rows `which` in blocks, each with every band of `rows` of a matrix such as `w`: `f` gets a block, its rows, and
    /// a band.
    ///
    /// A block in panels meets all bands before the next one is packed; without panels a band meets all blocks while it
    /// is near.
    pub(crate) fn each_band(
        &self,
        cpu: &Cpu,
        which: Range<usize>,
        w: &Matrix,
        rows: Range<usize>,
        mut f: impl FnMut(&Block<'_>, Range<usize>, Range<usize>),
    ) {
        let blocks = || which.clone().step_by(BLOCK).map(|at| at..(at + BLOCK).min(which.end));
        if self.takes_panels(cpu, which.len(), w) && rows.len() >= TILE_ROWS {
            for which in blocks() {
                let block = self.block(cpu, which.clone(), w);
                block.bands(rows.clone()).for_each(|band| f(&block, which.clone(), band));
            }
        } else {
            for band in bands(rows, BAND) {
                blocks().for_each(|which| f(&self.unpacked(which.clone()), which, band.clone()));
            }
        }
    }

    /// Its rows `which`, ready for many products with bands of `w` or of a matrix of its form and K.
    pub(crate) fn block(&self, cpu: &Cpu, which: Range<usize>, w: &Matrix) -> Block<'_> {
        match self {
            Gathered::Q8(x) if self.takes_panels(cpu, which.len(), w) => {
                let x = &x[which];
                Block::Q8(x, Panels::of(cpu.isa(), x, w.n_cols() / GROUP))
            }
            _ => self.unpacked(which),
        }
    }

    fn unpacked(&self, which: Range<usize>) -> Block<'_> {
        match self {
            Gathered::F32(x) => Block::F32(&x[which]),
            Gathered::Q8(x) => Block::Q8(&x[which], None),
        }
    }
}

/// Some rows, at most [`BLOCK`], that meet one band of weights after another.
pub(crate) enum Block<'a> {
    F32(&'a [&'a [f32]]),
    /// The second form for whole bands, where the processor has products for it.
    Q8(&'a [QuantRow<'a>], Option<Panels>),
}

impl Block<'_> {
    /// `rows` of a matrix in the bands that [`Block::products`] takes.
    pub(crate) fn bands(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        bands(rows, if matches!(self, Block::Q8(_, Some(_))) { Panels::BAND } else { BAND })
    }

    /// Inner products of its rows with a band of `w`: `out` [T, rows].
    pub(crate) fn products(&self, cpu: &Cpu, w: &Matrix, rows: Range<usize>, out: &mut [f32]) {
        match self {
            Block::F32(x) => products_f32(cpu, x, w, rows, out),
            Block::Q8(x, panels) => products_q8(cpu, x, panels.as_ref(), w, rows, out),
        }
    }
}

/// `out[t, n] = dot(x[t], W[n])`: `x` [T, K], `w` [N, K], `out` [T, N], overwritten.
///
/// # Panics
/// If K or the length of `out` does not fit, or `x` is 8-bit and `w` neither INT4 nor 8-bit ([`Matrix::is_integer`]).
pub fn matmul(cpu: &Cpu, x: Rows<'_>, w: &Matrix, out: &mut [f32]) {
    let (n_x, n_rows) = (x.n_rows(), w.n_rows());
    assert_eq!(x.n_cols(), w.n_cols(), "x has the K of W");
    assert_eq!(out.len(), n_x * n_rows, "out is T rows of N");
    let out = Shared::new(out);
    let x = x.gather(0..n_x);
    let n_per_task = rows_per_task(cpu, n_rows.div_ceil(BAND), x.takes_panels(cpu, n_x, w));
    cpu.pool().run(n_rows.div_ceil(n_per_task), &|i| {
        let mut scratch = Scratch::take();
        let of_task = i * n_per_task..((i + 1) * n_per_task).min(n_rows);
        x.each_band(cpu, 0..n_x, w, of_task, |block, which, rows| {
            if n_x == 1 {
                // SAFETY: rows of W belong to one task each.
                block.products(cpu, w, rows.clone(), unsafe { out.part(rows) });
                return;
            }
            let products = scratch.first(which.len() * rows.len());
            block.products(cpu, w, rows.clone(), products);
            for (t, products) in which.zip(products.chunks_exact(rows.len())) {
                // SAFETY: rows of W belong to one task each, so each (t, n) is written once.
                let out = unsafe { out.part(t * n_rows + rows.start..t * n_rows + rows.end) };
                out.copy_from_slice(products);
            }
        });
    });
}

/// Products of `f32` rows; quantised weights are decoded a band at a time.
fn products_f32(cpu: &Cpu, x: &[&[f32]], w: &Matrix, rows: Range<usize>, out: &mut [f32]) {
    let span = rows.start * w.n_cols()..rows.end * w.n_cols();
    match w.data() {
        MatrixData::F32(values) => dispatch!(cpu.isa(), band_f32(x, &values.as_slice()[span], out)),
        MatrixData::Bf16(values) => dispatch!(cpu.isa(), band_bf16(x, &values.as_slice()[span], out)),
        MatrixData::Int8 { .. } | MatrixData::Int4 { .. } => {
            let mut scratch = Scratch::take();
            let decoded = scratch.first(span.len());
            quant::dequantize_rows(cpu.isa(), w, rows, decoded);
            dispatch!(cpu.isa(), band_f32(x, decoded, out));
        }
    }
}

/// Fewest rows of x for which transposing a tile of W pays: more for INT4, the form of experts, whose tiles are few before the
/// next expert's come.
fn tile_x_min(isa: Isa, w: &Matrix) -> usize {
    match (isa, w.data()) {
        (Isa::Avx512 | Isa::Amx, MatrixData::Int8 { .. }) => 3,
        _ => 5,
    }
}

/// Fewest rows of x for which panels pay: for INT4, the form of experts, more than one panel well filled.
fn panel_x_min(w: &Matrix) -> usize {
    match w.data() {
        MatrixData::Int8 { .. } => 10,
        _ => 24,
    }
}

/// Products of 8-bit rows with INT4 or 8-bit weights: by panels where there are any, by tiles where enough rows share
/// them, else row by row.
fn products_q8(
    cpu: &Cpu,
    x: &[QuantRow<'_>],
    panels: Option<&Panels>,
    w: &Matrix,
    rows: Range<usize>,
    out: &mut [f32],
) {
    let n_rows = rows.len();
    let panels = panels.filter(|_| n_rows.is_multiple_of(TILE_ROWS));
    let by_tile = n_rows == TILE_ROWS && x.len() >= tile_x_min(cpu.isa(), w);
    let n_groups = w.n_cols() / GROUP;
    let groups = rows.start * n_groups..rows.end * n_groups;
    match w.data() {
        MatrixData::Int4 { packed, scales } => {
            let packed = &packed.as_slice()[groups.start * GROUP / 2..groups.end * GROUP / 2];
            let scales = &scales.as_slice()[groups];
            match panels {
                Some(panels) => panels.products_q4(packed, scales, n_rows, out),
                None if by_tile => dispatch!(cpu.isa(), tile_q4(x, packed, scales, out)),
                None => dispatch!(cpu.isa(), band_q4(x, packed, scales, n_rows, out)),
            }
        }
        MatrixData::Int8 { codes, scales } => {
            let stride = weight_stride(w.n_cols());
            let codes = &codes.as_slice()[rows.start * stride..rows.end * stride];
            let scales = &scales.as_slice()[groups];
            match panels {
                Some(panels) => panels.products_q8(codes, scales, n_rows, out),
                None if by_tile => dispatch!(cpu.isa(), tile_q8(x, codes, scales, out)),
                None => dispatch!(cpu.isa(), band_q8(x, codes, scales, n_rows, out)),
            }
        }
        MatrixData::F32(_) | MatrixData::Bf16(_) => panic!("integer products need integer weights"),
    }
}

/// Rows of W a task takes where all tasks together have `n_bands` of them: whole bands of panels where there are any.
pub(crate) fn rows_per_task(cpu: &Cpu, n_bands: usize, in_panels: bool) -> usize {
    let n_least = if in_panels { Panels::BAND / BAND } else { 1 };
    let n = (n_bands / (cpu.pool().n_threads() * TASKS_PER_THREAD)).clamp(1, BANDS_PER_TASK);
    BAND * n.next_multiple_of(n_least)
}

/// `rows` in bands of `n_most` as long as there are as many, then of [`BAND`], then what is left.
fn bands(rows: Range<usize>, n_most: usize) -> impl Iterator<Item = Range<usize>> {
    let mut first = rows.start;
    std::iter::from_fn(move || {
        let n_left = rows.end - first;
        let n = if n_left >= n_most { n_most } else { n_left.min(BAND) };
        let band = first..first + n;
        first += n;
        (n > 0).then_some(band)
    })
}
