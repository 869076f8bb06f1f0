//! Where paths lead, on a real disk.

use crate::support::{call, told};
use perilune_agent::gate::{Approval, Decision, Gate, PolicyGate};
use perilune_agent::policy::{Policy, Workspace};
use perilune_agent::secrets::Secrets;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

#[test]
fn links_are_followed_before_anything_is_decided() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("ws"), folder.path().join("out"));
    fs::create_dir_all(inside.join("sub")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("x"), "x").unwrap();
    fs::write(inside.join(".env"), "A=b").unwrap();
    let link = |to: &Path, name: &str| symlink(to, inside.join(name)).unwrap();
    link(&outside.join("x"), "file");
    link(&outside, "folder");
    link(&outside.join("new"), "dangling");
    link(Path::new("folder"), "twice");
    link(Path::new("sub"), "own");
    link(Path::new("loop"), "loop");
    link(Path::new(".env"), "notes.txt");
    link(Path::new("sub/a.txt"), "id_rsa");
    link(&Path::new("/proc/self/root").join("etc"), "etc");
    let gate =
        PolicyGate::new(Policy::standard(), Workspace::open(&inside).unwrap(), Arc::new(Secrets::none()));
    let table = [
        ("read file", "ask outside-workspace"),
        ("read folder/x", "ask outside-workspace"),
        ("write folder/new", "ask outside-workspace"),
        ("write dangling", "ask outside-workspace"),
        ("read twice/x", "ask outside-workspace"),
        ("read folder/../ws/sub", "allow read-workspace"),
        ("read own/a.txt", "allow read-workspace"),
        ("write own/a.txt", "allow write-workspace"),
        ("write new/deep/a.txt", "allow write-workspace"),
        ("write new/../../out/x", "deny malformed"),
        ("read loop", "deny malformed"),
        ("read notes.txt", "deny secrets"),
        ("read id_rsa", "deny secrets"),
        ("write .env/x", "deny malformed"),
        ("write etc/passwd", "deny system-writes"),
    ];
    for (touch, expected) in table {
        let tool = if touch.starts_with("read") { "read_file" } else { "write_file" };
        let call = call(tool, touch);
        let decision = gate.decide(&call);
        assert_eq!(told(&decision), expected, "{touch}");
        let opened: Vec<String> = gate.outside(&call, &decision).into_iter().map(|it| it.real).collect();
        let real = match touch {
            "read file" | "read twice/x" | "read folder/x" => "x",
            "write folder/new" | "write dangling" => "new",
            _ => "",
        };
        let real = outside.canonicalize().unwrap().join(real).display().to_string();
        let named = if expected.starts_with("ask") { vec![real] } else { Vec::new() };
        assert_eq!(opened, named, "{touch}");
    }
    // A yes to one question is none to another, and what is allowed for the run is opened without one.
    let (once, other) = (call("write_file", "write folder/new"), call("write_file", "write folder/other"));
    gate.remember(&once, &Approval::AllowForRun).unwrap();
    let n_opened = |call| gate.outside(call, &gate.decide(call)).len();
    assert_eq!((told(&gate.decide(&once)).starts_with("allow"), n_opened(&once)), (true, 1));
    let allow = Decision::Allow { rule: "any".to_owned() };
    assert_eq!(gate.outside(&other, &allow), [], "allowed by another rule than the place's own");
}

#[test]
fn a_run_does_not_write_its_own_rules() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.toml");
    let workspace = Workspace::open(folder.path()).unwrap();
    let gate = PolicyGate::of_file(&file, workspace, Arc::new(Secrets::none())).unwrap();
    let gate = gate.guard(&folder.path().join("journal"));
    for (touch, expected) in [
        ("write policy.toml", "deny own-rules"),
        ("write journal/run.db", "deny own-rules"),
        ("write sub/../journal", "deny malformed"),
        ("write journals", "allow write-workspace"),
    ] {
        assert_eq!(told(&gate.decide(&call("write_file", touch))), expected, "{touch}");
    }
}
