//! The expert router: sigmoid scores, selection by score plus bias, weights from the score alone
//! (DeepSeek-V3 report, section 2.1.2; `noaux_tc` in the model file).

use crate::reference::sigmoid;

/// What the router's settings are, by their names in `config.json`.
#[derive(Clone, Debug)]
pub struct RouterRule {
    /// `num_experts_per_tok`.
    pub n_chosen: usize,
    /// `n_group`: experts compete inside groups of equal size first.
    pub n_group: usize,
    /// `topk_group`: groups kept.
    pub topk_group: usize,
    /// `norm_topk_prob`: weights are divided by their sum.
    pub normalize: bool,
    /// `routed_scaling_factor`.
    pub scale: f32,
}

/// One expert chosen for a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// Index of the expert.
    pub expert_idx: u32,
    /// Factor of its output.
    pub weight: f32,
}

/// Choose experts for one token, in ascending order of index.
///
/// `logits` `[E]` router products, `bias` `[E]` selection bias; ties go to the lower index. A NaN logit makes every
/// weight NaN, so it cannot hide.
pub fn choose(rule: &RouterRule, logits: &[f32], bias: &[f32]) -> Vec<Chosen> {
    let scores: Vec<f32> = logits.iter().map(|&l| sigmoid(l)).collect();
    let mut choice: Vec<f32> = scores.iter().zip(bias).map(|(s, b)| s + b).collect();
    if rule.n_group > 1 {
        mask_groups(rule, &mut choice);
    }
    let mut chosen = top_k(&choice, rule.n_chosen);
    chosen.sort_unstable();
    let sum: f32 = chosen.iter().map(|&e| scores[e]).sum();
    let poison: f32 = scores.iter().sum::<f32>() * 0.0;
    let factor = if rule.normalize { rule.scale / (sum + 1e-20) } else { rule.scale } + poison;
    chosen.into_iter().map(|e| Chosen { expert_idx: e as u32, weight: scores[e] * factor }).collect()
}

/// Keep the `topk_group` groups with the largest sum of their two best; the others can no longer be chosen.
fn mask_groups(rule: &RouterRule, choice: &mut [f32]) {
    let size = choice.len() / rule.n_group;
    let group_scores: Vec<f32> =
        choice.chunks(size).map(|group| top_k(group, 2).into_iter().map(|i| group[i]).sum()).collect();
    let kept = top_k(&group_scores, rule.topk_group);
    for (group_idx, group) in choice.chunks_mut(size).enumerate() {
        if !kept.contains(&group_idx) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// Indices of the `k` largest values, largest first, ties to the lower index.
pub fn top_k(values: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let k = k.min(order.len());
    let by_value = |&a: &usize, &b: &usize| values[b].total_cmp(&values[a]).then(a.cmp(&b));
    if k < order.len() && k > 0 {
        order.select_nth_unstable_by(k - 1, by_value);
        order.truncate(k);
    }
    order.sort_unstable_by(by_value);
    order.truncate(k);
    order
}

/// Index of the largest value, ties to the lower index; `None` if any value is NaN or there is none.
pub fn arg_max(values: &[f32]) -> Option<usize> {
    if values.iter().any(|v| v.is_nan()) {
        return None;
    }
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if *v > values[best] {
            best = i;
        }
    }
    (!values.is_empty()).then_some(best)
}
