//! QK-Clip (Kimi K2 report, section 2.1.2): a head whose largest attention logit exceeds the threshold has its
//! query and key projections scaled down, so that the same logit would have been the threshold.

use perilune_model::config::Config;
use perilune_model::train::{ParamClass, Parameters};

/// Scale the heads whose largest logit (`max_logit`: `[L][H]`, after the softmax scale, over all micro-batches of the
/// step) exceeds `tau`; returns the number of heads scaled in each layer `[L]`.
///
/// Up-projections only: rows of `q_b_proj` without position and key rows of `kv_b_proj` by the root of the factor,
/// rows of `q_b_proj` with position by the whole factor, for the key with position is shared by all heads and stays.
pub fn qk_clip(config: &Config, params: &mut Parameters, max_logit: &[Vec<f32>], tau: f32) -> Vec<usize> {
    let mut counts = vec![0; max_logit.len()];
    for i in 0..params.specs().len() {
        let spec = &params.specs()[i];
        let Some(layer_idx) =
            spec.layer_idx.filter(|_| matches!(spec.class, ParamClass::QB | ParamClass::KvB))
        else {
            continue;
        };
        let (cols, class) = (spec.cols, spec.class);
        let Some(heads) = max_logit.get(layer_idx) else { continue };
        for (head_idx, &max) in heads.iter().enumerate() {
            // A maximum at or below 0, or one that is no number, is not above the threshold.
            if max > tau {
                scale_head(config, params.tensor_mut(i), cols, class, head_idx, tau / max);
                counts[layer_idx] += usize::from(class == ParamClass::QB);
            }
        }
    }
    counts
}

fn scale_head(
    config: &Config,
    matrix: &mut [f32],
    cols: usize,
    class: ParamClass,
    head_idx: usize,
    gamma: f32,
) {
    let nope = config.qk_nope_head_dim;
    let n_rows = if class == ParamClass::QB { config.qk_head_dim() } else { nope + config.v_head_dim };
    let head = &mut matrix[head_idx * n_rows * cols..(head_idx + 1) * n_rows * cols];
    let (without_position, rest) = head.split_at_mut(nope * cols);
    let root = gamma.sqrt();
    without_position.iter_mut().for_each(|w| *w *= root);
    if class == ParamClass::QB {
        rest.iter_mut().for_each(|w| *w *= gamma);
    }
}
