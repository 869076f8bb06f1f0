//! Where each layer's tensors stand in the flat buffer.

use super::parameters::Parameters;
use crate::config::Config;
use std::ops::Range;

/// A place in the flat buffer.
pub(super) type Place = Range<usize>;

/// Every tensor's place.
pub(super) struct Places {
    pub(super) embedding: Place,
    pub(super) layers: Vec<LayerPlaces>,
    pub(super) norm: Place,
    /// The embedding's where the config ties the two.
    pub(super) head: Place,
}

/// One block's.
pub(super) struct LayerPlaces {
    pub(super) input_norm: Place,
    pub(super) post_norm: Place,
    pub(super) q_a: Place,
    pub(super) q_a_norm: Place,
    pub(super) q_b: Place,
    pub(super) kv_a: Place,
    pub(super) kv_a_norm: Place,
    pub(super) kv_b: Place,
    pub(super) o: Place,
    pub(super) mlp: MlpPlaces,
}

/// The feed-forward part's.
pub(super) enum MlpPlaces {
    Dense(SwiGluPlaces),
    Moe(MoePlaces),
}

/// A mixture's.
pub(super) struct MoePlaces {
    pub(super) router: Place,
    pub(super) bias: Place,
    pub(super) experts: Vec<SwiGluPlaces>,
    pub(super) shared: Option<SwiGluPlaces>,
}

/// One network's.
pub(super) struct SwiGluPlaces {
    pub(super) gate: Place,
    pub(super) up: Place,
    pub(super) down: Place,
}

impl Places {
    pub(super) fn new(config: &Config) -> Places {
        let parameters = Parameters::zeros(config);
        let prefix = &config.tensor_prefix;
        let find = |name: &str| {
            let i = parameters
                .find(&format!("{prefix}{name}"))
                .expect("the layout lists every tensor of the config");
            parameters.specs()[i].range.clone()
        };
        let swiglu = |stem: &str| SwiGluPlaces {
            gate: find(&format!("{stem}.gate_proj.weight")),
            up: find(&format!("{stem}.up_proj.weight")),
            down: find(&format!("{stem}.down_proj.weight")),
        };
        let mlp = |layer_idx: usize| {
            let stem = format!("model.layers.{layer_idx}.mlp");
            if !config.is_moe_layer(layer_idx) {
                return MlpPlaces::Dense(swiglu(&stem));
            }
            MlpPlaces::Moe(MoePlaces {
                router: find(&format!("{stem}.gate.weight")),
                bias: find(&format!("{stem}.gate.e_score_correction_bias")),
                experts: (0..config.n_routed_experts)
                    .map(|e| swiglu(&format!("{stem}.experts.{e}")))
                    .collect(),
                shared: (config.n_shared_experts > 0).then(|| swiglu(&format!("{stem}.shared_experts"))),
            })
        };
        let layer = |layer_idx: usize| {
            let weight = |name: &str| find(&format!("model.layers.{layer_idx}.{name}.weight"));
            LayerPlaces {
                input_norm: weight("input_layernorm"),
                post_norm: weight("post_attention_layernorm"),
                q_a: weight("self_attn.q_a_proj"),
                q_a_norm: weight("self_attn.q_a_layernorm"),
                q_b: weight("self_attn.q_b_proj"),
                kv_a: weight("self_attn.kv_a_proj_with_mqa"),
                kv_a_norm: weight("self_attn.kv_a_layernorm"),
                kv_b: weight("self_attn.kv_b_proj"),
                o: weight("self_attn.o_proj"),
                mlp: mlp(layer_idx),
            }
        };
        let embedding = find("model.embed_tokens.weight");
        let head = if config.tie_word_embeddings { embedding.clone() } else { find_head(&parameters) };
        Places {
            layers: (0..config.num_hidden_layers).map(layer).collect(),
            norm: find("model.norm.weight"),
            embedding,
            head,
        }
    }
}

fn find_head(parameters: &Parameters) -> Place {
    let head = parameters.specs().iter().find(|spec| spec.class == super::ParamClass::Head);
    head.expect("an untied config's layout has a head").range.clone()
}
