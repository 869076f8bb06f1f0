//! Which files make the checkpoint, and which tensor is in which.

use super::{CheckpointError, Entry, INDEX_FILE, Report, SINGLE_FILE, Shard};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// Longest index that is read, bytes.
const INDEX_BYTES_MAX: u64 = 256 << 20;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Shards and tensors, and the tensors that are lost with a shard that could not be opened.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) shards: Vec<Shard>,
    pub(super) tensors: BTreeMap<String, Entry>,
    pub(super) lost: HashSet<String>,
}

/// Map every shard of `dir` and merge their headers. What is wrong with one shard goes to `report`.
pub(super) fn read_tensors(dir: &Path, report: Report<'_>) -> Result<Contents, CheckpointError> {
    let single = dir.join(SINGLE_FILE);
    if single.is_file() {
        let (shard, entries) = Shard::open(&single, 0)?;
        let tensors = entries.into_iter().collect();
        return Ok(Contents { shards: vec![shard], tensors, lost: HashSet::new() });
    }
    let index_path = dir.join(INDEX_FILE);
    if !index_path.is_file() {
        return Err(CheckpointError::NoWeights { dir: dir.to_path_buf() });
    }
    let weight_map = read_index(&index_path)?;
    read_shards(dir, &index_path, &weight_map, report)
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let read = |source| CheckpointError::Read { path: path.to_path_buf(), source };
    let damaged = |detail: String| CheckpointError::Index { path: path.to_path_buf(), detail };
    let n_bytes = std::fs::metadata(path).map_err(read)?.len();
    if n_bytes > INDEX_BYTES_MAX {
        return Err(damaged(format!("it is {n_bytes} bytes long")));
    }
    let text = std::fs::read(path).map_err(read)?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
    // A shard's name must not lead out of the folder.
    let leads_away = |name: &&String| Path::new(name.as_str()).file_name() != Some(name.as_str().as_ref());
    match index.weight_map.values().find(leads_away) {
        Some(name) => Err(damaged(format!("`{name}` is not a plain file name"))),
        None if index.weight_map.is_empty() => Err(damaged("its `weight_map` is empty".into())),
        None => Ok(index.weight_map),
    }
}

fn read_shards(
    dir: &Path,
    index: &Path,
    weight_map: &BTreeMap<String, String>,
    report: Report<'_>,
) -> Result<Contents, CheckpointError> {
    // One tensor per shard, for the message when the shard is absent.
    let example: BTreeMap<&str, &str> =
        weight_map.iter().map(|(tensor, shard)| (shard.as_str(), tensor.as_str())).collect();
    let mut contents = Contents::default();
    for (shard, tensor) in example {
        match open_shard(dir, index, shard, tensor, contents.shards.len()) {
            Ok((opened, entries)) => {
                contents.shards.push(opened);
                // Where two shards hold one name, the index says which counts.
                let counts = |name: &String| weight_map.get(name).is_none_or(|of| of == shard);
                contents.tensors.extend(entries.into_iter().filter(|(name, _)| counts(name)));
            }
            Err(error) => {
                report(error)?;
                let of_shard = weight_map.iter().filter(|(_, of)| *of == shard);
                contents.lost.extend(of_shard.map(|(tensor, _)| tensor.clone()));
            }
        }
    }
    for (tensor, shard) in weight_map {
        if !contents.tensors.contains_key(tensor) && !contents.lost.contains(tensor) {
            let (index, shard, tensor) = (index.to_path_buf(), shard.clone(), tensor.clone());
            contents.lost.insert(tensor.clone());
            report(CheckpointError::IndexDisagrees { index, shard, tensor })?;
        }
    }
    Ok(contents)
}

fn open_shard(
    dir: &Path,
    index: &Path,
    shard: &str,
    tensor: &str,
    shard_idx: usize,
) -> Result<(Shard, Vec<(String, Entry)>), CheckpointError> {
    let path = dir.join(shard);
    if path.exists() {
        return Shard::open(&path, shard_idx);
    }
    let (index, shard, tensor) = (index.to_path_buf(), shard.to_owned(), tensor.to_owned());
    Err(CheckpointError::MissingShard { index, shard, tensor })
}
