//! Synthetic checkpoints: the same for a seed whatever the threads and shards, and whole or not there at all.

#![allow(clippy::unwrap_used)]

mod common;

use common::{TINY, checkpoint, options, sharded, shards, single};
use perilune_model::checkpoint::Checkpoint;
use perilune_model::config::{Config, Family};
use perilune_model::synth::{Blueprint, Options, SynthError};
use perilune_model::watch::{Unwatched, Watch};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    names(dir).into_iter().map(|name| (name.clone(), fs::read(dir.join(&name)).unwrap())).collect()
}

#[test]
fn threads_change_no_byte_and_seeds_change_every_tensor() {
    // Rows wide enough that the embedding takes several pieces.
    let mut wide: Value = serde_json::from_str(TINY).unwrap();
    wide["vocab_size"] = json!(40_000);
    let with = |n_threads, seed| {
        checkpoint(&wide.to_string(), |options| (options.n_threads, options.seed) = (n_threads, seed))
    };
    let (one, four, other) = (with(1, 5), with(4, 5), with(4, 6));
    assert_eq!(contents(one.path()), contents(four.path()));
    let [one, other] = [one, other].map(|dir| Checkpoint::open(dir.path()).unwrap());
    for name in one.names().filter(|name| !name.ends_with("weight_shape")) {
        assert_ne!(one.tensor(name).unwrap().bytes(), other.tensor(name).unwrap().bytes(), "{name}");
    }
}

#[test]
fn shards_and_layers_change_no_tensor() {
    let (whole, parts, longer) = (single(), sharded(), checkpoint(TINY, |options| options.n_layers = 4));
    let [whole, parts, longer] = [whole, parts, longer].map(|dir| Checkpoint::open(dir.path()).unwrap());
    assert!(parts.shards().len() > 3);
    for name in whole.names() {
        let bytes = whole.tensor(name).unwrap().bytes();
        assert_eq!(bytes, parts.tensor(name).unwrap().bytes(), "{name}");
        assert_eq!(bytes, longer.tensor(name).unwrap().bytes(), "{name}");
    }
    assert!(longer.tensor("model.layers.3.mlp.experts.3.down_proj.weight_packed").is_some());
}

#[test]
fn every_expert_has_its_own_bytes() {
    let dir = single();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let packed: Vec<&str> = checkpoint.names().filter(|name| name.ends_with("weight_packed")).collect();
    let different: BTreeSet<&[u8]> =
        packed.iter().map(|name| checkpoint.tensor(name).unwrap().bytes()).collect();
    assert_eq!((packed.len(), different.len()), (2 * 4 * 3, 2 * 4 * 3));
    for name in checkpoint.names() {
        checkpoint.check_finite(name).unwrap();
    }
}

#[test]
fn files_are_named_as_the_original_ones_and_sized_as_asked() {
    let dir = sharded();
    let n = shards(dir.path()).len();
    let expected = (1..=n).map(|i| format!("model-{i:05}-of-{n:06}.safetensors"));
    let others = ["config.json", "model.safetensors.index.json"].map(String::from);
    assert_eq!(names(dir.path()), expected.chain(others).collect());
    let index: Value =
        serde_json::from_slice(&fs::read(dir.path().join("model.safetensors.index.json")).unwrap()).unwrap();
    let tensors: u64 = Checkpoint::open(dir.path())
        .map(|opened| opened.names().map(|name| opened.tensor(name).unwrap().bytes().len() as u64).sum())
        .unwrap();
    assert_eq!(index["metadata"]["total_size"], tensors);
    for path in shards(dir.path()) {
        let (header, data) = common::header(&path);
        assert!(data.len() <= 20_000 || header.len() == 2, "{} holds {} bytes", path.display(), data.len());
        // Aligned for whoever reads the elements in place.
        for entry in header.values().filter(|entry| entry["dtype"] == "F32" || entry["dtype"] == "I32") {
            let start = fs::metadata(&path).unwrap().len() as usize - data.len();
            assert_eq!((start + entry["data_offsets"][0].as_u64().unwrap() as usize) % 4, 0);
        }
    }
}

#[test]
fn the_config_keeps_what_is_not_overridden() {
    let dir = checkpoint(TINY, |options| {
        options.n_layers = 2;
        options.vocab_size = Some(91);
    });
    let mut expected: Value = serde_json::from_str(TINY).unwrap();
    expected["num_hidden_layers"] = json!(2);
    expected["vocab_size"] = json!(91);
    // 91 and 92 are not in a vocabulary of 91.
    expected["eos_token_id"] = json!([]);
    let written: Value = serde_json::from_slice(&fs::read(dir.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(written, expected);

    let mut nested = json!({"model_type": "kimi_k25", "eos_token_id": 92});
    nested["text_config"] = serde_json::from_str(TINY).unwrap();
    let dir = checkpoint(&nested.to_string(), |options| options.n_layers = 1);
    let config = Config::from_file(&dir.path().join("config.json")).unwrap();
    assert_eq!((config.family, config.num_hidden_layers), (Family::KimiK25, 1));
}

#[test]
fn a_rank_file_is_copied_beside_the_weights() {
    let ranks = tempfile::NamedTempFile::new().unwrap();
    fs::write(ranks.path(), "IQ== 0\n").unwrap();
    let dir = checkpoint(TINY, |options| options.tokenizer = Some(ranks.path().to_path_buf()));
    assert_eq!(fs::read(dir.path().join("tiktoken.model")).unwrap(), b"IQ== 0\n");
}

#[test]
fn options_that_make_no_model_are_sentences() {
    let refused = |options: Options| Blueprint::new(TINY, options).unwrap_err().to_string();
    let error = refused(Options { n_layers: 0, ..options() });
    assert!(error.contains("num_hidden_layers") && error.contains("expected"), "{error}");
    let error = refused(Options { n_layers: usize::MAX, ..options() });
    assert!(error.contains("num_hidden_layers") && error.contains("1024"), "{error}");
    let error = refused(Options { vocab_size: Some(usize::MAX), ..options() });
    assert!(error.contains("vocab_size"), "{error}");
    assert!(Blueprint::new("{}", options()).unwrap_err().to_string().contains("model_type"));
}

/// Stops once this many bytes are written.
struct StopAfter {
    limit: u64,
    n_bytes: AtomicU64,
}

impl Watch for StopAfter {
    fn advance(&self, n_bytes: u64) {
        self.n_bytes.fetch_add(n_bytes, Ordering::SeqCst);
    }
    fn stopped(&self) -> bool {
        self.n_bytes.load(Ordering::SeqCst) >= self.limit
    }
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let blueprint = Blueprint::new(TINY, Options { shard_bytes: 20_000, ..options() }).unwrap();
    for percent in [0, 1, 30, 60, 100] {
        let limit = blueprint.n_bytes() * percent / 100;
        let watch = StopAfter { limit, n_bytes: AtomicU64::new(0) };
        let made = parent.path().join("made");
        let error = blueprint.write(&made, &watch).unwrap_err();
        assert!(matches!(error, SynthError::Interrupted { .. }), "{error}");
        assert!(!made.exists(), "stopped at {percent} %");
        let given = tempfile::tempdir().unwrap();
        let watch = StopAfter { limit, n_bytes: AtomicU64::new(0) };
        blueprint.write(given.path(), &watch).unwrap_err();
        assert_eq!(names(given.path()), BTreeSet::new(), "stopped at {percent} %");
    }
}

#[test]
fn partial_files_of_a_killed_run_are_no_checkpoint_and_are_replaced() {
    let dir = sharded();
    for name in names(dir.path()) {
        let path = dir.path().join(&name);
        fs::rename(&path, dir.path().join(format!("{name}.partial"))).unwrap();
    }
    assert!(Checkpoint::open(dir.path()).is_err());
    Blueprint::new(TINY, options()).unwrap().write(dir.path(), &Unwatched).unwrap();
    assert_eq!(names(dir.path()), ["config.json", "model.safetensors"].map(String::from).into());
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let blueprint = Blueprint::new(TINY, options()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["notes.txt", "model.safetensors", "photo.partial"] {
        fs::write(dir.path().join("model.safetensors.partial"), "half").unwrap();
        fs::write(dir.path().join(name), "mine").unwrap();
        let error = blueprint.write(dir.path(), &Unwatched).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("expected a folder"), "{error}");
        assert_eq!(names(dir.path()), [name, "model.safetensors.partial"].map(String::from).into());
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let complete = single();
    let before = contents(complete.path());
    blueprint.write(complete.path(), &Unwatched).unwrap_err();
    assert_eq!(contents(complete.path()), before);
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = blueprint.write(&file, &Unwatched).unwrap_err().to_string();
    assert!(error.contains("file") && error.contains("cannot be written"), "{error}");
}

#[test]
fn a_missing_rank_file_is_said_before_anything_stays() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { tokenizer: Some("/absent/ranks".into()), ..options() };
    let error = Blueprint::new(TINY, options).unwrap().write(dir.path(), &Unwatched).unwrap_err().to_string();
    assert!(error.contains("/absent/ranks") && error.contains("cannot be read"), "{error}");
    assert_eq!(names(dir.path()), BTreeSet::new());
}
