//! RMSNorm (Zhang and Sennrich 2019).

use crate::cpu::{Cpu, dispatch};
use crate::shared::Shared;

/// `out[t] = x[t] / sqrt(mean(x[t]^2) + eps) * weight`, each row on its own.
///
/// `x` [T, C] where row t starts at element `t * x_stride`; `weight` `[C]`; `out` [T, C] without gaps.
///
/// # Panics
/// If `weight` is empty or `x` is too short.
pub fn rms_norm(cpu: &Cpu, x: &[f32], x_stride: usize, weight: &[f32], eps: f32, out: &mut [f32]) {
    let n = weight.len();
    let n_rows = out.len() / n;
    let out = Shared::new(out);
    cpu.pool().run(n_rows, &|t| {
        // SAFETY: each row belongs to one task.
        let out = unsafe { out.part(t * n..(t + 1) * n) };
        let x = &x[t * x_stride..t * x_stride + n];
        dispatch!(cpu.isa(), rms_norm_row(x, weight, eps, out))
    });
}
