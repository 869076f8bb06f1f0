//! `docs/reference/api.md`: made from the published description, and held to it here.

use perilune_server::routes::document;
use serde_json::{Map, Value};
use std::path::Path;

const HEAD: &str = "# HTTP API\n\nMade from `GET /openapi.json` of the server; a test holds this page to it. `perilune serve` \
                    answers at `http://127.0.0.1:8080` unless told otherwise. Where an API key exists, every request carries \
                    one, as `Authorization: Bearer KEY` or `x-api-key: KEY`; `/health`, `/ready` and `/openapi.json` need none.\n";

#[test]
fn the_page_on_the_api_is_up_to_date() {
    let document = document();
    let mut page = HEAD.to_owned();
    page += "\n## Endpoints\n\n| endpoint | what it does | takes | gives | media types | errors |\n|---|---|---|---|---|---|\n";
    for (path, methods) in map(&document["paths"]) {
        for (method, operation) in map(methods) {
            page += &endpoint(path, method, operation);
        }
    }
    page += "\n## Bodies\n\nA field that is not required may be left out.\n";
    for (name, schema) in map(&document["components"]["schemas"]) {
        page += &body(name, schema);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/api.md");
    if std::env::var_os("PERILUNE_BLESS").is_some() {
        return std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "docs/reference/api.md is out of date: run this test with PERILUNE_BLESS=1");
}

fn map(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("{value} is an object"))
}

fn endpoint(path: &str, method: &str, operation: &Value) -> String {
    let takes =
        operation.pointer("/requestBody/content/application~1json/schema").map_or(String::new(), kind);
    let responses = map(&operation["responses"]);
    let content = map(&responses["200"]["content"]);
    let gives = content.get("application/json").map_or("text".to_owned(), |media| kind(&media["schema"]));
    let media: Vec<&str> = content.keys().map(String::as_str).collect();
    let errors: Vec<&str> = responses.keys().map(String::as_str).filter(|status| *status != "200").collect();
    let (summary, method) = (operation["summary"].as_str().unwrap_or_default(), method.to_uppercase());
    format!(
        "| `{method} {path}` | {summary} | {takes} | {gives} | {} | {} |\n",
        media.join(", "),
        errors.join(", ")
    )
}

fn body(name: &str, schema: &Value) -> String {
    let mut text = format!("\n### {name}\n\n");
    let about = words(schema);
    if !about.is_empty() {
        text += &format!("{about}\n\n");
    }
    let Some(properties) = schema.get("properties").map(map) else {
        return text + &format!("{}\n", kind(schema));
    };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    text += "| field | type | required | what it is |\n|---|---|---|---|\n";
    for (field, schema) in properties {
        let needed = if required.contains(&field.as_str()) { "yes" } else { "" };
        text += &format!("| `{field}` | {} | {needed} | {} |\n", kind(schema), words(schema));
    }
    text
}

/// A description on one line of a table.
fn words(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// A schema in a word or two, with a link to the body that it refers to.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(all) = schema[choice].as_array() {
            let mut all: Vec<String> = all.iter().map(kind).collect();
            all.dedup();
            return all.join(" or ");
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| format!("`{}`", text(word))).collect::<Vec<_>>().join(", ");
    }
    if !schema["const"].is_null() {
        return format!("`{}`", text(&schema["const"]));
    }
    let named = |name: &str| match name {
        "array" => match schema.get("items") {
            Some(items) => format!("array of {}", kind(items)),
            None => "array".to_owned(),
        },
        name => name.to_owned(),
    };
    match &schema["type"] {
        Value::String(name) => named(name),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).map(named).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

fn text(word: &Value) -> String {
    word.as_str().map_or_else(|| word.to_string(), str::to_owned)
}
