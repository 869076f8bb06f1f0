//! Which files make the checkpoint, and which tensor is in which.

use super::{CheckpointError, Entry, INDEX_FILE, SINGLE_FILE, Shard};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Longest index that is read, bytes.
const INDEX_BYTES_MAX: u64 = 256 << 20;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Map every shard of `dir` and merge their headers.
pub(super) fn read_tensors(dir: &Path) -> Result<(Vec<Shard>, BTreeMap<String, Entry>), CheckpointError> {
    let single = dir.join(SINGLE_FILE);
    if single.is_file() {
        let (shard, entries) = Shard::open(&single, 0)?;
        return Ok((vec![shard], entries.into_iter().collect()));
    }
    let index_path = dir.join(INDEX_FILE);
    if !index_path.is_file() {
        return Err(CheckpointError::NoWeights { dir: dir.to_path_buf() });
    }
    let weight_map = read_index(&index_path)?;
    read_shards(dir, &index_path, &weight_map)
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
    index_path: &Path,
    weight_map: &BTreeMap<String, String>,
) -> Result<(Vec<Shard>, BTreeMap<String, Entry>), CheckpointError> {
    // One tensor per shard, for the message when the shard is absent.
    let example: BTreeMap<&str, &str> =
        weight_map.iter().map(|(tensor, shard)| (shard.as_str(), tensor.as_str())).collect();
    let (mut shards, mut tensors) = (Vec::new(), BTreeMap::new());
    for (shard_idx, (shard, tensor)) in example.into_iter().enumerate() {
        let path = dir.join(shard);
        if !path.exists() {
            return Err(CheckpointError::MissingShard {
                index: index_path.to_path_buf(),
                shard: shard.to_owned(),
                tensor: tensor.to_owned(),
            });
        }
        let (opened, entries) = Shard::open(&path, shard_idx)?;
        shards.push(opened);
        for (name, entry) in entries {
            // Where two shards hold one name, the index says which counts.
            if weight_map.get(&name).is_none_or(|of| of == shard) {
                tensors.insert(name, entry);
            }
        }
    }
    let lost = weight_map.iter().find(|(tensor, _)| !tensors.contains_key(*tensor));
    match lost {
        None => Ok((shards, tensors)),
        Some((tensor, shard)) => Err(CheckpointError::IndexDisagrees {
            index: index_path.to_path_buf(),
            shard: shard.clone(),
            tensor: tensor.clone(),
        }),
    }
}
