//! The policy of an agent's runs from outside: check, explain, and what a lying policy is told.
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

use std::path::Path;
use std::process::{Command, Stdio};

/// Whether the run succeeded, its output and its errors.
fn perilune(folder: &Path, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_perilune"))
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_policy_is_checked_and_explained() {
    let folder = tempfile::tempdir().unwrap();
    let (ok, default, _) = perilune(folder.path(), &["policy", "default"]);
    assert!(ok);
    std::fs::write(folder.path().join("own.toml"), &default).unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    let (ok, out, _) = perilune(folder.path(), &["policy", "check", "own.toml"]);
    assert!(ok && out.starts_with("own.toml: ") && out.contains("rules hold"), "{out}");
    let explain = |tool: &str, arguments: &str| {
        perilune(folder.path(), &["policy", "explain", "own.toml", tool, arguments]).1
    };
    let told = explain("read_file", r#"{"path":"sub/../.env"}"#);
    assert!(told.starts_with("deny, by the rule secrets: this file holds keys or passwords"), "{told}");
    assert!(
        told.contains("read .env: deny, by secrets") && told.contains("read-workspace says allow"),
        "{told}"
    );
    let told = explain("fetch_url", r#"{"url":"http://0x7f.1/"}"#);
    assert!(told.starts_with("deny, by the rule private-network"), "{told}");
    let told = perilune(
        folder.path(),
        &["policy", "explain", "-", "write_file", r#"{"path":"a","content":"b"}"#, "--json"],
    )
    .1;
    let value: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(value["outcome"], serde_json::json!({"decision": "allow", "rule": "write-workspace"}));
}

#[test]
fn bad_input_gets_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (_, default, _) = perilune(folder.path(), &["policy", "default"]);
    let lying = default.replace("read = \"../a.csv\"", "read = \"a.csv\"");
    std::fs::write(folder.path().join("lying.toml"), lying).unwrap();
    std::fs::write(folder.path().join("odd.toml"), "version = 1\nrules = []\n").unwrap();
    let table: [(&[&str], &str); 5] = [
        (&["policy", "check", "lying.toml"], "the rule \"read-workspace\" lies"),
        (&["policy", "check", "odd.toml"], "odd.toml line 2: unknown field `rules`"),
        (&["policy", "check", "none.toml"], "the policy none.toml cannot be read"),
        (
            &["policy", "explain", "-", "read_files", "{}"],
            "there is no tool \"read_files\"; there are list_files, read_file",
        ),
        (&["policy", "explain", "-", "read_file", "[]"], "the arguments are no JSON object"),
    ];
    for (args, expected) in table {
        let (ok, out, error) = perilune(folder.path(), args);
        assert!(!ok && out.is_empty() && error.contains(expected), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    }
}
