//! `y = W x` and its derivatives, for groups of rows that each have a matrix of their own.

use super::Group;
use crate::cpu::{Cpu, dispatch};
use crate::reference::Product;
use crate::shared::Shared;
use std::ops::Range;

/// Rows of x that a task takes.
const ROWS_PER_TASK: usize = 128;
/// Fewest and most rows of W whose gradient a task takes: with many of them x is read by few tasks.
const OUTPUTS_PER_TASK: [usize; 2] = [16, 64];
/// Tasks a thread should find at least.
const TASKS_PER_THREAD: usize = 2;
/// Rows whose contribution to a gradient of W is taken at a time.
const SPAN: usize = 192;

/// Cut groups of rows into tasks.
fn row_tasks<'g>(groups: &'g [Group<'_>]) -> Vec<(&'g Group<'g>, Range<usize>)> {
    let cut = |group: &'g Group<'_>| {
        let end = group.rows.end;
        let starts = group.rows.clone().step_by(ROWS_PER_TASK);
        starts.map(move |first| (group, first..(first + ROWS_PER_TASK).min(end)))
    };
    let tasks: Vec<_> = groups.iter().flat_map(cut).collect();
    assert!(groups.windows(2).all(|pair| pair[0].rows.end <= pair[1].rows.start), "groups ascend");
    tasks
}

/// `out[t] = W x[t]` with the bits of [`crate::reference::dot`]: `x` [T, K], K = `k`, `out` [T, N]; rows of no group
/// stay as they are.
///
/// # Panics
/// Unless groups ascend and share no row.
pub fn forward(cpu: &Cpu, x: &[f32], k: usize, groups: &[Group<'_>], out: &mut [f32]) {
    let tasks = row_tasks(groups);
    let out = Shared::new(out);
    cpu.pool().run(tasks.len(), &|i| {
        let (group, rows) = &tasks[i];
        let n = group.w.len() / k;
        // SAFETY: groups share no row (`row_tasks` checks), and each row belongs to one task.
        let out = unsafe { out.part(rows.start * n..rows.end * n) };
        dispatch!(cpu.isa(), products(&x[rows.start * k..rows.end * k], group.w, k, out));
    });
}

/// Whether a result replaces what stands in the output or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Replace.
    Overwrite,
    /// Add.
    Accumulate,
}

/// Gradient of [`forward`]'s input: `dx[t] = W^T dy[t]`; `dy` [T, N], `dx` [T, K], K = `k`; rows of no group stay as
/// they are.
///
/// # Panics
/// Unless groups ascend and share no row.
pub fn backward_input(cpu: &Cpu, dy: &[f32], k: usize, groups: &[Group<'_>], store: Store, dx: &mut [f32]) {
    let tasks = row_tasks(groups);
    let dx = Shared::new(dx);
    cpu.pool().run(tasks.len(), &|i| {
        let (group, rows) = &tasks[i];
        let n = group.w.len() / k;
        // SAFETY: groups share no row (`row_tasks` checks), and each row belongs to one task.
        let dx = unsafe { dx.part(rows.start * k..rows.end * k) };
        if store == Store::Overwrite {
            dx.fill(0.0);
        }
        let g = Product { m: rows.len(), n: k, k: n, a_row: n, a_col: 1, b_row: k, c_row: k };
        dispatch!(cpu.isa(), accumulate(&g, &dy[rows.start * n..rows.end * n], group.w, dx));
    });
}

/// Rows that share a matrix, and where its gradient [N, K] stands.
#[derive(Clone, Debug)]
pub struct GradGroup {
    /// Its rows, indices into the T of the call.
    pub rows: Range<usize>,
    /// Elements of its gradient in the buffer.
    pub place: Range<usize>,
}

/// Gradient of [`forward`]'s matrices, added: `dw += sum over t of dy[t] x[t]^T`; `dy` [T, N], `x` [T, K], K = `k`,
/// `dw` the buffer that the groups' places are in.
///
/// # Panics
/// If places overlap.
pub fn backward_weight(cpu: &Cpu, dy: &[f32], x: &[f32], k: usize, groups: &[GradGroup], dw: &mut [f32]) {
    let mut places: Vec<&Range<usize>> = groups.iter().map(|group| &group.place).collect();
    places.sort_unstable_by_key(|place| place.start);
    assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start), "gradients share nothing");
    let groups = || groups.iter().filter(|group| !group.rows.is_empty());
    let n_outputs: usize = groups().map(|group| group.place.len() / k).sum();
    let [least, most] = OUTPUTS_PER_TASK;
    let per_task =
        (n_outputs / (cpu.pool().n_threads() * TASKS_PER_THREAD)).next_multiple_of(least).clamp(least, most);
    let tasks: Vec<(&GradGroup, usize)> = groups()
        .flat_map(|group| (0..group.place.len() / k).step_by(per_task).map(move |n| (group, n)))
        .collect();
    let dw = Shared::new(dw);
    cpu.pool().run(tasks.len(), &|i| {
        let (group, first) = tasks[i];
        let n = group.place.len() / k;
        let m = per_task.min(n - first);
        let start = group.place.start + first * k;
        // SAFETY: places share nothing (checked above), and each row of a gradient belongs to one task.
        let dw = unsafe { dw.part(start..start + m * k) };
        for rows in group.rows.clone().step_by(SPAN) {
            let depth = SPAN.min(group.rows.end - rows);
            let g = Product { m, n: k, k: depth, a_row: 1, a_col: n, b_row: k, c_row: k };
            dispatch!(cpu.isa(), accumulate(&g, &dy[rows * n + first..], &x[rows * k..], dw));
        }
    });
}
