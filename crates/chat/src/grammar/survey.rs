//! Counts of a schema as it came, with the limits that hold before anything is built from it.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::error::GrammarError;
use super::schema::{escape, shorten};

/// Most bytes of one schema, counted over its keys, strings and values.
const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// Deepest nesting of one schema, in JSON levels.
const SCHEMA_DEPTH_MAX: usize = 100;
/// Most values in all `enum`s of one schema.
const ENUM_VALUES_MAX: usize = 5_000;
/// Most `pattern`s and `patternProperties` of one schema.
const PATTERNS_MAX: usize = 100;

/// Counts of the schema as it came, before anything is built from it.
#[derive(Default)]
pub(super) struct Survey {
    n_bytes: usize,
    n_enum_values: usize,
    n_patterns: usize,
    /// `$anchor` names and the pointers of their schemas.
    pub(super) anchors: HashMap<String, String>,
}

impl Survey {
    /// Counts `value`, which stands at the pointer `at`.
    pub(super) fn visit(&mut self, value: &Value, at: &str, depth: usize) -> Result<(), GrammarError> {
        if depth > SCHEMA_DEPTH_MAX {
            return Err(GrammarError::SchemaTooDeep { at: shorten(at), limit: SCHEMA_DEPTH_MAX });
        }
        self.n_bytes += 2;
        match value {
            Value::String(text) => self.n_bytes += text.len(),
            Value::Number(_) => self.n_bytes += 8,
            Value::Array(items) => {
                for (idx, item) in items.iter().enumerate() {
                    self.visit(item, &format!("{at}/{idx}"), depth + 1)?;
                }
            }
            Value::Object(map) => self.visit_map(map, at, depth)?,
            Value::Null | Value::Bool(_) => {}
        }
        too_large(at, self.n_bytes, "bytes", SCHEMA_BYTES_MAX)
    }

    fn visit_map(&mut self, map: &Map<String, Value>, at: &str, depth: usize) -> Result<(), GrammarError> {
        for (key, value) in map {
            self.n_bytes += key.len();
            too_large(at, self.n_bytes, "bytes", SCHEMA_BYTES_MAX)?;
            match (key.as_str(), value) {
                ("enum", Value::Array(values)) => self.n_enum_values += values.len(),
                ("pattern", Value::String(_)) => self.n_patterns += 1,
                ("patternProperties", Value::Object(patterns)) => self.n_patterns += patterns.len(),
                ("$anchor", Value::String(name)) => {
                    self.anchors.insert(name.clone(), at.to_owned());
                }
                _ => {}
            }
            self.visit(value, &format!("{at}/{}", escape(key)), depth + 1)?;
        }
        too_large(at, self.n_enum_values, "enum values", ENUM_VALUES_MAX)?;
        too_large(at, self.n_patterns, "patterns", PATTERNS_MAX)
    }
}

/// Fails where a count is above its limit.
pub(super) fn too_large(
    at: &str,
    count: usize,
    what: &'static str,
    limit: usize,
) -> Result<(), GrammarError> {
    if count <= limit {
        return Ok(());
    }
    Err(GrammarError::SchemaTooLarge { at: shorten(at), what, limit })
}
