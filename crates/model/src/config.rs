//! The model's `config.json`, read once and checked: after this door only legal values exist.
//!
//! Keys are spelled as the published files spell them (`DeepseekV3Config` of transformers). Three shapes are read:
//! flat `kimi_k2` and `deepseek_v3`, and `kimi_k25`, whose language model sits in `text_config`.

mod fields;
mod quantization;
mod rope;

pub use quantization::Quantization;
pub use rope::{Rope, Yarn};

use fields::Fields;
use serde_json::Value;
use std::path::Path;

/// Largest `config.json` that is read, bytes.
pub const CONFIG_BYTES_MAX: u64 = 16 << 20;
/// Largest width in elements (`hidden_size`, `intermediate_size`, a latent rank and the like).
pub const WIDTH_MAX: usize = 1 << 20;
/// Largest `vocab_size`.
pub const VOCAB_MAX: usize = 1 << 24;
/// Largest number of layers.
pub const LAYERS_MAX: usize = 1 << 10;
/// Largest number of routed experts of a layer.
pub const EXPERTS_MAX: usize = 1 << 16;
/// Largest number of heads, and largest width of a head in elements.
pub const HEADS_MAX: usize = 1 << 14;
/// Largest model, parameters: a thousand times K2. Every byte count of a legal config fits 64 bits.
pub const PARAMETERS_MAX: u128 = 1 << 50;
/// Epsilon of the two latent norms where the caller sets none: the published modelling code (`deepseek_v3` of
/// transformers) builds them without the config's value, so they take the norm's default.
pub const LATENT_NORM_EPS: f32 = 1e-6;

const _: () = assert!(usize::BITS >= 64, "tensor sizes need a 64-bit machine");

/// Which published family the config belongs to (`model_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `kimi_k2`: Kimi K2, K2 Thinking.
    KimiK2,
    /// `deepseek_v3`: DeepSeek-V3, R1, and K2 under the name older engines know.
    DeepseekV3,
    /// `kimi_k25`: Kimi K2.5, K2.6; the language model's tensors carry the prefix `language_model.`.
    KimiK25,
}

impl Family {
    /// The `model_type` that names this family.
    pub fn model_type(self) -> &'static str {
        match self {
            Family::KimiK2 => "kimi_k2",
            Family::DeepseekV3 => "deepseek_v3",
            Family::KimiK25 => "kimi_k25",
        }
    }
}

/// A checked config: every field is within the limits of this module and the combination is one that runs.
///
/// Fields are named and counted as in `config.json`; widths are in elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of token ids, V.
    pub vocab_size: usize,
    /// Width of the residual stream, C.
    pub hidden_size: usize,
    /// Inner width of a dense layer's MLP.
    pub intermediate_size: usize,
    /// Inner width of one routed expert (and of each shared one).
    pub moe_intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads, H.
    pub num_attention_heads: usize,
    /// Number of shared experts, held as one MLP of `n_shared_experts * moe_intermediate_size`; 0 means none.
    pub n_shared_experts: usize,
    /// Number of routed experts of a MoE layer, E.
    pub n_routed_experts: usize,
    /// Number of experts chosen for a token, K.
    pub num_experts_per_tok: usize,
    /// The first layers, this many, have a dense MLP; the others are MoE.
    pub first_k_dense_replace: usize,
    /// Number of groups the router's experts fall into; 1 means no grouping.
    pub n_group: usize,
    /// Number of groups a token may choose from.
    pub topk_group: usize,
    /// Rank of the query latent.
    pub q_lora_rank: usize,
    /// Rank of the key and value latent, R.
    pub kv_lora_rank: usize,
    /// Width of a head's query and key without position.
    pub qk_nope_head_dim: usize,
    /// Width of a head's query and of the one shared key with position; even.
    pub qk_rope_head_dim: usize,
    /// Width of a head's value.
    pub v_head_dim: usize,
    /// Longest context the model is published for, tokens.
    pub max_position_embeddings: usize,
    /// Whether the chosen experts' scores are divided by their sum.
    pub norm_topk_prob: bool,
    /// Factor on the routed experts' output.
    pub routed_scaling_factor: f32,
    /// Epsilon of the block norms and the last norm.
    pub rms_norm_eps: f32,
    /// Epsilon of the two latent norms ([`LATENT_NORM_EPS`] unless the caller sets it; no key of the file does).
    pub latent_norm_eps: f32,
    /// Rotary position embedding (`rope_theta`, `rope_scaling`).
    pub rope: Rope,
    /// Ids that end generation: those of the config, and of `generation_config.json` beside a checkpoint.
    pub eos_token_ids: Vec<u32>,
    /// Id that begins a document, where the file names one.
    pub bos_token_id: Option<u32>,
    /// Whether the head is the embedding matrix (then there is no `lm_head.weight`).
    pub tie_word_embeddings: bool,
    /// How the routed experts are packed (`quantization_config`); `None` means plain BF16 or F32.
    pub quantization: Option<Quantization>,
    /// The published family.
    pub family: Family,
    /// Prefix of every tensor name of the language model: empty or `language_model.`.
    pub tensor_prefix: String,
    /// The file's `dtype` or `torch_dtype`, as written; tensors say their own.
    pub dtype: Option<String>,
    /// The file's first `architectures` entry, as written.
    pub architecture: Option<String>,
}

/// What is wrong with a config, and in which file.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// The file, or `config.json` where the text came without one.
    pub place: String,
    /// What is wrong.
    #[source]
    pub problem: ConfigProblem,
}

/// What is wrong with a config.
#[derive(Debug, thiserror::Error)]
pub enum ConfigProblem {
    /// The file cannot be read: the system's reason.
    #[error("cannot be read ({0})")]
    Read(std::io::Error),
    /// The file is longer than [`CONFIG_BYTES_MAX`]: its bytes.
    #[error("is {0} bytes long, which no model's config is; at most {CONFIG_BYTES_MAX} are read")]
    TooLong(u64),
    /// The text is not JSON, or not an object: what the reader met.
    #[error("is not a model's config ({0}); expected a JSON object")]
    Json(String),
    /// A needed key is absent.
    #[error("lacks `{key}`; expected {expected}")]
    Missing {
        /// The key, with its parents.
        key: String,
        /// What should stand there.
        expected: String,
    },
    /// A key holds something of the wrong type or out of range.
    #[error("`{key}` is {found}; expected {expected}")]
    Wrong {
        /// The key, with its parents.
        key: String,
        /// What stands there.
        found: String,
        /// What should stand there.
        expected: String,
    },
    /// A key asks for a feature that is not built.
    #[error("`{key}` is {found}, which is not supported; {supported}")]
    Unsupported {
        /// The key, with its parents.
        key: String,
        /// What stands there.
        found: String,
        /// What is supported instead.
        supported: String,
    },
}

impl Config {
    /// Read and check `path`.
    ///
    /// # Errors
    /// [`ConfigError`], one sentence that names the file, the key and what was expected.
    pub fn from_file(path: &Path) -> Result<Config, ConfigError> {
        let place = |problem| ConfigError { place: path.display().to_string(), problem };
        let text = read_text(path).map_err(place)?;
        Config::parse(&text).map_err(place)
    }

    /// Read and check the text of a `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`], one sentence that names the key and what was expected.
    pub fn from_json(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text).map_err(|problem| ConfigError { place: "config.json".into(), problem })
    }

    /// Whether layer `layer_idx` has a router and routed experts.
    pub fn is_moe_layer(&self, layer_idx: usize) -> bool {
        layer_idx >= self.first_k_dense_replace
    }

    /// Width of a head's query and key in elements: without position, then with.
    pub fn qk_head_dim(&self) -> usize {
        self.qk_nope_head_dim + self.qk_rope_head_dim
    }

    /// Factor on the attention scores before the softmax: `qk_head_dim^-0.5`, times the square of YaRN's magnitude
    /// for `mscale_all_dim` (modelling code of `deepseek_v3`).
    pub fn softmax_scale(&self) -> f32 {
        let m = self.rope.yarn.map_or(1.0, |yarn| yarn.softmax_magnitude());
        ((self.qk_head_dim() as f64).powf(-0.5) * m * m) as f32
    }

    fn parse(text: &str) -> Result<Config, ConfigProblem> {
        let value: Value = serde_json::from_str(text).map_err(|e| ConfigProblem::Json(e.to_string()))?;
        let Value::Object(top) = &value else {
            return Err(ConfigProblem::Json(format!("it is {}", fields::kind_of(&value))));
        };
        let top = Fields::new(top);
        let family = family(&top)?;
        let config = match family {
            Family::KimiK25 => Config::from_fields(&top.nested("text_config")?, family)?,
            Family::KimiK2 | Family::DeepseekV3 => Config::from_fields(&top, family)?,
        };
        config.check_combination()?;
        Ok(config)
    }

    fn from_fields(f: &Fields<'_>, family: Family) -> Result<Config, ConfigProblem> {
        check_features(f)?;
        Ok(Config {
            vocab_size: f.size("vocab_size", VOCAB_MAX)?,
            hidden_size: f.size("hidden_size", WIDTH_MAX)?,
            intermediate_size: f.size("intermediate_size", WIDTH_MAX)?,
            moe_intermediate_size: f.size("moe_intermediate_size", WIDTH_MAX)?,
            num_hidden_layers: f.size("num_hidden_layers", LAYERS_MAX)?,
            num_attention_heads: f.size("num_attention_heads", HEADS_MAX)?,
            n_shared_experts: f.count_or("n_shared_experts", 0, LAYERS_MAX)?,
            n_routed_experts: f.size("n_routed_experts", EXPERTS_MAX)?,
            num_experts_per_tok: f.size("num_experts_per_tok", EXPERTS_MAX)?,
            first_k_dense_replace: f.count("first_k_dense_replace", LAYERS_MAX)?,
            n_group: f.size("n_group", EXPERTS_MAX)?,
            topk_group: f.size("topk_group", EXPERTS_MAX)?,
            q_lora_rank: query_rank(f)?,
            kv_lora_rank: f.size("kv_lora_rank", WIDTH_MAX)?,
            qk_nope_head_dim: f.size("qk_nope_head_dim", HEADS_MAX)?,
            qk_rope_head_dim: f.size("qk_rope_head_dim", HEADS_MAX)?,
            v_head_dim: f.size("v_head_dim", HEADS_MAX)?,
            max_position_embeddings: f.size("max_position_embeddings", 1 << 40)?,
            norm_topk_prob: f.flag("norm_topk_prob")?,
            routed_scaling_factor: f.positive("routed_scaling_factor")? as f32,
            rms_norm_eps: f.positive("rms_norm_eps")? as f32,
            latent_norm_eps: LATENT_NORM_EPS,
            rope: Rope::from_fields(f)?,
            eos_token_ids: f.token_ids("eos_token_id")?,
            bos_token_id: f.token_ids("bos_token_id")?.first().copied(),
            tie_word_embeddings: f.flag_or("tie_word_embeddings", false)?,
            quantization: Quantization::from_fields(f)?,
            family,
            tensor_prefix: if family == Family::KimiK25 { "language_model.".into() } else { String::new() },
            dtype: f.text("dtype")?.or(f.text("torch_dtype")?).map(str::to_owned),
            architecture: f.first_text("architectures"),
        })
    }

    /// Reject values that are legal one by one and make no model together.
    fn check_combination(&self) -> Result<(), ConfigProblem> {
        let experts = self.n_routed_experts;
        require(
            self.qk_rope_head_dim.is_multiple_of(2),
            "qk_rope_head_dim",
            self.qk_rope_head_dim,
            "an even width",
        )?;
        require(
            experts.is_multiple_of(self.n_group),
            "n_group",
            self.n_group,
            &format!("a divisor of `n_routed_experts` ({experts})"),
        )?;
        require(
            self.n_group == 1 || experts / self.n_group >= 2,
            "n_group",
            self.n_group,
            "groups of at least two experts",
        )?;
        require(
            self.topk_group <= self.n_group,
            "topk_group",
            self.topk_group,
            &format!("at most `n_group` ({})", self.n_group),
        )?;
        let reachable = experts / self.n_group * self.topk_group;
        require(
            self.num_experts_per_tok <= reachable,
            "num_experts_per_tok",
            self.num_experts_per_tok,
            &format!("at most the {reachable} experts that a token may choose from"),
        )?;
        let packable = |width: usize| self.quantization.is_none_or(|q| width.is_multiple_of(q.group_size));
        for (key, width) in
            [("hidden_size", self.hidden_size), ("moe_intermediate_size", self.moe_intermediate_size)]
        {
            require(packable(width), key, width, "a multiple of the quantisation `group_size`")?;
        }
        let parameters = crate::layout::parameters(self).total;
        require(
            parameters <= PARAMETERS_MAX,
            "num_hidden_layers",
            self.num_hidden_layers,
            &format!(
                "sizes that make at most {PARAMETERS_MAX} parameters together (these make {parameters})"
            ),
        )
    }
}

/// The end ids of a `generation_config.json`; empty when it names none.
pub(crate) fn eos_ids_from_file(path: &Path) -> Result<Vec<u32>, ConfigError> {
    let read = || {
        let text = read_text(path)?;
        let map: serde_json::Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| ConfigProblem::Json(e.to_string()))?;
        Fields::new(&map).token_ids("eos_token_id")
    };
    read().map_err(|problem| ConfigError { place: path.display().to_string(), problem })
}

/// Read the text of a config, refusing one too long to be a config.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigProblem> {
    let n_bytes = std::fs::metadata(path).map_err(ConfigProblem::Read)?.len();
    if n_bytes > CONFIG_BYTES_MAX {
        return Err(ConfigProblem::TooLong(n_bytes));
    }
    if std::fs::metadata(path).map_err(ConfigProblem::Read)?.is_file() {
        std::fs::read_to_string(path).map_err(ConfigProblem::Read)
    } else {
        Err(ConfigProblem::Read(std::io::Error::other("it is not a file")))
    }
}

fn require(holds: bool, key: &str, found: usize, expected: &str) -> Result<(), ConfigProblem> {
    if holds {
        return Ok(());
    }
    Err(ConfigProblem::Wrong { key: key.into(), found: found.to_string(), expected: expected.into() })
}

fn family(top: &Fields<'_>) -> Result<Family, ConfigProblem> {
    let known = [Family::KimiK2, Family::DeepseekV3, Family::KimiK25];
    let Some(model_type) = top.text("model_type")? else {
        let expected = "`kimi_k2`, `deepseek_v3` or `kimi_k25`".into();
        return Err(ConfigProblem::Missing { key: "model_type".into(), expected });
    };
    known.into_iter().find(|f| f.model_type() == model_type).ok_or_else(|| ConfigProblem::Unsupported {
        key: "model_type".into(),
        found: format!("`{model_type}`"),
        supported: "Perilune runs `kimi_k2`, `deepseek_v3` and `kimi_k25`".into(),
    })
}

/// Features that other configs of the family may ask for and that this program does not have.
fn check_features(f: &Fields<'_>) -> Result<(), ConfigProblem> {
    f.only_text("topk_method", "noaux_tc")?;
    f.only_text("scoring_func", "sigmoid")?;
    f.only_text("hidden_act", "silu")?;
    f.only("attention_bias", &Value::Bool(false))?;
    f.only("mlp_bias", &Value::Bool(false))?;
    f.only("rope_interleave", &Value::Bool(true))?;
    f.only("moe_layer_freq", &Value::from(1))?;
    let heads = f.size("num_attention_heads", HEADS_MAX)?;
    f.only("num_key_value_heads", &Value::from(heads))
}

fn query_rank(f: &Fields<'_>) -> Result<usize, ConfigProblem> {
    if f.get("q_lora_rank").is_some_and(Value::is_null) {
        return Err(ConfigProblem::Unsupported {
            key: f.name_of("q_lora_rank"),
            found: "null".into(),
            supported: "queries must go through a latent, as in K2 and DeepSeek-V3".into(),
        });
    }
    f.size("q_lora_rank", WIDTH_MAX)
}
