//! The expert router: sigmoid scores, selection by score plus bias, weights from the score alone
//! (DeepSeek-V3 report, section 2.1.2; `topk_method` `noaux_tc` in `config.json`).

use crate::reference::sigmoid;

/// What the router's settings are, by their names in `config.json`.
#[derive(Clone, Debug)]
pub struct RouterRule {
    /// `num_experts_per_tok`, K: experts a token chooses.
    pub n_chosen: usize,
    /// `n_group`: experts compete inside groups of equal size first; 1 means no grouping.
    pub n_group: usize,
    /// `topk_group`: groups a token may choose from.
    pub topk_group: usize,
    /// `norm_topk_prob`: weights are divided by their sum.
    pub normalize: bool,
    /// `routed_scaling_factor`: factor of every weight.
    pub scale: f32,
}

/// One expert chosen for a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// Index of the expert, below E.
    pub expert_idx: u32,
    /// Factor of its output, from the score without the bias.
    pub weight: f32,
}

/// Choose experts for one token, in ascending order of index.
///
/// `logits` `[E]` router products, `bias` `[E]` the selection bias (`e_score_correction_bias`); ties go to the lower
/// index. A NaN logit makes every weight NaN, so it cannot hide.
pub fn choose(rule: &RouterRule, logits: &[f32], bias: &[f32]) -> Vec<Chosen> {
    let scores: Vec<f32> = logits.iter().map(|&l| sigmoid(l)).collect();
    choose_by_scores(rule, &scores, bias)
}

/// [`choose`] from the sigmoids of the router products, `scores` `[E]`.
pub fn choose_by_scores(rule: &RouterRule, scores: &[f32], bias: &[f32]) -> Vec<Chosen> {
    let mut choice: Vec<f32> = scores.iter().zip(bias).map(|(s, b)| s + b).collect();
    if rule.n_group > 1 {
        mask_groups(rule, &mut choice);
    }
    let mut chosen = top_k(&choice, rule.n_chosen);
    chosen.sort_unstable();
    let factor = factor(rule, scores, chosen.iter().copied());
    chosen.into_iter().map(|e| Chosen { expert_idx: e as u32, weight: scores[e] * factor }).collect()
}

/// The weights of experts chosen before, `experts` `[K]` in ascending order of index: what [`choose_by_scores`] gives
/// them for `scores` `[E]`.
pub fn weigh(rule: &RouterRule, scores: &[f32], experts: &[u32]) -> Vec<Chosen> {
    let factor = factor(rule, scores, experts.iter().map(|&e| e as usize));
    experts.iter().map(|&e| Chosen { expert_idx: e, weight: scores[e as usize] * factor }).collect()
}

/// Factor of every chosen score.
fn factor(rule: &RouterRule, scores: &[f32], chosen: impl Iterator<Item = usize>) -> f32 {
    let sum: f32 = chosen.map(|e| scores[e]).sum();
    let poison: f32 = scores.iter().sum::<f32>() * 0.0;
    if rule.normalize { rule.scale / (sum + 1e-20) + poison } else { rule.scale + poison }
}

/// Derivative of the weights: adds to the gradient of the chosen experts' scores, `dscores` `[E]`, from that of their
/// weights, `dweights` `[K]`; `scores` `[E]`.
pub fn weigh_back(
    rule: &RouterRule,
    scores: &[f32],
    chosen: &[Chosen],
    dweights: &[f32],
    dscores: &mut [f32],
) {
    let score = |c: &Chosen| scores[c.expert_idx as usize];
    let sum: f32 = chosen.iter().map(score).sum();
    let (factor, shared) = if rule.normalize {
        let along: f32 = chosen.iter().zip(dweights).map(|(c, d)| d * score(c)).sum();
        (rule.scale / (sum + 1e-20), along / (sum + 1e-20))
    } else {
        (rule.scale, 0.0)
    };
    for (c, d) in chosen.iter().zip(dweights) {
        dscores[c.expert_idx as usize] += factor * (d - shared);
    }
}

/// Natural log-probabilities of a row of finite logits, summed in `f64`.
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax {
    max: f32,
    ln_sum: f64,
}

impl LogSoftmax {
    /// Of `logits` `[V]`; one that is not finite makes them meaningless.
    pub fn new(logits: &[f32]) -> LogSoftmax {
        let max = logits.iter().fold(f32::NEG_INFINITY, |m, l| m.max(*l));
        let sum: f64 = logits.iter().map(|l| (f64::from(*l) - f64::from(max)).exp()).sum();
        LogSoftmax { max, ln_sum: sum.ln() }
    }

    /// `ln p` of the id with this logit of the row.
    pub fn of(&self, logit: f32) -> f32 {
        (f64::from(logit) - f64::from(self.max) - self.ln_sum) as f32
    }
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
