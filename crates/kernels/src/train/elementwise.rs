//! RMSNorm, SwiGLU and cross-entropy: row by row, with derivatives.

use crate::cpu::{Cpu, dispatch};
use crate::router::arg_max;
use crate::shared::Shared;
use std::ops::Range;

/// Rows a task takes.
const ROWS_PER_TASK: usize = 64;
/// Elements a task takes.
const CHUNK: usize = 8_192;

fn blocks(n_rows: usize) -> usize {
    n_rows.div_ceil(ROWS_PER_TASK)
}

fn block(i: usize, n_rows: usize) -> Range<usize> {
    i * ROWS_PER_TASK..((i + 1) * ROWS_PER_TASK).min(n_rows)
}

/// [`crate::norm::rms_norm`] with several rows a task, the same bits.
pub fn rms_norm(cpu: &Cpu, x: &[f32], x_stride: usize, weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = weight.len();
    super::for_chunks(cpu, out, ROWS_PER_TASK * n, |i, out| {
        for (t, out) in (i * ROWS_PER_TASK..).zip(out.chunks_exact_mut(n)) {
            let x = &x[t * x_stride..t * x_stride + n];
            dispatch!(cpu.isa(), rms_norm_row(x, weight, eps, out));
        }
    });
}

/// A norm's input and settings, for its derivative.
pub struct NormInput<'a> {
    /// Rows of C elements, `stride` apart.
    pub x: &'a [f32],
    /// Elements from a row of `x`, and of its gradient, to the next.
    pub stride: usize,
    /// The norm's weight `[C]`.
    pub weight: &'a [f32],
    /// Added to the mean of the squares.
    pub eps: f32,
}

/// Derivative of RMSNorm: from `dy` [T, C], adds to `dx` (rows `stride` apart) and to `dweight` `[C]`.
pub fn rms_norm_back(cpu: &Cpu, input: &NormInput<'_>, dy: &[f32], dx: &mut [f32], dweight: &mut [f32]) {
    let n = input.weight.len();
    let n_rows = dy.len() / n;
    let mut partial = vec![0.0f32; blocks(n_rows) * n];
    let dx = Shared::new(dx);
    super::for_chunks(cpu, &mut partial, n, |i, dweight| {
        for t in block(i, n_rows) {
            let span = t * input.stride..t * input.stride + n;
            // SAFETY: each row belongs to one task.
            let dx = unsafe { dx.part(span.clone()) };
            let (x, dy) = (&input.x[span], &dy[t * n..(t + 1) * n]);
            dispatch!(cpu.isa(), rms_norm_back_row(x, input.weight, input.eps, dy, dx, dweight));
        }
    });
    for part in partial.chunks_exact(n) {
        dweight.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}

/// `out = gate * sigmoid(gate) * up`, all [T, I] or of any one length.
pub fn silu_mul(cpu: &Cpu, gate: &[f32], up: &[f32], out: &mut [f32]) {
    super::for_chunks(cpu, out, CHUNK, |i, out| {
        let span = i * CHUNK..i * CHUNK + out.len();
        dispatch!(cpu.isa(), silu_mul_into(&gate[span.clone()], &up[span], out));
    });
}

/// Derivative of [`silu_mul`]: `gate` and `up` become their gradients, from that of the product, `dh`; all of one
/// length.
pub fn silu_mul_back(cpu: &Cpu, gate: &mut [f32], up: &mut [f32], dh: &[f32]) {
    super::for_chunk_pairs(cpu, (gate, up), (CHUNK, CHUNK), |i, gate, up| {
        let span = i * CHUNK..i * CHUNK + gate.len();
        dispatch!(cpu.isa(), silu_mul_back(gate, up, &dh[span]));
    });
}

/// `x += y`, element by element, of one length.
pub fn add(cpu: &Cpu, x: &mut [f32], y: &[f32]) {
    super::for_chunks(cpu, x, CHUNK, |i, x| {
        let y = &y[i * CHUNK..i * CHUNK + x.len()];
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    });
}

/// Loss of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenLoss {
    /// `-ln p(target)`, in nats, without the weight.
    pub loss: f32,
    /// Whether the target's logit is the largest (of equal ones the lowest index counts).
    pub is_correct: bool,
}

/// Cross-entropy of rows of logits [T, V], each turned into its gradient `weight * (p - onehot(target))`.
///
/// `targets`, `weights` and `losses` are `[T]`; `losses` is overwritten.
///
/// # Panics
/// If `losses` has not T entries, `weights` has fewer, or a target is not below V.
pub fn cross_entropy(
    cpu: &Cpu,
    logits: &mut [f32],
    targets: &[u32],
    weights: &[f32],
    losses: &mut [TokenLoss],
) {
    let n = targets.len();
    assert_eq!(losses.len(), n, "a loss for every row");
    let width = logits.len() / n.max(1);
    super::for_chunk_pairs(cpu, (logits, losses), (width.max(1), 1), |t, row, loss| {
        let target = targets[t] as usize;
        let logit = row[target];
        let is_correct = arg_max(row) == Some(target);
        let stats = dispatch!(cpu.isa(), softmax_with_stats(row));
        // In f64, so that a sum near 1 keeps its logarithm.
        let ln_sum = -f64::from(stats.inverse).ln();
        loss[0] = TokenLoss { loss: (ln_sum - f64::from(logit - stats.max)) as f32, is_correct };
        row.iter_mut().for_each(|p| *p *= weights[t]);
        row[target] -= weights[t];
    });
}

/// `y[i] = fma(a, x[i], y[i])` on the calling thread, `x` at least as long as `y`.
pub fn add_scaled(cpu: &Cpu, y: &mut [f32], a: f32, x: &[f32]) {
    dispatch!(cpu.isa(), axpy(a, x, y));
}

/// Inner product of `x` and `y` `[K]` on the calling thread, with the bits of [`crate::reference::dot`].
pub fn dot(cpu: &Cpu, x: &[f32], y: &[f32]) -> f32 {
    dispatch!(cpu.isa(), dot(x, y))
}

/// `x = 1 / (1 + e^-x)`, element by element.
pub fn sigmoid(cpu: &Cpu, x: &mut [f32]) {
    super::for_chunks(cpu, x, CHUNK, |_, x| dispatch!(cpu.isa(), sigmoids(x)));
}
