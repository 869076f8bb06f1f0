//! Optimizers side by side: the runs of a sweep, by optimizer and learning rate.

use super::Run;
use std::collections::BTreeMap;

/// What an optimizer came to with one learning rate, over its seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Name of the optimizer.
    pub optimizer: String,
    /// The learning rate, as the folder's name spells it.
    pub lr: String,
    /// Held-out loss at the end of each complete run, nats a token.
    pub losses: Vec<f64>,
    /// Tokens of a run.
    pub tokens: u64,
    /// Names of the runs' folders, in the order of `losses`.
    pub runs: Vec<String>,
}

impl Verdict {
    /// Mean of the losses, nats a token.
    pub fn loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len().max(1) as f64
    }
}

/// Optimizer, learning rate and seed in the name of a sweep's folder.
fn parts(name: &str) -> Option<(&str, &str)> {
    let (optimizer, rest) = name.split_once("-lr")?;
    let (lr, seed) = rest.split_once("-seed")?;
    let is_number = lr.parse::<f64>().is_ok() && seed.parse::<u64>().is_ok();
    is_number.then_some((optimizer, lr))
}

/// Every optimizer with every learning rate, best first within an optimizer; complete runs only.
pub fn verdicts(runs: &[Run]) -> Vec<Verdict> {
    let mut groups: BTreeMap<(&str, &str), Verdict> = BTreeMap::new();
    for run in runs {
        let Some((optimizer, lr)) = parts(&run.name) else { continue };
        let Some(last) = run.records.last().filter(|last| last.step == last.n_steps) else { continue };
        let Some(loss) = last.held_out_loss else { continue };
        let group = groups.entry((optimizer, lr)).or_insert_with(|| Verdict {
            optimizer: optimizer.to_owned(),
            lr: lr.to_owned(),
            losses: Vec::new(),
            tokens: last.tokens,
            runs: Vec::new(),
        });
        group.losses.push(loss);
        group.runs.push(run.name.clone());
    }
    let mut all: Vec<Verdict> = groups.into_values().collect();
    all.sort_by(|a, b| a.optimizer.cmp(&b.optimizer).then(a.loss().total_cmp(&b.loss())));
    all
}
