//! Tiny synthetic checkpoints for the tests of storage, and the tools to damage them.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use perilune_model::synth::{Blueprint, Options};
use perilune_model::watch::Unwatched;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A K2-shaped config with INT4 experts.
pub const TINY: &str = include_str!("../data/tiny_int4_config.json");

/// The name of a scale tensor that the tests damage.
pub const SCALE: &str = "model.layers.1.mlp.experts.2.up_proj.weight_scale";

pub fn options() -> Options {
    Options { n_layers: 3, vocab_size: None, seed: 1, shard_bytes: u64::MAX, tokenizer: None, n_threads: 2 }
}

/// A checkpoint in a folder of its own, changed by `change`.
pub fn checkpoint(config: &str, change: impl FnOnce(&mut Options)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options();
    change(&mut options);
    Blueprint::new(config, options).unwrap().write(dir.path(), &Unwatched).unwrap();
    dir
}

/// The checkpoint in one file.
pub fn single() -> TempDir {
    checkpoint(TINY, |_| ())
}

/// The checkpoint in several shards.
pub fn sharded() -> TempDir {
    checkpoint(TINY, |options| options.shard_bytes = 20_000)
}

/// Every safetensors file of `dir`, sorted.
pub fn shards(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    paths.sort();
    paths
}

/// The shard of `dir` whose header names `tensor`.
pub fn shard_of(dir: &Path, tensor: &str) -> PathBuf {
    shards(dir).into_iter().find(|path| header(path).0.contains_key(tensor)).unwrap()
}

/// A file's header, and the bytes after it.
pub fn header(path: &Path) -> (Map<String, Value>, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + n]).unwrap(), bytes[8 + n..].to_vec())
}

/// Write a file from a header and the bytes after it.
pub fn write(path: &Path, header: &Map<String, Value>, data: &[u8]) {
    let header = serde_json::to_vec(header).unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, data].concat();
    std::fs::write(path, bytes).unwrap();
}

/// Change the header entry of `tensor` and nothing else.
pub fn edit_entry(dir: &Path, tensor: &str, edit: impl FnOnce(&mut Value)) {
    let path = shard_of(dir, tensor);
    let (mut head, data) = header(&path);
    edit(&mut head[tensor]);
    write(&path, &head, &data);
}

/// Change the bytes of `tensor`.
pub fn edit_data(dir: &Path, tensor: &str, edit: impl FnOnce(&mut [u8])) {
    let path = shard_of(dir, tensor);
    let (head, mut data) = header(&path);
    let at = |i: usize| head[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
    edit(&mut data[at(0)..at(1)]);
    write(&path, &head, &data);
}

/// Change `dir`'s `config.json`.
pub fn edit_config(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
}

/// Deterministic random numbers for the fuzz tests (xorshift64*, Vigna 2016).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
