//! Settings: what holds, where it comes from, and that verbs use it.

use super::world::{World, said};
use serde_json::{Value, json};
use std::process::Command;

impl World {
    /// Writes the user's file.
    fn set(&self, text: &str) {
        let folder = self.home().join(".config/perilune");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), text).unwrap();
    }

    fn settings(&self, vary: impl Fn(&mut Command) -> &mut Command) -> Vec<Value> {
        let mut command = self.command("perilune");
        command.env_remove("PERILUNE_LISTEN").args(["config", "show", "--json"]);
        let (code, out, error) = said(vary(&mut command));
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str::<Value>(&out).unwrap()["settings"].as_array().unwrap().clone()
    }
}

fn one<'s>(settings: &'s [Value], name: &str) -> (&'s Value, &'s Value) {
    let found = settings.iter().find(|it| it["name"] == name).unwrap();
    (&found["value"], &found["origin"])
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let world = World::new();
    let found = world.settings(|command| command);
    assert_eq!(one(&found, "listen"), (&json!("127.0.0.1:8080"), &json!("default")));
    assert_eq!(one(&found, "model"), (&Value::Null, &json!("default")));
    let data = world.home().join(".local/share/perilune").display().to_string();
    assert_eq!(one(&found, "data"), (&json!(data), &json!("default")));
    world.set("# mine\nthreads = 2\nlisten = \"127.0.0.1:1\"\ndata = \"~/d\"\n");
    let found = world.settings(|command| command);
    assert_eq!(one(&found, "threads"), (&json!("2"), &json!("file")));
    assert_eq!(one(&found, "data").0, &json!(world.home().join("d").display().to_string()));
    let found = world.settings(|command| command.env("PERILUNE_THREADS", "3").env("PERILUNE_DATA", ""));
    assert_eq!(one(&found, "threads"), (&json!("3"), &json!("environment")));
    assert_eq!(one(&found, "data").1, "file", "an empty variable is none");
    let found = world.settings(|command| command.env("PERILUNE_THREADS", "3").args(["--threads", "4"]));
    assert_eq!(one(&found, "threads"), (&json!("4"), &json!("flag")));
    let told = world.perilune(&["config", "show", "--origin"]).1;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].ends_with("environment PERILUNE_LISTEN"), "{told}");
    assert!(
        lines[3].starts_with("threads  2") && lines[3].ends_with(".config/perilune/config.toml:2"),
        "{told}"
    );
}

#[test]
fn verbs_use_the_settings() {
    let world = World::new();
    world.set("data = \"~/d\"\nmodel = \"~/no-model\"\nthreads = 1\n");
    let (code, _, error) = world.perilune(&["keys", "create", "me"]);
    assert_eq!((code, world.home().join("d/perilune.db").exists()), (Some(0), true), "{error}");
    for verb in [&["chat"][..], &["serve"], &["run", "a task"], &["eval", "tools", "--family", "sum"]] {
        let (code, _, error) = world.perilune(verb);
        assert!(code == Some(1) && error.contains("no-model"), "{verb:?}: {error}");
    }
    let plan = ["plan", super::world::CONFIG, "--context", "4096", "--json"];
    let n_threads = || {
        let (code, out, error) = world.perilune(&plan);
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str::<Value>(&out).unwrap()["request"]["n_threads"].clone()
    };
    assert_eq!(n_threads(), 1);
    world.set("threads = 7\n");
    assert_eq!(n_threads(), 7);
}

#[test]
fn wrong_settings_are_one_sentence_with_their_place() {
    let world = World::new();
    let refused = |says: &str| {
        let (code, _, error) = world.perilune(&["config", "show"]);
        assert_eq!(code, Some(1), "{error}");
        assert!(
            error.starts_with("error: ") && error.contains(says) && error.lines().count() == 1,
            "{error}"
        );
    };
    world.set("lisen = \"127.0.0.1:1\"\n");
    refused("config.toml:1: there is no setting `lisen`; there are listen, data, model, threads, colour");
    world.set("\nthreads = 0\n");
    refused("config.toml:2: `threads` is `0`: expected a number of threads from 1");
    world.set("model = \"here\"\n");
    refused("expected a whole path, such as /srv/model or ~/model");
    world.set("threads = \n");
    refused("config.toml:1: ");
    assert_eq!(world.perilune(&["man", "--out", "pages"]).0, Some(0), "the manual needs no settings");
    world.set("");
    let mut command = world.command("perilune");
    let (code, _, error) = said(command.env("PERILUNE_CONFIG", "none.toml").args(["config", "show"]));
    assert!(code == Some(1) && error.contains("none.toml cannot be read"), "{error}");
    let mut command = world.command("perilune");
    let (code, _, error) = said(command.env("PERILUNE_LISTEN", "8080").args(["config", "show"]));
    assert!(code == Some(1) && error.contains("PERILUNE_LISTEN is `8080`: expected ADDR:PORT"), "{error}");
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let world = World::new();
    let help = |vary: &dyn Fn(&mut Command)| {
        let mut command = world.command("perilune");
        vary(command.args(["doctor", "--quick"]));
        said(&mut command).1.contains('\x1b')
    };
    assert!(!help(&|_| ()), "a pipe has no colours");
    assert!(help(&|command| {
        command.env("PERILUNE_COLOUR", "always");
    }));
    assert!(!help(&|command| {
        command.env("PERILUNE_COLOUR", "never");
    }));
}
