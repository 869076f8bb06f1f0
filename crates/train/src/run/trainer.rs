//! One step after the other: draw, pass, update, clip, balance, measure.

use super::RunError;
use super::stream::Stream;
use crate::checkpoint::{self, Checkpoint, CheckpointError, Position};
use crate::eval::turns::Turns;
use crate::feed::{self, Draw, Sequence, pack};
use crate::log::Record;
use crate::optim::balance::balance;
use crate::optim::clip::qk_clip;
use crate::optim::{Norms, Optimizer, Settings};
use crate::recipe::{OptimizerKind, Recipe, Stage};
use crate::rng::Rng;
use crate::schedule;
use perilune_kernels::cpu::Cpu;
use perilune_model::checkpoint::Checkpoint as ModelFolder;
use perilune_model::config::Config;
use perilune_model::train::{Batch, Gradients, Options, Parameters, Pass, Stats};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Share of a step in the running mean of speed.
const SPEED_SHARE: f64 = 0.1;

/// A recipe under way.
pub struct Trainer {
    recipe: Recipe,
    cpu: Cpu,
    pass: Pass,
    params: Parameters,
    grads: Gradients,
    optimizer: Optimizer,
    position: Position,
    stage_idx: usize,
    stream: Option<Stream>,
    speed: Option<f64>,
}

impl Trainer {
    /// The weights before the first stage: random ones, or those of the checkpoint that the recipe begins from.
    ///
    /// # Errors
    /// A config that training does not serve; a checkpoint that cannot be read, or is of another shape.
    pub fn new(recipe: Recipe, n_threads: usize) -> Result<Trainer, RunError> {
        let params = first_weights(&recipe)?;
        let first = &recipe.stages[0];
        let position =
            Position { stage: first.name.clone(), n_steps: first.n_steps(), ..Position::default() };
        Ok(Trainer {
            cpu: Cpu::new(n_threads),
            pass: Pass::new(&recipe.config)?,
            grads: params.gradients(),
            optimizer: Optimizer::new(recipe.optimizer, &params),
            params,
            position,
            stage_idx: 0,
            stream: None,
            speed: None,
            recipe,
        })
    }

    /// Go on from `found`; `false` where it stands inside a stage that the recipe has not. Behind the last step of a
    /// stage of another recipe, the first stage of this one begins.
    #[must_use]
    pub fn restore(&mut self, found: Checkpoint) -> bool {
        let position = found.position;
        let is_complete = position.step >= position.n_steps;
        let stage_idx = self.recipe.stages.iter().position(|stage| stage.name == position.stage);
        let fits = (stage_idx.is_some() || is_complete) && self.optimizer.restore(found.state);
        if fits {
            self.params = found.params;
            self.stage_idx = stage_idx.unwrap_or(0);
            self.position = position;
            if stage_idx.is_none() {
                self.begin_stage();
            }
            self.stream = None;
        }
        fits
    }

    /// How far the run is.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The weights.
    pub fn params(&self) -> &Parameters {
        &self.params
    }

    /// The stage at work.
    pub fn stage(&self) -> &Stage {
        &self.recipe.stages[self.stage_idx.min(self.recipe.stages.len() - 1)]
    }

    /// Save what there is into the folder of a run.
    ///
    /// # Errors
    /// A full disk or a place that cannot be written; earlier checkpoints stay.
    pub fn save(&self, run: &Path) -> Result<PathBuf, CheckpointError> {
        checkpoint::save(run, &self.recipe, &self.params, &self.optimizer, &self.position)
    }

    /// Make ready for the next step, in the next stage where one is done; `false` when all are.
    ///
    /// # Errors
    /// A feed that cannot be opened.
    pub fn enter_stage(&mut self) -> Result<bool, RunError> {
        while self.position.step >= self.stage().n_steps() {
            if self.stage_idx + 1 >= self.recipe.stages.len() {
                return Ok(false);
            }
            self.stage_idx += 1;
            self.begin_stage();
        }
        self.position.n_steps = self.stage().n_steps();
        if self.stream.is_none() {
            let feed = feed::open(&self.stage().feed, self.draw(false), self.recipe.tokenizer.as_deref())?;
            self.stream = Some(Stream::new(feed, self.position.sequence));
        }
        Ok(true)
    }

    fn begin_stage(&mut self) {
        let (stage, n_steps) = (self.stage().name.clone(), self.stage().n_steps());
        self.position = Position { stage, n_steps, step: 0, sequence: 0, ..self.position.clone() };
        self.stream = None;
    }

    fn draw(&self, is_held_out: bool) -> Draw {
        let stage = self.stage();
        let part = stage.name.bytes().fold(0, |part, byte| Rng::mixed(part, u64::from(byte)));
        Draw {
            seed: Rng::mixed(self.recipe.seed, part),
            n_tokens: stage.sequence_tokens,
            vocab_size: self.recipe.config.vocab_size,
            is_held_out,
        }
    }

    /// One step of the stage that [`Trainer::enter_stage`] made ready.
    ///
    /// # Errors
    /// Numbers that ran away, before they reach the weights.
    ///
    /// # Panics
    /// Before [`Trainer::enter_stage`], or after it said that all stages are done.
    pub fn step(&mut self) -> Result<Record, RunError> {
        let started = Instant::now();
        let stage = self.stage().clone();
        let step = self.position.step;
        let options = Options { quant: stage.quant_at(step), seq_aux_alpha: stage.seq_aux_alpha };
        let stream = self.stream.as_mut().expect("`enter_stage` opened the stream");
        let sequences = stream.take(&self.cpu, stage.batch_tokens);
        self.position.sequence = stream.next_index();
        self.grads.zero();
        let mut stats = Stats::default();
        let mut n_tokens = 0;
        for batch in micro_batches(&sequences, stage.micro_tokens) {
            n_tokens += batch.ids.len() as u64;
            let (cpu, grads) = (&self.cpu, &mut self.grads);
            stats.merge(&self.pass.forward_backward(cpu, &self.params, &batch, &options, grads)?);
        }
        self.grads.scale((1.0 / stats.weight_sum.max(f64::MIN_POSITIVE)) as f32);
        let norms = self.finite_norms(&stats)?;
        let lr = stage.lr * schedule::factor(&stage, step, stage.n_steps());
        let n_clipped = self.update(&stage, lr, norms, &stats);
        self.position.step += 1;
        self.position.total_step += 1;
        self.position.tokens += n_tokens;
        let mut record = record(&stage, &stats, norms, lr);
        record.n_clipped = n_clipped;
        record.is_quantised = options.quant != perilune_model::train::Quant::Off;
        self.measure(&stage, &options, &mut record)?;
        let seconds = started.elapsed().as_secs_f64();
        self.position.seconds += seconds;
        self.tell(&mut record, n_tokens as f64 / seconds.max(1e-9));
        Ok(record)
    }

    fn finite_norms(&self, stats: &Stats) -> Result<Norms, RunError> {
        let norms = self.optimizer.norms(&self.cpu, &self.grads);
        let what = match (stats.loss_sum.is_finite(), (norms.muon + norms.adamw).is_finite()) {
            (false, _) => "loss",
            (true, false) => "gradient",
            (true, true) => return Ok(norms),
        };
        Err(RunError::Diverged { stage: self.position.stage.clone(), step: self.position.step + 1, what })
    }

    /// Optimizer, then QK-Clip by the logits of this step's passes, then the selection bias.
    fn update(&mut self, stage: &Stage, lr: f32, norms: Norms, stats: &Stats) -> Vec<usize> {
        let adamw_lr = stage.adamw_lr.map_or(lr, |rate| rate * (lr / stage.lr));
        let settings =
            Settings { lr, adamw_lr, weight_decay: stage.weight_decay, grad_clip: stage.grad_clip };
        self.optimizer.step(&self.cpu, &mut self.params, &self.grads, norms, settings);
        let config = &self.recipe.config;
        let n_clipped = if self.recipe.optimizer == OptimizerKind::MuonClip {
            qk_clip(config, &mut self.params, &stats.max_logit, stage.clip_tau)
        } else {
            vec![0; stats.max_logit.len()]
        };
        if stage.bias_rate > 0.0 {
            balance(&mut self.params, &stats.expert_load, stage.bias_rate);
        }
        n_clipped
    }

    /// Loss on held-out sequences, when it is time.
    fn measure(&mut self, stage: &Stage, options: &Options, record: &mut Record) -> Result<(), RunError> {
        let step = self.position.step;
        let is_due =
            step == stage.n_steps() || (stage.eval_every > 0 && step.is_multiple_of(stage.eval_every));
        if !is_due || stage.eval_sequences == 0 {
            return Ok(());
        }
        let (stats, turns) = self.held_out(stage.eval_sequences, options)?;
        if turns.n_turns > stage.eval_sequences {
            record.held_out_turns = Some(turns.n_exact as f64 / turns.n_turns as f64);
        }
        record.held_out_loss = Some(stats.loss_sum / stats.weight_sum.max(f64::MIN_POSITIVE));
        record.held_out_accuracy = Some(stats.n_correct as f64 / stats.n_weighted.max(1) as f64);
        Ok(())
    }

    /// Measures of the first `n_sequences` held-out sequences of the stage at work.
    ///
    /// # Errors
    /// A feed that cannot be opened.
    pub fn held_out(&mut self, n_sequences: u64, options: &Options) -> Result<(Stats, Turns), RunError> {
        let feed = feed::open(&self.stage().feed, self.draw(true), self.recipe.tokenizer.as_deref())?;
        let sequences: Vec<Sequence> = (0..n_sequences).map(|index| feed.sequence(index)).collect();
        let (mut stats, mut turns) = (Stats::default(), Turns::default());
        for batch in micro_batches(&sequences, self.stage().micro_tokens) {
            let found = self.pass.evaluate(&self.cpu, &self.params, &batch, options)?;
            stats.merge(&found.stats);
            turns = turns.and(Turns::count(&batch, &found.argmax));
        }
        Ok((stats, turns))
    }

    /// What the record says of time and place.
    fn tell(&mut self, record: &mut Record, speed: f64) {
        let mean = self.speed.map_or(speed, |mean| mean + SPEED_SHARE * (speed - mean));
        self.speed = Some(mean);
        let ahead: u64 = self.recipe.stages[self.stage_idx + 1..].iter().map(|stage| stage.tokens).sum();
        let stage = self.stage();
        let here = (stage.n_steps() - self.position.step) * stage.batch_tokens as u64;
        let position = &self.position;
        (record.step, record.n_steps) = (position.step, position.n_steps);
        (record.total_step, record.tokens) = (position.total_step, position.tokens);
        (record.seconds, record.tokens_per_s) = (position.seconds, speed);
        record.left_s = (here + ahead) as f64 / mean;
    }
}

/// The weights that a run of `recipe` begins with. Of a packed checkpoint, codes times scales: rounded once more they
/// are themselves, so a stage with `quant` sees at first what the file holds.
///
/// # Errors
/// A checkpoint that cannot be read, or is of another shape than the recipe's model.
fn first_weights(recipe: &Recipe) -> Result<Parameters, RunError> {
    match base(recipe)? {
        Some(found) => Ok(Parameters::from_checkpoint(&found)?),
        None => Ok(Parameters::random(&recipe.config, recipe.seed)),
    }
}

/// The checkpoint that `recipe` begins with, if one, opened and of the recipe's shape; no weight is read.
///
/// # Errors
/// A checkpoint that cannot be opened, or is of another shape than the recipe's model.
pub(crate) fn base(recipe: &Recipe) -> Result<Option<ModelFolder>, RunError> {
    let Some(from) = &recipe.from else { return Ok(None) };
    let found = ModelFolder::open(from)?;
    if shape(&found.config) != shape(&recipe.config) {
        return Err(RunError::OtherShape { from: from.clone(), recipe: recipe.place.clone() });
    }
    Ok(Some(found))
}

/// A config without what says nothing of the weights' shapes and the arithmetic on them.
fn shape(config: &Config) -> Config {
    Config { quantization: None, dtype: None, eos_token_ids: Vec::new(), ..config.clone() }
}

/// Sequences in order, packed into passes of at most `n_tokens`, or one sequence.
fn micro_batches(sequences: &[Sequence], n_tokens: usize) -> Vec<Batch> {
    let (mut batches, mut first, mut n) = (Vec::new(), 0, 0);
    for (i, sequence) in sequences.iter().enumerate() {
        let more = sequence.ids.len().saturating_sub(1);
        if n > 0 && n + more > n_tokens {
            batches.push(pack(&sequences[first..i]));
            (first, n) = (i, 0);
        }
        n += more;
    }
    batches.push(pack(&sequences[first..]));
    batches.retain(|batch| !batch.ids.is_empty());
    batches
}

fn record(stage: &Stage, stats: &Stats, norms: Norms, lr: f32) -> Record {
    let weight_sum = stats.weight_sum.max(f64::MIN_POSITIVE);
    let loads = || stats.expert_load.iter().filter(|load| !load.is_empty());
    let busiest = |load: &Vec<u64>| {
        let (max, sum) = (load.iter().max().copied().unwrap_or(0), load.iter().sum::<u64>());
        max as f64 * load.len() as f64 / sum.max(1) as f64
    };
    let largest = |heads: &Vec<f32>| heads.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    Record {
        stage: stage.name.clone(),
        loss: stats.loss_sum / weight_sum,
        accuracy: stats.n_correct as f64 / stats.n_weighted.max(1) as f64,
        lr,
        max_logit: stats.max_logit.iter().map(largest).collect(),
        load_max: loads().map(busiest).collect(),
        n_dead: loads().map(|load| load.iter().filter(|n| **n == 0).count()).collect(),
        grad_norm_muon: norms.muon,
        grad_norm_adamw: norms.adamw,
        seq_aux: stats.seq_aux / weight_sum,
        ..Record::default()
    }
}
