//! `train` from outside: a run stopped by Ctrl-C and gone on with, exported, opened by other verbs, reported on.

#![allow(clippy::unwrap_used)]

#[path = "common/binary.rs"]
mod binary;
#[path = "common/signal.rs"]
mod signal;

use binary::{error, ok};
use signal::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const STAGE: &str = "model = \"smoke.json\"\n[[stage]]\nname = \"only\"\nfeed = \"copies\"\ntokens = 6_000\n\
                     batch_tokens = 200\nsequence_tokens = 24\nlr = 5e-3\nquant = \"int4\"\neval_sequences = 2\n";

/// [`error`], one sentence long.
fn sentence(args: &[&str]) -> String {
    let text = error(args);
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

fn recipe(folder: &Path, text: &str) -> PathBuf {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    std::fs::copy(recipes.join("smoke.json"), folder.join("smoke.json")).unwrap();
    let path = folder.join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_run_goes_on_to_a_model_that_opens() {
    let folder = tempfile::tempdir().unwrap();
    let (path, out) = (recipe(folder.path(), STAGE), folder.path().join("run"));
    let (path, out_arg) = (path.to_str().unwrap(), out.to_str().unwrap());
    let plan: serde_json::Value = serde_json::from_str(&ok(&["train", path, "--dry-run", "--json"])).unwrap();
    assert_eq!((plan["tokens"].as_u64(), plan["steps"].as_u64()), (Some(6000), Some(30)));
    assert!(!out.exists(), "a dry run writes nothing");

    let mut child = Command::new(env!("CARGO_BIN_EXE_perilune"))
        .args(["train", path, "--out", out_arg, "--threads", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let has_begun = || std::fs::read_to_string(out.join("log.jsonl")).is_ok_and(|log| log.contains('\n'));
    while !has_begun() {
        assert!(started.elapsed() < Duration::from_secs(60), "no step within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    signal::send(&child, Signal::SIGINT);
    let code = child.wait().unwrap().code();
    // On a fast machine the run may have ended before the signal came.
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
    assert_eq!(std::fs::read_dir(out.join("checkpoints")).unwrap().count(), 1);

    assert!(sentence(&["train", path, "--out", out_arg]).contains("--resume"));
    assert!(ok(&["train", path, "--out", out_arg, "--resume"]).contains("complete"));
    let steps = std::fs::read_to_string(out.join("log.jsonl")).unwrap().lines().count();
    assert_eq!(steps, 30);

    let model = folder.path().join("model");
    let model_arg = model.to_str().unwrap();
    assert!(ok(&["train", "export", out_arg, "--out", model_arg]).contains("INT4"));
    ok(&["verify", model_arg]);
    assert!(ok(&["generate", model_arg, "--ids", "0,5,9,0,5", "-n", "3", "--json"]).contains("\"ids\""));
    ok(&["train", "report", out_arg]);
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("<svg"));
}

#[test]
fn bad_input_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = recipe(folder.path(), &STAGE.replace("lr =", "rate ="));
    let text = sentence(&["train", path.to_str().unwrap()]);
    assert!(text.contains("recipe.toml") && text.contains("rate"), "{text}");
    let absent = folder.path().join("absent");
    let absent = absent.to_str().unwrap();
    assert!(sentence(&["train", absent]).contains("absent"));
    assert!(sentence(&["train", "report", absent]).contains("no log"));
    assert!(sentence(&["train", "export", absent, "--out", absent]).contains("no checkpoint"));
}
