//! One SwiGLU network for all rows, and its derivative.

use super::places::{Place, SwiGluPlaces};
use perilune_kernels::cpu::Cpu;
use perilune_kernels::train::product::{self, GradGroup, Store};
use perilune_kernels::train::{Group, elementwise};

/// `out = W x` for all rows, the weights at `place` of `w`.
pub(super) fn product(cpu: &Cpu, w: &[f32], place: &Place, x: &[f32], k: usize, out: &mut Vec<f32>) {
    let n_rows = x.len() / k;
    out.resize(n_rows * (place.len() / k), 0.0);
    product::forward(cpu, x, k, &[Group { rows: 0..n_rows, w: &w[place.clone()] }], out);
}

/// `dx = W^T dy` for all rows, set or added.
pub(super) fn back_input(
    cpu: &Cpu,
    w: &[f32],
    place: &Place,
    dy: &[f32],
    k: usize,
    store: Store,
    dx: &mut Vec<f32>,
) {
    let n_rows = dy.len() / (place.len() / k);
    dx.resize(n_rows * k, 0.0);
    product::backward_input(cpu, dy, k, &[Group { rows: 0..n_rows, w: &w[place.clone()] }], store, dx);
}

/// The gradient at `place` of `dw`, added.
pub(super) fn back_weight(cpu: &Cpu, place: &Place, dy: &[f32], x: &[f32], k: usize, dw: &mut [f32]) {
    let group = GradGroup { rows: 0..x.len() / k, place: place.clone() };
    product::backward_weight(cpu, dy, x, k, &[group], dw);
}

/// What the derivative needs: the two projections of the input and their product, [T, I].
#[derive(Default)]
pub(super) struct SwiGluTape {
    pub(super) gate: Vec<f32>,
    pub(super) up: Vec<f32>,
    pub(super) hidden: Vec<f32>,
}

impl SwiGluTape {
    /// `out = down(silu(gate(x)) * up(x))`, [T, C].
    pub(super) fn forward(
        &mut self,
        cpu: &Cpu,
        w: &[f32],
        p: &SwiGluPlaces,
        x: &[f32],
        c: usize,
        out: &mut Vec<f32>,
    ) {
        product(cpu, w, &p.gate, x, c, &mut self.gate);
        product(cpu, w, &p.up, x, c, &mut self.up);
        self.hidden.resize(self.gate.len(), 0.0);
        elementwise::silu_mul(cpu, &self.gate, &self.up, &mut self.hidden);
        product(cpu, w, &p.down, &self.hidden, p.down.len() / c, out);
    }

    /// Adds to the weights' gradients and sets or adds to the input's, [T, C]; the tape is used up.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &mut self,
        cpu: &Cpu,
        w: &[f32],
        p: &SwiGluPlaces,
        (x, c): (&[f32], usize),
        dout: &[f32],
        dhidden: &mut Vec<f32>,
        (store, dx): (Store, &mut Vec<f32>),
        dw: &mut [f32],
    ) {
        let width = p.down.len() / c;
        back_weight(cpu, &p.down, dout, &self.hidden, width, dw);
        back_input(cpu, w, &p.down, dout, width, Store::Overwrite, dhidden);
        elementwise::silu_mul_back(cpu, &mut self.gate, &mut self.up, dhidden);
        back_weight(cpu, &p.gate, &self.gate, x, c, dw);
        back_weight(cpu, &p.up, &self.up, x, c, dw);
        back_input(cpu, w, &p.gate, &self.gate, c, store, dx);
        back_input(cpu, w, &p.up, &self.up, c, Store::Accumulate, dx);
    }
}
