//! The log of a run: one JSON object a step, one line each.

use crate::checkpoint::write_whole;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The log's name in the folder of a run.
pub const FILE: &str = "log.jsonl";

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The stage.
    pub stage: String,
    /// Steps of the stage that are done, this one counted.
    pub step: u64,
    /// Steps that the stage has.
    pub n_steps: u64,
    /// Steps done in all stages.
    pub total_step: u64,
    /// Tokens seen in all stages.
    pub tokens: u64,
    /// Seconds spent in all legs.
    pub seconds: f64,
    /// Mean loss of the weighted tokens, nats a token.
    pub loss: f64,
    /// Share of the weighted tokens whose likeliest successor was right.
    pub accuracy: f64,
    /// Learning rate of the step; AdamW's tensors have their own where the stage names one.
    pub lr: f32,
    /// Tokens per second of this step.
    pub tokens_per_s: f64,
    /// Largest attention logit of each layer, after the softmax scale `[L]`.
    pub max_logit: Vec<f32>,
    /// Number of heads that QK-Clip scaled in each layer `[L]`.
    pub n_clipped: Vec<usize>,
    /// Load of the busiest expert over the mean load, of each layer with experts.
    pub load_max: Vec<f64>,
    /// Number of experts that no token chose, of each layer with experts.
    pub n_dead: Vec<usize>,
    /// Euclidean norm of the gradient of Muon's tensors together.
    pub grad_norm_muon: f64,
    /// Euclidean norm of the gradient of AdamW's tensors together, before clipping.
    pub grad_norm_adamw: f64,
    /// Mean sequence-wise balance loss, without its factor.
    pub seq_aux: f64,
    /// Whether the weights were seen quantised.
    pub is_quantised: bool,
    /// Mean loss on held-out sequences, nats a token, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out_loss: Option<f64>,
    /// `accuracy` on held-out sequences, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out_accuracy: Option<f64>,
    /// Share of the held-out turns whose every token was the likeliest, where sequences hold several turns.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out_turns: Option<f64>,
    /// Seconds that all stages still need.
    pub left_s: f64,
}

/// The open log of a run.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Open the log in `run` for what follows step `total_step`; lines of later steps, which a leg wrote after its last
    /// checkpoint, are dropped.
    ///
    /// # Errors
    /// The system's, where the log cannot be read or written.
    pub fn open(run: &Path, total_step: u64) -> io::Result<Log> {
        let path = run.join(FILE);
        if path.exists() {
            let text = std::fs::read_to_string(&path)?;
            let is_kept = |line: &&str| {
                serde_json::from_str::<Record>(line).is_ok_and(|record| record.total_step <= total_step)
            };
            let kept: String = text.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
            write_whole(&path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Log { path, file })
    }

    /// Add a line. It is not forced to the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        let line = serde_json::to_string(record)? + "\n";
        self.file.write_all(line.as_bytes())
    }

    /// Path of the log.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The records of a log; lines that are no record, as a last one that was cut off, are left out.
///
/// # Errors
/// The system's, where the file cannot be read.
pub fn read(path: &Path) -> io::Result<Vec<Record>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
