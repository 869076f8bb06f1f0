//! What the engine asks of a model, and the real model behind it.

use perilune_kernels::experts::SwiGlu;
use perilune_kernels::router::Chosen;
use perilune_model::cache::{Cache, CacheForm};
pub use perilune_model::forward::Segment;
use perilune_model::forward::{Model, Probe, Workspace};
use perilune_model::weights::{Mlp, Weights};
use std::sync::Arc;

/// A forward pass over a paged cache that it owns.
///
/// The promise behind everything: a row depends on the ids and phases of its own sequence up to it, and on nothing
/// else (neither the other segments nor how earlier tokens were cut into passes).
pub trait ForwardModel {
    /// V: logits of a row.
    fn vocab_size(&self) -> usize;
    /// Positions the model has: the longest context in tokens.
    fn n_positions_max(&self) -> usize;
    /// Blocks of 64 tokens its cache holds.
    fn n_blocks(&self) -> usize;
    /// Whether prefill and decode write different bits for the same token.
    fn phases_differ(&self) -> bool;
    /// Run and cache the segments' tokens; logits of the wanted rows, in order.
    ///
    /// # Errors
    /// A sentence, where nothing could be run; nothing was written then.
    fn forward(&mut self, segments: &[Segment<'_>]) -> Result<Forwarded, String>;
}

/// What one pass gave.
pub struct Forwarded {
    /// Logits [rows wanted, V].
    pub logits: Vec<f32>,
    /// Bytes of weights the pass read, each matrix counted once.
    pub weight_bytes: u64,
}

/// A model with its cache and buffers.
pub struct Served {
    model: Arc<Model>,
    cache: Cache,
    workspace: Workspace,
    dense_bytes: u64,
    /// Bytes of one routed expert [layers]; 0 in a dense block.
    expert_bytes: Vec<u64>,
}

impl Served {
    /// `model` with a cache of `n_blocks` blocks of 64 tokens in its form.
    pub fn new(model: Arc<Model>, n_blocks: usize) -> Self {
        let cache = Cache::new(model.config(), model.cache_form(), n_blocks);
        let (dense_bytes, expert_bytes) = weigh(model.weights());
        Served { model, cache, workspace: Workspace::default(), dense_bytes, expert_bytes }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

impl ForwardModel for Served {
    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn n_positions_max(&self) -> usize {
        self.model.config().max_position_embeddings
    }

    fn n_blocks(&self) -> usize {
        self.cache.n_blocks()
    }

    fn phases_differ(&self) -> bool {
        self.cache.form() != CacheForm::Expanded
    }

    fn forward(&mut self, segments: &[Segment<'_>]) -> Result<Forwarded, String> {
        let mut touched = Touched { expert_bytes: &self.expert_bytes, bytes: self.dense_bytes };
        let logits = self
            .model
            .forward(&mut self.cache, segments, &mut self.workspace, &mut touched)
            .map_err(|error| error.to_string())?;
        Ok(Forwarded { logits, weight_bytes: touched.bytes })
    }
}

/// Adds up the experts a pass reads.
struct Touched<'a> {
    expert_bytes: &'a [u64],
    bytes: u64,
}

impl Probe for Touched<'_> {
    fn router(&mut self, layer_idx: usize, _logits: &[f32], chosen: &[Vec<Chosen>]) {
        let mut experts: Vec<u32> = chosen.iter().flatten().map(|c| c.expert_idx).collect();
        experts.sort_unstable();
        experts.dedup();
        self.bytes += experts.len() as u64 * self.expert_bytes[layer_idx];
    }
}

/// Bytes that every pass reads (the embedding's rows left out), and those of one routed expert of each layer.
fn weigh(weights: &Weights) -> (u64, Vec<u64>) {
    let swiglu = |mlp: &SwiGlu| (mlp.gate.bytes() + mlp.up.bytes() + mlp.down.bytes()) as u64;
    let mut dense = weights.head.bytes() as u64;
    let mut experts = Vec::new();
    for layer in &weights.layers {
        let a = &layer.attention;
        dense += [&a.q_a, &a.q_b, &a.kv_a, &a.kv_b, &a.o].iter().map(|m| m.bytes() as u64).sum::<u64>();
        match &layer.mlp {
            Mlp::Dense(mlp) => {
                dense += swiglu(mlp);
                experts.push(0);
            }
            Mlp::Moe(moe) => {
                dense += moe.router.bytes() as u64 + moe.shared.as_ref().map_or(0, swiglu);
                experts.push(moe.experts.first().map_or(0, swiglu));
            }
        }
    }
    (dense, experts)
}
