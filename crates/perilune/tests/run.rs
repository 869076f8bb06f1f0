//! The verbs that run a model, from outside: `logits` and `generate` on the goldens, and what they say of bad input.

#![allow(clippy::unwrap_used)]

#[path = "common/binary.rs"]
mod binary;

use binary::{error, ok, perilune};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::process::Command;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/goldens").join(name)
}

fn i64s(dir: &Path, tensor: &str) -> Vec<i64> {
    let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(tensor).unwrap().data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
}

fn f32s(path: &Path, tensor: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(tensor).unwrap();
    let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (view.shape().to_vec(), values)
}

fn joined(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// Overwrite the bytes of a tensor of `model.safetensors` in `dir` from its element `at` on.
fn poke(dir: &Path, tensor: &str, bytes: &[u8]) {
    let path = dir.join("model.safetensors");
    let mut file = std::fs::read(&path).unwrap();
    let start = {
        let (n_header, metadata) = SafeTensors::read_metadata(&file).unwrap();
        8 + n_header + metadata.info(tensor).unwrap().data_offsets.0
    };
    file[start..start + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, file).unwrap();
}

#[test]
fn logits_are_those_of_the_reference() {
    let dir = golden("d/int4");
    let (shape, expect) = f32s(&dir.join("reference.safetensors"), "logits");
    let (n_tokens, vocab_size) = (shape[1], shape[2]);
    let ids = joined(&i64s(&dir, "input_ids")[..n_tokens]);
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("logits.safetensors");
    let file_arg = file.to_str().unwrap();
    ok(&["logits", dir.to_str().unwrap(), "--ids", &ids, "--path", "exact", "--out", file_arg]);
    let (shape, got) = f32s(&file, "logits");
    assert_eq!(shape, [n_tokens, vocab_size]);
    let off = got.iter().zip(&expect).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(off <= 1e-3, "{off}");
}

#[test]
fn generate_continues_greedily_and_streams_what_json_reports() {
    let dir = golden("e/int4");
    let expect = i64s(&dir, "greedy");
    let args = [
        "generate",
        dir.to_str().unwrap(),
        "--ids",
        &joined(&expect[..32]),
        "-n",
        "16",
        "--path",
        "exact",
        "--ignore-eos",
    ];
    assert_eq!(ok(&args).trim(), joined(&expect[32..]));
    let json: serde_json::Value = serde_json::from_str(&ok(&[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["ids"], serde_json::json!(expect[32..]));
    assert_eq!(json["finish_reason"], "length");
}

#[test]
fn sampling_repeats_with_its_seed_and_changes_with_it() {
    let dir = golden("c/int4");
    let run = |seed: &str| {
        let dir = dir.to_str().unwrap();
        ok(&[
            "generate",
            dir,
            "--ids",
            "1,2,3",
            "-n",
            "24",
            "--temperature",
            "1",
            "--seed",
            seed,
            "--ignore-eos",
        ])
    };
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

#[test]
fn every_kernel_set_and_thread_count_generates_the_same() {
    let dir = golden("d/int4");
    let run = |more: &[&str]| {
        let args = [
            "generate",
            dir.to_str().unwrap(),
            "--ids",
            "5,6,7",
            "-n",
            "12",
            "--ignore-eos",
            "--dense",
            "int8",
        ];
        ok(&[&args, more].concat())
    };
    let list: serde_json::Value = serde_json::from_str(&ok(&["bench", "--kernels", "--json"])).unwrap();
    let expect = run(&["--isa", "scalar", "--threads", "1"]);
    for set in list.as_array().unwrap() {
        if set["present"] == true {
            let name = set["name"].as_str().unwrap();
            assert_eq!(run(&["--isa", name, "--threads", "2"]), expect, "{name}");
        }
    }
}

#[test]
fn damaged_weights_are_named_instead_of_running() {
    let copy = copy_of("d/int4");
    let tensor = "model.layers.1.mlp.experts.4.up_proj.weight_scale";
    let nan = half_nan().repeat(8);
    poke(copy.path(), tensor, &nan);
    let dir = copy.path().to_str().unwrap();
    let ids = joined(&i64s(copy.path(), "input_ids")[..56]);
    for path in ["exact", "fast"] {
        let text = error(&["generate", dir, "--ids", &ids, "-n", "1", "--path", path]);
        assert!(
            text.contains(tensor) && text.contains("model.safetensors") && text.contains("NaN"),
            "{text}"
        );
    }
    let out = copy.path().join("out.safetensors");
    let text = error(&["logits", dir, "--ids", &ids, "--out", out.to_str().unwrap()]);
    assert!(text.contains(tensor), "{text}");
    assert!(!out.exists());
}

fn half_nan() -> [u8; 2] {
    0x7fc0u16.to_le_bytes()
}

#[test]
fn a_stray_tensor_beside_packed_experts_is_passed_over() {
    let copy = copy_of("d/int4");
    let path = copy.path().join("model.safetensors");
    let file = std::fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let name = "model.layers.1.mlp.experts.4.up_proj.weight";
    let stray = safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, vec![3], &[0; 6]).unwrap();
    let all = tensors.tensors().into_iter().chain([(name.to_owned(), stray)]);
    std::fs::write(&path, safetensors::serialize(all, None).unwrap()).unwrap();
    let run =
        |dir: &Path| ok(&["generate", dir.to_str().unwrap(), "--ids", "1,2,3", "-n", "8", "--ignore-eos"]);
    assert_eq!(run(copy.path()), run(&golden("d/int4")));
}

#[test]
fn a_reader_who_leaves_early_ends_the_run_quietly() {
    use std::process::Stdio;
    let dir = golden("d/int4");
    for verb in
        [&["bench", "--kernels"][..], &["generate", dir.to_str().unwrap(), "--ids", "1", "-n", "9", "--json"]]
    {
        let mut child = Command::new(env!("CARGO_BIN_EXE_perilune"))
            .args(verb)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn bad_requests_are_one_sentence() {
    let dir = golden("d/int4");
    let dir = dir.to_str().unwrap();
    let text = error(&["generate", dir, "--ids", "1,5000", "-n", "1"]);
    assert!(text.contains("token id 5000 at position 1 is outside the vocabulary of 203"), "{text}");
    let text = error(&["generate", dir, "--prompt", "hello"]);
    assert!(text.contains("tiktoken.model") && text.contains("--ids"), "{text}");
    let text = error(&["generate", dir, "--ids", "1", "-n", "10000000"]);
    assert!(text.contains("max_position_embeddings"), "{text}");
    let text = error(&["generate", dir, "--ids", "1", "--path", "exact", "--dense", "int8"]);
    assert!(text.contains("exact path"), "{text}");
    for n in ["1000000000000", "18446744073709551000", "18446744073709551615"] {
        let text = error(&["generate", dir, "--ids", "1,2", "-n", n, "--ignore-eos"]);
        assert!(text.contains("max_position_embeddings"), "{text}");
        let text = error(&["bench", dir, "--prompt", n]);
        assert!(text.contains("max_position_embeddings"), "{text}");
    }
    let text = error(&["bench", dir, "--batch", "1000000000000"]);
    assert!(text.contains("ask for fewer tokens"), "{text}");
    let text = error(&["generate", "/no/such/folder", "--ids", "1"]);
    assert!(text.contains("/no/such/folder is not a folder"), "{text}");
    let text = error(&["logits", dir, "--ids", "1", "--out", "/no/such/folder/x"]);
    assert!(text.contains("cannot write /no/such/folder/x"), "{text}");
    let usage = perilune(&["generate", dir, "--ids", "1,x"]);
    assert!(String::from_utf8_lossy(&usage.stderr).contains("'x' is not a token id"));
}

#[test]
fn bench_measures_beside_the_machines_limits() {
    let dir = golden("c/int4");
    let args =
        ["bench", dir.to_str().unwrap(), "--prompt", "16", "--decode", "4", "--batch", "1,2", "--runs", "1"];
    let report: serde_json::Value = serde_json::from_str(&ok(&[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(report["runs"].as_array().unwrap().len(), 2);
    assert!(report["limits"][0]["read_gb_per_s"].as_f64().unwrap() > 0.0);
    assert!(report["accuracy"]["mean_kl_nats"].as_f64().unwrap() < 1e-2);
    for run in report["runs"].as_array().unwrap() {
        assert!(run["decode_tokens_per_s"].as_f64().unwrap() > 0.0);
        assert!(run["bytes_per_step"].as_u64().unwrap() > 0);
        let sum: u64 =
            run["decode_parts"].as_array().unwrap().iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
        let total = run["bytes_per_step"].as_u64().unwrap();
        assert!(sum.abs_diff(total) <= 8, "parts read {sum} bytes, all of them {total}");
    }
}

#[test]
fn bench_projects_a_slice_to_more_layers_and_another_machine() {
    let dir = golden("c/int4");
    let args =
        ["bench", dir.to_str().unwrap(), "--prompt", "8", "--decode", "2", "--runs", "1", "--accuracy", "0"];
    let more =
        ["--cached", "100", "--project", "61", "--project-vocab", "1000", "--bandwidth", "400GB/s", "--json"];
    let report: serde_json::Value = serde_json::from_str(&ok(&[&args[..], &more].concat())).unwrap();
    assert_eq!(report["runs"][0]["cached"], 100);
    let projection = &report["projections"][0];
    assert_eq!((&projection["layers"], &projection["vocab"]), (&61.into(), &1000.into()));
    assert_eq!(projection["context"], 109);
    let [here, there] = [0, 1].map(|i| &projection["machines"][i]);
    assert_eq!(there["read_gb_per_s"], 400.0);
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let faster = number(&there["decode_tokens_per_s"]) / number(&here["decode_tokens_per_s"]);
    assert!((faster / (400.0 / number(&here["read_gb_per_s"])) - 1.0).abs() < 1e-9);
    assert!(number(&projection["bytes_per_step"]) > number(&report["runs"][0]["bytes_per_step"]));
    let wrong = perilune(&["bench", dir.to_str().unwrap(), "--project", "--bandwidth", "fast"]);
    assert_eq!(wrong.status.code(), Some(2));
    let text = String::from_utf8(wrong.stderr).unwrap();
    assert!(text.contains("400GB/s"), "{text}");
}
