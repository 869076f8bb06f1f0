//! Where `unsafe` may stand, and macros that never ship.

use super::rooms::Rooms;
use super::tree::{Source, line_of};
use super::{Tree, Violation};
use proc_macro2::{TokenStream, TokenTree};
use toml::Table;

/// Macros that mark unfinished or forgotten work.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// No `unsafe` token outside the rooms that may hold it, and no manifest that loosens the workspace's lints.
pub(super) fn check_unsafe(
    tree: &Tree,
    sources: &[Source<'_>],
    rooms: &Rooms,
    violations: &mut Vec<Violation>,
) {
    let may = |path: &str| rooms.of_path(path).is_some_and(|room| room.may_be_unsafe);
    for source in sources.iter().filter(|source| !may(source.path)) {
        for (word, line, _) in words(source.tokens.clone()) {
            if word == "unsafe" || word == "unsafe_code" {
                let what = format!("`{word}` stands outside the crates that may be unsafe");
                violations.push(Violation::new(source.path, line, what));
            }
        }
    }
    for (path, text) in tree.iter().filter(|(path, _)| path.ends_with("/Cargo.toml") && !may(path)) {
        if !shares_lints(text) {
            let what =
                "its [lints] are not `workspace = true` alone: the shared lints forbid unsafe".to_owned();
            violations.push(Violation::new(path, line_of(text, "[lints"), what));
        }
    }
    let root = tree.get("Cargo.toml").unwrap_or_default();
    if root.lines().all(|line| line != "unsafe_code = \"forbid\"") {
        violations.push(Violation::new(
            "Cargo.toml",
            1,
            "the workspace's lints must forbid unsafe_code".into(),
        ));
    }
}

/// Whether a manifest's lints are the workspace's and nothing else.
fn shares_lints(manifest: &str) -> bool {
    let manifest: Option<Table> = manifest.parse().ok();
    let lints = manifest.as_ref().and_then(|m| m.get("lints")).and_then(|lints| lints.as_table());
    lints.is_some_and(|lints| {
        lints.len() == 1 && lints.get("workspace").is_some_and(|on| on.as_bool() == Some(true))
    })
}

/// No macro of unfinished work anywhere.
pub(super) fn check_macros(sources: &[Source<'_>], violations: &mut Vec<Violation>) {
    for source in sources {
        for (word, line, is_macro) in words(source.tokens.clone()) {
            if is_macro && UNFINISHED.contains(&word.as_str()) {
                violations.push(Violation::new(source.path, line, format!("`{word}!` does not ship")));
            }
        }
    }
}

/// Every identifier and keyword of the code, with its line and whether `!` follows; comments and strings have none.
fn words(tokens: TokenStream) -> Vec<(String, usize, bool)> {
    let mut found = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) => found.extend(words(group.stream())),
            TokenTree::Ident(ident) => {
                let bang = matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == '!');
                found.push((ident.to_string(), ident.span().start().line, bang));
            }
            _ => {}
        }
    }
    found
}
