//! Synthetic checkpoints: random weights in the published layout, at any size.
//!
//! Each tensor's bytes depend on the seed, its name and its shape alone, so the result is the same for any number of
//! threads, any shard size and any number of layers. The scale of each matrix keeps activations near unit variance:
//! deviation `1/sqrt(fan-in)`, norms near 1, embedding of deviation 1. Files are written as `*.partial` and renamed
//! at the end, `config.json` last: what was interrupted does not open.

mod files;
mod values;

use crate::checkpoint::{CONFIG_FILE, INDEX_FILE, SINGLE_FILE};
use crate::config::{Config, ConfigError, ConfigProblem};
use crate::layout::{self, TensorSpec};
use crate::watch::Watch;
use files::Folder;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The rank file's name beside a checkpoint.
pub const TOKENIZER_FILE: &str = "tiktoken.model";

/// Shard size where the caller names none, bytes: about that of the original (594 GB in 62 files).
pub const SHARD_BYTES: u64 = 9_600_000_000;

/// What to write.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of layers, instead of the config's.
    pub n_layers: usize,
    /// Vocabulary size, instead of the config's.
    pub vocab_size: Option<usize>,
    /// Seed of every value.
    pub seed: u64,
    /// Bytes of tensors in a shard at most, unless one tensor is larger.
    pub shard_bytes: u64,
    /// Rank file to copy beside the weights.
    pub tokenizer: Option<PathBuf>,
    /// Threads that fill and write, at least 1.
    pub n_threads: usize,
}

/// Why no checkpoint was written. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// The config, or the config with the overrides.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder is in use.
    #[error("{dir}: holds `{file}`; expected a folder that is new, empty or holds only an interrupted `random`", dir = dir.display())]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
        /// A file in it.
        file: String,
    },
    /// A file cannot be read.
    #[error("{path}: cannot be read ({source})", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file cannot be written: the disk is full, say.
    #[error("{path}: cannot be written ({source}); the partial files were removed", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The watcher said stop.
    #[error("{dir}: interrupted; the partial files were removed", dir = dir.display())]
    Interrupted {
        /// The folder.
        dir: PathBuf,
    },
}

/// A checkpoint about to be written: every file's content is fixed, none is on disk yet.
#[derive(Debug)]
pub struct Blueprint {
    config: Config,
    config_text: String,
    shards: Vec<ShardPlan>,
    options: Options,
}

/// One file of tensors.
#[derive(Debug)]
struct ShardPlan {
    name: String,
    /// Header length and header.
    head: Vec<u8>,
    /// Tensors in file order, with the byte of the file each starts at.
    tensors: Vec<(TensorSpec, u64)>,
    n_bytes: u64,
}

impl Blueprint {
    /// Plan the checkpoint that `config_text` (the text of a `config.json`) and `options` describe.
    ///
    /// # Errors
    /// [`ConfigError`] when the config, as it is or with the overrides put in, is not one that runs.
    pub fn new(config_text: &str, options: Options) -> Result<Blueprint, ConfigError> {
        let config_text = override_config(config_text, &options)?;
        let config = Config::from_json(&config_text)?;
        let groups = group_by_size(layout::expected(&config), options.shard_bytes);
        let n_shards = groups.len();
        let plan = |(i, tensors)| ShardPlan::new(shard_name(i, n_shards), tensors);
        let shards = groups.into_iter().enumerate().map(plan).collect();
        Ok(Blueprint { config, config_text, shards, options })
    }

    /// The config that will be written.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Bytes of all shards, headers included.
    pub fn n_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.n_bytes).sum()
    }

    /// Number of tensor files.
    pub fn n_shards(&self) -> usize {
        self.shards.len()
    }

    /// Number of tensors.
    pub fn n_tensors(&self) -> usize {
        self.shards.iter().map(|shard| shard.tensors.len()).sum()
    }

    /// Write it into the folder `out`, which is made if need be.
    ///
    /// # Errors
    /// [`SynthError`] when the rank file cannot be read, the folder is in use, a file cannot be written, or the
    /// watcher stops it; then nothing of it is left.
    pub fn write(&self, out: &Path, watch: &dyn Watch) -> Result<(), SynthError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| SynthError::Read { path: path.clone(), source })
        };
        let ranks = self.options.tokenizer.as_ref().map(read).transpose()?;
        let mut folder = Folder::claim(out, watch)?;
        for shard in &self.shards {
            folder.write_shard(shard, self.options.seed, self.options.n_threads)?;
        }
        if let Some(ranks) = ranks {
            folder.write_file(TOKENIZER_FILE, &ranks)?;
        }
        if self.shards.len() > 1 {
            folder.write_file(INDEX_FILE, self.index().as_bytes())?;
        }
        folder.write_file(CONFIG_FILE, self.config_text.as_bytes())?;
        folder.finish()
    }

    /// The text of `model.safetensors.index.json`.
    fn index(&self) -> String {
        let weight_map: BTreeMap<&str, &str> = self
            .shards
            .iter()
            .flat_map(|shard| shard.tensors.iter().map(|(spec, _)| (spec.name.as_str(), shard.name.as_str())))
            .collect();
        let total_size: u64 =
            self.shards.iter().flat_map(|shard| &shard.tensors).map(|(spec, _)| spec.n_bytes()).sum();
        pretty(&json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map }))
    }
}

impl ShardPlan {
    fn new(name: String, mut tensors: Vec<TensorSpec>) -> ShardPlan {
        // Widest elements first, as the library's own writer orders them: then every tensor is aligned.
        tensors.sort_by(|a, b| b.dtypes[0].cmp(&a.dtypes[0]).then_with(|| a.name.cmp(&b.name)));
        let mut end = 0usize;
        let place = |spec: &TensorSpec| {
            let start = end;
            end += spec.n_bytes() as usize;
            let info =
                TensorInfo { dtype: spec.dtypes[0], shape: spec.shape.clone(), data_offsets: (start, end) };
            (spec.name.clone(), info)
        };
        let infos: Vec<_> = tensors.iter().map(place).collect();
        let starts: Vec<usize> = infos.iter().map(|(_, info)| info.data_offsets.0).collect();
        let head = head(infos);
        let data_start = head.len() as u64;
        let tensors =
            tensors.into_iter().zip(starts).map(|(spec, start)| (spec, data_start + start as u64)).collect();
        ShardPlan { name, head, tensors, n_bytes: data_start + end as u64 }
    }
}

/// Header length and header of a safetensors file, padded so that the data starts at a multiple of eight.
fn head(infos: Vec<(String, TensorInfo)>) -> Vec<u8> {
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let metadata = Metadata::new(Some(format), infos).expect("the offsets were made one after the other");
    let mut header = serde_json::to_vec(&metadata).expect("names, numbers and dtypes are JSON");
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut head = (header.len() as u64).to_le_bytes().to_vec();
    head.append(&mut header);
    head
}

/// The published names: five digits of the shard, six of their number; one file alone has neither.
fn shard_name(shard_idx: usize, n_shards: usize) -> String {
    if n_shards == 1 {
        return SINGLE_FILE.to_owned();
    }
    format!("model-{:05}-of-{n_shards:06}.safetensors", shard_idx + 1)
}

/// Fill shards one after the other, each up to `shard_bytes`.
fn group_by_size(specs: impl Iterator<Item = TensorSpec>, shard_bytes: u64) -> Vec<Vec<TensorSpec>> {
    let mut groups: Vec<Vec<TensorSpec>> = Vec::new();
    let mut room = 0;
    for spec in specs {
        let n_bytes = spec.n_bytes();
        if n_bytes > room || groups.is_empty() {
            groups.push(Vec::new());
            room = shard_bytes.max(n_bytes);
        }
        room -= n_bytes;
        groups.last_mut().expect("one was pushed above").push(spec);
    }
    groups
}

/// The config's text with the overrides put in; every other key stays as it is.
fn override_config(text: &str, options: &Options) -> Result<String, ConfigError> {
    // Whatever else is wrong with the text is said of the text as it is.
    Config::from_json(text)?;
    let not_json =
        |detail: String| ConfigError { place: CONFIG_FILE.into(), problem: ConfigProblem::Json(detail) };
    let mut top: Map<String, Value> = serde_json::from_str(text).map_err(|e| not_json(e.to_string()))?;
    let language = match top.get_mut("text_config") {
        Some(Value::Object(inner)) => inner,
        _ => &mut top,
    };
    language.insert("num_hidden_layers".into(), options.n_layers.into());
    if let Some(vocab_size) = options.vocab_size {
        language.insert("vocab_size".into(), vocab_size.into());
        for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            drop_foreign_ids(&mut top, key, vocab_size);
        }
    }
    Ok(pretty(&Value::Object(top)))
}

/// Set ids that the smaller vocabulary lacks to null, at the top and in `text_config`.
fn drop_foreign_ids(top: &mut Map<String, Value>, key: &str, vocab_size: usize) {
    let foreign = |value: &Value| value.as_u64().is_some_and(|id| id >= vocab_size as u64);
    let clean = |value: &mut Value| match value {
        Value::Array(ids) => ids.retain(|id| !foreign(id)),
        value if foreign(value) => *value = Value::Null,
        _ => {}
    };
    top.get_mut(key).map(clean);
    top.get_mut("text_config").and_then(|inner| inner.get_mut(key)).map(clean);
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}
