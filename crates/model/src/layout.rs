//! Every tensor a config implies: name, shape and dtype, declared once.
//!
//! Shapes follow transformers' `DeepseekV3ForCausalLM` (weights are `[out, in]`); packed matrices follow
//! compressed-tensors `pack-quantized`. Loader, `plan`, `inspect` and the writer of synthetic checkpoints all read
//! this one list.

use crate::config::Config;
use safetensors::Dtype;

/// INT4 codes in one I32 word of a packed matrix (compressed-tensors `pack-quantized`).
pub const CODES_PER_WORD: usize = 8;

const BF16_FIRST: &[Dtype] = &[Dtype::BF16, Dtype::F32];
const F32_FIRST: &[Dtype] = &[Dtype::F32, Dtype::BF16];
const SCALE: &[Dtype] = &[Dtype::BF16];
const WORDS: &[Dtype] = &[Dtype::I32];
const SHAPE: &[Dtype] = &[Dtype::I32, Dtype::I64];

/// What part of the model a tensor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The token embedding.
    Embedding,
    /// The five projections of an attention block, without its latent norms.
    Attention,
    /// Every norm, the latent ones included.
    Norm,
    /// The MLP of a dense layer.
    DenseMlp,
    /// The MLP that every token of a MoE layer passes.
    SharedExpert,
    /// The experts that the router chooses from.
    RoutedExpert,
    /// The router's matrix and selection bias.
    Router,
    /// The output matrix.
    Head,
}

impl Kind {
    /// Every kind, in the order a token meets them.
    pub const ALL: [Kind; 8] = [
        Kind::Embedding,
        Kind::Norm,
        Kind::Attention,
        Kind::DenseMlp,
        Kind::Router,
        Kind::SharedExpert,
        Kind::RoutedExpert,
        Kind::Head,
    ];

    /// The kind in words.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Embedding => "embedding",
            Kind::Attention => "attention",
            Kind::Norm => "norms",
            Kind::DenseMlp => "dense MLP",
            Kind::SharedExpert => "shared experts",
            Kind::RoutedExpert => "routed experts",
            Kind::Router => "router",
            Kind::Head => "head",
        }
    }
}

/// What a tensor's elements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Floats that are parameters themselves.
    Plain,
    /// Packed codes, [`CODES_PER_WORD`] to a word.
    Codes,
    /// One scale for each group of a packed matrix's input columns.
    Scales,
    /// The `[out, in]` of a packed matrix, stored as two integers.
    StoredShape([usize; 2]),
}

/// One tensor that a checkpoint of the config must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full name in the file, prefix included.
    pub name: String,
    /// Sizes in elements, outermost first; `[out, in]` of a plain matrix.
    pub shape: Vec<usize>,
    /// Dtypes that are read; the first is what a file of this config is expected to hold, and what is written.
    pub dtypes: &'static [Dtype],
    /// What it belongs to.
    pub kind: Kind,
    /// What its elements are.
    pub role: Role,
}

impl TensorSpec {
    /// Number of its elements.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// Model parameters it holds: eight to a packed word, none in scales and stored shapes.
    pub fn n_parameters(&self) -> u64 {
        match self.role {
            Role::Plain => self.n_elements(),
            Role::Codes => self.n_elements() * CODES_PER_WORD as u64,
            Role::Scales | Role::StoredShape(_) => 0,
        }
    }

    /// Bytes it takes in the first of its dtypes.
    pub fn n_bytes(&self) -> u64 {
        self.n_elements() * (self.dtypes[0].bitsize() as u64 / 8)
    }
}

/// The three matrices of every MLP: name, and whether it maps inward (`[inner, C]`) or back (`[C, inner]`).
const MLP: [(&str, bool); 3] = [("gate_proj", true), ("up_proj", true), ("down_proj", false)];

/// Every tensor of the model, lazily, layer by layer.
pub fn expected(config: &Config) -> impl Iterator<Item = TensorSpec> + '_ {
    let layers = (0..config.num_hidden_layers).flat_map(move |layer_idx| {
        let n_experts = if config.is_moe_layer(layer_idx) { config.n_routed_experts } else { 0 };
        let experts = (0..n_experts).flat_map(move |e| expert_specs(config, layer_idx, e));
        layer_specs(config, layer_idx).into_iter().chain(experts)
    });
    embedding_specs(config).into_iter().chain(layers).chain(head_specs(config))
}

/// Name of a routed expert's matrix without its last part: append `.weight`, or `.weight_packed` and its sisters.
/// `matrix` is `gate_proj`, `up_proj` or `down_proj`.
pub fn expert_matrix(config: &Config, layer_idx: usize, expert_idx: usize, matrix: &str) -> String {
    format!("{}model.layers.{layer_idx}.mlp.experts.{expert_idx}.{matrix}", config.tensor_prefix)
}

/// Numbers of parameters of a model, by the ways people count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Parameters {
    /// All of them.
    pub total: u128,
    /// Those a token passes: everything but the routed experts that are not chosen, embedding matrix included.
    pub active: u128,
    /// Those of the embedding matrix, of which a token reads one row.
    pub embedding: u128,
}

/// Count the parameters of a config (its sizes within the limits of [`crate::config`]).
pub fn parameters(config: &Config) -> Parameters {
    let sum = tally(config, |spec| u128::from(spec.n_parameters()));
    let embedding = embedding_specs(config).iter().map(|spec| u128::from(spec.n_parameters())).sum();
    let chosen = sum.routed / config.n_routed_experts as u128 * config.num_experts_per_tok as u128;
    Parameters { total: sum.rest + sum.routed, active: sum.rest + chosen, embedding }
}

/// A sum over all tensors (of what [`tally`] is asked for), the routed experts apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Routed experts of all layers.
    pub routed: u128,
    /// Everything else.
    pub rest: u128,
}

/// Sum `of` over every tensor without walking all of them: layers of a sort, and experts of a layer, are alike.
pub fn tally(config: &Config, of: impl Fn(&TensorSpec) -> u128) -> Tally {
    let total = |specs: Vec<TensorSpec>| specs.iter().map(&of).sum::<u128>();
    let n_dense = config.first_k_dense_replace.min(config.num_hidden_layers);
    let n_moe = config.num_hidden_layers - n_dense;
    let mut sum = Tally { routed: 0, rest: total(embedding_specs(config)) + total(head_specs(config)) };
    if n_dense > 0 {
        sum.rest += total(layer_specs(config, 0)) * n_dense as u128;
    }
    if n_moe > 0 {
        sum.rest += total(layer_specs(config, n_dense)) * n_moe as u128;
        let n_experts = n_moe as u128 * config.n_routed_experts as u128;
        sum.routed = total(expert_specs(config, n_dense, 0)) * n_experts;
    }
    sum
}

/// Collects specs that share a prefix.
struct Specs<'a> {
    config: &'a Config,
    prefix: String,
    list: Vec<TensorSpec>,
}

impl<'a> Specs<'a> {
    fn new(config: &'a Config, prefix: String) -> Self {
        Specs { config, prefix: config.tensor_prefix.clone() + &prefix, list: Vec::new() }
    }

    fn push(&mut self, name: &str, shape: &[usize], dtypes: &'static [Dtype], kind: Kind, role: Role) {
        let name = format!("{}{name}", self.prefix);
        self.list.push(TensorSpec { name, shape: shape.to_vec(), dtypes, kind, role });
    }

    /// A plain float tensor, all of whose elements are parameters.
    fn plain(&mut self, name: &str, shape: &[usize], kind: Kind) {
        self.push(name, shape, float_dtypes(self.config), kind, Role::Plain);
    }

    /// A matrix in the published packing: `[out, in / 8]` words, `[out, in / group]` scales, `[out, in]` as stored.
    fn packed(&mut self, name: &str, [n_out, n_in]: [usize; 2], group_size: usize, kind: Kind) {
        let words = [n_out, n_in / CODES_PER_WORD];
        self.push(&format!("{name}.weight_packed"), &words, WORDS, kind, Role::Codes);
        self.push(&format!("{name}.weight_scale"), &[n_out, n_in / group_size], SCALE, kind, Role::Scales);
        self.push(&format!("{name}.weight_shape"), &[2], SHAPE, kind, Role::StoredShape([n_out, n_in]));
    }

    fn mlp(&mut self, name: &str, n_inner: usize, kind: Kind) {
        let c = self.config.hidden_size;
        for (matrix, inward) in MLP {
            let shape = if inward { [n_inner, c] } else { [c, n_inner] };
            self.plain(&format!("{name}{matrix}.weight"), &shape, kind);
        }
    }
}

fn float_dtypes(config: &Config) -> &'static [Dtype] {
    if config.dtype.as_deref() == Some("float32") { F32_FIRST } else { BF16_FIRST }
}

fn embedding_specs(config: &Config) -> Vec<TensorSpec> {
    let mut specs = Specs::new(config, "model.".into());
    specs.plain("embed_tokens.weight", &[config.vocab_size, config.hidden_size], Kind::Embedding);
    specs.list
}

fn head_specs(config: &Config) -> Vec<TensorSpec> {
    let mut specs = Specs::new(config, String::new());
    specs.plain("model.norm.weight", &[config.hidden_size], Kind::Norm);
    if !config.tie_word_embeddings {
        specs.plain("lm_head.weight", &[config.vocab_size, config.hidden_size], Kind::Head);
    }
    specs.list
}

/// A layer's tensors without its routed experts.
fn layer_specs(config: &Config, layer_idx: usize) -> Vec<TensorSpec> {
    let mut specs = Specs::new(config, format!("model.layers.{layer_idx}."));
    specs.plain("input_layernorm.weight", &[config.hidden_size], Kind::Norm);
    attention_specs(&mut specs);
    specs.plain("post_attention_layernorm.weight", &[config.hidden_size], Kind::Norm);
    if config.is_moe_layer(layer_idx) {
        let n_experts = config.n_routed_experts;
        specs.plain("mlp.gate.weight", &[n_experts, config.hidden_size], Kind::Router);
        let bias = "mlp.gate.e_score_correction_bias";
        specs.push(bias, &[n_experts], F32_FIRST, Kind::Router, Role::Plain);
        if config.n_shared_experts > 0 {
            let n_inner = config.n_shared_experts * config.moe_intermediate_size;
            specs.mlp("mlp.shared_experts.", n_inner, Kind::SharedExpert);
        }
    } else {
        specs.mlp("mlp.", config.intermediate_size, Kind::DenseMlp);
    }
    specs.list
}

fn attention_specs(specs: &mut Specs<'_>) {
    let config = specs.config;
    let (c, h) = (config.hidden_size, config.num_attention_heads);
    let (q_rank, r) = (config.q_lora_rank, config.kv_lora_rank);
    let key_and_value = config.qk_nope_head_dim + config.v_head_dim;
    let matrices = [
        ("q_a_proj", [q_rank, c]),
        ("q_b_proj", [h * config.qk_head_dim(), q_rank]),
        ("kv_a_proj_with_mqa", [r + config.qk_rope_head_dim, c]),
        ("kv_b_proj", [h * key_and_value, r]),
        ("o_proj", [c, h * config.v_head_dim]),
    ];
    for (name, shape) in matrices {
        specs.plain(&format!("self_attn.{name}.weight"), &shape, Kind::Attention);
    }
    specs.plain("self_attn.q_a_layernorm.weight", &[q_rank], Kind::Norm);
    specs.plain("self_attn.kv_a_layernorm.weight", &[r], Kind::Norm);
}

/// One routed expert's tensors, packed or plain as the config says.
fn expert_specs(config: &Config, layer_idx: usize, expert_idx: usize) -> Vec<TensorSpec> {
    let prefix = format!("model.layers.{layer_idx}.mlp.experts.{expert_idx}.");
    let mut specs = Specs::new(config, prefix);
    let (inner, c) = (config.moe_intermediate_size, config.hidden_size);
    let Some(quantization) = config.quantization else {
        specs.mlp("", inner, Kind::RoutedExpert);
        return specs.list;
    };
    for (matrix, inward) in MLP {
        let shape = if inward { [inner, c] } else { [c, inner] };
        specs.packed(matrix, shape, quantization.group_size, Kind::RoutedExpert);
    }
    specs.list
}
