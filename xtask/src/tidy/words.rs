//! What is committed speaks of the project alone: no path of one machine, no page that is not in it, no private registry.

use super::{Tree, Violation};

/// The files that have to name what is forbidden.
const EXEMPT: [&str; 2] = ["xtask/src/tidy/words.rs", "xtask/tests/tidy.rs"];

/// Text that may stand nowhere, and why.
const FORBIDDEN: [(&str, &str); 9] = [
    ("/work/", "an absolute path of one machine"),
    ("/root/", "an absolute path of one machine"),
    ("/tmp/bash_jobs", "an absolute path of one machine"),
    ("shared/goldens", "a folder that is not in the repository"),
    ("k2-facts", "a page that is not in the repository"),
    ("recipe-notes", "a page that is not in the repository"),
    ("parts.md", "a page that is not in the repository"),
    ("design.md", "a page that is not in the repository"),
    ("issue #", "a number that means nothing to a reader of the code"),
];

/// The one registry that Cargo.lock may name.
const REGISTRY: &str = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";

pub(super) fn check(tree: &Tree, violations: &mut Vec<Violation>) {
    for (path, text) in tree.iter().filter(|(path, _)| !EXEMPT.contains(path)) {
        for (at, line) in text.lines().enumerate() {
            for (word, why) in FORBIDDEN.iter().filter(|(word, _)| line.contains(word)) {
                violations.push(Violation::new(path, at + 1, format!("`{word}` is {why}")));
            }
        }
    }
    for (at, line) in tree.get("Cargo.lock").unwrap_or_default().lines().enumerate() {
        if line.starts_with("source = ") && line != REGISTRY {
            violations.push(Violation::new(
                "Cargo.lock",
                at + 1,
                "a dependency from elsewhere than crates.io".into(),
            ));
        }
    }
}
