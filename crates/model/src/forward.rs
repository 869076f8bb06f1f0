//! The forward pass: rows of several sequences through every block, to logits for the rows that want them.

use crate::cache::{Cache, CacheForm, View, mla_shape};
use crate::config::Config;
use crate::layout::Kind;
use crate::weights::{Attention, Layer, Mlp, Moe, Weights};
use perilune_kernels::attention::{self, AbsorbScratch, Latents, MlaShape, Query};
use perilune_kernels::cpu::Cpu;
use perilune_kernels::experts::{ExpertScratch, Loads, SwiGlu, routed, swiglu};
use perilune_kernels::matmul::{Rows, matmul};
use perilune_kernels::matrix::Matrix;
use perilune_kernels::quant::QuantRows;
use perilune_kernels::rope::RopeTable;
use perilune_kernels::router::{Chosen, RouterRule, choose};
use perilune_kernels::{BLOCK_TOKENS, GROUP, activation, norm};

/// Which arithmetic a pass uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// `f32` on the unrounded values of the weights.
    Exact,
    /// Products with INT4 and 8-bit weights take 8-bit activations; the rest is as in [`Arithmetic::Exact`].
    Fast,
}

impl Arithmetic {
    /// The cache that goes with it.
    pub fn cache_form(self) -> CacheForm {
        match self {
            Arithmetic::Exact => CacheForm::Expanded,
            Arithmetic::Fast => CacheForm::LatentBf16,
        }
    }
}

/// Which attention form serves a segment over a cache of latents (a cache of expanded keys has but one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Keys and values are expanded block by block.
    Prefill,
    /// The up-projections are absorbed into query and result.
    Decode,
}

/// Which rows of a segment give logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// None.
    Nothing,
    /// The last row.
    Last,
    /// Every row.
    All,
}

/// New tokens of one sequence, T rows of a pass.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    /// Token ids `[T]`.
    pub ids: &'a [u32],
    /// Position of the first, in tokens; everything before it is cached.
    pub first_position: usize,
    /// The sequence's blocks, first to last: numbers below the cache's [`Cache::n_blocks`], 64 tokens each.
    pub blocks: &'a [u32],
    /// Attention form.
    pub phase: Phase,
    /// Rows that give logits.
    pub wanted: Wanted,
}

/// Why a pass cannot run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ForwardError {
    /// A token id the embedding has no row for.
    #[error("token id {id} at position {position} is outside the vocabulary of {vocab_size}")]
    OutsideVocabulary {
        /// The id.
        id: u32,
        /// Its position in the sequence.
        position: usize,
        /// V.
        vocab_size: usize,
    },
    /// More tokens than the sequence's blocks hold.
    #[error(
        "a context of {needed} tokens does not fit the {held} that this sequence's cache blocks hold; allow a longer context"
    )]
    BeyondCache {
        /// Tokens the pass would reach.
        needed: usize,
        /// Tokens the blocks hold.
        held: usize,
    },
    /// More tokens than the model's positions.
    #[error(
        "a context of {needed} tokens is longer than this model's {limit} positions (max_position_embeddings)"
    )]
    BeyondModel {
        /// Tokens the pass would reach.
        needed: usize,
        /// `max_position_embeddings`.
        limit: usize,
    },
    /// A width that 8-bit activations cannot take.
    #[error("{name} = {width} is not a multiple of 32, which the fast path needs; use the exact path")]
    WidthNotGrouped {
        /// Config key.
        name: &'static str,
        /// Its value.
        width: usize,
    },
    /// A form of cache that the arithmetic cannot go with.
    #[error("{0}")]
    Cache(&'static str),
    /// A segment without tokens.
    #[error("there is no token to run: give at least one id")]
    Empty,
}

/// What a caller may watch; every method does nothing unless overridden.
pub trait Probe {
    /// The input of block `layer_idx` [T, C]; for the index past the last block, the output of the final norm.
    fn hidden(&mut self, _layer_idx: usize, _x: &[f32]) {}
    /// Router products [T, E] before the sigmoid, and each row's choice `[T]`, of the MoE block `layer_idx`.
    fn router(&mut self, _layer_idx: usize, _logits: &[f32], _chosen: &[Vec<Chosen>]) {}
    /// The work since the last call was that of one part of the model, the norm before it included.
    fn done(&mut self, _part: Kind) {}
}

/// The probe that watches nothing.
pub struct NoProbe;
impl Probe for NoProbe {}

/// A model ready to run on a processor.
pub struct Model {
    config: Config,
    weights: Weights,
    cpu: Cpu,
    arithmetic: Arithmetic,
    cache_form: CacheForm,
    inv_freq: Vec<f32>,
    rule: RouterRule,
}

/// Buffers kept between passes; [`Workspace::bytes`] says what they come to.
#[derive(Default)]
pub struct Workspace {
    positions: Vec<usize>,
    rope: RopeTable,
    x: Vec<f32>,
    normed: Vec<f32>,
    quantized: QuantRows,
    q_a: Vec<f32>,
    q_a_normed: Vec<f32>,
    q: Vec<f32>,
    kv: Vec<f32>,
    cache_rows: Vec<f32>,
    attended: Vec<f32>,
    absorbed: AbsorbScratch,
    out: Vec<f32>,
    shared: Vec<f32>,
    router: Vec<f32>,
    experts: ExpertScratch,
}

/// What a pass is like, for [`Workspace::bytes`]: counts of rows, tokens and threads.
#[derive(Clone, Copy, Debug)]
pub struct PassShape {
    /// Rows that pass together (T).
    pub n_rows: usize,
    /// Rows that want logits.
    pub n_logits: usize,
    /// Longest context of a row, tokens.
    pub n_context: usize,
    /// Threads at work.
    pub n_threads: usize,
}

impl Workspace {
    /// Bytes that the buffers of passes of one shape come to, the logits and the attention's temporaries counted.
    pub fn bytes(config: &Config, arithmetic: Arithmetic, pass: PassShape) -> usize {
        let shape = mla_shape(config);
        let (t, c, h) = (pass.n_rows, config.hidden_size, shape.n_heads);
        let has_moe = config.num_hidden_layers > config.first_k_dense_replace;
        let shared_width = config.moe_intermediate_size * config.n_shared_experts;
        let dense_width = if config.first_k_dense_replace > 0 { config.intermediate_size } else { 0 };
        let gate = t * dense_width.max(if has_moe { shared_width } else { 0 });
        let routed = if has_moe { t * config.num_experts_per_tok * config.moe_intermediate_size } else { 0 };
        let stream = 3 * c + if has_moe { c + config.n_routed_experts } else { 0 };
        let latents = shape.latent_width() + shape.rank;
        let heads = h * (shape.query() + shape.v);
        let expanded = if arithmetic == Arithmetic::Exact { h * shape.key_value() } else { 0 };
        let rows = t * (stream + 2 * config.q_lora_rank + latents + heads + expanded);
        let inner = QuantRows::bytes(t, dense_width.max(shared_width))
            .max(QuantRows::bytes(t * config.num_experts_per_tok, config.moe_intermediate_size));
        let quantized = match arithmetic {
            Arithmetic::Exact => 0,
            Arithmetic::Fast => QuantRows::bytes(t, c.max(config.q_lora_rank).max(h * shape.v)) + inner,
        };
        let logits = pass.n_logits * (config.vocab_size + c);
        4 * (rows + gate.max(routed) + logits) + quantized + attention_bytes(&shape, arithmetic, pass)
    }
}

/// Bytes of the attention's temporaries: one task's share on every thread.
fn attention_bytes(shape: &MlaShape, arithmetic: Arithmetic, pass: PassShape) -> usize {
    let (task, n_tasks) = match arithmetic {
        Arithmetic::Exact => (4 * pass.n_context, pass.n_rows * shape.n_heads),
        Arithmetic::Fast => (attention::from_latents_bytes(shape, pass.n_rows), shape.n_heads),
    };
    task * pass.n_threads.min(n_tasks)
}

impl Model {
    /// Put weights on a processor.
    ///
    /// # Errors
    /// [`ForwardError::WidthNotGrouped`] where [`Arithmetic::Fast`] cannot serve the config's widths.
    pub fn new(
        config: Config,
        weights: Weights,
        cpu: Cpu,
        arithmetic: Arithmetic,
    ) -> Result<Self, ForwardError> {
        check_widths(&config, arithmetic)?;
        let rule = RouterRule {
            n_chosen: config.num_experts_per_tok,
            n_group: config.n_group,
            topk_group: config.topk_group,
            normalize: config.norm_topk_prob,
            scale: config.routed_scaling_factor,
        };
        let inv_freq = config.rope.inv_freq(config.qk_rope_head_dim);
        let cache_form = arithmetic.cache_form();
        Ok(Model { config, weights, cpu, arithmetic, cache_form, inv_freq, rule })
    }

    /// The same model over another form of cache ([`check_cache`]).
    ///
    /// # Errors
    /// [`ForwardError::Cache`] where its arithmetic cannot go with it.
    pub fn with_cache(mut self, form: CacheForm) -> Result<Self, ForwardError> {
        check_cache(self.arithmetic, form)?;
        self.cache_form = form;
        Ok(self)
    }

    /// What its caches keep of a token, unless a caller makes one of another form.
    pub fn cache_form(&self) -> CacheForm {
        self.cache_form
    }

    /// The config it runs.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its weights.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The processor it runs on.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// The arithmetic it uses.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Run the segments' tokens and cache them; logits [rows wanted, V] in the order of the segments.
    ///
    /// A row's logits depend on its own sequence only: neither on the other segments nor on how its earlier tokens
    /// were cut into passes, as long as each token's phase is the same.
    ///
    /// # Errors
    /// [`ForwardError`], before anything is written: ids, contexts or segments that cannot be run.
    ///
    /// # Panics
    /// If a segment names a block that `cache` has not, or `cache` has not this config's layers and widths.
    pub fn forward(
        &self,
        cache: &mut Cache,
        segments: &[Segment<'_>],
        w: &mut Workspace,
        probe: &mut dyn Probe,
    ) -> Result<Vec<f32>, ForwardError> {
        segments.iter().try_for_each(|segment| self.check(segment))?;
        self.embed(segments, w);
        probe.done(Kind::Embedding);
        for (layer_idx, layer) in self.weights.layers.iter().enumerate() {
            probe.hidden(layer_idx, &w.x);
            self.attend(layer_idx, layer, cache, segments, w);
            probe.done(Kind::Attention);
            self.feed(layer_idx, layer, w, probe);
        }
        let c = self.config.hidden_size;
        norm::rms_norm(&self.cpu, &w.x, c, &self.weights.norm, self.config.rms_norm_eps, &mut w.normed);
        probe.hidden(self.weights.layers.len(), &w.normed);
        let logits = self.logits(segments, w);
        probe.done(Kind::Head);
        Ok(logits)
    }

    fn check(&self, segment: &Segment<'_>) -> Result<(), ForwardError> {
        let needed = segment.first_position + segment.ids.len();
        let (held, limit) = (segment.blocks.len() * BLOCK_TOKENS, self.config.max_position_embeddings);
        let vocab_size = self.config.vocab_size;
        let outside = segment.ids.iter().position(|&id| id as usize >= vocab_size);
        match outside {
            _ if segment.ids.is_empty() => Err(ForwardError::Empty),
            Some(i) => Err(ForwardError::OutsideVocabulary {
                id: segment.ids[i],
                position: segment.first_position + i,
                vocab_size,
            }),
            None if needed > limit => Err(ForwardError::BeyondModel { needed, limit }),
            None if needed > held => Err(ForwardError::BeyondCache { needed, held }),
            None => Ok(()),
        }
    }

    fn embed(&self, segments: &[Segment<'_>], w: &mut Workspace) {
        w.positions.clear();
        for segment in segments {
            w.positions.extend(segment.first_position..segment.first_position + segment.ids.len());
        }
        let c = self.config.hidden_size;
        w.x.resize(w.positions.len() * c, 0.0);
        let ids = segments.iter().flat_map(|segment| segment.ids);
        for (&id, row) in ids.zip(w.x.chunks_exact_mut(c)) {
            self.weights.embedding.row(id as usize, row);
        }
        w.normed.resize(w.x.len(), 0.0);
        w.out.resize(w.x.len(), 0.0);
        w.rope.fill(&w.positions, &self.inv_freq, self.config.rope.attention_factor());
    }

    /// `x += o(attention(norm(x)))`.
    fn attend(
        &self,
        layer_idx: usize,
        layer: &Layer,
        cache: &mut Cache,
        segments: &[Segment<'_>],
        w: &mut Workspace,
    ) {
        let (c, a) = (self.config.hidden_size, &layer.attention);
        norm::rms_norm(&self.cpu, &w.x, c, &layer.input_norm, self.config.rms_norm_eps, &mut w.normed);
        self.project(a, w);
        self.cache_tokens(layer_idx, a, cache, segments, w);
        let shape = mla_shape(&self.config);
        w.attended.resize(w.positions.len() * shape.n_heads * shape.v, 0.0);
        let views: Vec<View<'_>> = segments
            .iter()
            .map(|s| cache.view(layer_idx, s.blocks, s.first_position + s.ids.len()))
            .collect();
        let (mut at, mut first) = (0, 0);
        while at < segments.len() {
            let is_decode =
                |s: &&Segment<'_>| s.phase == Phase::Decode && cache.form() != CacheForm::Expanded;
            let end = at + segments[at..].iter().take_while(is_decode).count().max(1);
            let rows = first..first + segments[at..end].iter().map(|s| s.ids.len()).sum::<usize>();
            let span = |width: usize| rows.start * shape.n_heads * width..rows.end * shape.n_heads * width;
            let query = Query {
                shape,
                q: &w.q[span(shape.query())],
                positions: &w.positions[rows.clone()],
                scale: self.config.softmax_scale(),
            };
            let out = &mut w.attended[span(shape.v)];
            let run = (&segments[at..end], &views[at..end]);
            self.attend_run(&query, a, cache.form(), run, &mut w.absorbed, out);
            (at, first) = (end, rows.end);
        }
        self.product(&w.attended, &a.o, &mut w.quantized, &mut w.out);
        activation::add(&self.cpu, &mut w.x, &w.out);
    }

    /// One segment in a form of its own, or several that are decoded together.
    fn attend_run(
        &self,
        query: &Query<'_>,
        a: &Attention,
        form: CacheForm,
        (segments, views): (&[Segment<'_>], &[View<'_>]),
        scratch: &mut AbsorbScratch,
        out: &mut [f32],
    ) {
        match (form, &views[0], segments[0].phase) {
            (CacheForm::Expanded, View::F32(blocks), _) => attention::expanded(&self.cpu, query, blocks, out),
            (_, view, Phase::Prefill) => {
                attention::from_latents(&self.cpu, query, &a.kv_b, view.latents(), out)
            }
            (_, _, Phase::Decode) => {
                let rows = segments.iter().zip(views);
                let latents: Vec<Latents<'_>> =
                    rows.flat_map(|(s, view)| std::iter::repeat_n(view.latents(), s.ids.len())).collect();
                attention::absorbed(&self.cpu, query, &a.kv_b, &latents, scratch, out);
            }
        }
    }

    /// Queries [T, H, nope + rope], rotated, and raw latents [T, R + rope].
    fn project(&self, a: &Attention, w: &mut Workspace) {
        let (n, c, config) = (w.positions.len(), self.config.hidden_size, &self.config);
        let shape = mla_shape(config);
        w.q_a.resize(n * a.q_a.n_rows(), 0.0);
        w.q_a_normed.resize(w.q_a.len(), 0.0);
        w.kv.resize(n * a.kv_a.n_rows(), 0.0);
        w.q.resize(n * a.q_b.n_rows(), 0.0);
        let input = self.rows(&w.normed, c, &[&a.q_a, &a.kv_a], &mut w.quantized);
        matmul(&self.cpu, input.for_matrix(&a.q_a), &a.q_a, &mut w.q_a);
        matmul(&self.cpu, input.for_matrix(&a.kv_a), &a.kv_a, &mut w.kv);
        let rank = a.q_a.n_rows();
        norm::rms_norm(&self.cpu, &w.q_a, rank, &a.q_a_norm, config.latent_norm_eps, &mut w.q_a_normed);
        self.product(&w.q_a_normed, &a.q_b, &mut w.quantized, &mut w.q);
        for (i, head) in w.q.chunks_exact_mut(shape.query()).enumerate() {
            w.rope.rotate(i / shape.n_heads, &mut head[shape.nope..]);
        }
    }

    /// Norm and rotate the latents, expand them where the cache wants it, and write them.
    fn cache_tokens(
        &self,
        layer_idx: usize,
        a: &Attention,
        cache: &mut Cache,
        segments: &[Segment<'_>],
        w: &mut Workspace,
    ) {
        let shape = mla_shape(&self.config);
        let (n, width, rank) = (w.positions.len(), shape.latent_width(), shape.rank);
        let mut latents = vec![0.0f32; n * rank];
        norm::rms_norm(&self.cpu, &w.kv, width, &a.kv_a_norm, self.config.latent_norm_eps, &mut latents);
        for (t, row) in w.kv.chunks_exact_mut(width).enumerate() {
            w.rope.rotate(t, &mut row[rank..]);
        }
        let (head_rows, row_width) = match cache.form() {
            CacheForm::Expanded => {
                w.cache_rows.resize(n * a.kv_b.n_rows(), 0.0);
                matmul(&self.cpu, Rows::f32(&latents, rank), &a.kv_b, &mut w.cache_rows);
                (&w.cache_rows, a.kv_b.n_rows())
            }
            CacheForm::LatentBf16 | CacheForm::LatentInt8 | CacheForm::LatentF32 => (&latents, rank),
        };
        let mut row = vec![0.0f32; row_width + shape.rope];
        let mut t = 0;
        for segment in segments {
            for position in segment.first_position..segment.first_position + segment.ids.len() {
                row[..row_width].copy_from_slice(&head_rows[t * row_width..(t + 1) * row_width]);
                row[row_width..].copy_from_slice(&w.kv[t * width + rank..(t + 1) * width]);
                cache.write(layer_idx, segment.blocks, position, &row);
                t += 1;
            }
        }
    }

    /// `x += mlp(norm(x))`.
    fn feed(&self, layer_idx: usize, layer: &Layer, w: &mut Workspace, probe: &mut dyn Probe) {
        let c = self.config.hidden_size;
        norm::rms_norm(&self.cpu, &w.x, c, &layer.post_norm, self.config.rms_norm_eps, &mut w.normed);
        match &layer.mlp {
            Mlp::Dense(mlp) => {
                let input = self.rows(&w.normed, c, &[&mlp.gate], &mut w.quantized);
                swiglu(&self.cpu, input.for_matrix(&mlp.gate), mlp, &mut w.experts, &mut w.out);
                probe.done(Kind::DenseMlp);
            }
            Mlp::Moe(moe) => self.mixture(layer_idx, moe, w, probe),
        }
        activation::add(&self.cpu, &mut w.x, &w.out);
    }

    fn mixture(&self, layer_idx: usize, moe: &Moe, w: &mut Workspace, probe: &mut dyn Probe) {
        let (n, c) = (w.positions.len(), self.config.hidden_size);
        w.router.resize(n * moe.bias.len(), 0.0);
        matmul(&self.cpu, Rows::f32(&w.normed, c), &moe.router, &mut w.router);
        let choose = |logits: &[f32]| choose(&self.rule, logits, &moe.bias);
        let chosen: Vec<Vec<Chosen>> = w.router.chunks_exact(moe.bias.len()).map(choose).collect();
        probe.router(layer_idx, &w.router, &chosen);
        probe.done(Kind::Router);
        let loads = Loads::group(&chosen, moe.experts.len());
        let gates: Vec<&Matrix> =
            moe.experts.first().into_iter().chain(&moe.shared).map(|mlp: &SwiGlu| &mlp.gate).collect();
        let input = self.rows(&w.normed, c, &gates, &mut w.quantized);
        if let Some(gate) = gates.first() {
            let rows = input.for_matrix(gate);
            routed(&self.cpu, rows, &moe.experts, &loads, &mut w.experts, &mut w.out);
        }
        probe.done(Kind::RoutedExpert);
        if let Some(shared) = &moe.shared {
            w.shared.resize(w.out.len(), 0.0);
            swiglu(&self.cpu, input.for_matrix(&shared.gate), shared, &mut w.experts, &mut w.shared);
            activation::add(&self.cpu, &mut w.out, &w.shared);
            probe.done(Kind::SharedExpert);
        }
    }

    fn logits(&self, segments: &[Segment<'_>], w: &mut Workspace) -> Vec<f32> {
        let c = self.config.hidden_size;
        let mut wanted = Vec::new();
        let mut first = 0;
        for segment in segments {
            let end = first + segment.ids.len();
            let rows = match segment.wanted {
                Wanted::Nothing => end..end,
                Wanted::Last => end - 1..end,
                Wanted::All => first..end,
            };
            wanted.extend_from_slice(&w.normed[rows.start * c..rows.end * c]);
            first = end;
        }
        let mut logits = vec![0.0; wanted.len() / c * self.config.vocab_size];
        if !wanted.is_empty() {
            self.product(&wanted, &self.weights.head, &mut w.quantized, &mut logits);
        }
        logits
    }

    /// `out = w x` with the activations the arithmetic gives `w`.
    fn product(&self, x: &[f32], w: &Matrix, quantized: &mut QuantRows, out: &mut [f32]) {
        let input = self.rows(x, w.n_cols(), &[w], quantized);
        matmul(&self.cpu, input.for_matrix(w), w, out);
    }

    /// Rows in both forms that some of `matrices` want.
    fn rows<'a>(
        &self,
        x: &'a [f32],
        n_cols: usize,
        matrices: &[&Matrix],
        quantized: &'a mut QuantRows,
    ) -> Input<'a> {
        let integer = self.arithmetic == Arithmetic::Fast && matrices.iter().any(|w| w.is_integer());
        if integer {
            quantized.fill(&self.cpu, x, n_cols);
        }
        Input { exact: Rows::f32(x, n_cols), quantized: integer.then_some(&*quantized) }
    }
}

/// Activations, quantised too where a matrix takes them so.
struct Input<'a> {
    exact: Rows<'a>,
    quantized: Option<&'a QuantRows>,
}

impl<'a> Input<'a> {
    fn for_matrix(&self, w: &Matrix) -> Rows<'a> {
        match self.quantized {
            Some(quantized) if w.is_integer() => Rows::Q8(quantized),
            _ => self.exact,
        }
    }
}

/// Whether a form of cache goes with `arithmetic`.
///
/// # Errors
/// [`ForwardError::Cache`].
pub fn check_cache(arithmetic: Arithmetic, form: CacheForm) -> Result<(), ForwardError> {
    match (form, arithmetic) {
        (CacheForm::LatentInt8, Arithmetic::Exact) => {
            Err(ForwardError::Cache("the exact path caches `f32`; take `--cache bf16`, or the fast path"))
        }
        (CacheForm::Expanded, Arithmetic::Fast) => Err(ForwardError::Cache("the fast path caches latents")),
        _ => Ok(()),
    }
}

/// Whether `arithmetic` (and 8-bit weights, which only the fast path takes) can serve the config's widths.
///
/// # Errors
/// [`ForwardError::WidthNotGrouped`], for [`Arithmetic::Fast`] alone.
pub fn check_widths(config: &Config, arithmetic: Arithmetic) -> Result<(), ForwardError> {
    if arithmetic == Arithmetic::Exact {
        return Ok(());
    }
    let widths = [
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("moe_intermediate_size", config.moe_intermediate_size),
        ("q_lora_rank", config.q_lora_rank),
        ("kv_lora_rank", config.kv_lora_rank),
        ("num_attention_heads * v_head_dim", config.num_attention_heads * config.v_head_dim),
    ];
    match widths.into_iter().find(|(_, width)| width % GROUP != 0) {
        Some((name, width)) => Err(ForwardError::WidthNotGrouped { name, width }),
        None => Ok(()),
    }
}
