//! A folder with a published checkpoint: found, mapped and checked before anything reads a weight.
//!
//! The folder holds `config.json` and either `model.safetensors` or `model.safetensors.index.json` with its shards.
//! The file format is safetensors: eight bytes of header length, a JSON header, then the tensors' bytes without gaps
//! (<https://github.com/huggingface/safetensors>).

mod error;
mod index;
mod shard;
pub(crate) mod values;

pub use error::CheckpointError;
pub use safetensors::Dtype;
pub use shard::Shard;

use crate::config::Config;
use crate::layout::{self, TensorSpec};
use index::Contents;
use perilune_kernels::map::MappedFile;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The config's file name.
pub const CONFIG_FILE: &str = "config.json";
/// The file name of a checkpoint in one piece.
pub const SINGLE_FILE: &str = "model.safetensors";
/// The file name of a sharded checkpoint's index.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// The file name of the publisher's generation defaults, optional.
const GENERATION_FILE: &str = "generation_config.json";

/// Largest number of things wrong that [`Checkpoint::open_damaged`] collects.
const DAMAGE_MAX: usize = 10_000;

/// An opened checkpoint: every tensor its config implies is there, in the right dtype and shape, but for the damage
/// that [`Checkpoint::open_damaged`] lists.
#[derive(Debug)]
pub struct Checkpoint {
    /// The checked config.
    pub config: Config,
    dir: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Entry>,
    unused: Vec<String>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Entry {
    shard_idx: usize,
    dtype: Dtype,
    shape: Box<[usize]>,
    range: Range<usize>,
}

/// A tensor of an opened checkpoint: its form, and its bytes in the mapped file (little-endian, row-major).
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Sizes in elements, outermost first.
    pub shape: &'a [usize],
    /// The mapped shard that holds it.
    pub file: &'a Arc<MappedFile>,
    /// Byte range within the file, header included in the count.
    pub range: Range<usize>,
}

/// Takes what is wrong with one shard or tensor: gives it back to stop at once, or keeps it to go on.
type Report<'a> = &'a mut dyn FnMut(CheckpointError) -> Result<(), CheckpointError>;

impl<'a> Tensor<'a> {
    /// The tensor's bytes. They start at any address: published shards align nothing.
    pub fn bytes(&self) -> &'a [u8] {
        &self.file.bytes()[self.range.clone()]
    }
}

impl Checkpoint {
    /// Open the checkpoint in `dir`: read the config and the headers, map the shards, and check name, dtype and shape
    /// of every tensor the config implies. Reads no weight: values are checked by the verb `verify`, and by
    /// [`Checkpoint::check_values`] where a run gave numbers that are not finite.
    ///
    /// # Errors
    /// [`CheckpointError`], one sentence that names the file, the tensor and what was expected.
    pub fn open(dir: &Path) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open_reporting(dir, &mut Err)
    }

    /// Open as much of the checkpoint in `dir` as there is: what is wrong with a shard or a tensor is collected.
    ///
    /// # Errors
    /// When the config or the index cannot be read, or more is wrong than belongs to one download (`DAMAGE_MAX`
    /// things): then there is nothing to compare the files with.
    pub fn open_damaged(dir: &Path) -> Result<(Checkpoint, Vec<CheckpointError>), CheckpointError> {
        let mut damage = Vec::new();
        let checkpoint = Checkpoint::open_reporting(dir, &mut |error| {
            if damage.len() == DAMAGE_MAX {
                return Err(error);
            }
            damage.push(error);
            Ok(())
        })?;
        Ok((checkpoint, damage))
    }

    fn open_reporting(dir: &Path, report: Report<'_>) -> Result<Checkpoint, CheckpointError> {
        let mut config = Config::from_file(&dir.join(CONFIG_FILE))?;
        add_generation_eos(&mut config, dir)?;
        let Contents { shards, tensors, lost } = index::read_tensors(dir, report)?;
        let mut checkpoint =
            Checkpoint { config, dir: dir.to_path_buf(), shards, tensors, unused: Vec::new() };
        checkpoint.unused = checkpoint.check_expected(&lost, report)?;
        Ok(checkpoint)
    }

    /// The folder it was opened from.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The tensor called `name`, used by the model or not; `None` where no shard holds it.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.tensors.get(name).map(|entry| self.view(entry))
    }

    /// Every tensor name, sorted, unused ones included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Names of tensors that the model does not need (a vision tower, a layer for multi-token prediction, stored
    /// rotary frequencies), sorted.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// The files, in the order of their names.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Every tensor of shard `shard_idx` (in [`Checkpoint::shards`]) with its name, in file order; none for an index
    /// past the last.
    pub fn tensors_of(&self, shard_idx: usize) -> Vec<(&str, Tensor<'_>)> {
        let mut of_shard: Vec<_> = self
            .tensors
            .iter()
            .filter(|(_, entry)| entry.shard_idx == shard_idx)
            .map(|(name, entry)| (name.as_str(), self.view(entry)))
            .collect();
        of_shard.sort_by_key(|(_, tensor)| tensor.range.start);
        of_shard
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> Tensor<'a> {
        let file = self.shards[entry.shard_idx].file();
        Tensor { dtype: entry.dtype, shape: &entry.shape, file, range: entry.range.clone() }
    }

    /// Check every tensor the config implies, but for those of `lost`; the names of the others.
    fn check_expected(
        &self,
        lost: &HashSet<String>,
        report: Report<'_>,
    ) -> Result<Vec<String>, CheckpointError> {
        let mut used = HashSet::new();
        for spec in layout::expected(&self.config) {
            if !lost.contains(&spec.name) {
                self.check_spec(&spec).or_else(&mut *report)?;
            }
            used.insert(spec.name);
        }
        Ok(self.tensors.keys().filter(|name| !used.contains(*name)).cloned().collect())
    }

    fn check_spec(&self, spec: &TensorSpec) -> Result<(), CheckpointError> {
        let Some(entry) = self.tensors.get(&spec.name) else { return Err(self.missing(spec)) };
        let path = || self.shards[entry.shard_idx].path().to_path_buf();
        if !spec.dtypes.contains(&entry.dtype) {
            let accepted: Vec<String> = spec.dtypes.iter().map(ToString::to_string).collect();
            return Err(CheckpointError::WrongDtype {
                path: path(),
                tensor: spec.name.clone(),
                found: entry.dtype,
                expected: accepted.join(" or "),
            });
        }
        if *entry.shape != *spec.shape {
            return Err(CheckpointError::WrongShape {
                path: path(),
                tensor: spec.name.clone(),
                found: entry.shape.to_vec(),
                expected: spec.shape.clone(),
            });
        }
        Ok(())
    }

    /// The error for an absent tensor, with the most likely reason.
    fn missing(&self, spec: &TensorSpec) -> CheckpointError {
        let sister = |from: &str, to: &str| {
            spec.name.strip_suffix(from).is_some_and(|stem| self.tensors.contains_key(&format!("{stem}{to}")))
        };
        let hint = if sister(".weight", ".weight_packed") {
            "; it is there packed, which `quantization_config` must announce and only routed experts may be"
        } else if sister(".weight_packed", ".weight") {
            "; it is there unpacked, though `quantization_config` says packed"
        } else {
            ""
        };
        let dtype = spec.dtypes[0];
        CheckpointError::MissingTensor {
            dir: self.dir.clone(),
            tensor: spec.name.clone(),
            expected: format!("{dtype} {:?}", spec.shape),
            hint: hint.into(),
        }
    }
}

/// Add the end ids of `generation_config.json`, where there is one: publishers keep the chat's end id there.
fn add_generation_eos(config: &mut Config, dir: &Path) -> Result<(), CheckpointError> {
    let path = dir.join(GENERATION_FILE);
    if !path.exists() {
        return Ok(());
    }
    for id in crate::config::eos_ids_from_file(&path)? {
        if !config.eos_token_ids.contains(&id) {
            config.eos_token_ids.push(id);
        }
    }
    Ok(())
}
