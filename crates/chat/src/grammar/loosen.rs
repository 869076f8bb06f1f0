//! The next looser schema, where the constraint library does not take one as it is.

use serde_json::{Map, Value};

use super::schema::{Prepared, Unenforced, def_of, dropped, escape};

/// Last step of [`loosen`].
pub(super) const LAST_STEP: usize = 5;

/// Makes the schema looser in one of six ways and reports how; false if that changed nothing. `reason` is what the
/// library said, `compiles` whether it takes a schema.
pub(super) fn loosen(
    prepared: &mut Prepared,
    step: usize,
    reason: &str,
    compiles: impl Fn(&Value) -> bool,
) -> bool {
    match step {
        0 if reason.contains("circular") => keep_references_alone(prepared),
        1 if reason.contains("circular") => remove(prepared, &["allOf"], reason),
        2 => remove(prepared, &["minProperties", "maxProperties"], reason),
        3 => remove(prepared, &["patternProperties"], reason),
        4 => remove_culprits(prepared, reason, compiles),
        5 => remove(prepared, &["pattern", "format", "multipleOf"], reason),
        _ => false,
    }
}

/// Reports every `oneOf`: they are enforced as `anyOf` from now on.
pub(super) fn report_one_of(prepared: &mut Prepared) {
    visit(prepared, |map, at, out| {
        if map.contains_key("oneOf") {
            out.push(dropped(at, "oneOf", "branches may overlap; enforced as anyOf"));
        }
    });
}

/// Removes all assertions that stand beside a `$ref`.
fn keep_references_alone(prepared: &mut Prepared) -> bool {
    visit(prepared, |map, at, out| {
        if !map.contains_key("$ref") {
            return;
        }
        let siblings: Vec<String> = map.keys().filter(|key| !key.starts_with('$')).cloned().collect();
        for keyword in siblings {
            map.shift_remove(&keyword);
            out.push(dropped(at, &keyword, "it stands beside a recursive $ref"));
        }
    })
}

/// Removes from each string or number what the library does not take there by itself.
fn remove_culprits(prepared: &mut Prepared, reason: &str, compiles: impl Fn(&Value) -> bool) -> bool {
    const ALONE: [&str; 10] = [
        "type",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "format",
        "pattern",
        "multipleOf",
    ];
    visit(prepared, |map, at, out| {
        let part = |map: &Map<String, Value>| {
            let kept = map.iter().filter(|(key, _)| ALONE.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
        };
        for keyword in ["format", "pattern", "multipleOf"] {
            if map.contains_key(keyword) && !compiles(&part(map)) {
                map.shift_remove(keyword);
                out.push(dropped(at, keyword, reason));
            }
        }
    })
}

/// Removes `keywords` everywhere.
fn remove(prepared: &mut Prepared, keywords: &[&str], reason: &str) -> bool {
    visit(prepared, |map, at, out| {
        for keyword in keywords {
            if map.shift_remove(*keyword).is_none() {
                continue;
            }
            out.push(dropped(at, keyword, reason));
            if *keyword == "patternProperties" {
                // Names of a dropped pattern must not fall under the schema for all other names.
                map.shift_remove("additionalProperties");
            }
        }
    })
}

/// Lets `change` see every subschema; true if it reported anything.
fn visit(
    prepared: &mut Prepared,
    mut change: impl FnMut(&mut Map<String, Value>, &str, &mut Vec<Unenforced>),
) -> bool {
    let mut found = Vec::new();
    walk(&mut prepared.schema, "#", &mut |map, at| change(map, at, &mut found));
    for entry in &mut found {
        entry.at = origin(&entry.at, &prepared.origins);
    }
    let has_changed = !found.is_empty();
    prepared.unenforced.extend(found);
    has_changed
}

/// A place of the rewritten schema as it was called in the schema that came.
fn origin(at: &str, origins: &[String]) -> String {
    let rest = at.strip_prefix("#/$defs/").unwrap_or_default();
    let (idx, tail) = rest.split_once('/').map_or((rest, ""), |(idx, _)| (idx, &rest[idx.len()..]));
    match def_of(&format!("#/$defs/{idx}")).and_then(|idx| origins.get(idx)) {
        Some(origin) => format!("{origin}{tail}"),
        None => at.to_owned(),
    }
}

/// Visits every subschema, parents first.
fn walk(schema: &mut Value, at: &str, visit: &mut impl FnMut(&mut Map<String, Value>, &str)) {
    let Some(map) = schema.as_object_mut() else { return };
    visit(map, at);
    for (keyword, value) in map.iter_mut() {
        let at = format!("{at}/{}", escape(keyword));
        match (keyword.as_str(), value) {
            ("properties" | "patternProperties" | "$defs", Value::Object(children)) => {
                for (name, child) in children.iter_mut() {
                    walk(child, &format!("{at}/{}", escape(name)), visit);
                }
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems", Value::Array(children)) => {
                for (idx, child) in children.iter_mut().enumerate() {
                    walk(child, &format!("{at}/{idx}"), visit);
                }
            }
            ("items" | "additionalProperties", child) => walk(child, &at, visit),
            _ => {}
        }
    }
}
