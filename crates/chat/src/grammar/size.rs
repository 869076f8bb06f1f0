//! How short and how long the values of a rewritten schema are, and whether its references get anywhere.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::error::GrammarError;
use super::guard::{NUMBER_BYTES_MAX, SPACE_BYTES_MAX};
use super::pattern;
use super::schema::{Definition, REFERENCES_MAX, VALUE_BYTES_MAX, def_of, shorten};

/// Stands for "no finite value".
const NEVER: u64 = u64::MAX;
/// Bytes of one character of a string at most: an escaped surrogate pair.
const CHAR_BYTES_MAX: u64 = 12;

/// Bytes of one byte of text at most: an escape with its code point.
const BYTE_BYTES_MAX: u64 = 6;

/// Fails where a reference comes back to itself through keywords that stay at the same value.
pub(super) fn check_progress(root: &Value, defs: &[Definition]) -> Result<(), GrammarError> {
    let mut done = HashSet::new();
    for idx in 0..defs.len() {
        stay(idx, defs, &mut Vec::new(), &mut done)?;
    }
    debug_assert!(in_place_refs(root).iter().all(|idx| done.contains(idx)));
    Ok(())
}

/// Follows the references of definition `idx` that stay at the same value.
fn stay(
    idx: usize,
    defs: &[Definition],
    path: &mut Vec<usize>,
    done: &mut HashSet<usize>,
) -> Result<(), GrammarError> {
    if done.contains(&idx) {
        return Ok(());
    }
    if path.contains(&idx) {
        return Err(GrammarError::CyclicRef { at: shorten(&defs[idx].at) });
    }
    if path.len() == REFERENCES_MAX {
        let (what, limit) = ("references in a row", REFERENCES_MAX);
        return Err(GrammarError::SchemaTooLarge { at: shorten(&defs[idx].at), what, limit });
    }
    path.push(idx);
    for next in in_place_refs(&defs[idx].schema) {
        stay(next, defs, path, done)?;
    }
    path.pop();
    done.insert(idx);
    Ok(())
}

/// Definitions that a schema holds against its own value.
fn in_place_refs(schema: &Value) -> Vec<usize> {
    let Some(map) = schema.as_object() else { return Vec::new() };
    let mut found: Vec<usize> = reference(map).into_iter().collect();
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for branch in branches(map, keyword) {
            found.extend(in_place_refs(branch));
        }
    }
    found
}

/// Fails where no finite value exists, or only very long ones.
pub(super) fn check_least_bytes(root: &Value, defs: &[Definition]) -> Result<(), GrammarError> {
    let mut least = vec![NEVER; defs.len()];
    // Definitions stand in the order of discovery, so that going backwards meets most targets before their users.
    loop {
        let before = least.clone();
        for (idx, def) in defs.iter().enumerate().rev() {
            least[idx] = least_bytes(&def.schema, &least);
        }
        if before == least {
            break;
        }
    }
    match least_bytes(root, &least) {
        NEVER => {
            let at =
                defs.iter().zip(&least).find(|(_, bytes)| **bytes == NEVER).map(|(def, _)| def.at.as_str());
            Err(GrammarError::InfiniteValue { at: shorten(at.unwrap_or("#")) })
        }
        bytes if bytes > VALUE_BYTES_MAX => {
            Err(GrammarError::ValueTooLarge { bytes, limit: VALUE_BYTES_MAX })
        }
        _ => Ok(()),
    }
}

/// A lower bound of the bytes of a value, given those of the definitions.
fn least_bytes(schema: &Value, least: &[u64]) -> u64 {
    let Some(map) = schema.as_object() else { return 1 };
    let mut bytes = least_own_bytes(map, least);
    if let Some(idx) = reference(map) {
        bytes = bytes.max(least[idx]);
    }
    for branch in branches(map, "allOf") {
        bytes = bytes.max(least_bytes(branch, least));
    }
    for keyword in ["anyOf", "oneOf"] {
        let shortest = branches(map, keyword).iter().map(|branch| least_bytes(branch, least)).min();
        bytes = bytes.max(shortest.unwrap_or(0));
    }
    bytes
}

/// The same for the keywords that stand in the schema itself.
fn least_own_bytes(map: &Map<String, Value>, least: &[u64]) -> u64 {
    if let Some(value) = map.get("const") {
        return text_bytes(value);
    }
    if let Some(values) = map.get("enum").and_then(Value::as_array) {
        return values.iter().map(text_bytes).min().unwrap_or(1);
    }
    let of_type = |name: &str| match name {
        "string" => number(map, "minLength").unwrap_or(0).saturating_add(2),
        "array" => least_array_bytes(map, least),
        "object" => least_object_bytes(map, least),
        "null" | "boolean" => 4,
        _ => 1,
    };
    match map.get("type") {
        Some(Value::String(name)) => of_type(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(of_type).min().unwrap_or(1),
        _ => 1,
    }
}

fn least_array_bytes(map: &Map<String, Value>, least: &[u64]) -> u64 {
    let n_items = number(map, "minItems").unwrap_or(0);
    let prefix = branches(map, "prefixItems");
    let mut bytes: u64 = 2;
    for item in prefix.iter().take(usize::try_from(n_items).unwrap_or(usize::MAX)) {
        bytes = bytes.saturating_add(least_bytes(item, least)).saturating_add(1);
    }
    let n_rest = n_items.saturating_sub(prefix.len() as u64);
    if n_rest == 0 {
        return bytes;
    }
    let item = map.get("items").map_or(1, |item| least_bytes(item, least));
    bytes.saturating_add(item.saturating_add(1).saturating_mul(n_rest))
}

fn least_object_bytes(map: &Map<String, Value>, least: &[u64]) -> u64 {
    let names = map.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut bytes: u64 = 2;
    for name in names {
        let schema = map.get("properties").and_then(|properties| properties.get(name.as_str()?));
        let value = schema.map_or(1, |schema| least_bytes(schema, least));
        bytes = bytes.saturating_add(value).saturating_add(text_bytes(name)).saturating_add(2);
    }
    bytes
}

/// Most bytes of a value with all white space that the grammar allows, or `None` where there is no limit.
pub(super) fn most_bytes(root: &Value, defs: &[Definition]) -> Option<u64> {
    let mut known = vec![Longest::Unknown; defs.len()];
    Measure { defs, known: &mut known }.value(root)
}

#[derive(Clone, Copy)]
enum Longest {
    Unknown,
    /// Being measured: meeting it again means recursion.
    Open,
    Known(Option<u64>),
}

struct Measure<'d> {
    defs: &'d [Definition],
    known: &'d mut Vec<Longest>,
}

impl Measure<'_> {
    fn value(&mut self, schema: &Value) -> Option<u64> {
        let map = schema.as_object()?;
        let mut limits = vec![self.own(map)];
        if let Some(idx) = reference(map) {
            limits.push(self.definition(idx));
        }
        limits.extend(branches(map, "allOf").iter().map(|branch| self.value(branch)));
        for keyword in ["anyOf", "oneOf"] {
            if map.contains_key(keyword) {
                limits.push(self.longest(branches(map, keyword)));
            }
        }
        limits.into_iter().flatten().min()
    }

    fn definition(&mut self, idx: usize) -> Option<u64> {
        match self.known[idx] {
            Longest::Known(bytes) => bytes,
            Longest::Open => None,
            Longest::Unknown => {
                self.known[idx] = Longest::Open;
                let defs = self.defs;
                let bytes = self.value(&defs[idx].schema);
                self.known[idx] = Longest::Known(bytes);
                bytes
            }
        }
    }

    fn longest(&mut self, schemas: &[Value]) -> Option<u64> {
        schemas.iter().try_fold(0, |most, schema| Some(self.value(schema)?.max(most)))
    }

    fn own(&mut self, map: &Map<String, Value>) -> Option<u64> {
        if let Some(value) = map.get("const") {
            return Some(spaced_bytes(value));
        }
        if let Some(values) = map.get("enum").and_then(Value::as_array) {
            return values.iter().map(spaced_bytes).max();
        }
        match map.get("type")? {
            Value::String(name) => self.of_type(map, name),
            Value::Array(names) => names
                .iter()
                .filter_map(Value::as_str)
                .try_fold(0, |most, name| Some(self.of_type(map, name)?.max(most))),
            _ => None,
        }
    }

    fn of_type(&mut self, map: &Map<String, Value>, name: &str) -> Option<u64> {
        let bytes = match name {
            "null" => 4,
            "boolean" => 5,
            "number" | "integer" => NUMBER_BYTES_MAX,
            "string" => string_bytes(map)?,
            "array" => self.array(map)?,
            _ => self.object(map)?,
        };
        bytes.checked_add(SPACE_BYTES_MAX)
    }

    fn array(&mut self, map: &Map<String, Value>) -> Option<u64> {
        let prefix = branches(map, "prefixItems");
        let mut bytes = 2 + 2 * SPACE_BYTES_MAX;
        for item in prefix {
            bytes = bytes.checked_add(self.value(item)?)?.checked_add(1 + SPACE_BYTES_MAX)?;
        }
        if map.get("items") == Some(&Value::Bool(false)) {
            return Some(bytes);
        }
        let n_rest = number(map, "maxItems")?.saturating_sub(prefix.len() as u64);
        if n_rest == 0 {
            return Some(bytes);
        }
        let item = self.value(map.get("items")?)?.checked_add(1 + SPACE_BYTES_MAX)?;
        bytes.checked_add(item.checked_mul(n_rest)?)
    }

    fn object(&mut self, map: &Map<String, Value>) -> Option<u64> {
        if map.get("additionalProperties") != Some(&Value::Bool(false))
            || map.contains_key("patternProperties")
        {
            return None;
        }
        let mut bytes = 2 + 2 * SPACE_BYTES_MAX;
        for (name, schema) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let name = text_bytes(&Value::from(name.as_str()));
            let separators = 2 + 3 * SPACE_BYTES_MAX;
            bytes = bytes.checked_add(self.value(schema)?)?.checked_add(name + separators)?;
        }
        Some(bytes)
    }
}

/// Most bytes of a string with its quotes.
fn string_bytes(map: &Map<String, Value>) -> Option<u64> {
    if let Some(n_chars) = number(map, "maxLength") {
        return n_chars.checked_mul(CHAR_BYTES_MAX)?.checked_add(2);
    }
    if let Some(n_bytes) = map.get("pattern").and_then(Value::as_str).and_then(pattern::most_bytes) {
        return n_bytes.checked_mul(BYTE_BYTES_MAX)?.checked_add(2);
    }
    match map.get("format")?.as_str()? {
        "uuid" => Some(38),
        "ipv4" => Some(17),
        "ipv6" => Some(47),
        _ => None,
    }
}

/// Bytes of a value written without white space.
fn text_bytes(value: &Value) -> u64 {
    value.to_string().len() as u64
}

/// Bytes of a fixed value with all white space that may stand between its parts.
fn spaced_bytes(value: &Value) -> u64 {
    fn n_parts(value: &Value) -> u64 {
        match value {
            Value::Array(items) => items.iter().map(|item| n_parts(item) + 1).sum::<u64>() + 2,
            Value::Object(map) => map.values().map(|item| n_parts(item) + 3).sum::<u64>() + 2,
            _ => 1,
        }
    }
    text_bytes(value) + n_parts(value) * SPACE_BYTES_MAX
}

fn number(map: &Map<String, Value>, keyword: &str) -> Option<u64> {
    map.get(keyword).and_then(Value::as_u64)
}

fn reference(map: &Map<String, Value>) -> Option<usize> {
    map.get("$ref").and_then(Value::as_str).and_then(def_of)
}

fn branches<'m>(map: &'m Map<String, Value>, keyword: &str) -> &'m [Value] {
    map.get(keyword).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
