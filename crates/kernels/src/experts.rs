//! Routed experts over grouped tokens: `y[t] = sum of weight * down(silu(gate(x)) * up(x))` (DeepSeek-V3 report,
//! section 2.1.2), I the inner width of an expert.

use crate::cpu::{Cpu, dispatch};
use crate::matmul::{BAND, Gathered, Rows, matmul, rows_per_task};
use crate::matrix::Matrix;
use crate::quant::QuantRows;
use crate::router::Chosen;
use crate::shared::{Scratch, Shared};
use std::ops::Range;

/// A SwiGLU network (Shazeer 2020): `down(silu(gate(x)) * up(x))`, gate and up [I, C], down [C, I].
#[derive(Clone)]
pub struct SwiGlu {
    /// W_gate [I, C].
    pub gate: Matrix,
    /// W_up [I, C].
    pub up: Matrix,
    /// W_down [C, I].
    pub down: Matrix,
}

impl SwiGlu {
    /// I, the inner width.
    pub fn width(&self) -> usize {
        self.gate.n_rows()
    }

    /// Its matrices, in the order a pass takes them.
    pub fn matrices(&self) -> [&Matrix; 3] {
        [&self.gate, &self.up, &self.down]
    }
}

/// The rows that chose one expert.
struct Load {
    expert_idx: usize,
    tokens: Vec<u32>,
    weights: Vec<f32>,
    /// First row of this expert's part of the intermediate buffer.
    first: usize,
}

impl Load {
    /// Its assignments: their places in the intermediate buffer.
    fn assigned(&self) -> Range<usize> {
        self.first..self.first + self.tokens.len()
    }
}

/// T rows sorted by the experts they chose.
pub struct Loads {
    loads: Vec<Load>,
    /// Pairs of row and expert, in all.
    n_assigned: usize,
}

impl Loads {
    /// Group T rows by expert; experts ascend, and so do the rows of each. `chosen` has one list a row, `[T]`.
    ///
    /// # Panics
    /// If an expert's index is not below `n_experts`.
    pub fn group(chosen: &[Vec<Chosen>], n_experts: usize) -> Self {
        let mut by_expert: Vec<(Vec<u32>, Vec<f32>)> = vec![Default::default(); n_experts];
        for (t, chosen) in chosen.iter().enumerate() {
            for choice in chosen {
                let (tokens, weights) = &mut by_expert[choice.expert_idx as usize];
                tokens.push(t as u32);
                weights.push(choice.weight);
            }
        }
        let mut loads = Vec::new();
        let mut n_assigned = 0;
        for (expert_idx, (tokens, weights)) in by_expert.into_iter().enumerate() {
            if !tokens.is_empty() {
                let first = n_assigned;
                n_assigned += tokens.len();
                loads.push(Load { expert_idx, tokens, weights, first });
            }
        }
        Loads { loads, n_assigned }
    }

    /// All of T rows to one expert.
    fn all(n_rows: usize) -> Self {
        let tokens = (0..n_rows as u32).collect();
        let load = Load { expert_idx: 0, tokens, weights: Vec::new(), first: 0 };
        Loads { loads: vec![load], n_assigned: n_rows }
    }

    /// The experts that were chosen, ascending.
    pub fn experts(&self) -> impl Iterator<Item = usize> {
        self.loads.iter().map(|load| load.expert_idx)
    }

    /// Whether the rows of some expert meet a matrix such as `w` in panels.
    fn any_in_panels(&self, cpu: &Cpu, x: &Gathered<'_>, w: &Matrix) -> bool {
        self.loads.iter().any(|load| x.takes_panels(cpu, load.tokens.len(), w))
    }

    /// The row of every assignment.
    fn tokens(&self) -> impl Iterator<Item = usize> {
        self.loads.iter().flat_map(|load| load.tokens.iter().map(|&t| t as usize))
    }
}

/// Buffers of [`routed`] and [`swiglu`], kept between calls; they grow to the largest.
#[derive(Default)]
pub struct ExpertScratch {
    hidden: Vec<f32>,
    quantized: QuantRows,
}

/// Routed experts: `out[t] = sum over the experts of row t, ascending, of weight * expert(x[t])`.
///
/// `x` [T, C], `experts` `[E]`, all of one width, `out` [T, C], overwritten. The order of the sum is that of the
/// experts' indices, so a row's result does not depend on the rows beside it.
///
/// # Panics
/// If `x` is 8-bit and the experts' weights are not ([`Matrix::is_integer`]), or a shape is broken.
pub fn routed(
    cpu: &Cpu,
    x: Rows<'_>,
    experts: &[SwiGlu],
    loads: &Loads,
    s: &mut ExpertScratch,
    out: &mut [f32],
) {
    out.fill(0.0);
    let Some(width) = loads.loads.first().map(|load| experts[load.expert_idx].width()) else { return };
    s.hidden.resize(loads.n_assigned * width, 0.0);
    gate_up(cpu, &x.gather(loads.tokens()), experts, loads, width, &mut s.hidden);
    let hidden = match x {
        Rows::F32 { .. } => Rows::f32(&s.hidden, width),
        Rows::Q8(_) => {
            s.quantized.fill(cpu, &s.hidden, width);
            Rows::Q8(&s.quantized)
        }
    };
    down(cpu, &hidden.gather(0..loads.n_assigned), experts, loads, out);
}

/// `hidden[a] = silu(gate(x[a])) * up(x[a])` for every assignment a, all experts in one list of tasks.
fn gate_up(cpu: &Cpu, x: &Gathered<'_>, experts: &[SwiGlu], loads: &Loads, width: usize, hidden: &mut [f32]) {
    let in_panels = loads.any_in_panels(cpu, x, &experts[loads.loads[0].expert_idx].gate);
    let n_per_task = rows_per_task(cpu, loads.loads.len() * width.div_ceil(BAND), in_panels);
    let (n_chunks, n_loads) = (width.div_ceil(n_per_task), loads.loads.len());
    // Over several nodes the same rows of every expert come first, so that each node has its part of each expert.
    let is_split = cpu.pool().n_nodes() > 1;
    let hidden = Shared::new(hidden);
    cpu.pool().run(n_loads * n_chunks, &|task_idx| {
        let (load_idx, chunk) = match is_split {
            true => (task_idx % n_loads, task_idx / n_loads),
            false => (task_idx / n_chunks, task_idx % n_chunks),
        };
        let load = &loads.loads[load_idx];
        let expert = &experts[load.expert_idx];
        let first = chunk * n_per_task;
        let mut scratch = Scratch::take();
        let of_task = first..(first + n_per_task).min(width);
        x.each_band(cpu, load.assigned(), &expert.gate, of_task, |block, assigned, rows| {
            let n = assigned.len() * rows.len();
            let (gate, up) = scratch.first(2 * n).split_at_mut(n);
            block.products(cpu, &expert.gate, rows.clone(), gate);
            block.products(cpu, &expert.up, rows.clone(), up);
            dispatch!(cpu.isa(), silu_mul(gate, up));
            for (a, gate) in assigned.zip(gate.chunks_exact(rows.len())) {
                // SAFETY: this expert's rows and this range of columns belong to this task.
                let out = unsafe { hidden.part(a * width + rows.start..a * width + rows.end) };
                out.copy_from_slice(gate);
            }
        });
    });
}

/// `out[t, n] += weight * dot(hidden[a], down[n])`, experts ascending.
fn down(cpu: &Cpu, hidden: &Gathered<'_>, experts: &[SwiGlu], loads: &Loads, out: &mut [f32]) {
    let Some(n_cols) = experts.first().map(|expert| expert.down.n_rows()) else { return };
    let out = Shared::new(out);
    let in_panels = loads.any_in_panels(cpu, hidden, &experts[loads.loads[0].expert_idx].down);
    let n_per_task = rows_per_task(cpu, n_cols.div_ceil(BAND), in_panels);
    cpu.pool().run(n_cols.div_ceil(n_per_task), &|i| {
        let mut scratch = Scratch::take();
        for load in &loads.loads {
            let w = &experts[load.expert_idx].down;
            let of_task = i * n_per_task..((i + 1) * n_per_task).min(n_cols);
            hidden.each_band(cpu, load.assigned(), w, of_task, |block, assigned, rows| {
                let products = scratch.first(assigned.len() * rows.len());
                block.products(cpu, w, rows.clone(), products);
                for (a, products) in assigned.zip(products.chunks_exact(rows.len())) {
                    let (t, weight) = (load.tokens[a - load.first], load.weights[a - load.first]);
                    let first = t as usize * n_cols;
                    // SAFETY: these columns of every row belong to this task.
                    let out = unsafe { out.part(first + rows.start..first + rows.end) };
                    dispatch!(cpu.isa(), axpy(weight, products, out));
                }
            });
        }
    });
}

/// One SwiGLU network for all T rows: `out[t] = down(silu(gate(x[t])) * up(x[t]))`, `x` and `out` [T, C].
///
/// The inner rows are quantised again where `x` is 8-bit and `down` takes 8-bit rows.
///
/// # Panics
/// If `x` is 8-bit and gate or up are not ([`Matrix::is_integer`]), or a shape is broken.
pub fn swiglu(cpu: &Cpu, x: Rows<'_>, mlp: &SwiGlu, s: &mut ExpertScratch, out: &mut [f32]) {
    let (n, width) = (x.n_rows(), mlp.width());
    s.hidden.resize(n * width, 0.0);
    gate_up(cpu, &x.gather(0..n), std::slice::from_ref(mlp), &Loads::all(n), width, &mut s.hidden);
    let hidden = match x {
        Rows::Q8(_) if mlp.down.is_integer() => {
            s.quantized.fill(cpu, &s.hidden, width);
            Rows::Q8(&s.quantized)
        }
        _ => Rows::f32(&s.hidden, width),
    };
    matmul(cpu, hidden, &mlp.down, out);
}
