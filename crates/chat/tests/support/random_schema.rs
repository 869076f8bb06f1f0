//! Random JSON Schemas of all enforced keywords, for comparing generated values with a validator.

use serde_json::{Map, Value, json};

use super::forced::Rng;

/// A schema with up to three definitions, which may recurse through optional properties.
pub(crate) fn random_schema(rng: &mut Rng) -> Value {
    let mut root = schema(rng, 3);
    if let Some(map) = root.as_object_mut() {
        let defs: Map<String, Value> = (0..3).map(|idx| (format!("d{idx}"), schema(rng, 2))).collect();
        map.insert("$defs".into(), Value::Object(defs));
    }
    root
}

fn one_of<'v>(rng: &mut Rng, values: &[&'v str]) -> &'v str {
    values[rng.below(values.len())]
}

fn often(rng: &mut Rng, percent: usize) -> bool {
    rng.below(100) < percent
}

fn schema(rng: &mut Rng, depth: usize) -> Value {
    match rng.below(if depth == 0 { 5 } else { 11 }) {
        0 => string(rng),
        1 => number(rng),
        2 => json!({"type": one_of(rng, &["null", "boolean", "integer"])}),
        3 => json!({"enum": fixed_values(rng)}),
        4 => json!({"const": fixed_values(rng)[0]}),
        5 | 6 => object(rng, depth - 1),
        7 => array(rng, depth - 1),
        8 => branches(rng, depth - 1),
        9 => json!({"$ref": format!("#/$defs/d{}", rng.below(3)), "description": "somewhere else"}),
        _ => json!({"type": ["string", "integer", "null"], "maxLength": 5, "minimum": -3, "maximum": 300}),
    }
}

/// At least one value of any kind.
fn fixed_values(rng: &mut Rng) -> Vec<Value> {
    let all = json!(["a", "b\nc", 1, -2.5, null, true, [1, "x"], {"k": ["v"]}, [], {}, "日本"]);
    let mut values = all.as_array().expect("an array").clone();
    values.rotate_left(rng.below(11));
    values.truncate(1 + rng.below(8));
    values
}

fn string(rng: &mut Rng) -> Value {
    let mut map = json!({"type": "string"});
    match rng.below(4) {
        0 => {
            map["format"] =
                json!(one_of(rng, &["date", "uuid", "ipv4", "email", "date-time", "time", "duration"]))
        }
        1 => {
            let patterns =
                ["^[a-z]{1,4}$", "\\d+", "^(x|yz)*$", "^[^\\s]{2,5}$", "^.{0,3}$", "a.b", "^\\w+-\\W$"];
            map["pattern"] = json!(one_of(rng, &patterns));
        }
        2 => map["minLength"] = json!(rng.below(4)),
        _ => {}
    }
    if often(rng, 60) && map.get("format").is_none() {
        map["maxLength"] = json!(4 + rng.below(12));
    }
    map
}

fn number(rng: &mut Rng) -> Value {
    let mut map = json!({"type": one_of(rng, &["integer", "number"])});
    let low = rng.below(400) as i64 - 200;
    let halves = if map["type"] == "number" { 0.5 } else { 0.0 };
    if often(rng, 50) {
        map[one_of(rng, &["minimum", "exclusiveMinimum"])] = json!(low as f64 + halves);
    }
    if often(rng, 50) {
        map[one_of(rng, &["maximum", "exclusiveMaximum"])] = json!(low + 3 + rng.below(500) as i64);
    }
    if often(rng, 20) {
        map["multipleOf"] = json!(1 + rng.below(3));
    }
    map
}

fn object(rng: &mut Rng, depth: usize) -> Value {
    let names = ["a", "b\"c", "日", "d/e~f", ""];
    let n_properties = rng.below(4);
    let properties: Map<String, Value> =
        names.iter().take(n_properties).map(|name| ((*name).to_owned(), schema(rng, depth))).collect();
    let required: Vec<&str> = names.iter().take(n_properties).copied().filter(|_| often(rng, 40)).collect();
    let mut map = json!({"type": "object", "properties": properties, "required": required});
    match rng.below(5) {
        0 => map["additionalProperties"] = json!(false),
        1 => map["additionalProperties"] = schema(rng, 0),
        2 => {
            map["patternProperties"] = json!({"^x_": schema(rng, 0)});
            map["additionalProperties"] = json!(often(rng, 50));
        }
        _ => {}
    }
    map
}

fn array(rng: &mut Rng, depth: usize) -> Value {
    let mut map = json!({"type": "array", "items": schema(rng, depth), "maxItems": 1 + rng.below(4)});
    if often(rng, 30) {
        map["prefixItems"] = json!([schema(rng, depth), schema(rng, 0)]);
    }
    if often(rng, 30) {
        map["minItems"] = json!(1);
    }
    map
}

fn branches(rng: &mut Rng, depth: usize) -> Value {
    let (one, other) = (schema(rng, depth), schema(rng, depth));
    match rng.below(6) {
        0 | 1 => json!({"anyOf": [one, other]}),
        2 => json!({"anyOf": [one, {"type": "null"}], "description": "nullable"}),
        3 => {
            json!({"oneOf": [{"type": "object", "properties": {"t": {"const": "p"}, "v": one}, "required": ["t"]},
            {"type": "object", "properties": {"t": {"const": "q"}, "v": other}, "required": ["t", "v"]}]})
        }
        4 => json!({"allOf": [object(rng, depth), object(rng, depth)]}),
        _ => {
            json!({"type": "object", "properties": {"a": one, "b": other}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]})
        }
    }
}
