//! Where a pass spends its time: seconds, bytes and operations of each part of the model.

use super::median;
use perilune_kernels::router::Chosen;
use perilune_model::cache::mla_shape;
use perilune_model::forward::{Arithmetic, Model, Probe};
use perilune_model::layout::Kind;
use perilune_model::weights::Mlp;
use serde::Serialize;
use std::collections::HashSet;
use std::time::Instant;

/// The parts that take time, in the order of a report.
pub(super) const PARTS: [Kind; 6] =
    [Kind::Attention, Kind::DenseMlp, Kind::Router, Kind::RoutedExpert, Kind::SharedExpert, Kind::Head];

/// What one part of the model costs in a step.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Part {
    pub(super) part: Kind,
    /// Milliseconds, the median of the steps.
    pub(super) ms: f64,
    /// Bytes read, the mean of the steps.
    pub(super) bytes: u64,
    /// 10^9 operations, the mean of the steps; a multiplication and an addition are two.
    pub(super) gop: f64,
    /// 10^9 bytes a second.
    pub(super) gb_per_s: f64,
    /// 10^9 operations a second.
    pub(super) gop_per_s: f64,
}

/// Bytes and operations of one part in one pass.
#[derive(Clone, Copy, Default)]
struct Work {
    bytes: u64,
    operations: f64,
}

/// A probe that keeps the clock of passes, one of which is a step.
pub(super) struct Clock<'m> {
    model: &'m Model,
    /// Bytes of all matrices of a part; operations of a row that passes them.
    matrices: [Work; PARTS.len()],
    last: Instant,
    seconds: [f64; PARTS.len()],
    work: [Work; PARTS.len()],
    steps: Vec<[f64; PARTS.len()]>,
}

impl<'m> Clock<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        let mut matrices = [Work::default(); PARTS.len()];
        for (kind, w) in model.weights().matrices() {
            if let Some(work) = place(kind).filter(|_| kind != Kind::RoutedExpert).map(|at| &mut matrices[at])
            {
                work.bytes += w.bytes() as u64;
                work.operations += 2.0 * (w.n_rows() * w.n_cols()) as f64;
            }
        }
        let (seconds, work) = ([0.0; PARTS.len()], [Work::default(); PARTS.len()]);
        Clock { model, matrices, last: Instant::now(), seconds, work, steps: Vec::new() }
    }

    /// A pass begins: `n_rows` rows of which `n_logits` give logits, with what they attend to in `cached`.
    pub(super) fn start(&mut self, n_rows: usize, n_logits: usize, cached: &Cached) {
        for (at, (work, all)) in self.work.iter_mut().zip(&self.matrices).enumerate() {
            let rows = if PARTS[at] == Kind::Head { n_logits } else { n_rows };
            work.bytes += if rows > 0 { all.bytes } else { 0 };
            work.operations += all.operations * rows as f64;
        }
        let attention = &mut self.work[0];
        attention.bytes += cached.bytes(self.model);
        attention.operations += cached.operations(self.model);
        self.last = Instant::now();
    }

    /// A step ends.
    pub(super) fn end(&mut self) {
        self.steps.push(std::mem::take(&mut self.seconds));
    }

    /// Bytes that all passes read.
    pub(super) fn bytes(&self) -> u64 {
        self.work.iter().map(|work| work.bytes).sum()
    }

    /// Medians of the steps' times, means of their bytes and operations.
    pub(super) fn parts(&self) -> Vec<Part> {
        let n = self.steps.len().max(1) as f64;
        let part = |at: usize| {
            let seconds = median(&mut self.steps.iter().map(|step| step[at]).collect::<Vec<_>>());
            let (bytes, operations) = (self.work[at].bytes as f64 / n, self.work[at].operations / n);
            Part {
                part: PARTS[at],
                ms: seconds * 1e3,
                bytes: bytes as u64,
                gop: operations / 1e9,
                gb_per_s: bytes / seconds / 1e9,
                gop_per_s: operations / seconds / 1e9,
            }
        };
        (0..PARTS.len()).map(part).filter(|part| part.bytes > 0).collect()
    }
}

fn place(kind: Kind) -> Option<usize> {
    PARTS.iter().position(|part| *part == kind)
}

impl Probe for Clock<'_> {
    fn router(&mut self, layer_idx: usize, _logits: &[f32], chosen: &[Vec<Chosen>]) {
        let Mlp::Moe(moe) = &self.model.weights().layers[layer_idx].mlp else { return };
        let work = &mut self.work[3];
        let mut seen = HashSet::new();
        for choice in chosen.iter().flatten() {
            let expert = &moe.experts[choice.expert_idx as usize];
            let matrices = [&expert.gate, &expert.up, &expert.down];
            if seen.insert(choice.expert_idx) {
                work.bytes += matrices.iter().map(|w| w.bytes() as u64).sum::<u64>();
            }
            work.operations += matrices.iter().map(|w| 2.0 * (w.n_rows() * w.n_cols()) as f64).sum::<f64>();
        }
    }

    fn done(&mut self, part: Kind) {
        let now = Instant::now();
        // What belongs to no part of the list, the embedding, is not a tenth of a percent.
        if let Some(at) = place(part) {
            self.seconds[at] += (now - self.last).as_secs_f64();
        }
        self.last = now;
    }
}

const _: () = assert!(matches!(PARTS[0], Kind::Attention) && matches!(PARTS[3], Kind::RoutedExpert));

/// Cached tokens that a pass attends to.
pub(super) struct Cached {
    /// Sequences in the pass.
    pub(super) n_sequences: usize,
    /// Rows of each sequence.
    pub(super) n_rows: usize,
    /// Tokens cached before the first of them.
    pub(super) before: usize,
    /// Whether attention is absorbed (decode) or expands keys and values.
    pub(super) absorbed: bool,
}

impl Cached {
    /// Bytes of cache, read once for each sequence.
    pub(super) fn bytes(&self, model: &Model) -> u64 {
        let per_token = model.cache_form().bytes_per_token(model.config());
        (self.n_sequences * (self.before + self.n_rows) * per_token) as u64
    }

    /// Multiplications and additions of scores, sums and, where keys and values are expanded, of expanding.
    pub(super) fn operations(&self, model: &Model) -> f64 {
        let shape = mla_shape(model.config());
        let pairs = self.n_rows as f64 * (self.before as f64 + (self.n_rows + 1) as f64 / 2.0);
        let seen = (self.before + self.n_rows) as f64;
        let (per_pair, expanding) = match (self.absorbed, model.arithmetic()) {
            (true, Arithmetic::Fast) => (shape.latent_width() + shape.rank, 0.0),
            (_, Arithmetic::Exact) => (shape.query() + shape.v, 0.0),
            (false, Arithmetic::Fast) => {
                // The rows' own products with kv_b are counted among the matrices; a context's come on top.
                (
                    shape.query() + shape.v,
                    (shape.key_value() * shape.rank) as f64 * (seen - self.n_rows as f64),
                )
            }
        };
        let heads = (self.n_sequences * model.config().num_hidden_layers * shape.n_heads) as f64;
        2.0 * heads * (pairs * per_pair as f64 + expanding)
    }
}
