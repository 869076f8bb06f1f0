//! Schemas that would be expensive if they were taken literally.

use serde_json::{Map, Value, json};

fn list(n: usize, item: impl Fn(usize) -> Value) -> Value {
    Value::Array((0..n).map(item).collect())
}

fn map(n: usize, entry: impl Fn(usize) -> (String, Value)) -> Value {
    Value::Object((0..n).map(entry).collect::<Map<_, _>>())
}

/// `inner` inside `depth` layers of `wrap`.
pub(crate) fn nested(depth: usize, inner: Value, wrap: impl Fn(Value) -> Value) -> Value {
    (0..depth).fold(inner, |schema, _| wrap(schema))
}

/// Definitions `d0` to `dN` of which each leads to the next, and the last to an integer.
fn chain(n: usize, link: impl Fn(Value) -> Value) -> Value {
    let next = |idx: usize| json!({"$ref": format!("#/$defs/d{}", idx + 1)});
    let def = |idx| if idx == n { json!({"type": "integer"}) } else { link(next(idx)) };
    json!({"$ref": "#/$defs/d0", "$defs": map(n + 1, |idx| (format!("d{idx}"), def(idx)))})
}

fn text(pattern: impl Into<String>) -> Value {
    json!({"type": "string", "pattern": pattern.into()})
}

/// What should become of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Enforced,
    /// Enforced but for reported keywords.
    Looser,
    Refused,
    /// Enforced until a limit of the parser ends the generation, on large vocabularies at least.
    MeetsLimit,
}

use Outcome::{Enforced, Looser, MeetsLimit, Refused};

/// A name for each, for messages.
pub(crate) fn costly() -> Vec<(&'static str, Outcome, Value)> {
    let mut all = patterns();
    all.extend(structures());
    all.extend(references());
    all.extend(numbers());
    all
}

fn patterns() -> Vec<(&'static str, Outcome, Value)> {
    let gap = |n: usize| format!(".*[a-f].{{{n}}}b.*");
    vec![
        ("nested counts", Enforced, text("^((a{1,500}){1,500}){1,500}$")),
        ("alternations", Enforced, text("^(a|aa|aaa|b.*c.*d|.{0,90}x)*.{90}y.{90}$")),
        ("long memory", MeetsLimit, text("a.{900}b.{900}c")),
        ("six intersections", Looser, json!({"allOf": list(6, |i| text(gap(i + 100)))})),
        ("forty intersections", Refused, json!({"allOf": list(40, |i| text(gap(i)))})),
        (
            "forty intersections below",
            Refused,
            json!({"type": "object", "allOf": list(40, |i| json!({"properties": {"x": text(gap(i))}}))}),
        ),
        (
            "intersection through $ref",
            Refused,
            json!({"allOf": list(40, |i| json!({"$ref": format!("#/$defs/p{i}")})),
                "$defs": map(40, |i| (format!("p{i}"), text(gap(i))))}),
        ),
        (
            "pattern names",
            Looser,
            json!({"patternProperties": map(16, |i| (format!("^{i}{}$", gap(200)), json!({})))}),
        ),
        (
            "overlapping names",
            Looser,
            json!({"patternProperties": {"a": {"type": "integer"}, "b": {"type": "string"}}}),
        ),
        (
            "hundred patterns",
            MeetsLimit,
            json!({"type": "object", "properties": map(100, |i| (format!("x{i}"), text(gap(i))))}),
        ),
        ("classes", Enforced, text("^(\\p{L}|\\p{N}|[^a-z]){200,900}$")),
        (
            "email and pattern",
            Looser,
            json!({"type": "string", "format": "email", "minLength": 6,
            "pattern": "^\\w+([.-]?\\w+)*@\\w+([.-]?\\w+)*(\\.\\w{2,})+$"}),
        ),
    ]
}

fn structures() -> Vec<(&'static str, Outcome, Value)> {
    let branch = |i: usize, j: usize| json!({"properties": {format!("x{i}_{j}"): {"type": "integer"}}});
    let products = json!({"allOf": list(12, |i| json!({"anyOf": list(8, |j| branch(i, j))}))});
    let variant = |i: usize| json!({"type": "object", "properties": {"k": {"const": i}, "v": {"type": "string"}}, "required": ["k"]});
    let strings =
        |n| json!({"type": "object", "properties": map(n, |i| (format!("p{i}"), json!({"type": "string"})))});
    let words = list(4_900, |i| json!(format!("{}-{i}", "w".repeat(i % 30))));
    let array = |inner: Value| json!({"type": "array", "items": inner, "maxItems": 4_096});
    let item = json!({"type": "string", "maxLength": 3_000});
    vec![
        ("product of anyOf", Refused, products),
        ("wide object", Refused, strings(3_000)),
        ("five hundred properties", Enforced, strings(500)),
        ("many branches", Enforced, json!({"anyOf": list(200, variant)})),
        ("many overlapping branches", Looser, json!({"oneOf": list(200, |_| json!({"type": "object"}))})),
        ("long enum", Enforced, json!({"enum": words})),
        ("nested arrays", Enforced, nested(30, json!({"type": "integer"}), array)),
        ("long string", Enforced, json!({"type": "string", "minLength": 30_000, "maxLength": 32_768})),
        (
            "long array",
            Enforced,
            json!({"type": "array", "items": item, "minItems": 4_000, "maxItems": 4_096}),
        ),
        (
            "odd maxProperties",
            Looser,
            json!({"type": "object", "properties": {"a": {}, "b": {}, "c": {}}, "maxProperties": 2}),
        ),
    ]
}

fn references() -> Vec<(&'static str, Outcome, Value)> {
    let fork = |next| json!({"anyOf": [next, {"type": "null"}]});
    let object = |inner| json!({"type": "object", "properties": {"n": inner}, "required": ["n"]});
    let array = |inner| json!({"type": "array", "items": inner});
    let crossed = |one, other| json!({"n": {"allOf": [{"$ref": one}, {"$ref": other}]}});
    vec![
        ("chain of $ref", Refused, chain(3_000, fork)),
        ("short chain of $ref", Enforced, chain(60, fork)),
        ("deep chain of $ref", Enforced, chain(1_500, object)),
        ("longest chain of $ref", Enforced, chain(1_990, array)),
        ("too long chain of $ref", Refused, chain(2_001, array)),
        ("deepest arrays", Enforced, chain(100, |next| nested(95, next, array))),
        ("deepest objects", Enforced, chain(100, |next| nested(40, next, object))),
        ("recursive with sibling", Looser, json!({"properties": {"n": {"$ref": "#", "minProperties": 1}}})),
        (
            "recursive intersection",
            Looser,
            json!({"properties": crossed("#", "#/$defs/o"), "$defs": {"o": {"properties": crossed("#/$defs/o", "#")}}}),
        ),
    ]
}

fn numbers() -> Vec<(&'static str, Outcome, Value)> {
    let multiple = |n: u32| json!({"type": "integer", "multipleOf": n});
    vec![
        ("large multiple", Looser, multiple(4_294_967_291)),
        ("multiples that meet", Looser, json!({"allOf": [multiple(9_973), multiple(9_967)]})),
        ("many multiples", Refused, json!({"anyOf": list(60, |i| multiple(9_000 + i as u32))})),
        ("digits", Enforced, json!({"type": "number", "minimum": 0.123456789012345, "maximum": 9.1e18})),
        ("tiny bound", Enforced, json!({"type": "number", "minimum": 1e-300, "maximum": 1e-299})),
    ]
}
