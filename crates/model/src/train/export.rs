//! A trained model in the published layout.

use super::parameters::Parameters;
use super::round;
use crate::checkpoint::{CONFIG_FILE, SINGLE_FILE};
use crate::config::{Config, Quantization};
use crate::layout::{self, Role, TensorSpec};
use half::bf16;
use perilune_kernels::GROUP;
use perilune_kernels::quant::pack_int4;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// How the file holds the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Routed experts as INT4 in compressed-tensors `pack-quantized`, the rest BF16, the selection bias F32: what
    /// [`super::Quant::Int4Experts`] trains for.
    Int4,
    /// Everything F32: what [`super::Quant::Off`] trains.
    F32,
}

/// Why nothing was exported; a file that stood there before still does.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A weight that is NaN or infinite.
    #[error("`{tensor}` holds a number that is not finite; go back to an earlier checkpoint of the run")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// A width that INT4 cannot group, or weights of another model.
    #[error(transparent)]
    Shape(#[from] super::TrainError),
    /// A file cannot be written.
    #[error("{path}: cannot be written ({source}); free some space or choose another folder", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Write `parameters` into the folder `dir` (made if need be) as `model.safetensors` and `config.json`.
///
/// The files get their names when both are complete, the config last. What the file's weights unpack to are the
/// values that a pass of the same form sees, bit for bit.
///
/// # Errors
/// [`ExportError`] when a weight is not finite, a width does not fit the form or a file cannot be written.
pub fn export(dir: &Path, config: &Config, parameters: &Parameters, form: Form) -> Result<(), ExportError> {
    let config = exported_config(config, form);
    round::check(&config, parameters, form == Form::Int4)?;
    let specs: Vec<TensorSpec> = layout::expected(&config).collect();
    let tensors: Vec<Vec<u8>> = specs.iter().map(|spec| bytes(spec, parameters)).collect::<Result<_, _>>()?;
    let views = specs.iter().zip(&tensors).map(|(spec, bytes)| {
        let view = TensorView::new(spec.dtypes[0], spec.shape.clone(), bytes);
        (spec.name.as_str(), view.expect("the bytes were made for this dtype and shape"))
    });
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let weights = safetensors::serialize(views, Some(format)).expect("dtypes, shapes and lengths agree");
    let text = format!("{:#}\n", config_value(&config));
    write_files(dir, &[(SINGLE_FILE, &weights), (CONFIG_FILE, text.as_bytes())])
}

/// The config of the file that [`export`] writes.
pub fn exported_config(config: &Config, form: Form) -> Config {
    let (quantization, dtype) = match form {
        Form::Int4 => (Some(Quantization::INT4), "bfloat16"),
        Form::F32 => (None, "float32"),
    };
    Config { quantization, dtype: Some(dtype.into()), ..config.clone() }
}

/// A tensor's bytes as the file holds them.
fn bytes(spec: &TensorSpec, parameters: &Parameters) -> Result<Vec<u8>, ExportError> {
    let name = match spec.role {
        Role::Plain => spec.name.clone(),
        Role::Codes | Role::Scales | Role::StoredShape(_) => {
            let stem = spec.name.rsplit_once('.').map_or("", |(stem, _)| stem);
            format!("{stem}.weight")
        }
    };
    let i = parameters.find(&name).expect("the layout of the weights lists every matrix of the file's");
    let (shape, w) = (&parameters.specs()[i], parameters.tensor(i));
    if !w.iter().all(|w| w.is_finite()) {
        return Err(ExportError::NotFinite { tensor: name });
    }
    Ok(match spec.role {
        Role::Plain if spec.dtypes[0] == Dtype::F32 => w.iter().flat_map(|w| w.to_le_bytes()).collect(),
        Role::Plain => w.iter().flat_map(|w| bf16::from_f32(*w).to_le_bytes()).collect(),
        Role::StoredShape(sizes) => sizes.iter().flat_map(|size| (*size as i32).to_le_bytes()).collect(),
        Role::Codes | Role::Scales => {
            let mut packed = vec![0u8; w.len() / 2];
            let mut scales = vec![bf16::ZERO; w.len() / GROUP];
            let rows =
                packed.chunks_exact_mut(shape.cols / 2).zip(scales.chunks_exact_mut(shape.cols / GROUP));
            w.chunks_exact(shape.cols)
                .zip(rows)
                .for_each(|(w, (packed, scales))| pack_int4(w, packed, scales));
            match spec.role {
                Role::Codes => packed,
                _ => scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(),
            }
        }
    })
}

/// Write every file under a partial name, then give them their names in order.
fn write_files(dir: &Path, files: &[(&str, &[u8])]) -> Result<(), ExportError> {
    let error = |path: PathBuf| move |source| ExportError::Write { path, source };
    fs::create_dir_all(dir).map_err(error(dir.to_path_buf()))?;
    let partial = |name: &str| dir.join(format!("{name}.partial"));
    let write = |name: &str, content: &[u8]| {
        let mut file = File::create(partial(name))?;
        file.write_all(content)?;
        file.sync_all()
    };
    let written =
        files.iter().try_for_each(|(name, content)| write(name, content).map_err(error(dir.join(name))));
    if written.is_err() {
        files.iter().for_each(|(name, _)| {
            let _absent = fs::remove_file(partial(name));
        });
        return written;
    }
    files
        .iter()
        .try_for_each(|(name, _)| fs::rename(partial(name), dir.join(name)).map_err(error(dir.join(name))))
}

/// A config as `config.json` spells it.
fn config_value(config: &Config) -> Value {
    let mut value = json!({
        "architectures": [config.architecture.as_deref().unwrap_or("DeepseekV3ForCausalLM")],
        "model_type": config.family.model_type(),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "moe_intermediate_size": config.moe_intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_attention_heads,
        "first_k_dense_replace": config.first_k_dense_replace,
        "moe_layer_freq": 1,
        "n_shared_experts": config.n_shared_experts,
        "n_routed_experts": config.n_routed_experts,
        "num_experts_per_tok": config.num_experts_per_tok,
        "n_group": config.n_group,
        "topk_group": config.topk_group,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": config.norm_topk_prob,
        "routed_scaling_factor": shortest(config.routed_scaling_factor),
        "q_lora_rank": config.q_lora_rank,
        "kv_lora_rank": config.kv_lora_rank,
        "qk_nope_head_dim": config.qk_nope_head_dim,
        "qk_rope_head_dim": config.qk_rope_head_dim,
        "v_head_dim": config.v_head_dim,
        "hidden_act": "silu",
        "attention_bias": false,
        "rms_norm_eps": shortest(config.rms_norm_eps),
        "max_position_embeddings": config.max_position_embeddings,
        "rope_theta": config.rope.theta,
        "rope_scaling": rope_scaling(config),
        "tie_word_embeddings": config.tie_word_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_ids,
        "torch_dtype": config.dtype,
    });
    if config.quantization.is_some() {
        value["quantization_config"] = quantization_config();
    }
    if config.tensor_prefix.is_empty() {
        return value;
    }
    json!({ "architectures": value["architectures"], "model_type": value["model_type"], "text_config": value })
}

/// The shortest decimal that reads back as this `f32`.
fn shortest(x: f32) -> Value {
    let text = x.to_string();
    json!(text.parse::<f64>().expect("a finite f32 prints as a number"))
}

fn rope_scaling(config: &Config) -> Value {
    let Some(yarn) = config.rope.yarn else { return Value::Null };
    let mut value = json!({
        "type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_max_position_embeddings,
        "beta_fast": yarn.beta_fast,
        "beta_slow": yarn.beta_slow,
        "mscale": yarn.mscale,
        "mscale_all_dim": yarn.mscale_all_dim,
    });
    if let Some(factor) = yarn.attention_factor {
        value["attention_factor"] = factor.into();
    }
    value
}

/// The block of the published config (compressed-tensors).
fn quantization_config() -> Value {
    json!({
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "kv_cache_scheme": null,
        "ignore": [
            "lm_head",
            "re:.*self_attn.*",
            "re:.*shared_experts.*",
            "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"
        ],
        "config_groups": { "group_0": {
            "targets": ["Linear"],
            "input_activations": null,
            "output_activations": null,
            "weights": {
                "num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": GROUP,
                "dynamic": false, "actorder": null, "block_structure": null, "observer": "minmax",
                "observer_kwargs": {}
            }
        } }
    })
}
