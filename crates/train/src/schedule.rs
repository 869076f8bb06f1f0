//! The learning rate over a stage: warm-up, constant, decay (WSD; Kimi K2 report, section 2.5, "Training recipe").

use crate::recipe::{DecayShape, Stage};

/// Share, from 0 to 1, of the stage's learning rate that step `step` (from 0) of `n_steps` takes.
///
/// The rise ends at 1 with its last step, the fall at `decay_to` with the last step of the stage.
pub fn factor(stage: &Stage, step: u64, n_steps: u64) -> f32 {
    let share = |part: f32| (n_steps as f64 * f64::from(part)).round() as u64;
    let (n_rise, n_fall) = (share(stage.warmup), share(stage.decay));
    if step < n_rise {
        return (step + 1) as f32 / n_rise as f32;
    }
    let first_fall = n_steps.saturating_sub(n_fall);
    if step < first_fall {
        return 1.0;
    }
    let way = ((step - first_fall + 1) as f32 / n_fall as f32).min(1.0);
    let left = match stage.decay_shape {
        DecayShape::Linear => 1.0 - way,
        DecayShape::Cosine => 0.5 * (1.0 + (std::f32::consts::PI * way).cos()),
    };
    stage.decay_to + (1.0 - stage.decay_to) * left
}
