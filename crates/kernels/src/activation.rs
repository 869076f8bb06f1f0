//! Element-wise operations between matrices.

use crate::cpu::{Cpu, dispatch};
use crate::shared::Shared;

/// Elements a task takes.
const CHUNK: usize = 4_096;

/// SwiGLU's product in place: `gate = gate * sigmoid(gate) * up` (Shazeer 2020), both [T, I] or of any one length.
///
/// # Panics
/// If `up` is shorter than `gate`.
pub fn silu_mul(cpu: &Cpu, gate: &mut [f32], up: &[f32]) {
    let n = gate.len();
    let gate = Shared::new(gate);
    cpu.pool().run(n.div_ceil(CHUNK), &|i| {
        let span = i * CHUNK..((i + 1) * CHUNK).min(n);
        // SAFETY: each chunk belongs to one task.
        let gate = unsafe { gate.part(span.clone()) };
        dispatch!(cpu.isa(), silu_mul(gate, &up[span]));
    });
}

/// `x += y`, element by element, both [T, C] or of any one length.
///
/// # Panics
/// If `y` is shorter than `x`.
pub fn add(cpu: &Cpu, x: &mut [f32], y: &[f32]) {
    let n = x.len();
    let x = Shared::new(x);
    cpu.pool().run(n.div_ceil(CHUNK), &|i| {
        let span = i * CHUNK..((i + 1) * CHUNK).min(n);
        // SAFETY: each chunk belongs to one task.
        let x = unsafe { x.part(span.clone()) };
        x.iter_mut().zip(&y[span]).for_each(|(x, y)| *x += y);
    });
}
