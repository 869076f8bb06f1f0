//! Sums of files, in the text form of the tool `sha256sum`: 64 hex digits, two spaces, the file's name.
//!
//! SHA-256 because that is the sum model hosts show for each large file: a list can be put together from theirs.

use super::Finding;
use crate::checkpoint::{CONFIG_FILE, INDEX_FILE};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest list of sums that is read, bytes.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// Files beside the shards that a run reads.
const SMALL_FILES: [&str; 6] = [
    CONFIG_FILE,
    INDEX_FILE,
    "generation_config.json",
    "tiktoken.model",
    "tokenizer_config.json",
    "chat_template.jinja",
];

/// A file's name and sum.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Sum {
    /// File name, without folders.
    pub file: String,
    /// SHA-256, 64 lower-case hex digits.
    pub sha256: String,
}

/// Why a list of sums cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SumsError {
    /// The file cannot be read.
    #[error("{path}: cannot be read ({source})")]
    Read {
        /// The list.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is not a sum.
    #[error(
        "{path}: line {line} is not a sum; expected 64 hex digits, two spaces and a file name, as `sha256sum` writes them"
    )]
    Line {
        /// The list.
        path: String,
        /// Line number, from 1.
        line: usize,
    },
    /// There is no line.
    #[error("{path}: holds no sums; write one with `perilune verify DIR --write FILE`")]
    Empty {
        /// The list.
        path: String,
    },
}

impl Sum {
    pub(super) fn of_digest(path: &Path, digest: &[u8]) -> Sum {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Sum { file, sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

/// The sums of the files beside the shards that a run reads, those of them that are in `dir`.
///
/// # Errors
/// [`SumsError::Read`] when one cannot be read.
pub fn small_file_sums(dir: &Path) -> Result<Vec<Sum>, SumsError> {
    let present = SMALL_FILES.iter().map(|name| dir.join(name)).filter(|path| path.is_file());
    present
        .map(|path| {
            file_sum(&path).map_err(|source| SumsError::Read { path: path.display().to_string(), source })
        })
        .collect()
}

/// Compare the sums taken of the files in `dir` with those of a list: what differs, what is not there, and what the
/// list does not cover. A file of the list that was not summed yet is read now.
pub fn compare_sums(dir: &Path, taken: &[Sum], list: &[Sum]) -> Vec<Finding> {
    let finding = |file: &str, what: &str| {
        let file = dir.join(file).display().to_string();
        Finding { what: format!("{file}: {what}"), file, tensor: None }
    };
    let differs = |listed: &Sum| {
        let known = taken.iter().find(|sum| sum.file == listed.file).cloned();
        match known.map_or_else(|| file_sum(&dir.join(&listed.file)), Ok) {
            Ok(sum) if sum.sha256 == listed.sha256 => None,
            Ok(sum) => {
                let what = format!("its SHA-256 is {}; expected {}", sum.sha256, listed.sha256);
                Some(finding(&listed.file, &what))
            }
            Err(error) => {
                Some(finding(&listed.file, &format!("stands in the list, but cannot be read ({error})")))
            }
        }
    };
    let is_listed = |sum: &Sum| list.iter().any(|listed| listed.file == sum.file);
    let is_shard = |sum: &&Sum| !SMALL_FILES.contains(&sum.file.as_str());
    let uncovered = taken.iter().filter(is_shard).filter(|sum| !is_listed(sum));
    list.iter()
        .filter_map(differs)
        .chain(
            uncovered.map(|sum| finding(&sum.file, "has no sum in the list; it is not known to be intact")),
        )
        .collect()
}

fn file_sum(path: &Path) -> io::Result<Sum> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Sum::of_digest(path, &hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// The text of a list, as `sha256sum` writes it: a line for each sum.
pub fn write_sums(sums: &[Sum]) -> String {
    sums.iter().map(|sum| format!("{}  {}\n", sum.sha256, sum.file)).collect()
}

/// Read the list in `path`, of which at most a MiB is read.
///
/// # Errors
/// [`SumsError`] when it cannot be read, a line is not a sum, or there is none.
pub fn parse_sums(path: &Path) -> Result<Vec<Sum>, SumsError> {
    let shown = path.display().to_string();
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LIST_BYTES_MAX).read_to_string(&mut text))
        .map_err(|source| SumsError::Read { path: shown.clone(), source })?;
    let mut sums = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let sum = parse_line(line).ok_or_else(|| SumsError::Line { path: shown.clone(), line: i + 1 })?;
        sums.push(sum);
    }
    if sums.is_empty() {
        return Err(SumsError::Empty { path: shown });
    }
    Ok(sums)
}

/// `HEX  name` or, as for binary mode, `HEX *name`; a leading `./` is dropped.
fn parse_line(line: &str) -> Option<Sum> {
    let (hex, rest) = line.split_at_checked(64)?;
    let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?.trim_end();
    let name = name.strip_prefix("./").unwrap_or(name);
    let is_plain = Path::new(name).file_name() == Some(name.as_ref());
    let is_hex = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex && is_plain).then(|| Sum { file: name.to_owned(), sha256: hex.to_ascii_lowercase() })
}
