//! Products of many rows by many rows over [`Lanes`], several of each in registers at a time: the training ops.
//!
//! [`products`] and [`scores`] give the bits of [`crate::reference::dot`]; [`accumulate`] those of its reference, one
//! fused multiply-add for each reduced element in ascending order, however it is cut.
//!
//! Every function here is unsafe for one reason: it may run only where the processor has the features of `L`.

// Counted loops over registers: an iterator's closure would not have the features of the function around it.
#![allow(clippy::needless_range_loop)]

use crate::LANES;
use crate::lanes::Lanes;
use crate::reference::{AttentionRow, Product};
use crate::simd::{dot, exp_row, for_each_run, load, store};
use std::mem::MaybeUninit;

/// Rows on each side of a tile of [`products`].
const SIDE: usize = 4;

/// Reduced elements that [`accumulate`] takes at a time: a panel of B stays in the first-level cache.
const DEPTH: usize = 192;

/// `SIDE` by `SIDE` inner products, `x` and `w` as many rows of `k`.
#[inline(always)]
unsafe fn tile<L: Lanes>(x: *const f32, w: *const f32, k: usize) -> L {
    // SAFETY: four rows of `k` on each side are readable by the caller.
    unsafe {
        let mut sums = [MaybeUninit::<L>::uninit(); SIDE * SIDE];
        if L::IS_WIDE {
            tile_part::<L, SIDE>(x, w, k, &mut sums);
        } else {
            // Sixteen sums of two registers each do not fit in sixteen registers: four at a time do.
            const HALF: usize = SIDE / 2;
            for n in [0, HALF] {
                for t in [0, HALF] {
                    tile_part::<L, HALF>(x.add(t * k), w.add(n * k), k, &mut sums[n * SIDE + t..]);
                }
            }
        }
        L::fold_tile(&*sums.as_ptr().cast::<[L; LANES]>())
    }
}

/// `S` by `S` of the sums of [`tile`], the one of `t` and `n` at `n * SIDE + t`.
#[inline(always)]
unsafe fn tile_part<L: Lanes, const S: usize>(
    x: *const f32,
    w: *const f32,
    k: usize,
    out: &mut [MaybeUninit<L>],
) {
    // SAFETY: `S` rows of `k` on each side are readable by the caller.
    unsafe {
        let mut sums = [[L::splat(0.0); S]; S];
        let whole = k / LANES * LANES;
        let mut at = 0;
        while at < whole {
            let mut rows = [L::splat(0.0); S];
            for t in 0..S {
                rows[t] = L::load(x.add(t * k + at));
            }
            for n in 0..S {
                let w = L::load(w.add(n * k + at));
                for t in 0..S {
                    sums[n][t] = rows[t].fma(w, sums[n][t]);
                }
            }
            at += LANES;
        }
        if whole < k {
            let mut rows = [L::splat(0.0); S];
            for t in 0..S {
                rows[t] = L::load_part(x.add(t * k + at), k - at);
            }
            for n in 0..S {
                let w = L::load_part(w.add(n * k + at), k - at);
                for t in 0..S {
                    sums[n][t] = rows[t].fma(w, sums[n][t]);
                }
            }
        }
        for n in 0..S {
            for t in 0..S {
                out[n * SIDE + t].write(sums[n][t]);
            }
        }
    }
}

/// Write a tile's 16 sums to `out[t * stride + n]`.
#[inline(always)]
unsafe fn store_tile<L: Lanes>(sums: L, out: *mut f32, stride: usize) {
    let mut values = [0.0f32; LANES];
    // SAFETY: four rows of four values are writable by the caller.
    unsafe {
        sums.store(values.as_mut_ptr());
        for t in 0..SIDE {
            std::ptr::copy_nonoverlapping(values.as_ptr().add(t * SIDE), out.add(t * stride), SIDE);
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn products<L: Lanes>(x: &[f32], w: &[f32], k: usize, out: &mut [f32]) {
    let (n_x, n_w) = (x.len() / k, w.len() / k);
    assert!(x.len() == n_x * k && w.len() == n_w * k && out.len() == n_x * n_w);
    let (x_end, w_end) = (n_x / SIDE * SIDE, n_w / SIDE * SIDE);
    let (xp, wp, op) = (x.as_ptr(), w.as_ptr(), out.as_mut_ptr());
    for n in (0..w_end).step_by(SIDE) {
        for t in (0..x_end).step_by(SIDE) {
            // SAFETY: four rows from `t` and from `n` exist on each side, and their products in `out`.
            unsafe { store_tile(tile::<L>(xp.add(t * k), wp.add(n * k), k), op.add(t * n_w + n), n_w) };
        }
    }
    for n in 0..n_w {
        for t in if n < w_end { x_end } else { 0 }..n_x {
            // SAFETY: `t` and `n` are rows.
            unsafe { *op.add(t * n_w + n) = dot::<L>(&x[t * k..(t + 1) * k], &w[n * k..(n + 1) * k]) };
        }
    }
}

/// Query rows of a tile of [`scores`], where registers are wide.
const SCORED_ROWS: usize = 4;
/// Lanes of a `dot` that [`scores`] holds at a time: those that meet when 16 are folded to 8 and to 4.
const FOLDED: usize = LANES / 4;

/// Inner products of `T` rows of `len` values with 16 keys that stand side by side in `panel` [len, 16]: what
/// [`dot`] gives, its lanes being rows of the panel here.
#[inline(always)]
unsafe fn panel_dots<L: Lanes, const T: usize>(
    q: *const f32,
    width: usize,
    panel: *const f32,
    len: usize,
) -> [L; T] {
    // SAFETY: `T` rows of `len` values, `width` apart, and the panel's are readable by the caller.
    unsafe {
        let mut folded = [[L::splat(0.0); T]; FOLDED];
        for (first, folded) in folded.iter_mut().enumerate() {
            let mut sums = [[L::splat(0.0); T]; FOLDED];
            for block in (first..len).step_by(LANES) {
                for i in 0..FOLDED {
                    let at = block + i * FOLDED;
                    if at < len {
                        let keys = L::load(panel.add(at * LANES));
                        for t in 0..T {
                            sums[i][t] = L::splat(*q.add(t * width + at)).fma(keys, sums[i][t]);
                        }
                    }
                }
            }
            for t in 0..T {
                folded[t] = sums[0][t].add(sums[2][t]).add(sums[1][t].add(sums[3][t]));
            }
        }
        let mut out = [L::splat(0.0); T];
        for t in 0..T {
            out[t] = folded[0][t].add(folded[2][t]).add(folded[1][t].add(folded[3][t]));
        }
        out
    }
}

/// Scores of `T` rows against one panel of 16 keys, the first `n` of them stored.
#[inline(always)]
unsafe fn score_panel<L: Lanes, const T: usize>(
    q: *const f32,
    [nope, width]: [usize; 2],
    panel: *const f32,
    scale: f32,
    (out, stride, n): (*mut f32, usize, usize),
) {
    // SAFETY: `T` rows, a panel and `n <= 16` scores of each row from `out` on are in bounds by the caller.
    unsafe {
        let by_content = panel_dots::<L, T>(q, width, panel, nope);
        let by_place = panel_dots::<L, T>(q.add(nope), width, panel.add(nope * LANES), width - nope);
        for t in 0..T {
            let score = by_content[t].add(by_place[t]).mul(L::splat(scale));
            store(score, out.add(t * stride), n);
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn scores<L: Lanes>(
    q: &[f32],
    panels: &[f32],
    nope: usize,
    width: usize,
    scale: f32,
    out: &mut [f32],
) {
    let n_q = q.len() / width;
    let n_keys = out.len() / n_q.max(1);
    assert!(nope <= width && q.len() == n_q * width && out.len() == n_q * n_keys);
    assert!(panels.len() >= n_keys.div_ceil(LANES) * LANES * width);
    let (q, out) = (q.as_ptr(), out.as_mut_ptr());
    let panels = panels.chunks_exact(LANES * width);
    for (first, panel) in (0..n_keys).step_by(LANES).zip(panels) {
        let (panel, n) = (panel.as_ptr(), LANES.min(n_keys - first));
        let mut t = 0;
        // SAFETY: rows below `n_q`, a whole panel, and scores of `n` keys from `first` on.
        unsafe {
            while L::IS_WIDE && t + SCORED_ROWS <= n_q {
                let to = (out.add(t * n_keys + first), n_keys, n);
                score_panel::<L, SCORED_ROWS>(q.add(t * width), [nope, width], panel, scale, to);
                t += SCORED_ROWS;
            }
            while t < n_q {
                let to = (out.add(t * n_keys + first), n_keys, n);
                score_panel::<L, 1>(q.add(t * width), [nope, width], panel, scale, to);
                t += 1;
            }
        }
    }
}

/// `c[i, j] += sum over p of a[i, p] * b[p, j]` for `M` rows and `N` registers of columns.
#[inline(always)]
unsafe fn block<L: Lanes, const M: usize, const N: usize>(
    depth: usize,
    a: *const f32,
    [a_row, a_col]: [usize; 2],
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
) {
    // SAFETY: `M` rows and `16 N` columns from these places are in bounds by the caller.
    unsafe {
        let mut sums = [[L::splat(0.0); N]; M];
        for (i, sums) in sums.iter_mut().enumerate() {
            for j in 0..N {
                sums[j] = L::load(c.add(i * c_row + j * LANES));
            }
        }
        for p in 0..depth {
            let mut panel = [L::splat(0.0); N];
            for j in 0..N {
                panel[j] = L::load(b.add(p * b_row + j * LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = L::splat(*a.add(i * a_row + p * a_col));
                for j in 0..N {
                    sums[j] = a.fma(panel[j], sums[j]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for j in 0..N {
                sums[j].store(c.add(i * c_row + j * LANES));
            }
        }
    }
}

/// As [`block`] for one row and the last `n < 16` columns.
#[inline(always)]
unsafe fn block_part<L: Lanes>(
    depth: usize,
    a: *const f32,
    a_col: usize,
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    n: usize,
) {
    // SAFETY: `n` columns of one row are in bounds by the caller.
    unsafe {
        let mut sum = L::load_part(c, n);
        for p in 0..depth {
            sum = L::splat(*a.add(p * a_col)).fma(L::load_part(b.add(p * b_row), n), sum);
        }
        sum.store_part(c, n);
    }
}

/// Most rows of A that are packed at a time.
const PACKED_ROWS: usize = 64;
/// Fewest rows for which packing B pays.
const PACKED_ROWS_MIN: usize = 8;
/// Most registers of columns of a block: with eight rows and three, compilers run out of registers.
const COLUMNS_MAX: usize = 2;

/// Copies of a part of A and of a panel of B in the order in which a block reads them: where rows lie a multiple of a
/// few lines apart, as they do in a model, they would share a few sets of the cache and push each other out. Each begins on
/// a line of the cache, or every load of a whole register would take two.
#[repr(C, align(64))]
struct Packed {
    a: [MaybeUninit<f32>; PACKED_ROWS * DEPTH],
    b: [MaybeUninit<f32>; COLUMNS_MAX * LANES * DEPTH],
}

impl Packed {
    /// `M` rows of A from row `i` on, side by side, at the place of row `i`.
    #[inline(always)]
    unsafe fn rows<const M: usize>(&mut self, g: &Product, depth: usize, a: *const f32, i: usize) {
        // SAFETY: `M` rows below `PACKED_ROWS` and at most `DEPTH` columns of them, readable by the caller.
        unsafe {
            let to = self.a.as_mut_ptr().cast::<f32>().add(i * depth);
            let from = a.add(i * g.a_row);
            for p in 0..depth {
                match g.a_row {
                    1 => std::ptr::copy_nonoverlapping(from.add(p * g.a_col), to.add(p * M), M),
                    _ => {
                        for row in 0..M {
                            *to.add(p * M + row) = *from.add(row * g.a_row + p * g.a_col);
                        }
                    }
                }
            }
        }
    }

    /// `N` registers of columns of B.
    #[inline(always)]
    unsafe fn columns<L: Lanes, const N: usize>(
        &mut self,
        g: &Product,
        depth: usize,
        b: *const f32,
    ) -> *const f32 {
        let to = self.b.as_mut_ptr().cast::<f32>();
        // SAFETY: `N <= COLUMNS_MAX` registers of at most `DEPTH` rows fit, and are readable by the caller.
        unsafe {
            for p in 0..depth {
                for j in 0..N {
                    L::load(b.add(p * g.b_row + j * LANES)).store(to.add((p * N + j) * LANES));
                }
            }
        }
        to
    }
}

/// Run `$block` for each strip of `$m` rows, `$i` its first and `$M` how many.
macro_rules! for_each_strip {
    ($m:expr, $is_wide:expr, |$i:ident, $M:ident| $block:block) => {
        let mut $i = 0;
        while $i < $m {
            for_each_strip!(@of $i, $m, $M, $block, (8, $is_wide), (6, !$is_wide && $m - $i != 8), (4, true), (2, true), (1, true));
        }
    };
    (@of $i:ident, $m:expr, $M:ident, $block:block, $(($rows:literal, $allowed:expr)),*) => {
        $(if $allowed && $m - $i >= $rows {
            const $M: usize = $rows;
            $block
            $i += $rows;
            continue;
        })*
    };
}

/// All rows of this part, `N` registers of columns.
#[inline(always)]
unsafe fn column_of_blocks<L: Lanes, const N: usize>(
    g: &Product,
    m: usize,
    depth: usize,
    packed: &mut Packed,
    [a, b]: [*const f32; 2],
    c: *mut f32,
) {
    // SAFETY: rows below `m` of these columns are in bounds by the caller.
    unsafe {
        if m < PACKED_ROWS_MIN {
            return strips::<L, N>(g, m, depth, &packed.a, [a, b], g.b_row, c);
        }
        let b = packed.columns::<L, N>(g, depth, b);
        strips::<L, N>(g, m, depth, &packed.a, [a, b], N * LANES, c);
    }
}

/// [`column_of_blocks`] with B's place settled.
#[inline(always)]
unsafe fn strips<L: Lanes, const N: usize>(
    g: &Product,
    m: usize,
    depth: usize,
    packed: &[MaybeUninit<f32>],
    [a, b]: [*const f32; 2],
    b_row: usize,
    c: *mut f32,
) {
    // SAFETY: rows below `m` of these columns are in bounds by the caller.
    unsafe {
        for_each_strip! { m, L::IS_WIDE, |i, M| {
            let c = c.add(i * g.c_row);
            // Each with strides of its own, which the compiler then knows.
            if g.a_col == 1 {
                block::<L, M, N>(depth, a.add(i * g.a_row), [g.a_row, 1], b, b_row, c, g.c_row);
            } else {
                let a = packed.as_ptr().cast::<f32>().add(i * depth);
                block::<L, M, N>(depth, a, [1, M], b, b_row, c, g.c_row);
            }
        } }
    }
}

/// At most `DEPTH` reduced elements, and `PACKED_ROWS` rows where A is packed.
#[inline(always)]
unsafe fn accumulate_part<L: Lanes>(
    g: &Product,
    m: usize,
    depth: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    packed: &mut Packed,
) {
    let mut j = 0;
    // SAFETY: all rows and columns of the three are in bounds by the caller.
    unsafe {
        // Rows that are read along are left where they are.
        if g.a_col != 1 {
            for_each_strip! { m, L::IS_WIDE, |i, M| { packed.rows::<M>(g, depth, a, i); } }
        }
        while L::IS_WIDE && j + 2 * LANES <= g.n {
            column_of_blocks::<L, 2>(g, m, depth, packed, [a, b.add(j)], c.add(j));
            j += 2 * LANES;
        }
        while j + LANES <= g.n {
            column_of_blocks::<L, 1>(g, m, depth, packed, [a, b.add(j)], c.add(j));
            j += LANES;
        }
        for i in 0..if j < g.n { m } else { 0 } {
            let (a, c) = (a.add(i * g.a_row), c.add(i * g.c_row + j));
            block_part::<L>(depth, a, g.a_col, b.add(j), g.b_row, c, g.n - j);
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn accumulate<L: Lanes>(g: &Product, a: &[f32], b: &[f32], c: &mut [f32]) {
    g.check(a, b, c);
    if g.is_empty() {
        return;
    }
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    // SAFETY: every array of uninitialised values is one.
    let mut packed: Packed = unsafe { MaybeUninit::uninit().assume_init() };
    let rows = if g.a_col == 1 { g.m } else { PACKED_ROWS };
    for i in (0..g.m).step_by(rows) {
        let m = rows.min(g.m - i);
        for first in (0..g.k).step_by(DEPTH) {
            let depth = DEPTH.min(g.k - first);
            // SAFETY: `g.check` proved all rows and columns of the three in bounds.
            unsafe {
                let (a, b) = (a.add(i * g.a_row + first * g.a_col), b.add(first * g.b_row));
                accumulate_part::<L>(g, m, depth, a, b, c.add(i * g.c_row), &mut packed);
            }
        }
    }
}

/// Query rows of a block of [`causal_sums`].
const QUERIES: usize = 8;

/// `M` rows of weighted sums over the keys they share, `N` registers of columns.
#[inline(always)]
unsafe fn sums_block<L: Lanes, const M: usize>(
    n_keys: usize,
    p: *const f32,
    p_row: usize,
    v: *const f32,
    width: usize,
    out: *mut f32,
) {
    let mut at = 0;
    // SAFETY: as for `block`.
    unsafe {
        while at + 2 * LANES <= width {
            block::<L, M, 2>(n_keys, p, [p_row, 1], v.add(at), width, out.add(at), width);
            at += 2 * LANES;
        }
        while at + LANES <= width {
            block::<L, M, 1>(n_keys, p, [p_row, 1], v.add(at), width, out.add(at), width);
            at += LANES;
        }
        for i in 0..if at < width { M } else { 0 } {
            block_part::<L>(
                n_keys,
                p.add(i * p_row),
                1,
                v.add(at),
                width,
                out.add(i * width + at),
                width - at,
            );
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn causal_sums<L: Lanes>(
    p: &[f32],
    p_row: usize,
    first: usize,
    values: &[f32],
    width: usize,
    out: &mut [f32],
) {
    let n = out.len() / width;
    assert!(n * width == out.len() && values.len() >= (first + n) * width);
    assert!(n == 0 || p.len() >= (n - 1) * p_row + first + n);
    out.fill(0.0);
    let (p, v, out) = (p.as_ptr(), values.as_ptr(), out.as_mut_ptr());
    let mut t = 0;
    // SAFETY: row `t` reads its first `first + t + 1` weights and values; all are in bounds by the assertions.
    unsafe {
        while t < n {
            let m = QUERIES.min(n - t);
            let n_shared = first + t + 1;
            let (rows, sums) = (p.add(t * p_row), out.add(t * width));
            if m == QUERIES && L::IS_WIDE {
                sums_block::<L, QUERIES>(n_shared, rows, p_row, v, width, sums);
            } else {
                (0..m).for_each(|i| {
                    sums_block::<L, 1>(n_shared, rows.add(i * p_row), p_row, v, width, sums.add(i * width))
                });
            }
            for i in 1..m {
                let (p, v) = (rows.add(i * p_row + n_shared), v.add(n_shared * width));
                sums_block::<L, 1>(i, p, p_row, v, width, sums.add(i * width));
            }
            t += m;
        }
    }
}

/// The largest value of a row; a NaN may be passed over.
#[inline(always)]
pub(crate) unsafe fn max_row<L: Lanes>(x: &[f32]) -> f32 {
    let whole = x.len() / LANES * LANES;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    // SAFETY: runs of 16 below `whole`.
    unsafe {
        let mut top = L::load(lanes.as_ptr());
        for at in (0..whole).step_by(LANES) {
            top = L::load(x.as_ptr().add(at)).max(top);
        }
        top.store(lanes.as_mut_ptr());
    }
    lanes.iter().chain(&x[whole..]).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

#[inline(always)]
pub(crate) unsafe fn softmax_with_stats<L: Lanes>(x: &mut [f32]) -> AttentionRow {
    // SAFETY: features are the caller's contract.
    unsafe {
        let max = max_row::<L>(x);
        let inverse = 1.0 / exp_row::<L>(x, max);
        x.iter_mut().for_each(|value| *value *= inverse);
        AttentionRow { max, inverse }
    }
}

#[inline(always)]
pub(crate) unsafe fn softmax_back_row<L: Lanes>(
    s: &mut [f32],
    dp: &mut [f32],
    row: AttentionRow,
    scale: f32,
    delta: f32,
) {
    assert_eq!(s.len(), dp.len());
    let (len, s, dp) = (s.len(), s.as_mut_ptr(), dp.as_mut_ptr());
    for_each_run!(len, |at, n| {
        // SAFETY: runs stay below `len`, which both have.
        unsafe {
            let (s, dp) = (s.add(at), dp.add(at));
            let logit = load::<L>(s, n).mul(L::splat(scale));
            let p = logit.sub(L::splat(row.max)).exp().mul(L::splat(row.inverse));
            let ds = load::<L>(dp, n).sub(L::splat(delta)).mul(p).mul(L::splat(scale));
            store(p, s, n);
            store(ds, dp, n);
        }
    });
}

#[inline(always)]
pub(crate) unsafe fn silu_mul_back<L: Lanes>(gate: &mut [f32], up: &mut [f32], dh: &[f32]) {
    assert!(gate.len() == up.len() && up.len() == dh.len());
    let (len, gate, up, dh) = (gate.len(), gate.as_mut_ptr(), up.as_mut_ptr(), dh.as_ptr());
    for_each_run!(len, |at, n| {
        // SAFETY: runs stay below the common length.
        unsafe {
            let (g, u) = (load::<L>(gate.add(at), n), load::<L>(up.add(at), n));
            let d = load::<L>(dh.add(at), n);
            let (one, sigmoid) = (L::splat(1.0), g.sigmoid());
            let slope = g.mul(one.sub(sigmoid)).add(one).mul(sigmoid);
            store(d.mul(u).mul(slope), gate.add(at), n);
            store(d.mul(g).mul(sigmoid), up.add(at), n);
        }
    });
}

#[inline(always)]
pub(crate) unsafe fn silu_mul_into<L: Lanes>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && up.len() == out.len());
    let (len, gate, up, out) = (gate.len(), gate.as_ptr(), up.as_ptr(), out.as_mut_ptr());
    for_each_run!(len, |at, n| {
        // SAFETY: runs stay below the common length.
        unsafe {
            let g = load::<L>(gate.add(at), n);
            let u = load::<L>(up.add(at), n);
            store(g.mul(g.sigmoid()).mul(u), out.add(at), n);
        }
    });
}

#[inline(always)]
pub(crate) unsafe fn sigmoids<L: Lanes>(x: &mut [f32]) {
    let (len, x) = (x.len(), x.as_mut_ptr());
    for_each_run!(len, |at, n| {
        // SAFETY: runs stay below `len`.
        unsafe { store(load::<L>(x.add(at), n).sigmoid(), x.add(at), n) };
    });
}

#[inline(always)]
pub(crate) unsafe fn rms_norm_back_row<L: Lanes>(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let n = x.len();
    assert!(weight.len() == n && dy.len() == n && dx.len() == n && dweight.len() == n);
    // SAFETY: features are the caller's contract.
    let scale = crate::reference::rms_scale(unsafe { dot::<L>(x, x) }, n, eps);
    let (x, weight, dy) = (x.as_ptr(), weight.as_ptr(), dy.as_ptr());
    // SAFETY: arithmetic only.
    let mut along = unsafe { L::splat(0.0) };
    for_each_run!(n, |at, n| {
        // SAFETY: runs stay below the common length.
        unsafe {
            let g = load::<L>(dy.add(at), n).mul(load::<L>(weight.add(at), n));
            along = g.fma(load::<L>(x.add(at), n), along);
        }
    });
    let (dx, dweight) = (dx.as_mut_ptr(), dweight.as_mut_ptr());
    // SAFETY: arithmetic only.
    let pull = unsafe { along.fold_add() } * scale * scale * scale / n as f32;
    for_each_run!(n, |at, n| {
        // SAFETY: runs stay below the common length.
        unsafe {
            let (x, dy) = (load::<L>(x.add(at), n), load::<L>(dy.add(at), n));
            let g = dy.mul(load::<L>(weight.add(at), n));
            let d = g.mul(L::splat(scale)).sub(x.mul(L::splat(pull)));
            store(load::<L>(dx.add(at), n).add(d), dx.add(at), n);
            let dw = dy.mul(x).fma(L::splat(scale), load::<L>(dweight.add(at), n));
            store(dw, dweight.add(at), n);
        }
    });
}
