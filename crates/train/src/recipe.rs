//! A recipe: the model, the stages that make it, and what they cost, from one TOML file.
//!
//! Parsed at the door: an unknown key, a value out of range or a shape that cannot be trained is one sentence that
//! names key and file. What is left out takes the value of Kimi K2 where it has one.

use crate::feed;
use perilune_kernels::GROUP;
use perilune_model::config::{Config, ConfigError};
use perilune_model::train::Quant;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Largest recipe that is read, bytes.
const RECIPE_BYTES_MAX: u64 = 1 << 20;
/// Most tokens of a step.
const BATCH_TOKENS_MAX: usize = 1 << 26;
/// Most tokens of a stage.
const TOKENS_MAX: u64 = 1 << 50;
/// Most runs of a sweep.
const SWEEP_MAX: usize = 1 << 10;

/// A checked recipe.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The file it came from.
    pub place: PathBuf,
    /// Its text, kept beside the run.
    pub text: String,
    /// The model's config.
    pub config: Config,
    /// The text of the model's `config.json`.
    pub config_text: String,
    /// Folder with `tiktoken.model` and its sisters, for feeds of text and for the export.
    pub tokenizer: Option<PathBuf>,
    /// Folder of a published checkpoint of the same shape, whose weights the run begins with instead of random ones.
    pub from: Option<PathBuf>,
    /// Seed of first weights and of data.
    pub seed: u64,
    /// What changes the weights.
    pub optimizer: OptimizerKind,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    /// Variants to run instead of one run.
    pub sweep: Option<Sweep>,
    /// Tokens per second that were measured, by `--dry-run`'s account.
    pub tokens_per_s: Option<f64>,
}

/// What changes the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Muon on hidden matrices, AdamW on the rest, and QK-Clip (Kimi K2 report, section 2.1).
    MuonClip,
    /// Muon without QK-Clip, to compare.
    Muon,
    /// AdamW on everything, to compare.
    AdamW,
}

impl OptimizerKind {
    /// The name that a recipe gives it.
    pub fn name(self) -> &'static str {
        match self {
            OptimizerKind::MuonClip => "muonclip",
            OptimizerKind::Muon => "muon",
            OptimizerKind::AdamW => "adamw",
        }
    }
}

/// How weights are seen during a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuantChoice {
    /// As they are, `f32`.
    #[default]
    Off,
    /// As the export writes them, straight-through: INT4 experts, the rest BF16.
    Int4,
}

/// Form of the learning rate's decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayShape {
    /// A straight line.
    #[default]
    Linear,
    /// Half a cosine.
    Cosine,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name, by which a checkpoint finds it again.
    pub name: String,
    /// Where sequences come from ([`feed::NAMES`]).
    pub feed: String,
    /// Tokens to train on.
    pub tokens: u64,
    /// Tokens of a step, at least; whole sequences are taken until there are as many.
    pub batch_tokens: usize,
    /// Tokens that pass at once, at most, or one sequence: bounds the memory, changes no more than rounding.
    #[serde(default = "defaults::micro_tokens")]
    pub micro_tokens: usize,
    /// Tokens of a sequence, at most.
    pub sequence_tokens: usize,
    /// Learning rate of the constant part; Muon's updates are scaled to the size of AdamW's, so one rate serves both.
    pub lr: f32,
    /// Learning rate of AdamW's tensors, where it is another.
    pub adamw_lr: Option<f32>,
    /// Share of the steps that the learning rate rises in.
    #[serde(default = "defaults::warmup")]
    pub warmup: f32,
    /// Share of the steps that it falls in, at the end.
    #[serde(default)]
    pub decay: f32,
    /// What it falls to, as a share of `lr`.
    #[serde(default = "defaults::decay_to")]
    pub decay_to: f32,
    /// How it falls.
    #[serde(default)]
    pub decay_shape: DecayShape,
    /// Decoupled weight decay.
    #[serde(default = "defaults::weight_decay")]
    pub weight_decay: f32,
    /// Largest norm of the gradient of AdamW's tensors.
    #[serde(default = "defaults::grad_clip")]
    pub grad_clip: f32,
    /// Largest attention logit that QK-Clip lets stand.
    #[serde(default = "defaults::clip_tau")]
    pub clip_tau: f32,
    /// Step of the selection bias, per optimizer step; 0 freezes it.
    #[serde(default = "defaults::bias_rate")]
    pub bias_rate: f32,
    /// Factor of the sequence-wise balance loss.
    #[serde(default = "defaults::seq_aux_alpha")]
    pub seq_aux_alpha: f32,
    /// How weights are seen.
    #[serde(default)]
    pub quant: QuantChoice,
    /// Share of the steps that pass before `quant` is on.
    #[serde(default)]
    pub quant_after: f32,
    /// Steps between two measurements on held-out sequences; 0 for none but the last.
    #[serde(default = "defaults::eval_every")]
    pub eval_every: u64,
    /// Held-out sequences of a measurement; 0 for no measurement.
    #[serde(default = "defaults::eval_sequences")]
    pub eval_sequences: u64,
    /// Steps between two checkpoints.
    #[serde(default = "defaults::checkpoint_every")]
    pub checkpoint_every: u64,
}

mod defaults {
    pub(super) fn micro_tokens() -> usize {
        8_192
    }
    pub(super) fn warmup() -> f32 {
        0.02
    }
    pub(super) fn decay_to() -> f32 {
        0.1
    }
    pub(super) fn weight_decay() -> f32 {
        0.1
    }
    pub(super) fn grad_clip() -> f32 {
        1.0
    }
    pub(super) fn clip_tau() -> f32 {
        100.0
    }
    pub(super) fn bias_rate() -> f32 {
        0.001
    }
    pub(super) fn seq_aux_alpha() -> f32 {
        1e-4
    }
    pub(super) fn eval_every() -> u64 {
        50
    }
    pub(super) fn eval_sequences() -> u64 {
        16
    }
    pub(super) fn checkpoint_every() -> u64 {
        50
    }
}

/// Variants of a recipe of one stage: every optimizer by every rate and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Seeds, each for every variant.
    pub seeds: Vec<u64>,
    /// The variants.
    pub variants: Vec<Variant>,
}

/// An optimizer and what it is tried with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// The optimizer.
    pub optimizer: OptimizerKind,
    /// Its learning rates.
    pub lrs: Vec<f32>,
    /// Tokens of its complete schedule, as a share of the stage's `tokens`.
    #[serde(default = "one")]
    pub tokens_share: f64,
    /// Its clip threshold, where it is another than the stage's.
    pub clip_tau: Option<f32>,
}

fn one() -> f64 {
    1.0
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: PathBuf,
    tokenizer: Option<PathBuf>,
    from: Option<PathBuf>,
    #[serde(default)]
    seed: u64,
    #[serde(default = "muonclip")]
    optimizer: OptimizerKind,
    tokens_per_s: Option<f64>,
    #[serde(rename = "stage")]
    stages: Vec<Stage>,
    sweep: Option<Sweep>,
}

fn muonclip() -> OptimizerKind {
    OptimizerKind::MuonClip
}

/// Why a recipe cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("{place}: cannot be read ({cause})")]
    Read {
        /// The file.
        place: String,
        /// Why.
        cause: String,
    },
    /// Not a recipe: syntax, an unknown key, a missing one, a value of another type.
    #[error("{place}, line {line}: {what}")]
    Parse {
        /// The file.
        place: String,
        /// Where.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A value that no run can have.
    #[error("{place}: `{key}` is {found}; expected {expected}")]
    Value {
        /// The file.
        place: String,
        /// The key, with its stage.
        key: String,
        /// What stands there.
        found: String,
        /// What should.
        expected: String,
    },
    /// The model's config cannot be used.
    #[error("{place}: `model` names a config that cannot be used: {cause}")]
    Model {
        /// The recipe.
        place: String,
        /// What is wrong with the config.
        #[source]
        cause: Box<ConfigError>,
    },
}

impl Recipe {
    /// Read and check `path`; paths in it are taken from its own folder.
    ///
    /// # Errors
    /// One sentence that names file, key and what was expected.
    pub fn from_file(path: &Path) -> Result<Recipe, RecipeError> {
        let place = path.display().to_string();
        let read = |cause: String| RecipeError::Read { place: place.clone(), cause };
        let n_bytes = std::fs::metadata(path).map_err(|e| read(e.to_string()))?.len();
        if n_bytes > RECIPE_BYTES_MAX {
            return Err(read(format!("it has {n_bytes} bytes, and a recipe at most {RECIPE_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| read(e.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|error| RecipeError::Parse {
            place: place.clone(),
            line: 1 + error.span().map_or(0, |span| text[..span.start].matches('\n').count()),
            what: error.message().replace('\n', " "),
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let model = folder.join(&file.model);
        let config = Config::from_file(&model)
            .map_err(|cause| RecipeError::Model { place: place.clone(), cause: Box::new(cause) })?;
        let config_text = std::fs::read_to_string(&model).map_err(|e| read(e.to_string()))?;
        let recipe = Recipe {
            place: path.to_owned(),
            config,
            config_text,
            tokenizer: file.tokenizer.map(|tokenizer| folder.join(tokenizer)),
            from: file.from.map(|from| folder.join(from)),
            seed: file.seed,
            optimizer: file.optimizer,
            stages: file.stages,
            sweep: file.sweep,
            tokens_per_s: file.tokens_per_s,
            text,
        };
        recipe.check()?;
        Ok(recipe)
    }

    fn check(&self) -> Result<(), RecipeError> {
        let wrong = |key: &str, found: String, expected: &str| RecipeError::Value {
            place: self.place.display().to_string(),
            key: key.to_owned(),
            found,
            expected: expected.to_owned(),
        };
        if self.stages.is_empty() {
            return Err(wrong("stage", "an empty list".into(), "at least one [[stage]]"));
        }
        for (i, stage) in self.stages.iter().enumerate() {
            stage.check(&self.config).map_err(|(key, found, expected)| {
                wrong(&format!("stage.{}.{key}", stage.name), found, &expected)
            })?;
            if self.stages[..i].iter().any(|other| other.name == stage.name) {
                return Err(wrong("stage.name", format!("`{}` twice", stage.name), "names of their own"));
            }
        }
        if self.tokens_per_s.is_some_and(|speed| !(speed > 0.0 && speed.is_finite())) {
            return Err(wrong("tokens_per_s", format!("{:?}", self.tokens_per_s), "a speed above 0"));
        }
        match &self.sweep {
            Some(sweep) => sweep
                .check(self.stages.len())
                .map_err(|(key, found, expected)| wrong(&format!("sweep.{key}"), found, &expected)),
            None => Ok(()),
        }
    }

    /// The runs that the recipe asks for, each with a name: itself, or the variants of its sweep.
    pub fn runs(&self) -> Vec<(Option<String>, Recipe)> {
        let Some(sweep) = &self.sweep else { return vec![(None, self.clone())] };
        let mut runs = Vec::new();
        for variant in &sweep.variants {
            for &lr in &variant.lrs {
                for &seed in &sweep.seeds {
                    let mut recipe =
                        Recipe { sweep: None, seed, optimizer: variant.optimizer, ..self.clone() };
                    for stage in &mut recipe.stages {
                        stage.lr = lr;
                        stage.tokens = (stage.tokens as f64 * variant.tokens_share).round() as u64;
                        stage.clip_tau = variant.clip_tau.unwrap_or(stage.clip_tau);
                    }
                    let name = variant.optimizer.name();
                    runs.push((Some(format!("{name}-lr{lr}-seed{seed}")), recipe));
                }
            }
        }
        runs
    }
}

/// Key, what stands there, what was expected.
type Wrong = (&'static str, String, String);

fn within<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), Wrong> {
    if range.contains(&value) {
        return Ok(());
    }
    Err((key, value.to_string(), format!("a number from {} to {}", range.start(), range.end())))
}

impl Stage {
    /// Optimizer steps of the whole stage.
    pub fn n_steps(&self) -> u64 {
        self.tokens.div_ceil(self.batch_tokens as u64)
    }

    /// How the weights are seen in step `step` of the stage, counted from 0.
    pub fn quant_at(&self, step: u64) -> Quant {
        let is_on = step >= (self.n_steps() as f64 * f64::from(self.quant_after)).round() as u64;
        if self.quant == QuantChoice::Int4 && is_on { Quant::Int4Experts } else { Quant::Off }
    }

    fn check(&self, config: &Config) -> Result<(), Wrong> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(is_plain) {
            return Err(("name", format!("`{}`", self.name), "lower-case letters, digits and `-`".into()));
        }
        if !feed::NAMES.contains(&self.feed.as_str()) {
            return Err(("feed", format!("`{}`", self.feed), format!("one of {}", feed::NAMES.join(", "))));
        }
        within("tokens", self.tokens, 1..=TOKENS_MAX)?;
        within("batch_tokens", self.batch_tokens, 1..=BATCH_TOKENS_MAX)?;
        within("micro_tokens", self.micro_tokens, 1..=BATCH_TOKENS_MAX)?;
        within("sequence_tokens", self.sequence_tokens, 2..=config.max_position_embeddings)?;
        within("lr", self.lr, f32::MIN_POSITIVE..=1.0)?;
        within("adamw_lr", self.adamw_lr.unwrap_or(self.lr), f32::MIN_POSITIVE..=1.0)?;
        within("warmup", self.warmup, 0.0..=1.0)?;
        within("decay", self.decay, 0.0..=1.0 - self.warmup)?;
        within("decay_to", self.decay_to, 0.0..=1.0)?;
        within("weight_decay", self.weight_decay, 0.0..=1.0)?;
        within("grad_clip", self.grad_clip, f32::MIN_POSITIVE..=1e6)?;
        within("clip_tau", self.clip_tau, 1e-3..=1e6)?;
        within("bias_rate", self.bias_rate, 0.0..=1.0)?;
        within("seq_aux_alpha", self.seq_aux_alpha, 0.0..=1.0)?;
        within("quant_after", self.quant_after, 0.0..=1.0)?;
        within("checkpoint_every", self.checkpoint_every, 1..=u64::MAX)?;
        if self.quant == QuantChoice::Int4 {
            let widths = [
                ("hidden_size", config.hidden_size),
                ("moe_intermediate_size", config.moe_intermediate_size),
            ];
            if let Some((name, width)) = widths.into_iter().find(|(_, width)| width % GROUP != 0) {
                let expected = format!("off, or a model whose {name} ({width}) is a multiple of {GROUP}");
                return Err(("quant", "int4".into(), expected));
            }
        }
        Ok(())
    }
}

impl Sweep {
    fn check(&self, n_stages: usize) -> Result<(), Wrong> {
        if n_stages != 1 {
            return Err((
                "variants",
                format!("set beside {n_stages} stages"),
                "one stage in the recipe".into(),
            ));
        }
        let n_runs = self.seeds.len() * self.variants.iter().map(|v| v.lrs.len()).sum::<usize>();
        within("variants", n_runs, 1..=SWEEP_MAX)?;
        for variant in &self.variants {
            variant.lrs.iter().try_for_each(|lr| within("lrs", *lr, f32::MIN_POSITIVE..=1.0))?;
            within("tokens_share", variant.tokens_share, 1e-3..=1.0)?;
            within("clip_tau", variant.clip_tau.unwrap_or(1.0), 1e-3..=1e6)?;
        }
        Ok(())
    }
}
