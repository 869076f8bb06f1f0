//! What changes the weights, once a step: Muon or AdamW, then QK-Clip, then the selection bias.
//!
//! **Which tensor takes which.** Muon takes every hidden matrix whole, each expert's its own, the router's among them:
//! it is a matrix inside the network like the others, and with the update's size matched to AdamW's it moves no faster
//! than that would (so does Moonlight, whose AdamW keeps embedding, head and norms). AdamW takes embedding, head and
//! norms, the norms without decay. The selection bias belongs to [`balance`] alone.
//!
//! Matrices are tasks of the pool, each computed by one thread in a fixed order: any number of threads gives the
//! same bits.

pub mod balance;
pub mod clip;
pub mod muon;

use crate::recipe::OptimizerKind;
use perilune_kernels::cpu::Cpu;
use perilune_kernels::train::for_chunks;
use perilune_model::train::{Gradients, ParamClass, ParamSpec, Parameters};
use std::ops::Range;

/// AdamW's decay rates of the first and second moment, and its epsilon.
const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.95;
const EPS: f32 = 1e-8;

/// Which update a tensor takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Muon (see [`muon`]).
    Muon,
    /// AdamW (Loshchilov and Hutter 2019), with or without decay.
    AdamW {
        /// Whether the weights shrink.
        decays: bool,
    },
    /// None: the selection bias.
    None,
}

/// The update of a tensor of `class`.
pub fn update_of(kind: OptimizerKind, class: ParamClass) -> Update {
    use ParamClass::*;
    match class {
        Bias => Update::None,
        Norm => Update::AdamW { decays: false },
        Embedding | Head => Update::AdamW { decays: true },
        QA | QB | KvA | KvB | O | Dense | Shared | Router | Expert => match kind {
            OptimizerKind::AdamW => Update::AdamW { decays: true },
            OptimizerKind::MuonClip | OptimizerKind::Muon => Update::Muon,
        },
    }
}

/// Numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Muon's learning rate.
    pub lr: f32,
    /// AdamW's learning rate.
    pub adamw_lr: f32,
    /// Decoupled decay: a step multiplies a weight by one less the learning rate times this.
    pub weight_decay: f32,
    /// Largest norm of the gradient of AdamW's tensors together; a larger one is scaled down to it.
    pub grad_clip: f32,
}

/// Euclidean norms of a step's gradient, before clipping.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Norms {
    /// Of Muon's tensors together.
    pub muon: f64,
    /// Of AdamW's tensors together.
    pub adamw: f64,
}

/// What an optimizer remembers between steps.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Steps taken.
    pub n_steps: u64,
    /// First moment or momentum of every weight, laid out as [`Parameters::flat`].
    pub first: Vec<f32>,
    /// Second moment of every weight of AdamW's tensors, one tensor after the other.
    pub second: Vec<f32>,
}

/// An optimizer of one model's weights.
pub struct Optimizer {
    kind: OptimizerKind,
    state: State,
    /// Place of each tensor's second moment; empty where it has none.
    seconds: Vec<Range<usize>>,
}

/// A tensor and what its update needs.
struct Job<'a> {
    spec: &'a ParamSpec,
    update: Update,
    w: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    g: &'a [f32],
}

impl Optimizer {
    /// One that has taken no step yet.
    pub fn new(kind: OptimizerKind, params: &Parameters) -> Optimizer {
        let mut end = 0;
        let place = |spec: &ParamSpec| {
            let n = if matches!(update_of(kind, spec.class), Update::AdamW { .. }) {
                spec.range.len()
            } else {
                0
            };
            end += n;
            end - n..end
        };
        let seconds: Vec<_> = params.specs().iter().map(place).collect();
        let state = State { n_steps: 0, first: vec![0.0; params.flat().len()], second: vec![0.0; end] };
        Optimizer { kind, state, seconds }
    }

    /// What it remembers.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Go on from `state`; `false`, and nothing changed, where it is another model's or another optimizer's.
    #[must_use]
    pub fn restore(&mut self, state: State) -> bool {
        let fits =
            (state.first.len(), state.second.len()) == (self.state.first.len(), self.state.second.len());
        if fits {
            self.state = state;
        }
        fits
    }

    /// Norms of the gradient of each group.
    pub fn norms(&self, cpu: &Cpu, grads: &Gradients) -> Norms {
        let mut squares = vec![0.0f64; grads.specs().len()];
        for_chunks(cpu, &mut squares, 1, |i, square| {
            square[0] = grads.tensor(i).iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
        });
        let (mut muon, mut adamw) = (0.0, 0.0);
        for (spec, square) in grads.specs().iter().zip(squares) {
            match update_of(self.kind, spec.class) {
                Update::Muon => muon += square,
                Update::AdamW { .. } => adamw += square,
                Update::None => {}
            }
        }
        Norms { muon: f64::sqrt(muon), adamw: f64::sqrt(adamw) }
    }

    /// Change the weights by the mean gradient `grads`, whose norms are `norms`. `params` must be of the model that the
    /// optimizer was made for.
    pub fn step(
        &mut self,
        cpu: &Cpu,
        params: &mut Parameters,
        grads: &Gradients,
        norms: Norms,
        settings: Settings,
    ) {
        self.state.n_steps += 1;
        let adam = Adam::new(self.state.n_steps, settings, norms);
        let specs: Vec<ParamSpec> = params.specs().to_vec();
        let mut jobs = self.jobs(&specs, params, grads);
        // The long ones first, so that no thread is left alone with one at the end.
        jobs.sort_by_key(|job| std::cmp::Reverse((job.update == Update::Muon, job.w.len())));
        for_chunks(cpu, &mut jobs, 1, |_, job| {
            let Job { spec, update, w, first, second, g } = &mut job[0];
            match *update {
                Update::Muon => muon::step(cpu, spec.cols, w, first, g, settings.lr, settings.weight_decay),
                Update::AdamW { decays } => adam.step(w, first, second, g, decays),
                Update::None => {}
            }
        });
    }

    fn jobs<'a>(
        &'a mut self,
        specs: &'a [ParamSpec],
        params: &'a mut Parameters,
        grads: &'a Gradients,
    ) -> Vec<Job<'a>> {
        let (mut w, mut first, mut second) =
            (params.flat_mut(), self.state.first.as_mut_slice(), self.state.second.as_mut_slice());
        let mut jobs = Vec::with_capacity(specs.len());
        for (i, spec) in specs.iter().enumerate() {
            let n = spec.range.len();
            jobs.push(Job {
                spec,
                update: update_of(self.kind, spec.class),
                w: split_off(&mut w, n),
                first: split_off(&mut first, n),
                second: split_off(&mut second, self.seconds[i].len()),
                g: grads.tensor(i),
            });
        }
        jobs
    }
}

/// The first `n` values, taken off `rest`.
fn split_off<'a>(rest: &mut &'a mut [f32], n: usize) -> &'a mut [f32] {
    let (head, tail) = std::mem::take(rest).split_at_mut(n);
    *rest = tail;
    head
}

/// AdamW's numbers of one step (Loshchilov and Hutter 2019).
struct Adam {
    lr: f32,
    keep: f32,
    grad_scale: f32,
    correct_1: f32,
    correct_2: f32,
}

impl Adam {
    fn new(n_steps: u64, settings: Settings, norms: Norms) -> Adam {
        let power = |beta: f32| (1.0 - f64::from(beta).powi(n_steps.min(1 << 30) as i32)) as f32;
        Adam {
            lr: settings.adamw_lr,
            keep: 1.0 - settings.adamw_lr * settings.weight_decay,
            grad_scale: (f64::from(settings.grad_clip) / norms.adamw.max(1e-12)).min(1.0) as f32,
            correct_1: 1.0 / power(BETA_1),
            correct_2: 1.0 / power(BETA_2),
        }
    }

    fn step(&self, w: &mut [f32], first: &mut [f32], second: &mut [f32], g: &[f32], decays: bool) {
        let keep = if decays { self.keep } else { 1.0 };
        for (((w, m), v), g) in w.iter_mut().zip(first).zip(second).zip(g) {
            let g = g * self.grad_scale;
            *m = BETA_1 * *m + (1.0 - BETA_1) * g;
            *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
            let update = *m * self.correct_1 / ((*v * self.correct_2).sqrt() + EPS);
            *w = *w * keep - self.lr * update;
        }
    }
}
