//! What a recipe costs, before it is paid.

use crate::feed::{self, Draw, pack};
use crate::optim::{self, Norms, Optimizer, Settings, Update, muon};
use crate::recipe::Recipe;
use crate::run::{RunError, trainer};
use perilune_kernels::cpu::Cpu;
use perilune_model::config::Config;
use perilune_model::train::{Options, ParamClass, Parameters, Pass};
use serde::Serialize;
use std::time::Instant;

/// Tokens that the probe passes, at most.
const PROBE_TOKENS: usize = 4_096;

/// A recipe in figures.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Number of parameters.
    pub n_parameters: u64,
    /// Number of parameters that multiply a token's activations: those it passes, the embedding left out.
    pub n_active: u64,
    /// Number of runs of a sweep; 1 otherwise.
    pub n_runs: usize,
    /// The stages of the (first) run.
    pub stages: Vec<StagePlan>,
    /// Tokens of all runs.
    pub tokens: u64,
    /// Optimizer steps of all runs.
    pub steps: u64,
    /// Floating-point operations of all runs, forward, backward and update.
    pub flops: f64,
    /// Bytes of a checkpoint's tensors.
    pub checkpoint_bytes: u64,
    /// Seconds of all runs.
    pub seconds: f64,
    /// Tokens per second that the time was reckoned with.
    pub tokens_per_s: f64,
    /// Whether that was measured now, or is the recipe's figure.
    pub is_measured: bool,
}

/// A stage in figures.
#[derive(Clone, Debug, Serialize)]
pub struct StagePlan {
    /// Its name.
    pub name: String,
    /// Tokens that it trains on.
    pub tokens: u64,
    /// Optimizer steps that it takes.
    pub steps: u64,
    /// Floating-point operations, forward, backward and update.
    pub flops: f64,
}

impl Plan {
    /// The plan; its time from the recipe's own figure, or from a probe of a few seconds on `n_threads`.
    ///
    /// # Errors
    /// [`RunError`]: a `from` that cannot be begun with; where the speed has to be probed, a feed that cannot be opened or a
    /// pass that cannot run.
    pub fn new(recipe: &Recipe, n_threads: usize) -> Result<Plan, RunError> {
        trainer::base(recipe)?;
        let params = Parameters::zeros(&recipe.config);
        let tokens_per_s = match recipe.tokens_per_s {
            Some(speed) => speed,
            None => probe(recipe, n_threads)?,
        };
        let runs = recipe.runs();
        let of = |recipe: &Recipe| -> Vec<StagePlan> { stages(recipe, &params) };
        let all: Vec<StagePlan> = runs.iter().flat_map(|(_, recipe)| of(recipe)).collect();
        let tokens = all.iter().map(|stage| stage.tokens).sum();
        let n_second = Optimizer::new(runs[0].1.optimizer, &params).state().second.len();
        Ok(Plan {
            n_parameters: params.flat().len() as u64,
            n_active: active(&recipe.config, &params) as u64,
            n_runs: runs.len(),
            stages: of(&runs[0].1),
            tokens,
            steps: all.iter().map(|stage| stage.steps).sum(),
            flops: all.iter().map(|stage| stage.flops).sum(),
            checkpoint_bytes: 4 * (2 * params.flat().len() + n_second) as u64,
            seconds: tokens as f64 / tokens_per_s,
            tokens_per_s,
            is_measured: recipe.tokens_per_s.is_none(),
        })
    }
}

fn stages(recipe: &Recipe, params: &Parameters) -> Vec<StagePlan> {
    let n_active = active(&recipe.config, params);
    let config = &recipe.config;
    let heads = (config.num_attention_heads * (config.qk_head_dim() + config.v_head_dim)) as f64;
    let is_muon = |class: ParamClass| optim::update_of(recipe.optimizer, class) == Update::Muon;
    let update: f64 =
        params.specs().iter().filter(|s| is_muon(s.class)).map(|s| muon::flops(s.rows, s.cols)).sum();
    let stage_plan = |stage: &crate::recipe::Stage| {
        // Twice a product forward, four times backward; attention sees half of its square.
        let attention = heads * stage.sequence_tokens as f64 / 2.0 * config.num_hidden_layers as f64;
        let flops = stage.tokens as f64 * 6.0 * (n_active + attention) + stage.n_steps() as f64 * update;
        StagePlan { name: stage.name.clone(), tokens: stage.tokens, steps: stage.n_steps(), flops }
    };
    recipe.stages.iter().map(stage_plan).collect()
}

fn active(config: &Config, params: &Parameters) -> f64 {
    let share = config.num_experts_per_tok as f64 / config.n_routed_experts as f64;
    let weigh = |class: ParamClass| match class {
        ParamClass::Embedding | ParamClass::Bias => 0.0,
        ParamClass::Expert => share,
        _ => 1.0,
    };
    params.specs().iter().map(|spec| weigh(spec.class) * spec.range.len() as f64).sum()
}

/// Tokens per second of a step of the first stage: a pass and an update are timed once each, after a first pass.
fn probe(recipe: &Recipe, n_threads: usize) -> Result<f64, RunError> {
    let (cpu, stage) = (Cpu::new(n_threads), &recipe.stages[0]);
    let mut params = Parameters::random(&recipe.config, recipe.seed);
    let (mut grads, mut pass) = (params.gradients(), Pass::new(&recipe.config)?);
    let vocab_size = recipe.config.vocab_size;
    let draw = Draw { seed: recipe.seed, n_tokens: stage.sequence_tokens, vocab_size, is_held_out: true };
    let feed = feed::open(&stage.feed, draw, recipe.tokenizer.as_deref())?;
    let n_sequences = (PROBE_TOKENS.min(stage.micro_tokens) / stage.sequence_tokens).max(1);
    let sequences: Vec<_> = (0..n_sequences as u64).map(|index| feed.sequence(index)).collect();
    let batch = pack(&sequences);
    let options = Options { quant: stage.quant_at(stage.n_steps()), seq_aux_alpha: stage.seq_aux_alpha };
    let mut seconds = 0.0;
    for _ in 0..2 {
        let started = Instant::now();
        pass.forward_backward(&cpu, &params, &batch, &options, &mut grads)?;
        seconds = started.elapsed().as_secs_f64();
    }
    let mut optimizer = Optimizer::new(recipe.runs()[0].1.optimizer, &params);
    let settings =
        Settings { lr: stage.lr, adamw_lr: stage.lr, weight_decay: 0.0, grad_clip: stage.grad_clip };
    let started = Instant::now();
    optimizer.step(&cpu, &mut params, &grads, Norms::default(), settings);
    let update_s = started.elapsed().as_secs_f64();
    let per_token = seconds / batch.ids.len().max(1) as f64 + update_s / stage.batch_tokens as f64;
    Ok(1.0 / per_token)
}
