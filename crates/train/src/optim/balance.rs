//! Balance without a loss (Wang and others 2024; DeepSeek-V3 report, section 2.1.2): the selection bias of an expert
//! that was chosen more often than the mean falls, that of the others rises.

use perilune_model::train::{ParamClass, Parameters};

/// Move every selection bias by `rate` against the load of the step, `[L][E]` tokens (empty for a layer without experts);
/// a `rate` of 0 freezes it.
///
/// # Panics
/// When `expert_load` has fewer layers than the model.
pub fn balance(params: &mut Parameters, expert_load: &[Vec<u64>], rate: f32) {
    for i in 0..params.specs().len() {
        let spec = &params.specs()[i];
        let Some(layer_idx) = spec.layer_idx.filter(|_| spec.class == ParamClass::Bias) else { continue };
        let load = &expert_load[layer_idx];
        let total: u64 = load.iter().sum();
        for (bias, &n) in params.tensor_mut(i).iter_mut().zip(load) {
            match (n * load.len() as u64).cmp(&total) {
                std::cmp::Ordering::Less => *bias += rate,
                std::cmp::Ordering::Greater => *bias -= rate,
                std::cmp::Ordering::Equal => {}
            }
        }
    }
}
