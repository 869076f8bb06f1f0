//! The published description agrees with itself.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "openapi/page.rs"]
mod page;
#[path = "openapi/statuses.rs"]
mod statuses;

use perilune_server::routes::document;
use serde_json::Value;

fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|inner| references(inner, found));
        }
        Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 30, "{} references", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn every_endpoint_says_what_it_takes_and_gives() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 11);
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["responses"]["200"]["content"].is_object(), "{method} {path}");
            assert_eq!(operation.get("requestBody").is_some(), method == "post", "{method} {path}");
            let is_open = operation.get("security") == Some(&Value::Array(Vec::new()));
            assert_eq!(is_open, ["/health", "/ready"].contains(&path.as_str()), "{method} {path}");
        }
    }
    let fields = document.pointer("/components/schemas/ChatRequest/properties").unwrap();
    for field in ["messages", "tools", "response_format", "thinking", "prompt_cache_key"] {
        assert!(fields.get(field).is_some_and(|schema| schema.get("description").is_some()), "{field}");
    }
}

/// The words that a string may be.
fn words<'d>(document: &'d Value, schema: &str, field: &str) -> Vec<&'d str> {
    let pointer = format!("/components/schemas/{schema}/properties/{field}/enum");
    let words = document.pointer(&pointer).unwrap_or_else(|| panic!("{pointer}")).as_array().unwrap();
    words.iter().filter_map(Value::as_str).collect()
}

#[test]
fn roles_and_kinds_are_words_that_the_door_takes() {
    let document = document();
    let schemas = document.pointer("/components/schemas").unwrap().as_object().unwrap();
    let of = |field: &str, other: &str| -> Vec<(&String, Vec<&str>)> {
        let has = |value: &&Value| {
            value.pointer(&format!("/properties/{field}")).is_some()
                && value.pointer(&format!("/properties/{other}")).is_some()
        };
        schemas
            .iter()
            .filter(|(_, schema)| has(schema))
            .map(|(name, _)| (name, words(&document, name, field)))
            .collect()
    };
    let mut roles: Vec<Vec<&str>> = of("role", "content").into_iter().map(|(_, words)| words).collect();
    roles.sort();
    assert!(roles.contains(&vec!["system", "developer", "user", "assistant", "tool"]), "{roles:?}");
    assert!(roles.contains(&vec!["user", "assistant"]), "{roles:?}");
    let blocks = of("type", "tool_use_id");
    assert_eq!(blocks[0].1, ["text", "thinking", "redacted_thinking", "tool_use", "tool_result"]);
    for role in &roles[..] {
        assert!(!role.is_empty());
    }
}

#[test]
fn no_schema_holds_itself() {
    let document = document();
    let schemas = document.pointer("/components/schemas").unwrap().as_object().unwrap();
    for name in schemas.keys().filter(|name| !matches!(name.as_str(), "TokenLogprob")) {
        let (mut open, mut seen) = (vec![name.clone()], std::collections::BTreeSet::new());
        while let Some(at) = open.pop() {
            let mut found = Vec::new();
            references(&schemas[&at], &mut found);
            for next in found.into_iter().map(|reference| reference.rsplit('/').next().unwrap().to_owned()) {
                assert_ne!(
                    &next, name,
                    "{name} holds itself through {at}: generators of test cases cannot end"
                );
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
    }
}
