//! The published description agrees with itself.

#![allow(clippy::unwrap_used)]

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
        }
    }
    let fields = document.pointer("/components/schemas/ChatRequest/properties").unwrap();
    for field in ["messages", "tools", "response_format", "thinking", "prompt_cache_key"] {
        assert!(fields.get(field).is_some_and(|schema| schema.get("description").is_some()), "{field}");
    }
}
