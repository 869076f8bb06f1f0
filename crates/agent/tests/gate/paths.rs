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
        ("read folder/../ws/sub", "deny malformed"),
        ("read own/../sub", "allow read-workspace"),
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
    let led = gate.outside(&once, &gate.decide(&once));
    // By itself a link is no place that an answer could reach on to.
    gate.remember(&once, &Approval::AllowForRun).unwrap();
    assert_eq!(told(&gate.decide(&once)), "ask outside-workspace");
    gate.remember(&once.led_to(&led), &Approval::AllowForRun).unwrap();
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
    fs::create_dir_all(folder.path().join("deep/down")).unwrap();
    symlink("deep/down", folder.path().join("link")).unwrap();
    for (touch, expected) in [
        ("write policy.toml", "deny own-rules"),
        ("write journal/run.db", "deny own-rules"),
        ("write sub/../journal", "deny malformed"),
        ("write journals", "allow write-workspace"),
        // By its links `deep/policy.toml`, by its letters the policy itself, which is what a tool would open.
        ("write link/../policy.toml", "deny malformed"),
    ] {
        assert_eq!(told(&gate.decide(&call("write_file", touch))), expected, "{touch}");
    }
}

#[test]
fn a_link_that_moved_while_a_person_thought_takes_no_answer_along() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    for name in ["ws", "shown", "other"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    let (link, shown, other) = (root.join("ws/link"), root.join("shown"), root.join("other"));
    let workspace = || Workspace::open(&root.join("ws")).unwrap();
    let gate = || PolicyGate::new(Policy::standard(), workspace(), Arc::new(Secrets::none()));
    let point = |to: &Path| {
        let _ = fs::remove_file(&link);
        symlink(to, &link).unwrap();
    };
    let asked = call("write_file", "write link/a.txt");
    for approval in [Approval::AllowForRun, Approval::AllowAlways] {
        let gate = gate();
        point(&shown);
        let led = gate.outside(&asked, &gate.decide(&asked));
        point(&other);
        gate.remember(&asked.led_to(&led), &approval).unwrap();
        assert_eq!(told(&gate.decide(&asked)), "ask outside-workspace", "{approval:?}");
        point(&shown);
        assert!(told(&gate.decide(&asked)).starts_with("allow"), "{approval:?}");
        // The place itself became a link.
        fs::rename(&shown, root.join("gone")).unwrap();
        symlink(&other, &shown).unwrap();
        assert_eq!(told(&gate.decide(&asked)), "ask outside-workspace", "{approval:?}");
        fs::remove_file(&shown).unwrap();
        fs::rename(root.join("gone"), &shown).unwrap();
    }
}
