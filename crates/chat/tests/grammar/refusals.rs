//! Requests that are refused, schemas that would be expensive, and reports.

use perilune_chat::grammar::{ToolSpec, Tools};
use perilune_chat::message::{Tool, ToolChoice};
use perilune_chat::scanner::Opening;
use serde_json::{Value, json};

use crate::costly::{Outcome, costly, nested};
use crate::forced::{Rng, complete};
use crate::specs;
use crate::vocab::{self, Vocab};

fn refusal(schema: &Value) -> String {
    let result = vocab::small().factory.json_schema(schema, false, Opening::Answer);
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn hostile_schemas_are_refused_with_a_sentence() {
    let wide: serde_json::Map<String, Value> =
        (0..400_000).map(|idx| (format!("property_{idx}"), json!({"type": "string"}))).collect();
    let many: Vec<Value> = (0..6_000).map(Value::from).collect();
    let patterns: serde_json::Map<String, Value> =
        (0..101).map(|idx| (format!("^p{idx}$"), json!({}))).collect();
    let grow = |schema: Value| json!({"type": "array", "items": schema, "minItems": 1000});
    let cases = [
        ("remote", json!({"$ref": "https://example.org/x.json#/a"}), "copy its target under $defs"),
        ("file", json!({"properties": {"a": {"$ref": "other.json"}}}), "copy its target under $defs"),
        ("missing", json!({"$ref": "#/$defs/nope"}), "names nothing in the schema"),
        ("self", json!({"$ref": "#"}), "leads back to itself"),
        (
            "cycle",
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
            "leads back to itself",
        ),
        (
            "infinite",
            json!({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}),
            "no finite value",
        ),
        (
            "infinite items",
            json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
            "no finite value",
        ),
        ("10 MB", json!({"type": "object", "properties": wide}), "above the limit of 262144"),
        ("10 MB of text", json!({"const": "x".repeat(10_000_000)}), "above the limit of 262144"),
        ("enum", json!({"enum": many}), "enum values above the limit of 5000"),
        ("patterns", json!({"patternProperties": patterns}), "patterns above the limit of 100"),
        ("long pattern", json!({"pattern": "a".repeat(2_000)}), "bytes in a pattern above the limit"),
        ("deep", nested(200, json!({}), |inner| json!({"not": inner})), "nests deeper than 100"),
        ("minItems", json!({"type": "array", "minItems": 1_000_000_000_000_u64}), "shortest value"),
        ("minItems product", nested(3, json!({"type": "null"}), grow), "shortest value"),
        ("minLength", json!({"type": "string", "minLength": 10_000_000}), "shortest value"),
        ("type", json!({"type": "dict"}), "one or more of null, boolean"),
        ("properties", json!({"properties": ["a"]}), "an object of schemas"),
        ("number for a schema", json!({"items": 5}), "a schema (an object, true or false)"),
        ("count", json!({"maxLength": -1}), "an integer of at least 0"),
        ("false", json!(false), "no value can satisfy"),
        ("contradiction", json!({"type": "integer", "minimum": 5, "maximum": 4}), "no value can satisfy"),
        (
            "empty pattern",
            json!({"type": "string", "pattern": "^a$", "minLength": 3}),
            "no value can satisfy",
        ),
    ];
    for (name, schema, expect) in cases {
        let found = refusal(&schema);
        assert!(found.contains(expect), "{name}: {found:?}");
        assert!(found.len() < 600 && !found.contains('\n'), "{name}: {found:?} is not one sentence");
    }
}

/// Each of these is refused or enforced; the work is bounded.
#[test]
fn costly_schemas_are_enforced_or_refused() {
    enforce_or_refuse(vocab::small());
}

#[test]
fn costly_schemas_are_enforced_or_refused_on_the_published_vocabulary() {
    if let Some(vocab) = vocab::published("costly schemas on the published vocabulary") {
        enforce_or_refuse(&vocab);
    }
}

fn enforce_or_refuse(vocab: &Vocab) {
    for (name, expect, schema) in costly() {
        let (outcome, detail) = match vocab.factory.json_schema(&schema, false, Opening::Answer) {
            Err(error) => (Outcome::Refused, error.to_string()),
            Ok(mut constraint) => match complete(&mut constraint, &mut Rng(1), 300) {
                Err(error) => (Outcome::MeetsLimit, error.to_string()),
                Ok(_) if constraint.reports()[0].unenforced.is_empty() => (Outcome::Enforced, String::new()),
                Ok(_) => (Outcome::Looser, format!("{:?}", constraint.reports()[0].unenforced)),
            },
        };
        let as_expected = outcome == expect || (outcome, expect) == (Outcome::Enforced, Outcome::MeetsLimit);
        assert!(as_expected, "{name}: {outcome:?}, expected {expect:?}: {detail}");
        assert!(!detail.contains('\n'), "{name}: {detail} is more than a sentence");
    }
}

#[test]
fn bad_tools_are_refused_with_a_sentence() {
    let object = || json!({"type": "object"});
    let check = |tools: Tools, expect: &str| {
        let found = vocab::small().factory.tool_calls(tools, Opening::Unknown).err();
        let found = found.map(|error| error.to_string()).unwrap_or_default();
        assert!(found.contains(expect), "expected {expect:?}, found {found:?}");
    };
    let with = |specs: Vec<ToolSpec>| Tools { specs, ..Tools::default() };
    for name in ["", "a b", "a:1", "a$", "-a", ".a", "<|im_end|>", "名", "functions\n", &"x".repeat(129)] {
        check(with(specs(&[(name, object())])), "tool name");
    }
    check(with(specs(&[("a", object()), ("a", object())])), "two tools are named \"a\"");
    check(with(specs(&[("a", json!({"type": "string"}))])), "tool \"a\": the parameters of a tool must be");
    check(with(specs(&[("a", json!({"$ref": "http://x/y"}))])), "tool \"a\": the $ref");
    check(Tools { choice: ToolChoice::Named("b".into()), ..with(specs(&[("a", object())])) }, "not among");
    check(Tools { choice: ToolChoice::Required, ..Tools::default() }, "declares no tools");
    let negation = ToolSpec { name: "a".into(), parameters: Some(json!({"not": {}})), strict: true };
    check(with(vec![negation]), "strict mode cannot enforce not at #");
    let many: Vec<ToolSpec> =
        (0..129).map(|idx| ToolSpec { name: format!("t{idx}"), parameters: None, strict: false }).collect();
    check(with(many), "129 tools, above the limit of 128");
    let large = json!({"type": "object", "description": "d".repeat(200_000)});
    let many: Vec<ToolSpec> = (0..6)
        .map(|idx| ToolSpec { name: format!("t{idx}"), parameters: Some(large.clone()), strict: false })
        .collect();
    check(with(many), "all tools has bytes above the limit");
}

/// What a request may declare can be called, and nothing else: one rule for the door and for the grammar.
#[test]
fn door_and_grammar_take_the_same_tool_names() {
    let mut names = vec![String::new(), "é".into(), "aé".into(), "x".repeat(128), "x".repeat(129)];
    names.extend((0..=127u8).map(char::from).flat_map(|c| [c.to_string(), format!("a{c}"), format!("{c}a")]));
    let mut n_taken = 0;
    for name in names {
        let spec = ToolSpec { name: name.clone(), parameters: None, strict: false };
        let tools = Tools { specs: vec![spec], ..Tools::default() };
        let is_callable = vocab::small().factory.tool_calls(tools, Opening::Unknown).is_ok();
        assert_eq!(is_callable, Tool::function(&name, None, None).is_ok(), "{name:?}");
        n_taken += usize::from(is_callable);
    }
    // Of one letter alone and before `a` the 62 alphanumeric ones and `_`, after `a` also `-` and `.`; and the longest.
    assert_eq!(n_taken, 63 + 63 + 65 + 1);
}

#[test]
fn reports_name_the_place_in_the_schema_that_came() {
    let schema = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/x~1y"}, "b": {"$ref": "#/$defs/x~1y"}},
        "$defs": {"x/y": {"type": "object", "properties": {
            "id": {"type": "string", "format": "int64", "pattern": "(?!x)"},
            "both": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
            "set": {"type": "array", "items": {"type": "integer"}, "uniqueItems": true}}}}});
    let constraint =
        vocab::small().factory.json_schema(&schema, false, Opening::Answer).expect("it compiles");
    let found: Vec<(&str, &str, bool)> = constraint.reports()[0]
        .unenforced
        .iter()
        .map(|entry| (entry.at.as_str(), entry.keyword.as_str(), entry.is_assertion))
        .collect();
    let id = "#/$defs/x~1y/properties/id";
    let expect = [
        (id, "format", false),
        (id, "pattern", true),
        ("#/$defs/x~1y/properties/set", "uniqueItems", true),
        ("#/$defs/x~1y/properties/both", "oneOf", true),
    ];
    assert_eq!(found, expect);
}

#[test]
fn reports_say_what_is_bounded() {
    let factory = &vocab::small().factory;
    let bytes_max = |schema: Value| {
        let constraint = factory.json_schema(&schema, true, Opening::Answer).expect("the schema compiles");
        constraint.reports()[0].bytes_max
    };
    let closed = |properties: Value| json!({"type": "object", "properties": properties});
    assert!(
        bytes_max(closed(json!({"a": {"type": "string", "maxLength": 10}, "b": {"type": "number"}})))
            .is_some()
    );
    assert!(
        bytes_max(closed(json!({"a": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3}})))
            .is_some()
    );
    assert_eq!(bytes_max(closed(json!({"a": {"type": "string"}}))), None);
    assert_eq!(bytes_max(closed(json!({"a": {"type": "array", "items": {"enum": [1, 2]}}}))), None);
    assert_eq!(bytes_max(json!({"type": "object"})), None);
    assert_eq!(bytes_max(closed(json!({"a": {"$ref": "#"}}))), None);
}
