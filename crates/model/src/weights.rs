//! The model's weights as the forward pass takes them: matrices in place in the mapped files, or re-encoded once.

use crate::checkpoint::{Checkpoint, CheckpointError, Dtype, Tensor};
use crate::config::Config;
use crate::layout::{self, Kind};
use perilune_kernels::ahead::ReadAhead;
use perilune_kernels::cpu::Cpu;
use perilune_kernels::experts::SwiGlu;
use perilune_kernels::matrix::{Buffer, MappedPart, Matrix, MatrixData};
use std::cell::RefCell;

/// Bytes that are asked of the disk before the matrix that is re-encoded: enough for its next seconds, and little
/// beside a machine that runs such a model.
const AHEAD_BYTES: usize = 1 << 30;

/// How matrices that are not routed experts are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dense {
    /// In place, as the file has them.
    AsPublished,
    /// Re-encoded at load to 8 bits a value with a scale per group of 32 (anonymous memory).
    Int8,
}

/// Every weight of the model.
pub struct Weights {
    /// Token embedding [V, C].
    pub embedding: Matrix,
    /// The blocks, first to last.
    pub layers: Vec<Layer>,
    /// Final norm `[C]`.
    pub norm: Vec<f32>,
    /// Output matrix [V, C].
    pub head: Matrix,
}

/// One block.
pub struct Layer {
    /// `input_layernorm` `[C]`.
    pub input_norm: Vec<f32>,
    /// Multi-head latent attention.
    pub attention: Attention,
    /// `post_attention_layernorm` `[C]`.
    pub post_norm: Vec<f32>,
    /// The feed-forward part.
    pub mlp: Mlp,
}

/// Projections of multi-head latent attention (DeepSeek-V2 report, section 2.1).
pub struct Attention {
    /// `q_a_proj` [q_lora_rank, C].
    pub q_a: Matrix,
    /// `q_a_layernorm` `[q_lora_rank]`.
    pub q_a_norm: Vec<f32>,
    /// `q_b_proj` [H (nope + rope), q_lora_rank].
    pub q_b: Matrix,
    /// `kv_a_proj_with_mqa` [R + rope, C].
    pub kv_a: Matrix,
    /// `kv_a_layernorm` `[R]`.
    pub kv_a_norm: Vec<f32>,
    /// `kv_b_proj` [H (nope + v), R].
    pub kv_b: Matrix,
    /// `o_proj` [C, H v].
    pub o: Matrix,
}

/// The feed-forward part of a block.
pub enum Mlp {
    /// One network for every token.
    Dense(SwiGlu),
    /// Routed experts beside a shared one.
    Moe(Moe),
}

/// A mixture of experts.
pub struct Moe {
    /// `gate.weight` [E, C].
    pub router: Matrix,
    /// `gate.e_score_correction_bias` `[E]`.
    pub bias: Vec<f32>,
    /// The routed experts `[E]`.
    pub experts: Vec<SwiGlu>,
    /// The shared expert, absent where the config has none.
    pub shared: Option<SwiGlu>,
}

impl Weights {
    /// Take the weights of an opened checkpoint; `progress` is told the layers done and their number.
    ///
    /// Reads nothing but norms and biases where `dense` is [`Dense::AsPublished`]; else every matrix that is re-encoded,
    /// once, while a thread asks for those that come next.
    ///
    /// # Errors
    /// A tensor whose values cannot be read; shapes and dtypes were checked when the checkpoint was opened.
    pub fn load(
        checkpoint: &Checkpoint,
        dense: Dense,
        cpu: &Cpu,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, CheckpointError> {
        let config = &checkpoint.config;
        let window = (dense == Dense::Int8).then(|| RefCell::new(Window::of_dense(checkpoint)));
        let loader = Loader { checkpoint, config, cpu, window };
        let model = format!("{}model", config.tensor_prefix);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for layer_idx in 0..config.num_hidden_layers {
            progress(layer_idx, config.num_hidden_layers);
            layers.push(loader.layer(&format!("{model}.layers.{layer_idx}"), layer_idx)?);
        }
        let (v, c) = (config.vocab_size, config.hidden_size);
        let embedding_stem = format!("{model}.embed_tokens");
        let head_stem = format!("{}lm_head", config.tensor_prefix);
        let head_stem = if config.tie_word_embeddings { &embedding_stem } else { &head_stem };
        let embedding = loader.plain(&embedding_stem, v, c)?;
        let is_shared = config.tie_word_embeddings && dense == Dense::AsPublished;
        let head = if is_shared { embedding.clone() } else { loader.dense(head_stem, v, c)? };
        let norm = loader.vector(&format!("{model}.norm.weight"))?;
        let weights = Weights { embedding, layers, norm, head };
        progress(config.num_hidden_layers, config.num_hidden_layers);
        Ok(weights)
    }

    /// Every matrix, with the part of the model it belongs to.
    pub fn matrices(&self) -> Vec<(Kind, &Matrix)> {
        let mut all = vec![(Kind::Embedding, &self.embedding), (Kind::Head, &self.head)];
        for layer in &self.layers {
            let a = &layer.attention;
            all.extend(a.matrices().map(|m| (Kind::Attention, m)));
            match &layer.mlp {
                Mlp::Dense(m) => all.extend(m.matrices().map(|m| (Kind::DenseMlp, m))),
                Mlp::Moe(moe) => {
                    all.push((Kind::Router, &moe.router));
                    let routed = moe.experts.iter().flat_map(SwiGlu::matrices);
                    all.extend(routed.map(|m| (Kind::RoutedExpert, m)));
                    let shared = moe.shared.iter().flat_map(SwiGlu::matrices);
                    all.extend(shared.map(|m| (Kind::SharedExpert, m)));
                }
            }
        }
        all
    }
}

impl Layer {
    /// The matrices that [`Dense`] speaks of, in the order a pass takes them.
    pub fn dense(&self) -> impl Iterator<Item = &Matrix> {
        let mlp = match &self.mlp {
            Mlp::Dense(mlp) => Some(mlp),
            Mlp::Moe(moe) => moe.shared.as_ref(),
        };
        self.attention.matrices().into_iter().chain(mlp.into_iter().flat_map(SwiGlu::matrices))
    }

    /// The router's matrix, of a block that has one.
    pub fn router(&self) -> Option<&Matrix> {
        match &self.mlp {
            Mlp::Dense(_) => None,
            Mlp::Moe(moe) => Some(&moe.router),
        }
    }
}

impl Attention {
    /// The projections, in the order a pass takes them.
    pub fn matrices(&self) -> [&Matrix; 5] {
        [&self.q_a, &self.kv_a, &self.q_b, &self.kv_b, &self.o]
    }
}

/// Tensors in the order they are read once, some of them asked for.
struct Window {
    ahead: ReadAhead,
    parts: Vec<MappedPart>,
    n_asked: usize,
    /// Bytes asked for that were not read yet.
    n_bytes: usize,
}

impl Window {
    /// The tensors that [`Dense`] speaks of.
    fn of_dense(checkpoint: &Checkpoint) -> Self {
        let config = &checkpoint.config;
        let is_dense = |kind| match kind {
            Kind::Attention | Kind::DenseMlp | Kind::SharedExpert | Kind::Head => true,
            Kind::Embedding => config.tie_word_embeddings,
            Kind::Norm | Kind::RoutedExpert | Kind::Router => false,
        };
        let dense = layout::expected(config).filter(|spec| is_dense(spec.kind));
        let part = |tensor: Tensor<'_>| MappedPart::new(tensor.file, tensor.range);
        let mut parts: Vec<_> = dense.filter_map(|spec| checkpoint.tensor(&spec.name).map(part)).collect();
        if config.tie_word_embeddings && !parts.is_empty() {
            // As the head it comes last.
            parts.rotate_left(1);
        }
        Window { ahead: ReadAhead::start(), parts, n_asked: 0, n_bytes: 0 }
    }

    /// Ask for the tensors that come next.
    fn ask(&mut self) {
        while let Some(part) = self.parts.get(self.n_asked).filter(|_| self.n_bytes < AHEAD_BYTES) {
            self.ahead.ask(part);
            self.n_bytes += part.range().len();
            self.n_asked += 1;
        }
    }

    /// `part` was read and is not read again, so it need not stay mapped.
    fn let_go(&mut self, part: &MappedPart) {
        self.n_bytes = self.n_bytes.saturating_sub(part.range().len());
        self.ahead.let_go(part);
    }
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    cpu: &'a Cpu,
    /// There where matrices are re-encoded.
    window: Option<RefCell<Window>>,
}

impl Loader<'_> {
    fn layer(&self, stem: &str, layer_idx: usize) -> Result<Layer, CheckpointError> {
        Ok(Layer {
            input_norm: self.vector(&format!("{stem}.input_layernorm.weight"))?,
            attention: self.attention(&format!("{stem}.self_attn"))?,
            post_norm: self.vector(&format!("{stem}.post_attention_layernorm.weight"))?,
            mlp: self.mlp(&format!("{stem}.mlp"), layer_idx)?,
        })
    }

    fn attention(&self, stem: &str) -> Result<Attention, CheckpointError> {
        let c = self.config;
        let (h, nope, rope, v) =
            (c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim);
        let (hidden, q_rank, rank) = (c.hidden_size, c.q_lora_rank, c.kv_lora_rank);
        Ok(Attention {
            q_a: self.dense(&format!("{stem}.q_a_proj"), q_rank, hidden)?,
            q_a_norm: self.vector(&format!("{stem}.q_a_layernorm.weight"))?,
            q_b: self.dense(&format!("{stem}.q_b_proj"), h * (nope + rope), q_rank)?,
            kv_a: self.dense(&format!("{stem}.kv_a_proj_with_mqa"), rank + rope, hidden)?,
            kv_a_norm: self.vector(&format!("{stem}.kv_a_layernorm.weight"))?,
            kv_b: self.dense(&format!("{stem}.kv_b_proj"), h * (nope + v), rank)?,
            o: self.dense(&format!("{stem}.o_proj"), hidden, h * v)?,
        })
    }

    fn mlp(&self, stem: &str, layer_idx: usize) -> Result<Mlp, CheckpointError> {
        let c = self.config;
        if !c.is_moe_layer(layer_idx) {
            return Ok(Mlp::Dense(self.swiglu(stem, c.intermediate_size, true)?));
        }
        let expert = |e: usize| self.swiglu(&format!("{stem}.experts.{e}"), c.moe_intermediate_size, false);
        let shared_width = c.moe_intermediate_size * c.n_shared_experts;
        let shared = |width| self.swiglu(&format!("{stem}.shared_experts"), width, true);
        Ok(Mlp::Moe(Moe {
            router: self.plain(&format!("{stem}.gate"), c.n_routed_experts, c.hidden_size)?,
            bias: self.vector(&format!("{stem}.gate.e_score_correction_bias"))?,
            experts: (0..c.n_routed_experts).map(expert).collect::<Result<_, _>>()?,
            shared: (shared_width > 0).then(|| shared(shared_width)).transpose()?,
        }))
    }

    fn swiglu(&self, stem: &str, width: usize, dense: bool) -> Result<SwiGlu, CheckpointError> {
        let c = self.config.hidden_size;
        let load = |name: &str, n_rows: usize, n_cols: usize| {
            let stem = format!("{stem}.{name}");
            if dense { self.dense(&stem, n_rows, n_cols) } else { self.expert(&stem, n_rows, n_cols) }
        };
        Ok(SwiGlu {
            gate: load("gate_proj", width, c)?,
            up: load("up_proj", width, c)?,
            down: load("down_proj", c, width)?,
        })
    }

    /// A matrix that [`Dense`] speaks of.
    fn dense(&self, stem: &str, n_rows: usize, n_cols: usize) -> Result<Matrix, CheckpointError> {
        let Some(window) = &self.window else { return self.plain(stem, n_rows, n_cols) };
        let mut window = window.borrow_mut();
        window.ask();
        let encoded = self.plain(stem, n_rows, n_cols)?.to_int8(self.cpu);
        let tensor = self.require(&format!("{stem}.weight"))?;
        window.let_go(&MappedPart::new(tensor.file, tensor.range));
        Ok(encoded)
    }

    /// The matrix `stem.weight`, in place.
    fn plain(&self, stem: &str, n_rows: usize, n_cols: usize) -> Result<Matrix, CheckpointError> {
        let tensor = self.require(&format!("{stem}.weight"))?;
        let data = match tensor.dtype {
            Dtype::F32 => MatrixData::F32(Buffer::mapped(tensor.file, tensor.range)),
            _ => MatrixData::Bf16(Buffer::mapped(tensor.file, tensor.range)),
        };
        Ok(Matrix::new(n_rows, n_cols, data))
    }

    /// A routed expert's matrix: packed where the config says so, and only then.
    fn expert(&self, stem: &str, n_rows: usize, n_cols: usize) -> Result<Matrix, CheckpointError> {
        if self.config.quantization.is_none() {
            return self.plain(stem, n_rows, n_cols);
        }
        let packed = self.require(&format!("{stem}.weight_packed"))?;
        let scales = self.require(&format!("{stem}.weight_scale"))?;
        let data = MatrixData::Int4 {
            packed: Buffer::mapped(packed.file, packed.range),
            scales: Buffer::mapped(scales.file, scales.range),
        };
        Ok(Matrix::new(n_rows, n_cols, data))
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        self.checkpoint.check_finite(name)?;
        let tensor = self.require(name)?;
        let bytes = tensor.bytes();
        Ok(match tensor.dtype {
            Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            _ => bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        })
    }

    fn require(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        self.checkpoint.require(name)
    }
}
