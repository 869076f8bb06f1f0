//! `eval tools` from outside: a model of noise does nothing, and is told so.

#![allow(clippy::unwrap_used)]

#[path = "common/folder.rs"]
mod folder;

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::{Command, Output};

fn perilune(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perilune")).args(args).output().unwrap()
}

#[test]
fn noise_solves_nothing_and_is_counted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let config = root.join("crates/model/tests/goldens/d/int4/config.json");
    let ranks = root.join("recipes/tokenizer/tiktoken.model");
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("model");
    let (config, ranks, out) = (config.to_str().unwrap(), ranks.to_str().unwrap(), out.to_str().unwrap());
    let made = perilune(&[
        "random",
        "--config",
        config,
        "--layers",
        "2",
        "--vocab",
        "2048",
        "--tokenizer",
        ranks,
        "--out",
        out,
    ]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let run = perilune(&["eval", "tools", "--model", out, "--family", "choose", "--n", "2", "--json"]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(
        (&report["family"], &report["episodes"], &report["solved"]),
        (&"choose".into(), &2.into(), &0.into())
    );
    assert_eq!(report["exact_calls"], 0);
    assert_eq!(report["held_out"]["episodes"], 10);
    assert_eq!(report["without_grammar"]["episodes"], 2);
    let first = &report["exactness_by_call"][0];
    assert_eq!((&first["calls"], &first["exact_calls"]), (&2.into(), &0.into()));
    assert_eq!(report["failures"].as_array().unwrap().len(), 2);
}

#[test]
fn a_folder_without_a_model_gives_one_sentence() {
    let empty = tempfile::tempdir().unwrap();
    let run = perilune(&["eval", "tools", "--model", empty.path().to_str().unwrap(), "--family", "sum"]);
    assert_eq!(run.status.code(), Some(1));
    let text = String::from_utf8(run.stderr).unwrap();
    assert!(text.starts_with("error: ") && text.contains("tiktoken.model"), "{text}");
}

/// The binary with the embedded model, and this folder as the user's cache and data.
fn embedded(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perilune"));
    command.args(args).env("XDG_CACHE_HOME", home.join("cache")).env("PERILUNE_DATA", home.join("data"));
    command.output().unwrap()
}

#[test]
fn a_damaged_copy_of_the_embedded_model_is_replaced_and_a_missing_cache_does_without() {
    let home = tempfile::tempdir().unwrap();
    let workspace = home.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    std::fs::write(workspace.join("start.txt"), "The code is AB-123\n").unwrap();
    let eval = || {
        let args = ["run", TASKS[0].0, "--steps", "1", "--json", "--workspace", workspace.to_str().unwrap()];
        let run = embedded(home.path(), &args);
        assert_eq!(run.status.code(), Some(3), "{}", String::from_utf8_lossy(&run.stderr));
        let told = String::from_utf8(run.stdout).unwrap();
        let answered = told.lines().find(|line| line.contains("\"event\":\"answered\"")).unwrap();
        let answered: Value = serde_json::from_str(answered).unwrap();
        assert_eq!(answered["calls"][0]["name"], "read_file", "{answered}");
        answered["calls"].clone()
    };
    let first = eval();
    let copies: Vec<_> = std::fs::read_dir(home.path().join("cache/perilune")).unwrap().collect();
    assert_eq!(copies.len(), 1);
    let weights = copies[0].as_ref().unwrap().path().join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(eval(), first);
    assert_eq!(std::fs::read(&weights).unwrap(), whole);

    std::fs::remove_dir_all(home.path().join("cache")).unwrap();
    std::fs::write(home.path().join("cache"), "not a folder").unwrap();
    assert_eq!(eval(), first);
}

#[test]
fn the_embedded_model_is_the_one_that_its_page_describes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("embedded");
    let page = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for name in ["model.safetensors", "config.json", "tiktoken.model"] {
        let hash = Sha256::digest(std::fs::read(folder.join(name)).unwrap());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(page.contains(&hash), "{name} has {hash}, embedded/README.md says otherwise");
    }
    let log = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((&last["stage"], &last["step"]), (&"finish".into(), &last["n_steps"]));
    assert_eq!(last["is_quantised"], true);
}

/// The README's tasks: their sentences are of forms that training never saw.
#[test]
fn the_examples_of_the_readme_are_solved_by_the_embedded_model() {
    let home = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let workspace = home.path().join("workspace");
    folder::copy_folder(&root.join("examples/workspace"), &workspace);
    for (task, file, text) in TASKS {
        assert!(readme.contains(task), "the README shows another task than {task:?}");
        let run = embedded(home.path(), &["run", task, "--workspace", workspace.to_str().unwrap(), "--json"]);
        assert!(run.status.success(), "{task}: {}", String::from_utf8_lossy(&run.stderr));
        assert_eq!(std::fs::read_to_string(workspace.join(file)).unwrap().trim_end(), text, "{task}");
    }
}

/// Task, the file that it asks for, and what must stand there.
const TASKS: [(&str, &str, &str); 1] = [(
    "Where does start.txt lead? Follow it file by file and note the code at the end in code.txt.",
    "code.txt",
    "GK-448",
)];
