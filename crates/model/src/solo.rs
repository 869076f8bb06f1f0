//! One sequence with a cache of its own: what tools and tests run. (The engine schedules many over one cache.)

use crate::cache::{Cache, CacheForm};
use crate::forward::{ForwardError, Model, Phase, Probe, Segment, Wanted, Workspace};

/// Tokens of one prefill pass unless a caller says otherwise.
pub const PREFILL_CHUNK: usize = 512;

/// A sequence, its cache and its buffers.
pub struct Solo<'m> {
    model: &'m Model,
    cache: Cache,
    blocks: Vec<u32>,
    workspace: Workspace,
    n_tokens: usize,
}

impl<'m> Solo<'m> {
    /// An empty sequence with room for `n_context` tokens, in the model's form of cache.
    pub fn new(model: &'m Model, n_context: usize) -> Self {
        Solo::with_form(model, n_context, model.cache_form())
    }

    /// The same in a given cache form, which [`crate::forward::check_cache`] must take for the model's arithmetic.
    pub fn with_form(model: &'m Model, n_context: usize, form: CacheForm) -> Self {
        let n_blocks = Cache::blocks_for(n_context);
        Solo {
            model,
            cache: Cache::new(model.config(), form, n_blocks),
            blocks: (0..n_blocks as u32).collect(),
            workspace: Workspace::default(),
            n_tokens: 0,
        }
    }

    /// Tokens cached.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Run `ids` after what is cached, in one pass; logits [rows wanted, V].
    ///
    /// # Errors
    /// As [`Model::forward`]; the sequence is as before.
    pub fn advance(
        &mut self,
        ids: &[u32],
        phase: Phase,
        wanted: Wanted,
        probe: &mut dyn Probe,
    ) -> Result<Vec<f32>, ForwardError> {
        let segment = Segment { ids, first_position: self.n_tokens, blocks: &self.blocks, phase, wanted };
        let logits = self.model.forward(&mut self.cache, &[segment], &mut self.workspace, probe)?;
        self.n_tokens += ids.len();
        Ok(logits)
    }

    /// Run a prompt in passes of at most `chunk` tokens (at least 1); the logits of its last row `[V]`.
    ///
    /// `progress` is told the tokens done; it returns `false` to stop, which gives `None`.
    ///
    /// # Errors
    /// As [`Model::forward`], and [`ForwardError::Empty`] for no ids; the passes before stay cached.
    pub fn prefill(
        &mut self,
        ids: &[u32],
        chunk: usize,
        mut progress: impl FnMut(usize) -> bool,
    ) -> Result<Option<Vec<f32>>, ForwardError> {
        if ids.is_empty() {
            return Err(ForwardError::Empty);
        }
        let mut logits = Vec::new();
        for (i, part) in ids.chunks(chunk.max(1)).enumerate() {
            let done = i * chunk.max(1) + part.len();
            let wanted = if done == ids.len() { Wanted::Last } else { Wanted::Nothing };
            logits = self.advance(part, Phase::Prefill, wanted, &mut crate::forward::NoProbe)?;
            if !progress(done) {
                return Ok(None);
            }
        }
        Ok(Some(logits))
    }

    /// Run one token by the decode form; its logits `[V]`.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn decode(&mut self, id: u32) -> Result<Vec<f32>, ForwardError> {
        self.advance(&[id], Phase::Decode, Wanted::Last, &mut crate::forward::NoProbe)
    }
}
