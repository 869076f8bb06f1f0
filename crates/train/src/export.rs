//! A run's last checkpoint as a model that every other verb opens.

use crate::checkpoint::{self, CheckpointError};
use perilune_model::config::{Config, ConfigError};
use perilune_model::train::export::{self, ExportError, Form};
use std::io;
use std::path::{Path, PathBuf};

/// Files of the tokenizer that go beside the weights, where the run names a folder that holds them.
pub const WORD_FILES: [&str; 3] = ["tiktoken.model", "tokenizer_config.json", "chat_template.jinja"];
/// The folder in a run that keeps its tokenizer's files.
pub const TOKENIZER: &str = "tokenizer";

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum RunExportError {
    /// No checkpoint to export.
    #[error("{run} holds no checkpoint: train first, with --out {run}")]
    Empty {
        /// The folder.
        run: String,
    },
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The config in it cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The files cannot be written.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A tokenizer file cannot be copied.
    #[error("{path}: cannot be copied ({cause})")]
    Words {
        /// The file.
        path: String,
        /// Why.
        cause: io::Error,
    },
}

/// What was exported.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Exported {
    /// The checkpoint it came from.
    pub checkpoint: PathBuf,
    /// Steps that it had done, of all stages.
    pub total_step: u64,
    /// Whether the experts are INT4.
    pub is_int4: bool,
}

/// Write the weights of the last checkpoint of `run` into the folder `out`: INT4 experts where `is_int4`, else F32;
/// with the tokenizer's files where the run has them ([`TOKENIZER`]).
///
/// # Errors
/// [`RunExportError`]: no checkpoint, one that cannot be read, or a folder that cannot be written.
pub fn export(run: &Path, out: &Path, is_int4: bool) -> Result<Exported, RunExportError> {
    let path = checkpoint::list(run).pop();
    let path = path.ok_or_else(|| RunExportError::Empty { run: run.display().to_string() })?;
    let text = checkpoint::config_text(&path)?;
    let config = Config::from_json(&text)?;
    let found = checkpoint::load(&path, &config, &text, None)?;
    let form = if is_int4 { Form::Int4 } else { Form::F32 };
    export::export(out, &config, &found.params, form)?;
    let words = run.join(TOKENIZER);
    for name in WORD_FILES.into_iter().filter(|name| words.join(name).is_file()) {
        let file = out.join(name);
        std::fs::copy(words.join(name), &file)
            .map_err(|cause| RunExportError::Words { path: file.display().to_string(), cause })?;
    }
    Ok(Exported { checkpoint: path, total_step: found.position.total_step, is_int4 })
}
