//! Prices, limits and balances from the command line.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use std::process::{Command, Output};

fn run(data: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perilune")).args(args).args(["--data", data]).output().unwrap()
}

fn json_of(data: &str, args: &[&str]) -> Value {
    let output = run(data, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The sentence that a verb fails with.
fn refusal(data: &str, args: &[&str]) -> String {
    let output = run(data, args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn prices_are_listed_set_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let listed = json_of(data, &["prices", "list", "--json"]);
    let standard =
        json!({ "model": "kimi-k2-thinking", "input_usd": 0.6, "cached_usd": 0.15, "output_usd": 2.5 });
    assert_eq!(listed[0], standard);
    let set = json_of(data, &["prices", "set", "kimi-k2-thinking", "--cached", "0.1", "--json"]);
    assert_eq!(
        (&set["input_usd"], &set["cached_usd"], &set["output_usd"]),
        (&json!(0.6), &json!(0.1), &json!(2.5))
    );
    let set = json_of(data, &["prices", "set", "far", "--input", "3", "--output", "9", "--json"]);
    assert_eq!(set["cached_usd"], 3.0);
    assert!(refusal(data, &["prices", "set", "new", "--input", "1"]).contains("both --input and --output"));
    assert!(refusal(data, &["prices", "set", "far"]).contains("say what to change"));
    for price in ["-1", "NaN", "x", "1e9"] {
        assert!(
            refusal(data, &["prices", "set", "far", &format!("--input={price}")])
                .contains("dollars per million")
        );
    }
    assert!(run(data, &["prices", "remove", "far"]).status.success());
    assert!(refusal(data, &["prices", "remove", "far"]).contains("prices list"));
    let table = String::from_utf8(run(data, &["prices", "list"]).stdout).unwrap();
    assert!(
        table.contains("kimi-k2-thinking-turbo") && table.contains("0.100") && !table.contains("far"),
        "{table}"
    );
}

#[test]
fn limits_and_balances_are_changed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let id = json_of(data, &["keys", "create", "k", "--concurrency", "2", "--balance", "1", "--json"])["id"]
        .to_string();
    let changed = json_of(
        data,
        &[
            "keys",
            "change",
            &id,
            "--requests-per-min",
            "60",
            "--concurrency",
            "none",
            "--add",
            "0.5",
            "--json",
        ],
    );
    assert_eq!((&changed["requests_per_min"], &changed["concurrency"]), (&json!(60), &Value::Null));
    assert_eq!(changed["balance_usd"], 1.5);
    let less = json_of(data, &["keys", "change", &id, "--add", "-1", "--json"]);
    assert_eq!((&less["balance_usd"], &less["requests_per_min"]), (&json!(0.5), &json!(60)));
    let free = json_of(data, &["keys", "change", &id, "--balance", "none", "--json"]);
    assert_eq!(free["balance_usd"], Value::Null);
    assert!(refusal(data, &["keys", "change", &id, "--add", "1"]).contains("without end"));
    assert!(refusal(data, &["keys", "change", &id]).contains("say what to change"));
    assert!(
        refusal(data, &["keys", "change", &id, "--requests-per-min", "0"]).contains("whole number from 1")
    );
    assert!(refusal(data, &["keys", "change", &id, "--balance", "NaN"]).contains("dollars"));
    assert!(run(data, &["keys", "revoke", &id]).status.success());
    assert!(refusal(data, &["keys", "change", &id, "--add", "1"]).contains("revoked"));
}

#[test]
fn an_endpoint_s_key_is_read_from_where_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let empty = dir.path().join("empty");
    std::fs::write(&empty, " \n").unwrap();
    let place = "far=anthropic+http://127.0.0.1:9/v1#there";
    let serve = |key: &str| {
        refusal(data, &["serve", "--listen", "127.0.0.1:0", "--upstream", place, "--upstream-key", key])
    };
    assert!(serve("far=sk-secret").contains("does not belong on a command line"));
    assert!(serve("other=env:HOME").contains("no --upstream serves"));
    assert!(serve("far=env:PERILUNE_TEST_NO_SUCH_VARIABLE").contains("PERILUNE_TEST_NO_SUCH_VARIABLE"));
    assert!(serve(&format!("far=file:{}", empty.display())).contains("holds no key"));
    assert!(serve("far=file:/no/such/file").contains("/no/such/file"));
    let junk = refusal(data, &["serve", "--upstream", "far=anthropic+nonsense"]);
    assert!(junk.contains("is no address"), "{junk}");
}

#[test]
fn a_certificate_that_is_none_is_told_before_anything_listens() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let file = dir.path().join("none.pem");
    std::fs::write(&file, "nothing").unwrap();
    let file = file.to_str().unwrap();
    let upstream = ["serve", "--listen", "127.0.0.1:0", "--upstream", "far=http://127.0.0.1:9/v1"];
    let with = |more: &[&str]| refusal(data, &[upstream.as_slice(), more].concat());
    assert!(with(&["--tls-cert", file, "--tls-key", file]).contains("holds no certificate"));
    assert!(with(&["--tls-cert", file]).contains("--tls-key"));
}

#[test]
fn tables_fit_sixty_columns() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let narrow = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_perilune"));
        let output = command.args(args).args(["--data", data]).env("COLUMNS", "60").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && !text.is_empty(), "{args:?}");
        for line in text.lines() {
            assert!(line.chars().count() <= 60, "{line:?} is wider than the terminal");
        }
        text
    };
    let name = "the nightly job that writes reports";
    run(data, &["keys", "create", name, "--balance", "1000"]);
    assert!(narrow(&["keys", "list"]).contains("balance USD 1000.000000\n"));
    run(
        data,
        &[
            "prices",
            "set",
            "an-id-of-a-model-that-is-rather-long-as-ids-are",
            "--input",
            "1",
            "--output",
            "2",
        ],
    );
    assert!(narrow(&["prices", "list"]).contains("model an-id-of-a-model-that-is-rather-long-as-ids-are"));
}
