//! Muon (Jordan and others 2024) in the form of Moonlight and Kimi K2: a matrix's momentum made nearly orthogonal, and
//! scaled so that its entries move as far as AdamW's would.

use perilune_kernels::cpu::Cpu;
use perilune_kernels::train::Group;
use perilune_kernels::train::product::{self, Into};

/// Momentum, with Nesterov's look ahead (Moonlight's code).
pub const MOMENTUM: f32 = 0.95;
/// Number of Newton-Schulz steps (Moonlight's code).
pub const NS_STEPS: usize = 5;
/// Coefficients of the quintic.
const QUINTIC: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// What keeps a norm of 0 from dividing.
const NORM_EPS: f32 = 1e-7;
/// Root mean square of an AdamW update that the scale matches (Moonlight report, section 2.2).
const UPDATE_RMS: f32 = 0.2;

/// One step of a matrix `w` `[N, K]` with gradient `g` and momentum `m`, both `[N, K]`.
pub(super) fn step(cpu: &Cpu, cols: usize, w: &mut [f32], m: &mut [f32], g: &[f32], lr: f32, decay: f32) {
    let mut ahead = vec![0.0; g.len()];
    for ((m, g), ahead) in m.iter_mut().zip(g).zip(&mut ahead) {
        *m = MOMENTUM * *m + g;
        *ahead = g + MOMENTUM * *m;
    }
    let rows = w.len() / cols;
    let direction = orthogonal(cpu, ahead, rows, cols);
    let (keep, rate) = (1.0 - lr * decay, lr * UPDATE_RMS * (rows.max(cols) as f32).sqrt());
    w.iter_mut().zip(&direction).for_each(|(w, o)| *w = *w * keep - rate * o);
}

/// The matrix `x` `[N, K]`, N `rows` and K `cols`, with its singular values moved near 1: within 0.68 and 1.13 where they
/// were no smaller than a hundredth of its norm.
///
/// Runs on the calling thread where it is called from a task of the pool.
pub fn orthogonal(cpu: &Cpu, x: Vec<f32>, rows: usize, cols: usize) -> Vec<f32> {
    if rows > cols {
        let upright = orthogonal(cpu, transposed(&x, rows, cols), cols, rows);
        return transposed(&upright, cols, rows);
    }
    let mut x = x;
    let norm = x.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt() as f32 + NORM_EPS;
    x.iter_mut().for_each(|v| *v /= norm);
    let [a, b, c] = QUINTIC;
    let (mut gram, mut square) = (vec![0.0; rows * rows], vec![0.0; rows * rows]);
    let mut next = vec![0.0; x.len()];
    for _ in 0..NS_STEPS {
        product::forward(cpu, &x, cols, &[Group { rows: 0..rows, w: &x }], &mut gram);
        product::forward(cpu, &gram, rows, &[Group { rows: 0..rows, w: &gram }], &mut square);
        square.iter_mut().zip(&gram).for_each(|(s, g)| *s = b * g + c * *s);
        next.iter_mut().zip(&x).for_each(|(n, x)| *n = a * x);
        product::backward_input(cpu, &square, cols, &[Group { rows: 0..rows, w: &x }], Into::Add, &mut next);
        std::mem::swap(&mut x, &mut next);
    }
    x
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    for (i, row) in x.chunks_exact(cols).enumerate() {
        row.iter().enumerate().for_each(|(j, value)| out[j * rows + i] = *value);
    }
    out
}

/// Floating-point operations of one step of an `[N, K]` matrix.
pub fn flops(rows: usize, cols: usize) -> f64 {
    let (small, large) = (rows.min(cols) as f64, rows.max(cols) as f64);
    NS_STEPS as f64 * (4.0 * small * small * large + 2.0 * small * small * small)
}
