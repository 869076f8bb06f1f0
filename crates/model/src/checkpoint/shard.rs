//! One safetensors file: mapped, its header parsed and every entry checked against the file.

use super::{CheckpointError, Dtype, Entry};
use perilune_kernels::map::MappedFile;
use safetensors::tensor::TensorInfo;
use serde_json::{Map, Value};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Longest header that is read, bytes: the format's own limit.
const HEADER_BYTES_MAX: usize = 100_000_000;

/// Bytes of the header length at the file's start.
const LENGTH_BYTES: usize = 8;

/// A mapped file of a checkpoint.
#[derive(Debug)]
pub struct Shard {
    file: Arc<MappedFile>,
    n_tensors: usize,
    /// Byte that the tensors' data starts at.
    data_start: usize,
}

impl Shard {
    /// The mapped bytes.
    pub fn file(&self) -> &Arc<MappedFile> {
        &self.file
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The bytes before the tensors: the header and its length.
    pub fn header(&self) -> Range<usize> {
        0..self.data_start
    }

    /// Number of tensors in it.
    pub fn n_tensors(&self) -> usize {
        self.n_tensors
    }

    /// Map `path` and read its header: the shard, and each tensor with its place.
    pub(super) fn open(
        path: &Path,
        shard_idx: usize,
    ) -> Result<(Shard, Vec<(String, Entry)>), CheckpointError> {
        let file = MappedFile::open(path)
            .map_err(|source| CheckpointError::Read { path: path.to_path_buf(), source })?;
        let (header, data_start) = read_header(&file)?;
        let mut entries = header
            .into_iter()
            .filter(|(name, _)| name != "__metadata__")
            .map(|(name, value)| Ok((parse_entry(path, &name, value, data_start, shard_idx)?, name)))
            .map(|result| result.map(|(entry, name)| (name, entry)))
            .collect::<Result<Vec<_>, CheckpointError>>()?;
        entries.sort_by(|(a_name, a), (b_name, b)| {
            (a.range.start, a.range.end, a_name).cmp(&(b.range.start, b.range.end, b_name))
        });
        check_coverage(&file, &entries, data_start)?;
        Ok((Shard { file, n_tensors: entries.len(), data_start }, entries))
    }
}

/// The header as JSON, and the byte the tensors' data starts at.
fn read_header(file: &MappedFile) -> Result<(Map<String, Value>, usize), CheckpointError> {
    let (path, bytes) = (file.path(), file.bytes());
    let damaged = |detail: String| CheckpointError::Header { path: path.to_path_buf(), detail };
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(damaged(format!("it is {} bytes long; expected at least {LENGTH_BYTES}", bytes.len())));
    };
    let header_bytes = u64::from_le_bytes(*length);
    let header = usize::try_from(header_bytes).ok().and_then(|n| rest.get(..n)).ok_or_else(|| {
        let file_bytes = bytes.len() as u64;
        CheckpointError::HeaderTooLong { path: path.to_path_buf(), header_bytes, file_bytes }
    })?;
    if header.len() > HEADER_BYTES_MAX {
        return Err(damaged(format!(
            "its header is {header_bytes} bytes; expected at most {HEADER_BYTES_MAX}"
        )));
    }
    match serde_json::from_slice(header) {
        Ok(Value::Object(map)) => Ok((map, LENGTH_BYTES + header.len())),
        Ok(_) => Err(damaged("its header is JSON but not an object".into())),
        Err(error) => Err(damaged(format!("its header is not JSON: {error}"))),
    }
}

fn parse_entry(
    path: &Path,
    name: &str,
    value: Value,
    data_start: usize,
    shard_idx: usize,
) -> Result<Entry, CheckpointError> {
    let damaged =
        |detail: String| CheckpointError::Entry { path: path.to_path_buf(), tensor: name.to_owned(), detail };
    let info: TensorInfo = serde_json::from_value(value)
        .map_err(|e| damaged(format!("{e}; expected dtype, shape and offsets")))?;
    let (start, end) = info.data_offsets;
    let n_bytes = byte_size(info.dtype, &info.shape)
        .ok_or_else(|| damaged(format!("{} {:?} has no size in bytes", info.dtype, info.shape)))?;
    if end.checked_sub(start) != Some(n_bytes) {
        return Err(damaged(format!(
            "its offsets are {start}..{end}; {} {:?} takes {n_bytes} bytes",
            info.dtype, info.shape
        )));
    }
    let range = data_start.checked_add(start).zip(data_start.checked_add(end)).map(|(s, e)| s..e);
    let range = range.ok_or_else(|| damaged(format!("its offsets {start}..{end} are beyond any file")))?;
    Ok(Entry { shard_idx, dtype: info.dtype, shape: info.shape.into(), range })
}

/// Bytes of a tensor; `None` when that overflows or is no whole number.
pub(super) fn byte_size(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let n_elements = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
    let n_bits = n_elements.checked_mul(dtype.bitsize())?;
    n_bits.is_multiple_of(8).then_some(n_bits / 8)
}

/// The tensors must follow each other without hole or overlap, and end where the file ends.
fn check_coverage(
    file: &MappedFile,
    entries: &[(String, Entry)],
    data_start: usize,
) -> Result<(), CheckpointError> {
    let path = || file.path().to_path_buf();
    let (mut end, mut last) = (data_start, "the header");
    for (name, entry) in entries {
        if entry.range.start != end {
            let word = if entry.range.start < end { "overlaps" } else { "leaves a hole after" };
            let (found, expected) = (entry.range.start - data_start, end - data_start);
            let detail = format!("it {word} `{last}`: it starts at offset {found}; expected {expected}");
            return Err(CheckpointError::Entry { path: path(), tensor: name.clone(), detail });
        }
        (end, last) = (entry.range.end, name);
    }
    let found = file.bytes().len();
    if found == end {
        return Ok(());
    }
    Err(CheckpointError::WrongLength {
        path: path(),
        word: if found < end { "truncated" } else { "too long" },
        tensor: last.to_owned(),
        expected: end as u64,
        found: found as u64,
    })
}
