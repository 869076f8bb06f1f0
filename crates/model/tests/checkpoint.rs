//! Opening checkpoints: whole ones give every tensor, damaged ones one clear sentence and never a panic.

#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Rng, SCALE, TINY, checkpoint, edit_config, edit_data, edit_entry, header, shard_of, sharded, shards,
    single, write,
};
use perilune_kernels::map::{PAGE_BYTES, pages};
use perilune_model::checkpoint::{Checkpoint, Dtype};
use perilune_model::layout;
use perilune_model::touched::by_first_pass;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

#[test]
fn a_whole_checkpoint_gives_every_tensor() {
    for dir in [single(), sharded()] {
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.unused(), [] as [String; 0]);
        let expected: Vec<_> = layout::expected(&checkpoint.config).collect();
        assert_eq!(checkpoint.names().count(), expected.len());
        for spec in expected {
            let tensor = checkpoint.tensor(&spec.name).unwrap();
            assert_eq!((tensor.shape, tensor.dtype), (&spec.shape[..], spec.dtypes[0]), "{}", spec.name);
            assert_eq!(tensor.bytes().len() as u64, spec.n_bytes());
        }
        checkpoint.check_matrix("model.layers.1.mlp.experts.3.down_proj").unwrap();
        checkpoint.check_matrix("model.layers.0.mlp.down_proj").unwrap();
    }
}

#[test]
fn one_matrix_may_lie_in_several_shards() {
    // One tensor a shard: packed words, scales and shape of each matrix are apart.
    let apart = checkpoint(TINY, |options| options.shard_bytes = 1);
    let (apart, whole) = (Checkpoint::open(apart.path()).unwrap(), single());
    let whole = Checkpoint::open(whole.path()).unwrap();
    assert_eq!(apart.shards().len(), whole.names().count());
    for name in whole.names() {
        assert_eq!(apart.tensor(name).unwrap().bytes(), whole.tensor(name).unwrap().bytes(), "{name}");
    }
}

#[test]
fn a_first_pass_touches_every_matrix_but_other_experts() {
    let mut config: Value = serde_json::from_str(TINY).unwrap();
    config["moe_intermediate_size"] = json!(2_048);
    // One tensor a shard: no two share a page.
    let dir = checkpoint(&config.to_string(), |options| options.shard_bytes = 1);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let touched = by_first_pass(&checkpoint, &[1], &BTreeSet::from([(1, 2), (2, 0)]));
    assert_eq!(touched.len(), checkpoint.shards().len());
    for (shard_idx, file) in touched.iter().enumerate() {
        let all = checkpoint.tensors_of(shard_idx);
        let [(name, tensor)] = &all[..] else { panic!("a tensor a shard") };
        let is_chosen = name.contains("layers.1.mlp.experts.2.") || name.contains("layers.2.mlp.experts.0.");
        let is_whole = is_chosen || !name.contains(".mlp.experts.") && !name.contains("embed_tokens");
        let end = if is_whole { tensor.range.end } else { checkpoint.shards()[shard_idx].header().end };
        assert_eq!(file.pages, [pages(&(0..end))], "{name}");
        assert_eq!(file.n_bytes() as usize, end.next_multiple_of(PAGE_BYTES), "{name}");
        assert!(Arc::ptr_eq(&file.file, checkpoint.shards()[shard_idx].file()));
    }
}

#[test]
fn stray_tensors_are_named_as_unused() {
    let dir = single();
    let path = &shards(dir.path())[0];
    let (mut head, mut data) = header(path);
    let end = data.len();
    for (i, name) in
        ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.61.eh_proj.weight"].iter().enumerate()
    {
        let (start, end) = (end + 8 * i, end + 8 * (i + 1));
        head.insert((*name).into(), json!({"dtype": "F32", "shape": [2], "data_offsets": [start, end]}));
    }
    data.resize(end + 16, 0);
    write(path, &head, &data);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(
        checkpoint.unused(),
        ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.61.eh_proj.weight"]
    );
}

#[test]
fn accepted_forms_besides_the_published_one_open() {
    // A stored shape in I64, an F32 router, a BF16 bias, plain F32 experts, tied embeddings.
    let plain: Value = serde_json::from_str(TINY).unwrap();
    let mut float32 = plain.clone();
    float32.as_object_mut().unwrap().remove("quantization_config");
    float32["dtype"] = json!("float32");
    let dir = checkpoint(&float32.to_string(), |_| ());
    let opened = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(opened.tensor("model.layers.1.mlp.experts.0.up_proj.weight").unwrap().dtype, Dtype::F32);
    opened.check_matrix("model.layers.1.mlp.experts.0.up_proj").unwrap();

    let mut tied = plain.clone();
    tied["tie_word_embeddings"] = json!(true);
    let dir = checkpoint(&tied.to_string(), |_| ());
    assert!(Checkpoint::open(dir.path()).unwrap().tensor("lm_head.weight").is_none());

    let mut nested = json!({"model_type": "kimi_k25", "architectures": ["KimiK25ForConditionalGeneration"]});
    nested["text_config"] = plain;
    let dir = checkpoint(&nested.to_string(), |_| ());
    let opened = Checkpoint::open(dir.path()).unwrap();
    assert!(opened.tensor("language_model.model.layers.2.mlp.gate.weight").is_some());

    let dir = single();
    let stored = "model.layers.1.mlp.experts.0.up_proj.weight_shape";
    to_i64(dir.path(), stored);
    Checkpoint::open(dir.path()).unwrap().check_stored_shape(stored).unwrap();
}

/// Move the two integers of `tensor` to the file's end, as I64, and leave a stray tensor where they were.
fn to_i64(dir: &Path, tensor: &str) {
    let path = shard_of(dir, tensor);
    let (mut head, mut data) = header(&path);
    let at = head[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    let stray = head.insert(
        tensor.into(),
        json!({"dtype": "I64", "shape": [2], "data_offsets": [data.len(), data.len() + 16]}),
    );
    head.insert("stray".into(), stray.unwrap());
    for value in [&data[at..at + 4].to_vec(), &data[at + 4..at + 8].to_vec()] {
        data.extend([&value[..], &[0; 4]].concat());
    }
    write(&path, &head, &data);
}

#[test]
fn end_ids_of_the_generation_defaults_are_added() {
    let dir = single();
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [92, 93]}"#).unwrap();
    assert_eq!(Checkpoint::open(dir.path()).unwrap().config.eos_token_ids, [91, 92, 93]);
    fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": "x"}"#).unwrap();
    refused(dir.path(), &["generation_config.json", "eos_token_id", "token id"]);
}

/// Opening `dir` gives one sentence that holds each of `words`.
fn refused(dir: &Path, words: &[&str]) {
    let error = Checkpoint::open(dir).map(|_| ()).unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
    assert!(!error.contains('\n') && error.len() < 600, "not one sentence: {error}");
}

#[test]
fn files_that_are_not_there() {
    let dir = sharded();
    let missing = &shards(dir.path())[1];
    fs::remove_file(missing).unwrap();
    refused(
        dir.path(),
        &["index.json", missing.file_name().unwrap().to_str().unwrap(), "tensor `", "download"],
    );
    fs::remove_file(dir.path().join("model.safetensors.index.json")).unwrap();
    refused(dir.path(), &["neither", "model.safetensors.index.json"]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    refused(dir.path(), &["config.json", "cannot be read"]);
    refused(&dir.path().join("absent"), &["absent", "cannot be read"]);
}

#[test]
fn files_that_were_cut_or_grew() {
    let dir = sharded();
    let path = shard_of(dir.path(), SCALE);
    let name = path.file_name().unwrap().to_str().unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    refused(dir.path(), &[name, "truncated", "tensor", &whole.len().to_string()]);
    fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    refused(dir.path(), &[name, "too long", &whole.len().to_string()]);
    fs::write(&path, &whole[..40]).unwrap();
    refused(dir.path(), &[name, "header", "40 bytes", "download it again"]);
    fs::write(&path, &whole[..5]).unwrap();
    refused(dir.path(), &[name, "5 bytes", "at least 8"]);
    fs::write(&path, b"").unwrap();
    refused(dir.path(), &[name, "0 bytes"]);
    for length in [u64::MAX, u64::MAX - 8, 1 << 40] {
        fs::write(&path, [&length.to_le_bytes(), &whole[8..]].concat()).unwrap();
        refused(dir.path(), &[name, &length.to_string(), &whole.len().to_string()]);
    }
}

#[test]
fn headers_that_are_none() {
    let dir = single();
    let path = &shards(dir.path())[0];
    for (text, word) in [("[]", "not an object"), ("{\"a\":", "not JSON"), ("\u{0}\u{0}", "not JSON")] {
        fs::write(path, [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()).unwrap();
        refused(dir.path(), &["model.safetensors", word]);
    }
    let deep = "[".repeat(100_000);
    fs::write(path, [&(deep.len() as u64).to_le_bytes()[..], deep.as_bytes()].concat()).unwrap();
    refused(dir.path(), &["model.safetensors", "not JSON"]);
}

#[test]
fn header_entries_that_cannot_be() {
    let cases: [(&str, Value, &[&str]); 9] = [
        ("/dtype", json!("Q4_K"), &["Q4_K"]),
        ("/dtype", json!(null), &["damaged"]),
        ("/shape", json!([-1, 2]), &["damaged"]),
        ("/shape", json!([u64::MAX, u64::MAX]), &["no size"]),
        ("/shape", json!([33, 2]), &["takes", "bytes"]),
        ("/data_offsets", json!([0, u64::MAX]), &["takes", "bytes"]),
        ("/data_offsets", json!([u64::MAX - 128, u64::MAX]), &["beyond any file"]),
        ("/data_offsets", json!([5]), &["damaged"]),
        ("", json!(7), &["damaged"]),
    ];
    for (pointer, value, words) in cases {
        let dir = single();
        edit_entry(dir.path(), SCALE, |entry| *entry.pointer_mut(pointer).unwrap() = value);
        refused(dir.path(), &[&["model.safetensors", SCALE], words].concat());
    }
}

#[test]
fn tensors_that_overlap_or_leave_holes() {
    for (shift, word) in [(-2i64, "overlaps"), (2, "hole")] {
        let dir = single();
        edit_entry(dir.path(), SCALE, |entry| {
            for i in 0..2 {
                let at = entry["data_offsets"][i].as_i64().unwrap();
                entry["data_offsets"][i] = json!(at + shift);
            }
        });
        refused(dir.path(), &["model.safetensors", "tensor `", word, "expected"]);
    }
}

#[test]
fn tensors_the_config_does_not_want_like_this() {
    let dir = single();
    edit_entry(dir.path(), SCALE, |entry| entry["dtype"] = json!("F16"));
    refused(dir.path(), &["model.safetensors", SCALE, "F16", "expected BF16"]);

    let dir = single();
    edit_entry(dir.path(), SCALE, |entry| entry["shape"] = json!([2, 32]));
    refused(dir.path(), &["model.safetensors", SCALE, "[2, 32]", "expected [32, 2]"]);

    let dir = single();
    edit_config(dir.path(), |config| config["hidden_size"] = json!(128));
    refused(dir.path(), &["model.embed_tokens.weight", "[96, 64]", "[96, 128]"]);

    let dir = single();
    rename(dir.path(), SCALE, "model.layers.1.mlp.experts.2.up_proj.scale");
    refused(dir.path(), &[SCALE, "missing", "BF16 [32, 2]"]);
}

/// Rename a tensor in its header.
fn rename(dir: &Path, from: &str, to: &str) {
    let path = shard_of(dir, from);
    let (mut head, data) = header(&path);
    let entry = head.remove(from).unwrap();
    head.insert(to.into(), entry);
    write(&path, &head, &data);
}

#[test]
fn packing_and_config_that_disagree_say_so() {
    let dir = single();
    edit_config(dir.path(), |config| config["quantization_config"] = Value::Null);
    refused(dir.path(), &["experts.0.gate_proj.weight`", "missing", "packed", "quantization_config"]);

    let mut plain: Value = serde_json::from_str(TINY).unwrap();
    let quantization = plain.as_object_mut().unwrap().remove("quantization_config").unwrap();
    let dir = checkpoint(&plain.to_string(), |_| ());
    edit_config(dir.path(), |config| config["quantization_config"] = quantization);
    refused(dir.path(), &["experts.0.gate_proj.weight_packed`", "missing", "unpacked"]);
}

#[test]
fn an_index_that_lies() {
    let dir = sharded();
    let path = dir.path().join("model.safetensors.index.json");
    let index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut index = index.clone();
        edit(&mut index);
        fs::write(&path, index.to_string()).unwrap();
    };
    let first = shards(dir.path())[0].file_name().unwrap().to_str().unwrap().to_owned();
    with(&|index| index["weight_map"][SCALE] = json!(first));
    refused(dir.path(), &["index.json", SCALE, &first, "does not hold it"]);
    with(&|index| index["weight_map"][SCALE] = json!("../other.safetensors"));
    refused(dir.path(), &["index.json", "../other.safetensors", "plain file name"]);
    with(&|index| index["weight_map"][SCALE] = json!(".."));
    refused(dir.path(), &["index.json", "plain file name"]);
    with(&|index| index["weight_map"] = json!({}));
    refused(dir.path(), &["index.json", "empty"]);
    with(&|index| index["weight_map"] = json!([1]));
    refused(dir.path(), &["index.json", "weight_map"]);
    fs::write(&path, "{").unwrap();
    refused(dir.path(), &["index.json", "weight_map"]);
}

#[test]
fn a_matrix_with_impossible_values_is_refused_when_it_is_loaded() {
    let stem = SCALE.strip_suffix(".weight_scale").unwrap();
    for bad in [half::bf16::NAN, half::bf16::INFINITY, half::bf16::NEG_INFINITY] {
        let dir = single();
        edit_data(dir.path(), SCALE, |bytes| bytes[10..12].copy_from_slice(&bad.to_le_bytes()));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let error = checkpoint.check_matrix(stem).unwrap_err().to_string();
        for word in ["model.safetensors", SCALE, &bad.to_string(), "[2, 1]", "finite"] {
            assert!(error.contains(word), "`{word}` is not in: {error}");
        }
    }
    let dir = single();
    let stored = format!("{stem}.weight_shape");
    edit_data(dir.path(), &stored, |bytes| bytes[0] = 31);
    let error = Checkpoint::open(dir.path()).unwrap().check_matrix(stem).unwrap_err().to_string();
    for word in ["model.safetensors", &stored, "[31, 64]", "[32, 64]"] {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let dir = single();
    let path = &shards(dir.path())[0];
    let whole = fs::read(path).unwrap();
    let n_header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let (mut n_opened, seed) = (0, 20_261_124);
    let mut rng = Rng(seed);
    for round in 0..1500 {
        let mut bytes = whole.clone();
        for _ in 0..=rng.below(3) {
            // Mostly digits and punctuation of the header; sometimes its length.
            let at = if rng.below(10) == 0 { rng.below(8) } else { rng.below(n_header) };
            bytes[at] = if rng.below(2) == 0 { b'0' + rng.below(10) as u8 } else { rng.next() as u8 };
        }
        if rng.below(8) == 0 {
            bytes.truncate(rng.below(bytes.len()));
        }
        fs::write(path, &bytes).unwrap();
        let opened = std::panic::catch_unwind(|| open_and_read(dir.path()))
            .unwrap_or_else(|_| panic!("round {round} of seed {seed} panicked"));
        n_opened += usize::from(opened);
    }
    // Some mutations touch what does not matter (metadata, padding); most must be caught.
    assert!(n_opened < 300, "{n_opened} of 1500 damaged headers opened");
}

/// Open `dir` and, where that works, read every byte of every tensor.
fn open_and_read(dir: &Path) -> bool {
    let Ok(checkpoint) = Checkpoint::open(dir) else { return false };
    for name in checkpoint.names() {
        let tensor = checkpoint.tensor(name).unwrap();
        assert!(tensor.bytes().iter().map(|b| u64::from(*b)).sum::<u64>() < u64::MAX);
        let _any = checkpoint.check_finite(name);
    }
    true
}
