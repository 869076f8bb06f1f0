//! The storage verbs from outside: `random`, `inspect`, `plan`, `verify`, on good folders, full disks and Ctrl-C.

#![allow(clippy::unwrap_used)]

#[path = "common/signal.rs"]
mod signal;

use serde_json::Value;
use signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PERILUNE: &str = env!("CARGO_BIN_EXE_perilune");
const K2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/data/k2_thinking_config.json");
const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../model/tests/data/tiny_int4_config.json");

fn perilune(args: &[&str]) -> Output {
    Command::new(PERILUNE).args(args).output().unwrap()
}

/// Standard output of a run that succeeds.
fn ok(args: &[&str]) -> String {
    let output = perilune(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&ok(&[args, &["--json"]].concat())).unwrap()
}

/// A failed run says one sentence that holds each of `words`.
fn failed(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it succeeded");
    assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1, "not one sentence: {said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A folder in which a checkpoint `model` is written by `random`.
fn written(more: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    ok(&[&["random", "--config", TINY, "--layers", "3", "--out", model.to_str().unwrap()], more].concat());
    (dir, model)
}

#[test]
fn what_random_writes_the_others_read() {
    let ranks = tempfile::NamedTempFile::new().unwrap();
    fs::write(ranks.path(), "IQ== 0\n").unwrap();
    let (_dir, model) =
        written(&["--shard-size", "20kB", "--seed", "9", "--tokenizer", ranks.path().to_str().unwrap()]);
    let model = model.to_str().unwrap();
    let inspected = json(&["inspect", model]);
    assert_eq!((&inspected["n_layers"], &inspected["n_moe_layers"]), (&3.into(), &2.into()));
    assert_eq!(inspected["word_files"][0]["file"], "tiktoken.model");
    assert_eq!(inspected["unused"]["n_tensors"], 0);
    let parts = inspected["parts"].as_array().unwrap();
    let sum = |key: &str| parts.iter().map(|part| part[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(inspected["parameters"]["total"], sum("n_parameters"));
    let shards = inspected["shards"].as_array().unwrap();
    assert_eq!(
        shards.iter().map(|shard| shard["n_tensors"].as_u64().unwrap()).sum::<u64>(),
        sum("n_tensors")
    );
    let planned = json(&["plan", model, "--context", "100", "--ram", "1GB"]);
    assert_eq!(planned["mapped_bytes"], inspected["bytes"]);
    assert_eq!(planned["verdict"], "fits");
    let verified = json(&["verify", model]);
    let on_disk: u64 = shards.iter().map(|shard| shard["bytes"].as_u64().unwrap()).sum();
    assert_eq!((&verified["intact"], &verified["n_bytes"]), (&true.into(), &on_disk.into()));
    for text in [ok(&["inspect", model]), ok(&["plan", model, "--context", "100"]), ok(&["verify", model])] {
        assert!(text.lines().count() >= 2 && text.lines().all(|line| line.trim_end() == line), "{text}");
    }
}

#[test]
fn the_same_seed_gives_the_same_files() {
    let contents = |more: &[&str]| {
        let (_dir, model) = written(more);
        names(&model).into_iter().map(|name| fs::read(model.join(name)).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(contents(&["--seed", "4", "--threads", "1"]), contents(&["--seed", "4", "--threads", "3"]));
    assert_ne!(contents(&["--seed", "4"]), contents(&["--seed", "5"]));
}

#[test]
fn plan_knows_the_size_of_k2_from_its_config_alone() {
    let near = |found: &Value, expected: f64| {
        let found = found.as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-3, "{found}, expected {expected}");
    };
    let plan = json(&["plan", K2, "--context", "32768", "--ram", "64GB"]);
    near(&plan["parameters"]["total"], 1.026e12);
    near(&plan["mapped_bytes"], 594.2e9);
    near(&plan["cache_bytes_per_token"], 70_272.0);
    assert_eq!(plan["verdict"], "from_disk");
    let text = ok(&["plan", K2, "--context", "32768", "--ram", "640GB", "--dense", "int8"]);
    for words in ["1.026 T parameters", "594.2 GB", "70,272 B a token", "fits 640.0 GB"] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
}

#[test]
fn requests_that_make_no_sense_are_sentences() {
    failed(&perilune(&["plan", K2, "--context", "262145"]), &["262145", "262144"]);
    failed(&perilune(&["plan", K2, "--context", "0"]), &["expected"]);
    failed(
        &perilune(&["plan", K2, "--context", "64", "--path", "exact", "--dense", "int8"]),
        &["--dense bf16"],
    );
    failed(&perilune(&["plan", "/absent.json", "--context", "64"]), &["/absent.json", "cannot be read"]);
    failed(&perilune(&["inspect", "/absent"]), &["/absent is not a folder", "config.json"]);
    failed(&perilune(&["verify", "/absent"]), &["/absent is not a folder", "config.json"]);
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let out = out.to_str().unwrap();
    failed(
        &perilune(&["random", "--config", "/absent.json", "--layers", "1", "--out", out]),
        &["/absent.json"],
    );
    failed(
        &perilune(&["random", "--config", K2, "--layers", "0", "--out", out]),
        &["k2_thinking_config.json", "num_hidden_layers"],
    );
    let bad_size =
        perilune(&["random", "--config", TINY, "--layers", "1", "--out", out, "--shard-size", "many"]);
    assert!(!bad_size.status.success() && String::from_utf8_lossy(&bad_size.stderr).contains("64GiB"));
    assert_eq!(names(dir.path()), BTreeSet::new());
}

#[test]
fn a_folder_in_use_is_refused() {
    let (_dir, model) = written(&[]);
    let before = names(&model);
    let again = perilune(&["random", "--config", TINY, "--layers", "3", "--out", model.to_str().unwrap()]);
    failed(&again, &["holds `", "expected a folder that is new"]);
    assert_eq!(names(&model), before);
}

#[test]
fn more_than_the_disk_holds_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("huge.json");
    let mut huge: Value = serde_json::from_str(&fs::read_to_string(TINY).unwrap()).unwrap();
    huge["hidden_size"] = (1 << 20).into();
    fs::write(&config, huge.to_string()).unwrap();
    let (config, out) = (config.to_str().unwrap(), dir.path().join("out"));
    // 70 TB in embedding and head alone.
    let args = [
        "random",
        "--config",
        config,
        "--layers",
        "1",
        "--vocab",
        "16777216",
        "--out",
        out.to_str().unwrap(),
    ];
    failed(&perilune(&args), &["70.", "TB", "free", "--layers"]);
    assert!(!out.exists());
}

#[test]
fn a_full_disk_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    // Files may grow to 64 blocks of 512 bytes or of 1 kB: a write beyond fails, as on a full disk.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, PERILUNE, "random", "--config", TINY, "--layers", "3", "--out"])
        .arg(&out)
        .output()
        .unwrap();
    failed(&output, &["model.safetensors", "cannot be written", "removed"]);
    assert!(!out.exists());
}

/// `random` of one layer of K2, a gigabyte, once its first file has appeared.
fn long_run(out: &Path) -> Child {
    let child = Command::new(PERILUNE)
        .args(["random", "--config", K2, "--layers", "1", "--vocab", "1024", "--threads", "1", "--out"])
        .arg(out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !out.join("model.safetensors.partial").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "the first file does not appear");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    for name in [Signal::SIGINT, Signal::SIGTERM] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let child = long_run(&out);
        signal::send(&child, name);
        failed(&child.wait_with_output().unwrap(), &["interrupted", "removed"]);
        assert!(!out.exists(), "{name:?}");
    }
}

#[test]
fn a_killed_run_leaves_nothing_that_opens_and_its_folder_can_be_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let mut child = long_run(&out);
    signal::send(&child, Signal::SIGKILL);
    child.wait().unwrap();
    assert_eq!(names(&out), ["model.safetensors.partial".to_owned()].into());
    failed(&perilune(&["inspect", out.to_str().unwrap()]), &["config.json", "cannot be read"]);
    ok(&["random", "--config", TINY, "--layers", "3", "--out", out.to_str().unwrap()]);
    assert_eq!(names(&out), ["config.json", "model.safetensors"].map(String::from).into());
}

#[test]
fn verify_fails_on_damage_and_says_where() {
    let (dir, model) = written(&[]);
    let (path, sums) = (model.join("model.safetensors"), dir.path().join("SUMS"));
    let (model, sums) = (model.to_str().unwrap(), sums.to_str().unwrap());
    ok(&["verify", model, "--write", sums]);
    assert_eq!(fs::read_to_string(sums).unwrap().lines().count(), 2);
    ok(&["verify", model, "--against", sums]);

    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    ok(&["verify", model]);
    let output = perilune(&["verify", model, "--against", sums]);
    failed(&output, &[model, "1 thing damaged"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("damaged") && said.contains("SHA-256") && !said.contains("intact"), "{said}");

    // All ones is a NaN in BF16.
    bytes[last - 1..].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let output = perilune(&["verify", model, "--json", "--write", "/absent/never"]);
    failed(&output, &["1 thing damaged"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["intact"], false);
    assert!(report["damage"][0]["what"].as_str().unwrap().contains("NaN"), "{report}");
    fs::write(sums, "no sums here").unwrap();
    failed(&perilune(&["verify", model, "--against", sums]), &["SUMS", "line 1"]);
}

#[test]
fn a_reader_who_leaves_early_is_no_error() {
    let (_dir, model) = written(&[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status =
        Command::new(PERILUNE).args(["inspect", model.to_str().unwrap()]).stdout(writer).status().unwrap();
    assert!(status.success());
}

#[test]
fn help_lists_the_verbs_and_explains_each() {
    let help = ok(&["--help"]);
    for verb in ["inspect", "plan", "verify", "random"] {
        assert!(help.contains(&format!("  {verb} ")), "{help}");
        let own = ok(&[verb, "--help"]);
        assert!(own.contains("Usage: perilune") && own.contains("--json"), "{own}");
    }
}
