//! JSON Schema keywords while generating, against values that an outside validator judged.

#[allow(dead_code)] // Shared with other tests.
#[path = "support/vocab.rs"]
mod vocab;

use perilune_chat::grammar::keywords::{self, KEYWORDS, Support};
use perilune_chat::grammar::{Constraint, GrammarError};
use perilune_chat::scanner::Opening;
use perilune_chat::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Group {
    keyword: String,
    schema: Value,
    values: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    value: Value,
    valid: bool,
    narrower: Option<String>,
}

fn groups() -> Vec<Group> {
    serde_json::from_str(include_str!("data/json-schema-cases.json")).expect("the cases are JSON")
}

/// Whether `constraint` takes `text`, token by token in the cut given, and then the end of the turn.
fn takes(mut constraint: Constraint, ids: &[u32], tokenizer: &Tokenizer) -> bool {
    let mut mask = vec![0; constraint.n_mask_words()];
    for &id in ids.iter().chain([&tokenizer.markers().im_end]) {
        constraint.fill_mask(&mut mask).expect("the state has a mask");
        let is_allowed = mask[id as usize / 32] >> (id % 32) & 1 == 1;
        let was_accepted = constraint.accept(id).is_ok();
        assert!(was_accepted || !is_allowed, "id {id} is in the mask, but refused");
        if !was_accepted {
            return false;
        }
    }
    constraint.is_complete()
}

/// The ids of `text` one byte each: the cut that allows the most.
fn bytes_apart(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let of_byte = |byte: u8| {
        (0..tokenizer.n_ranks() as u32)
            .find(|id| tokenizer.token_bytes(*id) == Some(&[byte]))
            .expect("each byte is a token")
    };
    text.bytes().map(of_byte).collect()
}

fn layouts(value: &Value) -> [String; 3] {
    let spaced = serde_json::to_string_pretty(value).expect("a value is JSON");
    let one_line = spaced_like_python(value);
    [value.to_string(), one_line, spaced]
}

/// The layout that the model was trained on: `, ` and `: `.
fn spaced_like_python(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!("[{}]", items.iter().map(spaced_like_python).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), spaced_like_python(value))
            };
            format!("{{{}}}", map.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}

#[test]
fn generation_agrees_with_an_outside_validator() {
    let vocab = vocab::small();
    let mut wrong = Vec::new();
    for group in groups() {
        let constraint = match vocab.factory.json_schema(&group.schema, true, Opening::Answer) {
            Ok(constraint) => constraint,
            Err(error) => {
                wrong.push(format!("{}: {} is refused: {error}", group.keyword, group.schema));
                continue;
            }
        };
        for row in &group.values {
            let expect = row.valid && row.narrower.is_none();
            for text in layouts(&row.value) {
                for ids in [vocab.tokenizer.encode_ordinary(&text), bytes_apart(&vocab.tokenizer, &text)] {
                    if takes(constraint.clone(), &ids, &vocab.tokenizer) != expect {
                        wrong.push(format!(
                            "{}: {} and {text}: expected {expect}",
                            group.keyword, group.schema
                        ));
                    }
                }
            }
        }
    }
    wrong.dedup();
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_enforced_keyword_has_cases_both_ways() {
    let groups = groups();
    for keyword in KEYWORDS {
        if !matches!(keyword.support, Support::Enforced | Support::Partly(_)) {
            continue;
        }
        let rows =
            || groups.iter().filter(|group| group.keyword == keyword.name).flat_map(|group| &group.values);
        assert!(rows().any(|row| row.valid && row.narrower.is_none()), "{} has no valid case", keyword.name);
        assert!(rows().any(|row| !row.valid), "{} has no invalid case", keyword.name);
    }
}

/// A schema that uses a reported keyword in a way that asserts something.
fn schema_with(keyword: &str) -> Value {
    let part = json!({"required": ["b"]});
    match keyword {
        "if" | "then" | "else" => json!({"if": part, "then": part, "else": part}),
        "not" => json!({"not": part}),
        "contains" | "minContains" | "maxContains" => {
            json!({"type": "array", "contains": {"type": "null"}, "minContains": 2, "maxContains": 3})
        }
        "uniqueItems" => json!({"type": "array", "uniqueItems": true}),
        "dependentRequired" => json!({"dependentRequired": {"a": ["b"]}}),
        "dependentSchemas" | "dependencies" => json!({keyword: {"a": part}}),
        "propertyNames" => json!({"propertyNames": {"maxLength": 2}}),
        "unevaluatedProperties" => json!({"anyOf": [part], "unevaluatedProperties": false}),
        "unevaluatedItems" => json!({"type": "array", "unevaluatedItems": false}),
        "$dynamicRef" | "$recursiveRef" => json!({keyword: "#"}),
        _ => panic!("no schema for {keyword}"),
    }
}

#[test]
fn reported_keywords_are_reported_or_refused() {
    let factory = &vocab::small().factory;
    for keyword in KEYWORDS {
        let Support::Reported(_) = keyword.support else { continue };
        let schema = schema_with(keyword.name);
        let loose = factory.json_schema(&schema, false, Opening::Answer).expect("a looser schema exists");
        let found = loose.reports()[0].unenforced.iter().any(|entry| entry.keyword == keyword.name);
        assert!(found, "{} is not reported: {:?}", keyword.name, loose.reports());
        let strict = factory.json_schema(&schema, true, Opening::Answer).err();
        assert!(matches!(strict, Some(GrammarError::Unenforceable { .. })), "{}: {strict:?}", keyword.name);
    }
}

#[test]
fn the_page_shows_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/json-schema.md");
    let page = std::fs::read_to_string(path).expect("docs/json-schema.md exists");
    let (begin, end) = ("<!-- table -->\n", "<!-- end of table -->");
    let (head, rest) = page.split_once(begin).expect("the page has a place for the table");
    let (_, tail) = rest.split_once(end).expect("the table has an end");
    let expect = format!("{head}{begin}{}{end}{tail}", keywords::table());
    if std::env::var_os("PERILUNE_BLESS").is_some() {
        return std::fs::write(path, &expect).expect("the page can be written");
    }
    assert!(page == expect, "docs/json-schema.md is out of date: run this test with PERILUNE_BLESS=1");
}
