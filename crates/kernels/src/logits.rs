//! What is read off a row of logits or scores: log-probabilities and the largest values.

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
