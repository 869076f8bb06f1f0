//! What can be wrong with a checkpoint, each one sentence with its reader's next step.

use crate::config::ConfigError;
use safetensors::Dtype;
use std::path::PathBuf;

/// What is wrong with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The config or the generation defaults.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file cannot be read.
    #[error("{path}: cannot be read ({source})", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Neither form of weights is in the folder.
    #[error("{dir}: holds neither `model.safetensors` nor `model.safetensors.index.json`; expected a downloaded checkpoint", dir = dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// The index is not one.
    #[error("{path}: is not a safetensors index ({detail}); expected an object whose `weight_map` gives each tensor's shard", path = path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The index names a shard that is not there.
    #[error("{index}: tensor `{tensor}` should be in the shard `{shard}`, which is not in the folder; download that file again", index = index.display())]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The shard's file name.
        shard: String,
        /// A tensor it should hold.
        tensor: String,
    },
    /// The index names a tensor that its shard lacks.
    #[error("{index}: tensor `{tensor}` should be in the shard `{shard}`, which does not hold it; index and shard are of different downloads", index = index.display())]
    IndexDisagrees {
        /// The index file.
        index: PathBuf,
        /// The shard's file name.
        shard: String,
        /// The tensor.
        tensor: String,
    },
    /// The file is too short to hold the header it announces, or any.
    #[error("{path}: announces a header of {header_bytes} bytes, but the file is {file_bytes} bytes long; download it again", path = path.display())]
    HeaderTooLong {
        /// The shard.
        path: PathBuf,
        /// Header length as announced, bytes.
        header_bytes: u64,
        /// Length of the file, bytes.
        file_bytes: u64,
    },
    /// The header is not a safetensors header.
    #[error("{path}: is not a safetensors file ({detail})", path = path.display())]
    Header {
        /// The shard.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A tensor's entry in the header is wrong in itself.
    #[error("{path}: the header's entry of tensor `{tensor}` is damaged: {detail}", path = path.display())]
    Entry {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong and what was expected.
        detail: String,
    },
    /// The file ends before its tensors do, or goes on after them.
    #[error("{path}: {word}: its tensors end with `{tensor}` at byte {expected}, the file at byte {found}; download it again", path = path.display())]
    WrongLength {
        /// The shard.
        path: PathBuf,
        /// `truncated` or `too long`.
        word: &'static str,
        /// The last tensor.
        tensor: String,
        /// Length that the header implies, bytes.
        expected: u64,
        /// Length of the file, bytes.
        found: u64,
    },
    /// A needed tensor is nowhere.
    #[error("{dir}: tensor `{tensor}` is missing; expected {expected}{hint}", dir = dir.display())]
    MissingTensor {
        /// The folder.
        dir: PathBuf,
        /// The tensor.
        tensor: String,
        /// Dtype and shape.
        expected: String,
        /// The likely reason, or nothing.
        hint: String,
    },
    /// A tensor has the wrong element type.
    #[error("{path}: tensor `{tensor}` is {found}; expected {expected}", path = path.display())]
    WrongDtype {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the header says.
        found: Dtype,
        /// What is read.
        expected: String,
    },
    /// A tensor has the wrong shape.
    #[error("{path}: tensor `{tensor}` has shape {found:?}; expected {expected:?} by config.json", path = path.display())]
    WrongShape {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the header says.
        found: Vec<usize>,
        /// What the config implies.
        expected: Vec<usize>,
    },
    /// A stored value cannot be right.
    #[error("{path}: tensor `{tensor}` holds {found}; expected {expected}", path = path.display())]
    Value {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What stands there, and where.
        found: String,
        /// What should.
        expected: String,
    },
}

impl CheckpointError {
    /// The path of the file (or folder) it is about.
    pub fn file(&self) -> String {
        match self {
            Self::Config(error) => error.place.clone(),
            Self::NoWeights { dir } | Self::MissingTensor { dir, .. } => dir.display().to_string(),
            Self::MissingShard { index, .. } | Self::IndexDisagrees { index, .. } => {
                index.display().to_string()
            }
            Self::Read { path, .. }
            | Self::Index { path, .. }
            | Self::HeaderTooLong { path, .. }
            | Self::Header { path, .. }
            | Self::Entry { path, .. }
            | Self::WrongLength { path, .. }
            | Self::WrongDtype { path, .. }
            | Self::WrongShape { path, .. }
            | Self::Value { path, .. } => path.display().to_string(),
        }
    }

    /// The name of the tensor it is about, where it is about one.
    pub fn tensor(&self) -> Option<&str> {
        match self {
            Self::MissingShard { tensor, .. }
            | Self::IndexDisagrees { tensor, .. }
            | Self::Entry { tensor, .. }
            | Self::WrongLength { tensor, .. }
            | Self::MissingTensor { tensor, .. }
            | Self::WrongDtype { tensor, .. }
            | Self::WrongShape { tensor, .. }
            | Self::Value { tensor, .. } => Some(tensor),
            Self::Config(_)
            | Self::Read { .. }
            | Self::NoWeights { .. }
            | Self::Index { .. }
            | Self::HeaderTooLong { .. }
            | Self::Header { .. } => None,
        }
    }
}
