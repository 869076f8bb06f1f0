//! Routed experts over grouped tokens: `y[t] = sum of weight * down(silu(gate(x)) * up(x))`.

use crate::cpu::{Cpu, dispatch};
use crate::matmul::{BLOCK, ROWS_PER_TASK, Rows, for_row_tasks, matmul};
use crate::matrix::Matrix;
use crate::quant::QuantRows;
use crate::router::Chosen;
use crate::shared::Shared;

/// A SwiGLU network: gate and up [I, C], down [C, I].
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
    /// I, the intermediate width.
    pub fn width(&self) -> usize {
        self.gate.n_rows()
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

/// Rows sorted by the experts they chose.
pub struct Loads {
    loads: Vec<Load>,
    n_assigned: usize,
}

impl Loads {
    /// Group T rows by expert; experts ascend, and so do the rows of each.
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

    /// Pairs of row and expert.
    pub fn n_assigned(&self) -> usize {
        self.n_assigned
    }
}

/// Buffers kept between calls.
#[derive(Default)]
pub struct ExpertScratch {
    hidden: Vec<f32>,
    gate: Vec<f32>,
    quantized: QuantRows,
}

/// Routed experts: `out[t] = sum over the experts of row t, ascending, of weight * expert(x[t])`.
///
/// `x` T rows of C, `experts` `[E]`, `out` [T, C]. The order of the sum is that of the experts' indices, so a row's
/// result does not depend on the rows beside it.
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
    gate_up(cpu, x, experts, loads, width, &mut s.hidden);
    let hidden = match x {
        Rows::F32 { .. } => Rows::f32(&s.hidden, width),
        Rows::Q8(_) => {
            s.quantized.fill(cpu, &s.hidden, width);
            Rows::Q8(&s.quantized)
        }
    };
    down(cpu, hidden, experts, loads, out);
}

/// `hidden[a] = silu(gate(x[t])) * up(x[t])` for every assignment a.
fn gate_up(cpu: &Cpu, x: Rows<'_>, experts: &[SwiGlu], loads: &Loads, width: usize, hidden: &mut [f32]) {
    let n_chunks = width.div_ceil(ROWS_PER_TASK);
    let hidden = Shared::new(hidden);
    cpu.pool().run(loads.loads.len() * n_chunks, &|task_idx| {
        let load = &loads.loads[task_idx / n_chunks];
        let expert = &experts[load.expert_idx];
        let first = task_idx % n_chunks * ROWS_PER_TASK;
        let n_rows = ROWS_PER_TASK.min(width - first);
        let mut decoded = Vec::new();
        for (block_idx, tokens) in load.tokens.chunks(BLOCK).enumerate() {
            let (x, rows) = (x.gather(tokens), first..first + n_rows);
            let mut gate = [0.0f32; BLOCK * ROWS_PER_TASK];
            let mut up = [0.0f32; BLOCK * ROWS_PER_TASK];
            let n = tokens.len() * n_rows;
            let (gate, up) = (&mut gate[..n], &mut up[..n]);
            x.products(cpu, &expert.gate, rows.clone(), &mut decoded, gate);
            x.products(cpu, &expert.up, rows, &mut decoded, up);
            dispatch!(cpu.isa(), silu_mul(gate, up));
            for (row, gate) in (load.first + block_idx * BLOCK..).zip(gate.chunks_exact(n_rows)) {
                // SAFETY: this expert's rows and this range of columns belong to this task.
                let out = unsafe { hidden.part(row * width + first..row * width + first + n_rows) };
                out.copy_from_slice(gate);
            }
        }
    });
}

/// `out[t, n] += weight * dot(hidden[a], down[n])`, experts ascending.
fn down(cpu: &Cpu, hidden: Rows<'_>, experts: &[SwiGlu], loads: &Loads, out: &mut [f32]) {
    let Some(n_cols) = experts.first().map(|expert| expert.down.n_rows()) else { return };
    let out = Shared::new(out);
    for_row_tasks(cpu, n_cols, |rows| {
        let mut decoded = Vec::new();
        for load in &loads.loads {
            let w = &experts[load.expert_idx].down;
            for (block_idx, tokens) in load.tokens.chunks(BLOCK).enumerate() {
                let first = load.first + block_idx * BLOCK;
                let which: [u32; BLOCK] = std::array::from_fn(|i| (first + i) as u32);
                let weights = &load.weights[block_idx * BLOCK..];
                let mut products = [0.0f32; BLOCK * ROWS_PER_TASK];
                let products = &mut products[..tokens.len() * rows.len()];
                let x = hidden.gather(&which[..tokens.len()]);
                x.products(cpu, w, rows.clone(), &mut decoded, products);
                for ((&t, &weight), products) in
                    tokens.iter().zip(weights).zip(products.chunks_exact(rows.len()))
                {
                    let first = t as usize * n_cols + rows.start;
                    // SAFETY: these columns of every row belong to this task.
                    let out = unsafe { out.part(first..first + rows.len()) };
                    out.iter_mut()
                        .zip(products)
                        .for_each(|(out, product)| *out = weight.mul_add(*product, *out));
                }
            }
        }
    });
}

/// One SwiGLU network for all T rows: `out[t] = down(silu(gate(x[t])) * up(x[t]))`, `out` [T, C].
pub fn swiglu(cpu: &Cpu, x: Rows<'_>, mlp: &SwiGlu, s: &mut ExpertScratch, out: &mut [f32]) {
    let n = x.n_rows() * mlp.width();
    s.gate.resize(n, 0.0);
    s.hidden.resize(n, 0.0);
    matmul(cpu, x, &mlp.gate, &mut s.gate);
    matmul(cpu, x, &mlp.up, &mut s.hidden);
    crate::activation::silu_mul(cpu, &mut s.gate, &s.hidden);
    let hidden = match x {
        Rows::Q8(_) if mlp.down.is_integer() => {
            s.quantized.fill(cpu, &s.gate, mlp.width());
            Rows::Q8(&s.quantized)
        }
        _ => Rows::f32(&s.gate, mlp.width()),
    };
    matmul(cpu, hidden, &mlp.down, out);
}
