//! The rules on this repository, and each rule on a small house that breaks it.

use std::path::Path;
use std::process::Command;
use xtask::tidy::{EXCEPTIONS, FILE_LINES_MAX, FUNCTION_LINES_MAX, Tree, check};

const PAGE: &str = "
| crate | door sign | may import (ours) | must never know | async | unsafe |
|---|---|---|---|---|---|
| `kernels` | Arithmetic? | none | layers | no | only here |
| `model` | Logits? | `kernels` | text | no | forbid |
| `perilune` | What? | all | nothing | yes | forbid |

| another table | of no concern |
";
const ROOT: &str = "[workspace.lints.rust]\nunsafe_code = \"forbid\"\n";
const KERNELS: &str = "[package]\nname = \"perilune-kernels\"\ndescription = \"Arithmetic?\"\n";
const MODEL: &str = "[package]
name = \"perilune-model\"
description = \"Logits?\"
[dependencies]
perilune-kernels.workspace = true
half = \"2\"
[lints]
workspace = true
";
const BINARY: &str = "[package]
name = \"perilune\"
description = \"What?\"
[dependencies]
perilune-model = { path = \"../model\" }
[lints]
workspace = true
";
const MODEL_LIB: &str = "//! Logits?\n//!\n//! An unsafe word in prose does no harm.\npub fn f() {}\n";

/// A house without a fault: (path, text).
const HOUSE: [(&str, &str); 8] = [
    ("ARCHITECTURE.md", PAGE),
    ("Cargo.toml", ROOT),
    ("crates/kernels/Cargo.toml", KERNELS),
    ("crates/kernels/src/lib.rs", "//! Arithmetic?\npub unsafe fn f() {}\n"),
    ("crates/model/Cargo.toml", MODEL),
    ("crates/model/src/lib.rs", MODEL_LIB),
    ("crates/perilune/Cargo.toml", BINARY),
    ("crates/perilune/src/main.rs", "//! What?\nfn main() {}\n"),
];

/// What is found after `changes` (path, new text) to the faultless house: `path:line: sentence` each.
fn found(changes: &[(&str, &str)]) -> Vec<String> {
    let tree: Tree = HOUSE.into_iter().chain(changes.iter().copied()).collect();
    check(&tree).violations.iter().map(ToString::to_string).collect()
}

/// Exactly one violation, which stands at `place` and says `what`.
#[track_caller]
fn catches(changes: &[(&str, &str)], place: &str, what: &str) {
    let found = found(changes);
    assert!(
        found.len() == 1 && found[0].starts_with(&format!("{place}: ")) && found[0].contains(what),
        "wanted one violation at {place} saying `{what}`, found {found:#?}"
    );
}

#[test]
fn this_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    if !root.join(".git").exists() {
        eprintln!(
            "skipped: this copy of the sources is no git work tree, and git says which files are the project's"
        );
        return;
    }
    let report = check(&Tree::read(root).unwrap());
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.files.len() > 10 && report.functions.len() > 10, "the rules saw no code: {report}");
}

#[test]
fn a_faultless_house_passes() {
    assert_eq!(found(&[]), [""; 0]);
}

#[test]
fn the_tree_is_what_git_would_track() {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in
        [(".gitignore", "/target\n"), ("a.md", "see /work/x\n"), ("target/b.md", "see /work/x\n")]
    {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::write(dir.path().join("c.bin"), [0xff, 0xfe]).unwrap();
    assert!(Command::new("git").args(["init", "--quiet"]).current_dir(&dir).status().unwrap().success());
    let report = check(&Tree::read(dir.path()).unwrap());
    let about = |path: &str| report.violations.iter().filter(|v| v.path == path).count();
    assert_eq!((about("a.md"), about("target/b.md")), (1, 0));
}

#[test]
fn imports_follow_the_table() {
    let upward = KERNELS.to_owned() + "[dependencies]\nperilune-model.workspace = true\n";
    catches(&[("crates/kernels/Cargo.toml", &upward)], "crates/kernels/Cargo.toml:5", "may not import");
    let in_tests = KERNELS.to_owned() + "[dev-dependencies]\nperilune = { path = \"../perilune\" }\n";
    catches(&[("crates/kernels/Cargo.toml", &in_tests)], "crates/kernels/Cargo.toml:5", "may not import");
    let renamed = KERNELS.to_owned() + "[build-dependencies]\nmind = { package = \"perilune-model\" }\n";
    catches(&[("crates/kernels/Cargo.toml", &renamed)], "crates/kernels/Cargo.toml:5", "`perilune-model`");
    let on_unix = KERNELS.to_owned() + "[target.'cfg(unix)'.dependencies]\nperilune-model = \"1\"\n";
    catches(&[("crates/kernels/Cargo.toml", &on_unix)], "crates/kernels/Cargo.toml:5", "may not import");
}

#[test]
fn every_crate_has_its_row_and_its_name() {
    let stray =
        MODEL.replace("perilune-model", "perilune-attic").replace("perilune-kernels.workspace = true\n", "");
    catches(&[("crates/attic/Cargo.toml", &stray)], "crates/attic/Cargo.toml:1", "not in the table");
    let misnamed = MODEL.replace("perilune-model", "k2-model");
    catches(
        &[("crates/model/Cargo.toml", &misnamed)],
        "crates/model/Cargo.toml:2",
        "`perilune-model` by rule",
    );
    let no_table = PAGE.replace("door sign", "sign");
    catches(&[("ARCHITECTURE.md", &no_table)], "ARCHITECTURE.md:1", "has no table");
    let stranger = PAGE.replace("| `kernels` | text", "| `kernel` | text");
    catches(&[("ARCHITECTURE.md", &stranger)], "ARCHITECTURE.md:5", "`kernel` is no crate");
    let empty_row =
        PAGE.replace("| `perilune` |", "| `attic` | Old? | none | all | no | forbid |\n| `perilune` |");
    assert!(found(&[("ARCHITECTURE.md", &empty_row)])[0].contains("crates/attic/Cargo.toml does not exist"));
}

#[test]
fn unsafe_stands_in_one_room() {
    let block = "//! Logits?\npub fn f() {\n    unsafe { g() }\n}\n";
    catches(&[("crates/model/src/lib.rs", block)], "crates/model/src/lib.rs:3", "`unsafe` stands outside");
    let in_macro = "macro_rules! m { () => { unsafe {} } }\n";
    catches(&[("crates/model/tests/t.rs", in_macro)], "crates/model/tests/t.rs:1", "`unsafe` stands outside");
    let waived = "//! Logits?\n#![allow(unsafe_code)]\n";
    catches(
        &[("crates/model/src/lib.rs", waived)],
        "crates/model/src/lib.rs:2",
        "`unsafe_code` stands outside",
    );
    let own_lints = MODEL.replace("[lints]\nworkspace = true", "[lints.rust]\nunsafe_code = \"allow\"");
    catches(&[("crates/model/Cargo.toml", &own_lints)], "crates/model/Cargo.toml:7", "workspace = true");
    catches(&[("Cargo.toml", &ROOT.replace("forbid", "warn"))], "Cargo.toml:1", "must forbid unsafe_code");
}

#[test]
fn doors_carry_their_signs() {
    let lib = ("crates/model/src/lib.rs", "//! Some crate.\n");
    catches(&[lib], "crates/model/src/lib.rs:1", "must be the sign in ARCHITECTURE.md: //! Logits?");
    let manifest = MODEL.replace("Logits?", "Some crate.");
    catches(&[("crates/model/Cargo.toml", &manifest)], "crates/model/Cargo.toml:3", "must be the sign");
    let house = HOUSE.into_iter().filter(|(path, _)| *path != "crates/model/src/lib.rs");
    assert!(check(&house.collect()).violations[0].what.contains("neither src/lib.rs nor src/main.rs"));
}

#[test]
fn long_code_needs_an_exception_that_only_shrinks() {
    let path = "crates/model/src/long.rs";
    let file = "// A line.\n".repeat(FILE_LINES_MAX);
    assert_eq!(found(&[(path, &file)]), [""; 0]);
    let file = file + "// One too many.\n";
    catches(&[(path, &file)], &format!("{path}:1"), "longer than the limit");

    let function = |n_lines: usize| {
        format!("\nimpl X {{\n    fn f() {{\n{}    }}\n}}\n", "        g();\n".repeat(n_lines - 2))
    };
    assert_eq!(found(&[(path, &function(FUNCTION_LINES_MAX))]), [""; 0]);
    let over = FUNCTION_LINES_MAX + 1;
    catches(&[(path, &function(over))], &format!("{path}:3"), "longer than the limit");

    let exceptions = format!("# A comment.\nfn {path} f {over}\n");
    assert_eq!(found(&[(path, &function(over)), (EXCEPTIONS, &exceptions)]), [""; 0]);
    let grown = [(path, &*function(over + 1)), (EXCEPTIONS, &*exceptions)];
    catches(&grown, &format!("{path}:3"), "has grown beyond its exception");
    let fits = [(path, &*function(9)), (EXCEPTIONS, &*exceptions)];
    catches(&fits, &format!("{EXCEPTIONS}:2"), "remove this line");
    catches(&[(EXCEPTIONS, "file somewhere\n")], &format!("{EXCEPTIONS}:1"), "no number of lines");
}

#[test]
fn unfinished_work_does_not_ship() {
    for word in ["todo", "dbg", "unimplemented"] {
        let code = format!("//! Logits?\npub fn {word}() {{\n    {word}!();\n}}\n");
        catches(&[("crates/model/src/lib.rs", &code)], "crates/model/src/lib.rs:3", "does not ship");
    }
    catches(
        &[("crates/model/src/x.rs", "fn f() {\n    let = 3;\n}\n")],
        "crates/model/src/x.rs:2",
        "is not Rust",
    );
}

#[test]
fn the_text_speaks_of_the_project_alone() {
    for word in ["/work/x", "/root/.x", "see design.md", "fixes issue #7", "k2-facts 2.1"] {
        catches(&[("docs/x.md", &format!("\n{word}\n"))], "docs/x.md:2", "is a");
    }
    let lock = "[[package]]\nsource = \"registry+https://example.com/index\"\n";
    catches(&[("Cargo.lock", lock)], "Cargo.lock:2", "elsewhere than crates.io");
}
