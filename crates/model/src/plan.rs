//! What a run takes before it is run: bytes mapped, bytes allocated, bytes read for a token.
//!
//! Weights are mapped from the file and shared with every other process that maps them; what a run allocates for
//! itself (re-encoded copies, cache, scratch) is anonymous memory. Mapped pages can be dropped and read again,
//! anonymous ones cannot.

use crate::cache::CacheForm;
use crate::checkpoint::{Checkpoint, Dtype};
use crate::config::Config;
use crate::forward::{self, Arithmetic, ForwardError, PassShape, Workspace};
use crate::layout::{self, Kind, TensorSpec};
use crate::solo::PREFILL_CHUNK;
use crate::weights::Dense;
use perilune_kernels::reference::{stored_width, weight_stride};
use perilune_kernels::{BLOCK_TOKENS, GROUP};
use serde::Serialize;

/// Bytes of a scale of 8-bit weights, BF16.
const INT8_SCALE_BYTES: u64 = 2;

/// Bytes of the process itself: code, allocator, tables.
const PROCESS_BYTES: u64 = 16 << 20;

/// Bytes around a touched embedding row that become resident with it: the kernel maps pages of the cache in
/// neighbourhoods of this size.
const FAULT_BYTES: u64 = 64 << 10;

/// Largest number of sequences at once that is planned for.
const BATCH_MAX: u64 = 1 << 16;

/// Largest number of tokens in all sequences together that is planned for.
const TOKENS_MAX: u64 = 1 << 40;

/// The run to plan for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// Tokens of one sequence, prompt and answer.
    pub context: u64,
    /// Sequences at once.
    pub batch: u64,
    /// Form of the dense matrices: all but embedding, norms, routers and routed experts.
    pub dense: Dense,
    /// Arithmetic.
    pub path: Arithmetic,
    /// What is cached of a token.
    pub cache: CacheForm,
    /// Threads at work, each with temporaries of its own.
    pub n_threads: usize,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Too many tokens.
    #[error(
        "{context} tokens in {batch} sequences; expected at least 1 of each, at most {BATCH_MAX} sequences and at most {TOKENS_MAX} tokens together"
    )]
    Tokens {
        /// Tokens of one sequence.
        context: u64,
        /// Sequences.
        batch: u64,
    },
    /// The exact path has no 8-bit weights.
    #[error("the exact path runs the weights as published; take `--dense bf16`, or the fast path")]
    ExactInt8,
    /// Widths or a form of cache that the path cannot serve.
    #[error(transparent)]
    Widths(#[from] ForwardError),
}

/// Bytes of weights by how a run holds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// The embedding matrix, of which a token reads one row; the head too, where both are one.
    pub embedding: u64,
    /// Routed experts.
    pub experts: u64,
    /// Matrices that `--dense int8` re-encodes.
    pub dense: u64,
    /// The same matrices re-encoded, as they are held.
    pub dense_int8: u64,
    /// Of those, what lies between rows and is never read.
    pub dense_int8_gaps: u64,
    /// Norms and routers.
    pub rest: u64,
    /// Of all of these, what lies unaligned in its file and is copied to anonymous memory when it is loaded.
    pub misaligned: u64,
}

impl Weights {
    /// In the dtypes that the config announces.
    pub fn of_config(config: &Config) -> Weights {
        let total = |of: &dyn Fn(&TensorSpec) -> u64| {
            let sum = layout::tally(config, |spec| u128::from(of(spec)));
            u64::try_from(sum.rest + sum.routed).expect("a legal config has at most 2^50 parameters")
        };
        let of_kinds =
            |kinds: &[Kind]| total(&|spec| if kinds.contains(&spec.kind) { spec.n_bytes() } else { 0 });
        let of_tied = |bytes: fn(usize, usize) -> u64| match config.tie_word_embeddings {
            true => bytes(config.vocab_size, config.hidden_size),
            false => 0,
        };
        Weights {
            embedding: of_kinds(&[Kind::Embedding]),
            experts: of_kinds(&[Kind::RoutedExpert]),
            dense: of_kinds(&DENSE_KINDS),
            dense_int8: total(&|spec| of_re_encoded(spec, int8_bytes)) + of_tied(int8_bytes),
            dense_int8_gaps: total(&|spec| of_re_encoded(spec, int8_gaps)) + of_tied(int8_gaps),
            rest: of_kinds(&[Kind::Norm, Kind::Router]),
            misaligned: 0,
        }
    }

    /// As they are in the files of an opened checkpoint.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Weights {
        let announced = Weights::of_config(&checkpoint.config);
        let Weights { dense_int8, dense_int8_gaps, .. } = announced;
        let mut weights = Weights { dense_int8, dense_int8_gaps, ..Weights::default() };
        for spec in layout::expected(&checkpoint.config) {
            let Some(tensor) = checkpoint.tensor(&spec.name) else { continue };
            let n_bytes = tensor.bytes().len() as u64;
            let element_bytes = tensor.dtype.bitsize() / 8;
            // Packed words are read as bytes, so they lie well anywhere.
            if tensor.dtype != Dtype::I32 && !tensor.range.start.is_multiple_of(element_bytes.max(1)) {
                weights.misaligned += n_bytes;
            }
            match spec.kind {
                Kind::Embedding => weights.embedding += n_bytes,
                Kind::RoutedExpert => weights.experts += n_bytes,
                Kind::Norm | Kind::Router => weights.rest += n_bytes,
                _ => weights.dense += n_bytes,
            }
        }
        weights
    }

    /// All of them, as published; the others' fields count the same weights again.
    pub fn total(&self) -> u64 {
        self.embedding + self.experts + self.dense + self.rest
    }
}

/// Kinds whose matrices `--dense int8` re-encodes.
const DENSE_KINDS: [Kind; 4] = [Kind::Attention, Kind::DenseMlp, Kind::SharedExpert, Kind::Head];

/// Bytes of a matrix [`n_rows`, `n_columns`] re-encoded to 8 bit: rows of codes as they are laid out, a BF16 scale per
/// 32 columns of a row.
fn int8_bytes(n_rows: usize, n_columns: usize) -> u64 {
    n_rows as u64 * (weight_stride(n_columns) as u64 + n_columns.div_ceil(GROUP) as u64 * INT8_SCALE_BYTES)
}

/// Bytes between the rows of that matrix.
fn int8_gaps(n_rows: usize, n_columns: usize) -> u64 {
    (n_rows * (weight_stride(n_columns) - stored_width(n_columns))) as u64
}

/// `bytes` of a tensor that `--dense int8` re-encodes, 0 of another.
fn of_re_encoded(spec: &TensorSpec, bytes: fn(usize, usize) -> u64) -> u64 {
    match spec.shape[..] {
        [n_rows, n_columns] if DENSE_KINDS.contains(&spec.kind) => bytes(n_rows, n_columns),
        _ => 0,
    }
}

/// Bytes of the forward pass's buffers: the wider of a prefill chunk and a decode step of the whole batch.
fn scratch_bytes(config: &Config, request: &Request) -> u64 {
    let bytes = |n_rows: u64, n_logits: u64| {
        let pass = PassShape {
            n_rows: n_rows as usize,
            n_logits: n_logits as usize,
            n_context: request.context as usize,
            n_threads: request.n_threads,
        };
        Workspace::bytes(config, request.path, pass) as u64
    };
    bytes(request.context.min(PREFILL_CHUNK as u64), 1).max(bytes(request.batch, request.batch))
}

/// Experts of a layer that `n_tokens` touch together, were their choices independent and even.
fn experts_touched(config: &Config, n_tokens: u64) -> f64 {
    let n_experts = config.n_routed_experts as f64;
    let missed = 1.0 - config.num_experts_per_tok as f64 / n_experts;
    n_experts * (1.0 - missed.powf(n_tokens as f64))
}

/// What a run takes, bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The run.
    pub request: Request,
    /// The weights by how they are held.
    pub weights: Weights,
    /// All weights of the files: address space, not memory.
    pub mapped_bytes: u64,
    /// Mapped weights that are resident at the peak: all but unread embedding rows, experts that no token is expected
    /// to choose, and what was re-encoded.
    pub mapped_resident_bytes: u64,
    /// Re-encoded copies.
    pub reencoded_bytes: u64,
    /// Cache that one token takes.
    pub cache_bytes_per_token: u64,
    /// Cache of all sequences at full context.
    pub cache_bytes: u64,
    /// Buffers of the forward pass.
    pub scratch_bytes: u64,
    /// Anonymous memory at the peak: re-encoded copies, copies of unaligned weights, cache, scratch and the process
    /// itself.
    pub anonymous_bytes: u64,
    /// Resident memory at the peak, mapped and anonymous.
    pub resident_bytes: u64,
    /// Weights read for a decode step of the whole batch, experts as independent and even choices touch them.
    pub read_bytes_per_step: u64,
}

impl Plan {
    /// Plan `request` for a model whose weights are `weights`.
    ///
    /// # Errors
    /// [`PlanError`] when the token counts are out of range, the request asks for 8-bit weights on the exact path, or
    /// the path cannot serve the config's widths or the form of cache.
    pub fn new(config: &Config, weights: Weights, request: Request) -> Result<Plan, PlanError> {
        let Request { context, batch, dense, path, cache, .. } = request;
        let n_tokens = context
            .checked_next_multiple_of(BLOCK_TOKENS as u64)
            .and_then(|context| context.checked_mul(batch))
            .filter(|n| (1..=TOKENS_MAX).contains(n) && batch <= BATCH_MAX)
            .ok_or(PlanError::Tokens { context, batch })?;
        if (path, dense) == (Arithmetic::Exact, Dense::Int8) {
            return Err(PlanError::ExactInt8);
        }
        forward::check_widths(config, path)?;
        forward::check_cache(path, cache)?;
        let share = |n_tokens| experts_touched(config, n_tokens) / config.n_routed_experts as f64;
        let experts_of = |n_tokens| (weights.experts as f64 * share(n_tokens)) as u64;
        let (reencoded_bytes, gaps) = match dense {
            Dense::Int8 => (weights.dense_int8, weights.dense_int8_gaps),
            Dense::AsPublished => (0, 0),
        };
        let mapped_dense = if dense == Dense::Int8 { 0 } else { weights.dense };
        let cache_bytes_per_token = cache.bytes_per_token(config) as u64;
        let cache_bytes = n_tokens.saturating_mul(cache_bytes_per_token);
        let scratch_bytes = scratch_bytes(config, &request);
        let row_bytes = weights.embedding / config.vocab_size as u64;
        let is_head = config.tie_word_embeddings && dense == Dense::AsPublished;
        let touched = weights.embedding.min(n_tokens.saturating_mul(row_bytes + FAULT_BYTES));
        let embedding = if is_head { weights.embedding } else { touched };
        let mapped_resident_bytes = embedding + experts_of(n_tokens) + mapped_dense + weights.rest;
        let anonymous_bytes = reencoded_bytes
            .saturating_add(cache_bytes)
            .saturating_add(scratch_bytes)
            .saturating_add(weights.misaligned)
            .saturating_add(PROCESS_BYTES);
        Ok(Plan {
            request,
            weights,
            mapped_bytes: weights.total(),
            mapped_resident_bytes,
            reencoded_bytes,
            cache_bytes_per_token,
            cache_bytes,
            scratch_bytes,
            anonymous_bytes,
            resident_bytes: mapped_resident_bytes.saturating_add(anonymous_bytes),
            read_bytes_per_step: experts_of(batch)
                + (reencoded_bytes - gaps)
                + mapped_dense
                + weights.rest
                + if is_head { weights.embedding } else { batch * row_bytes },
        })
    }

    /// Whether the run fits a machine with `ram_bytes` of memory.
    pub fn verdict(&self, ram_bytes: u64) -> Verdict {
        if self.resident_bytes <= ram_bytes {
            Verdict::Fits
        } else if self.anonymous_bytes < ram_bytes {
            Verdict::FromDisk
        } else {
            Verdict::DoesNotFit
        }
    }

    /// Changes that, each alone, would make the run fit `ram_bytes` of memory; empty when it fits already. The last
    /// entry is always the memory that the request as it is needs.
    pub fn remedies(&self, config: &Config, ram_bytes: u64) -> Vec<Remedy> {
        if self.verdict(ram_bytes) == Verdict::Fits {
            return Vec::new();
        }
        let fits = |request| {
            Plan::new(config, self.weights, request).is_ok_and(|plan| plan.resident_bytes <= ram_bytes)
        };
        let request = self.request;
        let mut remedies = Vec::new();
        if let Some(context) = largest(request.context, |context| fits(Request { context, ..request })) {
            remedies.push(Remedy::Context(context));
        }
        if let Some(batch) = largest(request.batch, |batch| fits(Request { batch, ..request })) {
            remedies.push(Remedy::Batch(batch));
        }
        let cache = Arithmetic::Fast.cache_form();
        let fast = Request { path: Arithmetic::Fast, cache, ..request };
        if request.path == Arithmetic::Exact && fits(fast) {
            remedies.push(Remedy::FastPath);
        } else if request.dense == Dense::AsPublished && fits(Request { dense: Dense::Int8, ..fast }) {
            remedies.push(Remedy::DenseInt8);
        }
        remedies.push(Remedy::Ram(self.resident_bytes));
        remedies
    }
}

/// The largest value below `from` that holds, by bisection; `holds` is true up to some value and false above.
fn largest(from: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    if !holds(1) {
        return None;
    }
    let (mut good, mut bad) = (1, from);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if holds(middle) { good = middle } else { bad = middle }
    }
    Some(good)
}

/// Whether a run fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything stays in memory.
    Fits,
    /// What is allocated fits, the mapped weights do not: they are read from the disk again and again.
    FromDisk,
    /// Not even what is allocated fits.
    DoesNotFit,
}

/// One change that makes a run fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// A context of at most this many tokens.
    Context(u64),
    /// At most this many sequences.
    Batch(u64),
    /// The fast path, with its latent cache.
    FastPath,
    /// Dense matrices re-encoded to 8 bit, on the fast path.
    DenseInt8,
    /// Memory of at least this many bytes.
    Ram(u64),
}
