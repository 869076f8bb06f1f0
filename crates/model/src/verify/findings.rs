//! What a verification says: damage, oddities, sums.

use super::Sum;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::values::{Scan, position};
use serde::Serialize;
use std::path::Path;

/// Bytes of a block that is looked at for being zero throughout, as a download that was never finished leaves.
pub(super) const BLOCK_BYTES: usize = 4096;

/// One thing that is wrong or odd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The file's path.
    pub file: String,
    /// The tensor's name, where it is about one.
    pub tensor: Option<String>,
    /// The whole sentence, file and tensor included.
    pub what: String,
}

impl From<CheckpointError> for Finding {
    fn from(error: CheckpointError) -> Finding {
        Finding { file: error.file(), tensor: error.tensor().map(str::to_owned), what: error.to_string() }
    }
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Bytes read.
    pub n_bytes: u64,
    /// Tensors read.
    pub n_tensors: usize,
    /// What makes the checkpoint unusable or wrong.
    pub damage: Vec<Finding>,
    /// What is unlikely in a published checkpoint and yet can be read.
    pub odd: Vec<Finding>,
    /// SHA-256 of each shard, where sums were asked for and the shard could be read.
    pub sums: Vec<Sum>,
}

/// What was seen in one tensor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanned {
    /// Its values.
    pub scan: Scan,
    /// Whole blocks of 4,096 bytes in it.
    pub n_blocks: usize,
    /// Blocks that are zero throughout.
    pub n_zero_blocks: usize,
}

impl Report {
    /// A report that begins with `damage`.
    pub(super) fn new(damage: Vec<CheckpointError>) -> Report {
        Report { damage: damage.into_iter().map(Finding::from).collect(), ..Report::default() }
    }

    pub(super) fn merge(&mut self, other: Report) {
        self.n_bytes += other.n_bytes;
        self.n_tensors += other.n_tensors;
        self.damage.extend(other.damage);
        self.odd.extend(other.odd);
        self.sums.extend(other.sums);
    }

    /// The same in file order, whichever thread was first.
    pub(super) fn sorted(mut self) -> Report {
        self.damage.sort();
        self.odd.sort();
        self.sums.sort();
        self
    }

    /// The file could not be read within `tensor`, or outside any.
    pub(super) fn add_unreadable(&mut self, path: &Path, tensor: Option<&str>, error: &std::io::Error) {
        let part = tensor.map_or("the header".to_owned(), |name| format!("tensor `{name}`"));
        self.damage.push(Finding {
            file: path.display().to_string(),
            tensor: tensor.map(str::to_owned),
            what: format!(
                "{}: {part} cannot be read ({error}); the disk fails or the file was changed",
                path.display()
            ),
        });
    }

    /// Judge one tensor's values.
    pub(super) fn add_scan(&mut self, path: &Path, name: &str, shape: &[usize], seen: &Scanned) {
        let finding = |what: String| Finding {
            file: path.display().to_string(),
            tensor: Some(name.to_owned()),
            what: format!("{}: tensor `{name}` {what}", path.display()),
        };
        if let Some(first) = seen.scan.first {
            let (n, at) = (seen.scan.n_not_finite, position(shape, first));
            let what =
                format!("holds {n} NaN or infinite values, the first at {at}; expected finite numbers");
            self.damage.push(finding(what));
        }
        let packed = name.ends_with(".weight_packed") || name.ends_with(".weight_scale");
        if name.ends_with(".weight_scale") && seen.scan.n_negative > 0 {
            let n = seen.scan.n_negative;
            self.odd.push(finding(format!("holds {n} negative scales; a scale is usually a magnitude")));
        }
        let zeros = seen.n_zero_blocks;
        if zeros > 0 && (packed || (zeros == seen.n_blocks && shape.len() > 1)) {
            let of = seen.n_blocks;
            let what = format!("is zero in {zeros} of its {of} blocks of {BLOCK_BYTES} bytes");
            self.odd.push(finding(format!("{what}, as an unfinished download leaves")));
        }
    }
}
