//! `doctor`: every line has a state, what is wrong has a remedy, and the exit status says whether a verb would fail.

use super::world::{World, said};
use serde_json::Value;
use std::net::TcpListener;
use std::process::Command;

/// Exit code and lines.
fn examined(command: &mut Command) -> (Option<i32>, Vec<Value>) {
    let (code, out, error) = said(command.args(["doctor", "--quick", "--json"]));
    assert_eq!(error, "");
    let report: Value = serde_json::from_str(&out).unwrap();
    let lines = report["lines"].as_array().unwrap().clone();
    let n_problems = lines.iter().filter(|line| line["state"] == "problem").count();
    assert_eq!(report["problems"], n_problems);
    assert_eq!(code, Some(i32::from(n_problems > 0)), "{lines:#?}");
    (code, lines)
}

fn one<'l>(lines: &'l [Value], area: &str, name: &str) -> &'l Value {
    let found = lines.iter().find(|line| line["area"] == area && line["name"] == name);
    found.unwrap_or_else(|| panic!("{area}: {name} in {lines:#?}"))
}

#[test]
fn a_machine_is_examined_line_by_line() {
    let world = World::new();
    let (_, lines) = examined(&mut world.command("perilune"));
    for line in &lines {
        let state = line["state"].as_str().unwrap();
        assert!(["ok", "limit", "problem", "unknown"].contains(&state), "{line}");
        assert_eq!(line["remedy"].is_string(), ["limit", "problem"].contains(&state), "{line}");
        assert!(!line["found"].as_str().unwrap().is_empty(), "{line}");
    }
    for area in ["processor", "memory", "sandbox", "python", "settings", "keys", "folders", "disk", "port"] {
        assert!(lines.iter().any(|line| line["area"] == area), "{area}");
    }
    assert_eq!(one(&lines, "memory", "read bandwidth")["state"], "unknown", "--quick measures nothing");
    assert_eq!(one(&lines, "port", "listen")["state"], "ok");
    assert!(!world.home().join(".local").exists(), "it makes no folder");
}

#[test]
fn what_would_fail_is_a_problem() {
    let world = World::new();
    let taken = TcpListener::bind(("127.0.0.1", world.port)).unwrap();
    std::fs::write(world.home().join("file"), "").unwrap();
    let mut command = world.command("perilune");
    let data = world.home().join("file").display().to_string();
    command
        .env("PERILUNE_DATA", &data)
        .env("PERILUNE_MODEL", "/no/such/model")
        .env("PERILUNE_UPSTREAM_KEY", " ");
    command.env("PERILUNE_SEARCH_KEY", "hidden-value");
    let (code, lines) = examined(&mut command);
    assert_eq!(code, Some(1));
    for (area, name, says) in [
        ("port", "listen", "in use"),
        ("folders", "data", "it is no folder"),
        ("settings", "model", "/no/such/model is not a folder"),
    ] {
        let line = one(&lines, area, name);
        assert!(line["state"] == "problem" && line["found"].as_str().unwrap().contains(says), "{line}");
    }
    assert_eq!(one(&lines, "keys", "PERILUNE_UPSTREAM_KEY")["state"], "limit");
    assert_eq!(one(&lines, "keys", "PERILUNE_SEARCH_KEY")["state"], "ok");
    assert!(!format!("{lines:?}").contains("hidden-value"), "a key is never shown");
    drop(taken);
}

#[test]
fn a_public_address_without_keys_is_a_problem_and_a_wrong_file_of_settings_is_one() {
    let world = World::new();
    let port = world.port;
    let public = || examined(world.command("perilune").env("PERILUNE_LISTEN", format!("0.0.0.0:{port}"))).1;
    assert_eq!(one(&public(), "port", "keys")["state"], "problem");
    assert_eq!(world.perilune(&["keys", "create", "me"]).0, Some(0));
    let lines = public();
    assert!(lines.iter().all(|line| line["area"] != "port" || line["name"] != "keys"), "{lines:#?}");
    assert_eq!(one(&lines, "keys", "server")["found"], "in force: 1 for the APIs, 0 for the console");
    let folder = world.home().join(".config/perilune");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), "port = 1\n").unwrap();
    let lines = public();
    let line = one(&lines, "settings", "file");
    assert!(
        line["state"] == "problem" && line["found"].as_str().unwrap().contains("no setting `port`"),
        "{line}"
    );
}

#[test]
fn its_page_fits_sixty_columns() {
    let world = World::new();
    let (_, out, error) = said(world.command("perilune").env("COLUMNS", "60").args(["doctor", "--quick"]));
    assert_eq!(error, "");
    for line in out.lines().filter(|line| line.chars().count() > 60) {
        assert_eq!(line.split_whitespace().count(), 1, "{line:?} is wider than the terminal");
    }
    let told = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("not measured, because --quick was given"), "{out}");
    assert!(out.lines().last().unwrap().starts_with("problems "), "{out}");
}
