//! Pages name what is there: links lead to files, and every verb and flag in running text is one of the program's.

use super::pages::pages;
use super::world::{World, repository};
use std::collections::BTreeMap;

#[test]
fn every_link_of_readme_and_docs_leads_to_a_file() {
    let mut n_links = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = rest.split(')').next().unwrap().split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            n_links += 1;
            let path = page.parent().unwrap().join(target);
            assert!(path.exists(), "{} links to {target}, which is not there", page.display());
        }
    }
    assert!(n_links > 20, "{n_links} links");
}

#[test]
fn every_page_stands_in_the_index() {
    let docs = repository().join("docs");
    let index = std::fs::read_to_string(docs.join("README.md")).unwrap();
    for page in pages().iter().filter(|page| page.starts_with(&docs) && !page.ends_with("docs/README.md")) {
        let path = page.strip_prefix(&docs).unwrap().display().to_string();
        assert!(index.contains(&format!("]({path})")), "docs/README.md does not list {path}");
    }
}

/// `perilune VERB --flag` in backquotes, outside blocks, is a call that the program would take.
#[test]
fn verbs_and_flags_in_running_text_exist() {
    let world = World::new();
    let mut helps: BTreeMap<String, String> = BTreeMap::new();
    let mut help = |words: &str| {
        let args: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).chain(["--help"]).collect();
        helps.entry(words.to_owned()).or_insert_with(|| world.perilune(&args).1).clone()
    };
    let verbs = help("");
    let mut n_calls = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let outside: Vec<&str> = text.split("```").step_by(2).collect();
        for span in outside.iter().flat_map(|part| part.split('`').skip(1).step_by(2)) {
            let Some(call) = span.strip_prefix("perilune ") else { continue };
            n_calls += 1;
            let mut words = call.split_whitespace();
            let verb = words.next().unwrap();
            if verb == "VERB" || verb.starts_with('-') {
                continue;
            }
            let place = format!("{}: `{span}`", page.display());
            let is_listed = |help: &str, name: &str| {
                help.lines()
                    .any(|line| line.strip_prefix("  ").and_then(|it| it.split(' ').next()) == Some(name))
            };
            assert!(is_listed(&verbs, verb), "{place}: there is no verb {verb}");
            let inner = words.clone().next().filter(|word| is_listed(&help(verb), word));
            let help = help(&inner.map_or_else(|| verb.to_owned(), |inner| format!("{verb} {inner}")));
            for flag in words.filter(|word| word.starts_with("--")) {
                let name = flag.split('=').next().unwrap();
                let is_there = help.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == name);
                assert!(is_there, "{place}: {verb} has no {name}");
            }
        }
    }
    assert!(n_calls > 30, "{n_calls} calls");
}
