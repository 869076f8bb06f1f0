//! Operations of training: products that keep the definition's bits forward, and derivatives.
//!
//! Everything is `f32` on slices, row-major. Work is cut at fixed places, whatever the number of threads, so results
//! are the same for any of them.

pub mod attention;
pub mod elementwise;
pub mod product;

use crate::cpu::Cpu;
use crate::shared::Shared;
use std::ops::Range;

/// Call `task(i, part)` for every run of `size` elements of `data` (the last may be shorter), in parallel on the
/// threads of `cpu`.
pub fn for_chunks<T: Send>(cpu: &Cpu, data: &mut [T], size: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let n = data.len();
    let data = Shared::new(data);
    cpu.pool().run(n.div_ceil(size.max(1)), &|i| {
        // SAFETY: each run belongs to one task.
        task(i, unsafe { data.part(i * size..((i + 1) * size).min(n)) });
    });
}

/// As [`for_chunks`] over two slices at once, cut into the same number of runs of `sizes` elements.
///
/// # Panics
/// If the two make different numbers of runs.
pub fn for_chunk_pairs<T: Send, U: Send>(
    cpu: &Cpu,
    (first, second): (&mut [T], &mut [U]),
    sizes: (usize, usize),
    task: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    let (n, m) = (first.len(), second.len());
    assert_eq!(n.div_ceil(sizes.0.max(1)), m.div_ceil(sizes.1.max(1)), "as many runs in both");
    let (first, second) = (Shared::new(first), Shared::new(second));
    cpu.pool().run(n.div_ceil(sizes.0.max(1)), &|i| {
        // SAFETY: each run belongs to one task.
        let (a, b) = unsafe {
            (
                first.part(i * sizes.0..((i + 1) * sizes.0).min(n)),
                second.part(i * sizes.1..((i + 1) * sizes.1).min(m)),
            )
        };
        task(i, a, b);
    });
}

/// Rows that share a matrix: a routed expert's tokens, or all rows.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// Its rows, indices into the T of the call.
    pub rows: Range<usize>,
    /// Its matrix [N, K], row by row.
    pub w: &'a [f32],
}

/// Call `task(i, part)` for each of `ranges` (elements) of `data`, in parallel.
///
/// # Panics
/// Unless the ranges ascend, share nothing and lie in `data`.
pub fn for_parts<T: Send>(
    cpu: &Cpu,
    data: &mut [T],
    ranges: &[Range<usize>],
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "ranges ascend and share nothing");
    let data = Shared::new(data);
    cpu.pool().run(ranges.len(), &|i| {
        // SAFETY: ranges share nothing, and each belongs to one task.
        task(i, unsafe { data.part(ranges[i].clone()) });
    });
}
