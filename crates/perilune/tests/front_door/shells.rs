//! Completions and manual pages: shells read them, and they know every verb and flag.

use super::world::{World, is_installed, said};

#[test]
fn completions_know_verbs_and_flags_and_shells_read_them() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, error) = world.perilune(&["completions", shell]);
        assert_eq!((code, error.as_str()), (Some(0), ""));
        for word in ["doctor", "completions", "no-prefix-cache", "ask-in-console"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        if !is_installed(shell) {
            println!("{shell} is not installed: its script is not read by it");
            continue;
        }
        let file = world.here().join(shell);
        std::fs::write(&file, script).unwrap();
        let (code, _, error) = said(world.command(shell).arg("-n").arg(&file));
        assert_eq!((code, error.as_str()), (Some(0), ""), "{shell}");
    }
    assert_eq!(world.perilune(&["completions", "csh"]).0, Some(2));
}

#[test]
fn bash_completes_a_verb() {
    if !is_installed("bash") {
        return println!("bash is not installed: nothing is completed");
    }
    let world = World::new();
    let line = "source <(perilune completions bash); COMP_WORDS=(perilune doc); COMP_CWORD=1; \
                _perilune perilune doc perilune; echo \"${COMPREPLY[@]}\"";
    let (code, out, error) = said(world.command("bash").args(["-c", line]));
    assert_eq!((code, out.as_str()), (Some(0), "doctor\n"), "{error}");
}

#[test]
fn fish_completes_a_verb() {
    if !is_installed("fish") {
        return println!("fish is not installed: nothing is completed");
    }
    let world = World::new();
    let line = "perilune completions fish | source; complete -C 'perilune doc'";
    let (code, out, error) = said(world.command("fish").args(["--no-config", "-c", line]));
    assert!(code == Some(0) && out.starts_with("doctor\t"), "{out}{error}");
}

#[test]
fn zsh_knows_what_completes() {
    if !is_installed("zsh") {
        return println!("zsh is not installed: nothing is completed");
    }
    let world = World::new();
    let line = "autoload -Uz compinit; compinit -u -d dump; source <(perilune completions zsh); \
                print ${_comps[perilune]}";
    let (code, out, error) = said(world.command("zsh").args(["-fc", line]));
    assert_eq!((code, out.as_str()), (Some(0), "_perilune\n"), "{error}");
}

#[test]
fn every_verb_has_a_page_in_the_manual() {
    let world = World::new();
    let (code, _, error) = world.perilune(&["man", "--out", "man1"]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    let page = |name: &str| std::fs::read_to_string(world.here().join("man1").join(name)).unwrap();
    assert!(page("perilune.1").contains("perilune\\-doctor"), "{}", page("perilune.1"));
    assert!(page("perilune-run.1").contains("\\-\\-ask\\-in\\-console"));
    for name in ["perilune-keys-create.1", "perilune-train-export.1", "perilune-config-show.1"] {
        assert!(page(name).starts_with(".ie"), "{name}");
    }
    std::fs::write(world.here().join("file"), "").unwrap();
    let (code, _, error) = world.perilune(&["man", "--out", "file"]);
    assert!(code == Some(1) && error.starts_with("error: file cannot be made"), "{error}");
}
