//! What a run can go on from: weights, optimizer and place in the recipe, in one safetensors file of F32 tensors, the
//! config and the place in its metadata.
//!
//! A file appears under its name only when it is whole and on the disk; until then the one before it stays. The last
//! [`KEPT`] are kept.

use crate::optim::{Optimizer, State};
use crate::recipe::{OptimizerKind, Recipe};
use perilune_model::config::Config;
use perilune_model::train::{ParamSpec, Parameters};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Checkpoints that stay; older ones are removed once a newer one is whole.
pub const KEPT: usize = 2;
/// Folder of a run's checkpoints, in the run's folder.
pub const FOLDER: &str = "checkpoints";
/// What the files' metadata calls itself.
const FORMAT: &str = "perilune-train-1";
const FIRST: &str = "optimizer.first";
const SECOND: &str = "optimizer.second";

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Name of the stage at work.
    pub stage: String,
    /// Steps of that stage that are done.
    pub step: u64,
    /// Steps that it has.
    pub n_steps: u64,
    /// Index of the next sequence of its feed.
    pub sequence: u64,
    /// Steps done in all stages.
    pub total_step: u64,
    /// Tokens seen in all stages.
    pub tokens: u64,
    /// Seconds spent in all legs.
    pub seconds: f64,
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The disk is full, or the place cannot be written.
    #[error("cannot save {path} ({cause}){}", kept(.previous))]
    Write {
        /// The file that should have been.
        path: String,
        /// Why.
        cause: io::Error,
        /// The checkpoint before it, which is kept.
        previous: Option<PathBuf>,
    },
    /// The file cannot be read, or is none of ours.
    #[error("{path} is not a whole training checkpoint ({cause}); remove it to go on from the one before")]
    Read {
        /// The file.
        path: String,
        /// Why.
        cause: String,
    },
    /// Weights of another model.
    #[error(
        "{path} is of another model: its {difference}; go on with the recipe that made it, or choose another --out"
    )]
    OtherConfig {
        /// The file.
        path: String,
        /// The first key that differs, with both values.
        difference: String,
    },
    /// Another optimizer's memory.
    #[error(
        "{path} was made by the optimizer `{found}` and the recipe says `{expected}`; go on with the recipe that made it, or choose another --out"
    )]
    OtherOptimizer {
        /// The file.
        path: String,
        /// Name of its optimizer.
        found: String,
        /// Name of the recipe's.
        expected: &'static str,
    },
}

fn kept(previous: &Option<PathBuf>) -> String {
    match previous {
        Some(path) => format!("; {} is kept: make room and go on from it", path.display()),
        None => "; make room, or choose another --out".to_owned(),
    }
}

/// A checkpoint in memory.
pub struct Checkpoint {
    /// The weights.
    pub params: Parameters,
    /// The optimizer's memory.
    pub state: State,
    /// The place in the recipe.
    pub position: Position,
}

/// Paths of the whole checkpoints of the run in the folder `run`, oldest first; none where it cannot be read.
pub fn list(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(run.join(FOLDER)) else { return Vec::new() };
    let is_ours = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_ours).collect();
    found.sort();
    found
}

/// Save what the run in the folder `run` has, as a file that is named by its [`Position::total_step`]; older checkpoints
/// than the last [`KEPT`] are removed.
///
/// # Errors
/// [`CheckpointError::Write`]: a full disk or a place that cannot be written; then every earlier checkpoint is still
/// there.
pub fn save(
    run: &Path,
    recipe: &Recipe,
    params: &Parameters,
    optimizer: &Optimizer,
    position: &Position,
) -> Result<PathBuf, CheckpointError> {
    let path = run.join(FOLDER).join(format!("step-{:08}.safetensors", position.total_step));
    let fail =
        |cause| CheckpointError::Write { path: path.display().to_string(), cause, previous: list(run).pop() };
    let bytes = encode(recipe, params, optimizer.state(), position).map_err(|e| fail(io::Error::other(e)))?;
    write_whole(&path, &bytes).map_err(fail)?;
    let all = list(run);
    for old in &all[..all.len().saturating_sub(KEPT)] {
        // An old checkpoint that cannot be removed costs its room, nothing else.
        let _ = fs::remove_file(old);
    }
    Ok(path)
}

/// Write `bytes` so that `path` holds all of them or what it held before; its folder is made where it is missing.
///
/// # Errors
/// The system's; nothing is left behind.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let partial = path.with_extension("partial");
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let placed =
        written.and_then(|()| fs::rename(&partial, path)).and_then(|()| File::open(folder)?.sync_all());
    if placed.is_err() {
        // The partial file may not even exist; the error that counts is the first.
        let _ = fs::remove_file(&partial);
    }
    placed
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn shape(spec: &ParamSpec) -> Vec<usize> {
    if spec.rows == 1 && !spec.name.ends_with("_proj.weight") {
        vec![spec.cols]
    } else {
        vec![spec.rows, spec.cols]
    }
}

fn encode(
    recipe: &Recipe,
    params: &Parameters,
    state: &State,
    position: &Position,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let [weights, first, second] = [params.flat(), &state.first, &state.second].map(le_bytes);
    let mut views = Vec::new();
    for spec in params.specs() {
        let bytes = &weights[spec.range.start * 4..spec.range.end * 4];
        views.push((spec.name.clone(), TensorView::new(Dtype::F32, shape(spec), bytes)?));
    }
    views.push((FIRST.to_owned(), TensorView::new(Dtype::F32, vec![first.len() / 4], &first)?));
    views.push((SECOND.to_owned(), TensorView::new(Dtype::F32, vec![second.len() / 4], &second)?));
    let position = serde_json::to_string(position).unwrap_or_default();
    let metadata = HashMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("config".to_owned(), recipe.config_text.clone()),
        ("optimizer".to_owned(), recipe.optimizer.name().to_owned()),
        ("optimizer_steps".to_owned(), state.n_steps.to_string()),
        ("position".to_owned(), position),
    ]);
    serialize(views, Some(metadata))
}

/// Read `path`, which must be of the model `config` (whose file says `config_text`) and, where one is given, of the
/// optimizer.
///
/// # Errors
/// [`CheckpointError::Read`] for a file that is not whole, [`CheckpointError::OtherConfig`] for another model's,
/// [`CheckpointError::OtherOptimizer`] for another optimizer's.
pub fn load(
    path: &Path,
    config: &Config,
    config_text: &str,
    optimizer: Option<OptimizerKind>,
) -> Result<Checkpoint, CheckpointError> {
    let place = path.display().to_string();
    let bad = |cause: String| CheckpointError::Read { path: place.clone(), cause };
    let bytes = fs::read(path).map_err(|e| bad(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
    let metadata = header.metadata().as_ref();
    let said = |key: &str| {
        metadata.and_then(|m| m.get(key)).cloned().ok_or_else(|| bad(format!("its metadata lacks `{key}`")))
    };
    if said("format")? != FORMAT {
        return Err(bad(format!("its format is `{}`, not `{FORMAT}`", said("format")?)));
    }
    let stored = said("config")?;
    if Config::from_json(&stored).ok().as_ref() != Some(config) {
        let difference = difference(&stored, config_text);
        return Err(CheckpointError::OtherConfig { path: place, difference });
    }
    let found = said("optimizer")?;
    if let Some(kind) = optimizer.filter(|kind| kind.name() != found) {
        return Err(CheckpointError::OtherOptimizer { path: place, found, expected: kind.name() });
    }
    let floats = |name: &str, n: Option<usize>| {
        let view = file.tensor(name).map_err(|e| bad(e.to_string()))?;
        let words = view.data().as_chunks::<4>().0;
        if view.dtype() != Dtype::F32 || n.is_some_and(|n| n != words.len()) {
            return Err(bad(format!("`{name}` has another dtype or size than the model's")));
        }
        Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect::<Vec<f32>>())
    };
    let mut params = Parameters::zeros(config);
    for i in 0..params.specs().len() {
        let (name, n) = (params.specs()[i].name.clone(), params.specs()[i].range.len());
        params.tensor_mut(i).copy_from_slice(&floats(&name, Some(n))?);
    }
    let n_steps =
        said("optimizer_steps")?.parse().map_err(|_| bad("`optimizer_steps` is no number".into()))?;
    let state =
        State { n_steps, first: floats(FIRST, Some(params.flat().len()))?, second: floats(SECOND, None)? };
    let position = serde_json::from_str(&said("position")?).map_err(|e| bad(e.to_string()))?;
    Ok(Checkpoint { params, state, position })
}

/// The text of the model's `config.json` that a checkpoint carries.
///
/// # Errors
/// [`CheckpointError::Read`]: a file that is not whole.
pub fn config_text(path: &Path) -> Result<String, CheckpointError> {
    let bad = |cause: String| CheckpointError::Read { path: path.display().to_string(), cause };
    let bytes = fs::read(path).map_err(|e| bad(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
    let text = header.metadata().as_ref().and_then(|metadata| metadata.get("config")).cloned();
    text.ok_or_else(|| bad("its metadata lacks `config`".into()))
}

/// The first key in which two configs differ, in words.
fn difference(stored: &str, wanted: &str) -> String {
    let read =
        |text| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).unwrap_or_default();
    let (stored, wanted) = (read(stored), read(wanted));
    let shown = |value: Option<&serde_json::Value>| value.map_or("absent".to_owned(), ToString::to_string);
    let key = wanted.keys().chain(stored.keys()).find(|key| stored.get(*key) != wanted.get(*key));
    match key {
        Some(key) => {
            format!("`{key}` is {} and the recipe's {}", shown(stored.get(key)), shown(wanted.get(key)))
        }
        None => "config differs".to_owned(),
    }
}
