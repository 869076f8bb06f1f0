//! A run: the stages of a recipe, leg by leg, each from the checkpoint that the one before it left.
//!
//! Reading order: the step in [`trainer`], the stream it draws from in [`stream`], the leg here.

pub mod stream;
pub mod trainer;

use crate::checkpoint::{self, CheckpointError};
use crate::export::{TOKENIZER, WORD_FILES};
use crate::feed::FeedError;
use crate::log::{Log, Record};
use crate::recipe::Recipe;
use perilune_model::train::TrainError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
pub use trainer::Trainer;

/// The recipe's name in the folder of a run.
pub const RECIPE: &str = "recipe.toml";

/// Who watches a leg.
pub trait Watcher {
    /// A step is done.
    fn step(&mut self, record: &Record);
    /// Something that a person should read happened.
    fn note(&mut self, text: &str);
    /// Whether to finish the step and save.
    fn stopped(&self) -> bool;
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Leg {
    /// Folder of the run.
    pub out: PathBuf,
    /// Whether to go on from what the folder holds.
    pub resume: bool,
    /// Longest time of the leg.
    pub limit: Option<Duration>,
    /// Threads.
    pub n_threads: usize,
}

/// How a leg ended; whatever it did is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All stages are done.
    Complete,
    /// Its time is over.
    TimeOver,
    /// Somebody asked it to stop.
    Stopped,
}

/// Why a leg could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The folder holds a run already.
    #[error(
        "{out} holds a run already, saved at step {step}: add --resume to go on with it, or choose another --out"
    )]
    Taken {
        /// The folder.
        out: String,
        /// Steps it has done.
        step: u64,
    },
    /// The checkpoint is in the middle of a stage that the recipe has not.
    #[error(
        "{out} stands in the middle of the stage `{stage}`, which {recipe} does not have; finish that stage with its own recipe first"
    )]
    OtherStage {
        /// The folder.
        out: String,
        /// Its stage.
        stage: String,
        /// The recipe.
        recipe: String,
    },
    /// Numbers ran away.
    #[error(
        "at step {step} of stage `{stage}` the {what} is no longer finite: lower `lr` and go on with --resume from the last checkpoint"
    )]
    Diverged {
        /// The stage.
        stage: String,
        /// The step.
        step: u64,
        /// What is not finite.
        what: &'static str,
    },
    /// The checkpoint to begin with has other weights than the recipe's model.
    #[error(
        "{} is of another shape than the model of {}: give `from` a checkpoint of the same config, or `model` its config.json", .from.display(), .recipe.display()
    )]
    OtherShape {
        /// The checkpoint's folder.
        from: PathBuf,
        /// The recipe.
        recipe: PathBuf,
    },
    /// The checkpoint to begin with cannot be read.
    #[error("the recipe's `from` cannot be read: {0}")]
    First(#[from] perilune_model::checkpoint::CheckpointError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The folder cannot be written.
    #[error("{place}: {cause}")]
    Folder {
        /// The file or folder.
        place: String,
        /// Why.
        cause: io::Error,
    },
    /// The stream cannot be drawn.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// The pass cannot run.
    #[error(transparent)]
    Pass(#[from] TrainError),
}

/// Run one leg of `recipe` (one of [`Recipe::runs`]).
///
/// # Errors
/// One sentence; what was saved before stays.
pub fn run(recipe: &Recipe, leg: &Leg, watcher: &mut dyn Watcher) -> Result<Ended, RunError> {
    let started = Instant::now();
    let mut trainer = open(recipe, leg, watcher)?;
    let place = |cause| RunError::Folder { place: leg.out.display().to_string(), cause };
    let mut log = Log::open(&leg.out, trainer.position().total_step).map_err(place)?;
    let mut saved = trainer.position().total_step;
    while trainer.enter_stage()? {
        let record = trainer.step()?;
        let every = trainer.stage().checkpoint_every;
        let is_due = record.step.is_multiple_of(every) || record.step == record.n_steps;
        if let Err(cause) = log.add(&record) {
            watcher.note(&format!("{} misses a line ({cause})", log.path().display()));
        }
        watcher.step(&record);
        let ended = if watcher.stopped() {
            Some(Ended::Stopped)
        } else if leg.limit.is_some_and(|limit| started.elapsed() >= limit) {
            Some(Ended::TimeOver)
        } else {
            None
        };
        if is_due || ended.is_some() {
            match trainer.save(&leg.out) {
                Ok(_) => saved = record.total_step,
                Err(error) if ended.is_none() => watcher.note(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(ended) = ended {
            return Ok(ended);
        }
    }
    if saved < trainer.position().total_step {
        trainer.save(&leg.out)?;
    }
    Ok(Ended::Complete)
}

/// Run a leg of every run that the recipe asks for ([`Recipe::runs`]), in folders of their own below the leg's where
/// there are several; those that are complete are passed over.
///
/// # Errors
/// As [`run`].
pub fn run_all(recipe: &Recipe, leg: &Leg, watcher: &mut dyn Watcher) -> Result<Ended, RunError> {
    let started = Instant::now();
    for (name, recipe) in recipe.runs() {
        let out = name.as_ref().map_or(leg.out.clone(), |name| leg.out.join(name));
        let limit = leg.limit.map(|limit| limit.saturating_sub(started.elapsed()));
        if let Some(name) = &name {
            watcher.note(&format!("run {name}"));
        }
        let resume = leg.resume || (name.is_some() && is_complete(&recipe, &out));
        let ended = run(&recipe, &Leg { out, limit, resume, ..leg.clone() }, watcher)?;
        if ended != Ended::Complete {
            return Ok(ended);
        }
    }
    Ok(Ended::Complete)
}

/// Whether the folder's last checkpoint stands behind the last step of the recipe.
fn is_complete(recipe: &Recipe, out: &Path) -> bool {
    let Some(path) = checkpoint::list(out).pop() else { return false };
    let found = checkpoint::load(&path, &recipe.config, &recipe.config_text, Some(recipe.optimizer));
    let last = recipe.stages.last().map(|stage| stage.name.as_str());
    found.is_ok_and(|c| Some(c.position.stage.as_str()) == last && c.position.step >= c.position.n_steps)
}

/// A trainer at the start of the recipe, or where the folder's last checkpoint stands.
fn open(recipe: &Recipe, leg: &Leg, watcher: &mut dyn Watcher) -> Result<Trainer, RunError> {
    let place = |path: &Path| {
        let place = path.display().to_string();
        move |cause| RunError::Folder { place, cause }
    };
    std::fs::create_dir_all(&leg.out).map_err(place(&leg.out))?;
    let mut trainer = Trainer::new(recipe.clone(), leg.n_threads)?;
    match checkpoint::list(&leg.out).pop() {
        Some(path) => {
            let found = checkpoint::load(&path, &recipe.config, &recipe.config_text, Some(recipe.optimizer))?;
            let out = leg.out.display().to_string();
            if !leg.resume {
                return Err(RunError::Taken { out, step: found.position.total_step });
            }
            let stage = found.position.stage.clone();
            let position = format!("goes on at step {} of stage `{stage}`", found.position.step + 1);
            if !trainer.restore(found) {
                let recipe = recipe.place.display().to_string();
                return Err(RunError::OtherStage { out, stage, recipe });
            }
            watcher.note(&format!("{} {position}", path.display()));
        }
        None if leg.resume => {
            watcher.note(&format!("{} holds no checkpoint: starts anew", leg.out.display()))
        }
        None => {}
    }
    let copy = leg.out.join(RECIPE);
    checkpoint::write_whole(&copy, recipe.text.as_bytes()).map_err(place(&copy))?;
    if let Some(tokenizer) = &recipe.tokenizer {
        for name in WORD_FILES.into_iter().filter(|name| tokenizer.join(name).is_file()) {
            let (from, to) = (tokenizer.join(name), leg.out.join(TOKENIZER).join(name));
            let copied = std::fs::read(from).and_then(|bytes| checkpoint::write_whole(&to, &bytes));
            copied.map_err(place(&to))?;
        }
    }
    Ok(trainer)
}
