//! Reads a JSON Schema from outside and returns one that the constraint library enforces completely, with a list of
//! what had to be left out.
//!
//! After [`prepare`] the schema has only enforced keywords, every `$ref` is `#/$defs/N` and leads somewhere, no
//! reference loop stands still, a finite value exists, and all counts are below the written limits.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Map, Value, json};

use super::error::GrammarError;
use super::formats;
use super::keywords::{Support, support};
use super::pattern;
use super::size;
use super::survey::{Survey, too_large};

/// Most subschemas of one schema.
const SUBSCHEMAS_MAX: usize = 10_000;
/// Most `patternProperties` of one object; each pair is compared.
const PATTERN_PROPERTIES_MAX: usize = 16;
/// Most patterns and formats in schemas that hold together with others (`allOf` and the like): the work doubles with
/// each of them.
const PATTERNS_TOGETHER_MAX: usize = 6;
/// Most `properties` of one object.
const PROPERTIES_MAX: usize = 500;
/// Most branches of one `anyOf`, `oneOf` or `allOf`.
const BRANCHES_MAX: usize = 200;
/// Most schemas that references lead to.
const DEFINITIONS_MAX: usize = 2_000;
/// Longest chain of references that stay at the same value.
pub(super) const REFERENCES_MAX: usize = 64;
/// Most bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 1_000;
/// Largest `maxItems` that is enforced; a larger one is reported.
const ITEMS_MAX: u64 = 4_096;
/// Largest `maxLength` that is enforced, in characters; a larger one is reported.
const LENGTH_MAX: u64 = 32_768;
/// Most bytes that the shortest value of a schema may take.
pub(super) const VALUE_BYTES_MAX: u64 = 65_536;

/// Largest `multipleOf` that is enforced, its digits read as an integer (25 for 0.25).
const MULTIPLE_MAX: f64 = 10_000.0;
/// Most that all of them may add up to.
const MULTIPLES_SUM_MAX: usize = 50_000;
/// Largest integer below which every integer is exact as `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Bounds of this size and above do not fit the 64-bit integers of the range compiler.
const BOUND_MAX: f64 = 9.2e18;

/// The seven type names of JSON Schema.
const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "integer", "string"];
/// Keywords that hold another schema against the same value.
const IN_PLACE: [&str; 4] = ["$ref", "allOf", "anyOf", "oneOf"];
/// Keywords whose presence keeps an object open, since they may allow further properties.
const OPENING: [&str; 6] = [
    "if",
    "dependentSchemas",
    "dependentRequired",
    "dependencies",
    "unevaluatedProperties",
    "patternProperties",
];

/// A keyword that generated values may violate; check them afterwards with a validator.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unenforced {
    /// JSON Pointer of the schema that has the keyword, as a fragment.
    pub at: String,
    /// The keyword.
    pub keyword: String,
    /// Why it is not enforced.
    pub reason: String,
    /// Whether the specification makes it an assertion (unknown formats are not).
    pub is_assertion: bool,
}

/// A schema ready for the constraint library.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) schema: Value,
    /// Where the definition of each index stands in the schema as it came.
    pub(super) origins: Vec<String>,
    pub(super) unenforced: Vec<Unenforced>,
    /// Most bytes of a value with all white space, if there is a limit.
    pub(super) max_bytes: Option<u64>,
    /// Whether `\uXXXX` may be written in strings: not where an escaped name could dodge a declared one.
    pub(super) unicode_escapes: bool,
}

/// Checks and rewrites `schema`; `object_only` narrows its root to objects.
pub(super) fn prepare(schema: &Value, object_only: bool) -> Result<Prepared, GrammarError> {
    let mut survey = Survey::default();
    survey.visit(schema, "#", 0)?;
    let mut rewriter = Rewriter::new(schema, survey.anchors);
    let mut root = rewriter.schema(schema, "#", false)?;
    rewriter.definitions()?;
    let defs = rewriter.defs;
    if object_only {
        root = narrow_to_object(root, &defs)?;
    }
    size::check_progress(&root, &defs)?;
    size::check_least_bytes(&root, &defs)?;
    let max_bytes = size::most_bytes(&root, &defs);
    let mut schema = match root {
        Value::Object(map) => map,
        Value::Bool(true) => Map::new(),
        _ => return Err(GrammarError::Unsatisfiable { reason: "the schema is false".into() }),
    };
    let origins = defs.iter().map(|def| def.at.clone()).collect();
    if !defs.is_empty() {
        let named = defs.into_iter().enumerate().map(|(idx, def)| (idx.to_string(), def.schema)).collect();
        schema.insert("$defs".into(), Value::Object(named));
    }
    Ok(Prepared {
        schema: Value::Object(schema),
        origins,
        unenforced: rewriter.unenforced,
        max_bytes,
        unicode_escapes: !rewriter.has_open_names,
    })
}

/// A report of a keyword that is not enforced; `format` is an annotation by the specification.
pub(super) fn dropped(at: &str, keyword: &str, reason: &str) -> Unenforced {
    Unenforced {
        at: at.to_owned(),
        keyword: keyword.to_owned(),
        reason: reason.to_owned(),
        is_assertion: keyword != "format",
    }
}

/// A schema that references lead to.
pub(super) struct Definition {
    /// Where it stands in the schema as it came.
    pub(super) at: String,
    pub(super) schema: Value,
}

struct Rewriter<'s> {
    root: &'s Value,
    anchors: HashMap<String, String>,
    defs: Vec<Definition>,
    /// Index in `defs` by pointer and whether other schemas hold for the same value.
    def_idx: HashMap<(String, bool), usize>,
    pending: VecDeque<(usize, &'s Value, bool)>,
    n_schemas: usize,
    n_patterns_together: usize,
    multiples_sum: f64,
    has_merged_multiple: bool,
    unenforced: Vec<Unenforced>,
    has_open_names: bool,
}

impl<'s> Rewriter<'s> {
    fn new(root: &'s Value, anchors: HashMap<String, String>) -> Self {
        Self {
            root,
            anchors,
            defs: Vec::new(),
            def_idx: HashMap::new(),
            pending: VecDeque::new(),
            n_schemas: 0,
            n_patterns_together: 0,
            multiples_sum: 0.0,
            has_merged_multiple: false,
            unenforced: Vec::new(),
            has_open_names: false,
        }
    }

    fn definitions(&mut self) -> Result<(), GrammarError> {
        while let Some((idx, schema, merged)) = self.pending.pop_front() {
            let at = self.defs[idx].at.clone();
            self.defs[idx].schema = self.schema(schema, &at, merged)?;
        }
        Ok(())
    }

    /// One schema; `merged` says that another schema holds for the same value.
    fn schema(&mut self, schema: &'s Value, at: &str, merged: bool) -> Result<Value, GrammarError> {
        self.n_schemas += 1;
        too_large(at, self.n_schemas, "subschemas", SUBSCHEMAS_MAX)?;
        let map = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(map) => map,
            _ => return Err(bad(at, "a schema (an object, true or false)")),
        };
        let merged_children = merged || has_siblings_in_place(map);
        if merged_children {
            let keywords = ["pattern", "format"];
            self.n_patterns_together += keywords.iter().filter(|keyword| map.contains_key(**keyword)).count();
            let what = "patterns that hold together with other schemas";
            too_large(at, self.n_patterns_together, what, PATTERNS_TOGETHER_MAX)?;
        }
        let mut out = Map::new();
        for (keyword, value) in map {
            self.keyword(map, keyword, value, at, (merged, merged_children), &mut out)?;
        }
        finish_format(&mut out);
        self.finish_object(map, merged, &mut out);
        Ok(Value::Object(out))
    }

    /// Puts what becomes of one keyword into `out`.
    fn keyword(
        &mut self,
        map: &'s Map<String, Value>,
        keyword: &str,
        value: &'s Value,
        at: &str,
        (merged, merged_children): (bool, bool),
        out: &mut Map<String, Value>,
    ) -> Result<(), GrammarError> {
        let here = || format!("{at}/{}", escape(keyword));
        let new_value = match keyword {
            "type" => Some(types(value, &here())?),
            "enum" => self.enumeration(value, at, &here())?,
            "const" => self.exact(value, "const", at).then(|| value.clone()),
            "minimum" | "maximum" => self.bound(map, keyword, value, at)?,
            "exclusiveMinimum" | "exclusiveMaximum" => self.exclusive_bound(map, keyword, value, at)?,
            "multipleOf" => self.multiple(value, at, merged_children)?,
            "minLength" | "minItems" | "minProperties" | "maxProperties" => {
                Some(json!(count(value, &here())?))
            }
            "maxLength" => self.limit(keyword, count(value, &here())?, LENGTH_MAX, at),
            "maxItems" => self.limit(keyword, count(value, &here())?, ITEMS_MAX, at),
            "pattern" => self.pattern(value, at, &here())?,
            "format" => self.format(value, at, &here())?,
            "required" => self.required(value, at, &here())?,
            "properties" => Some(self.named(value, &here(), merged_children)?),
            "patternProperties" => Some(self.patterns(value, at, merged_children)?),
            "additionalProperties" => Some(self.schema(value, &here(), merged_children)?),
            "items" | "additionalItems" | "prefixItems" => {
                return self.items(map, keyword, value, at, merged_children, out);
            }
            "allOf" | "anyOf" | "oneOf" => Some(self.branches(map, keyword, value, &here(), merged)?),
            "$ref" => Some(self.reference(value, at, &here(), merged_children)?),
            "unevaluatedProperties" if is_plain_object(map) => {
                out.insert("additionalProperties".into(), self.schema(value, &here(), merged_children)?);
                None
            }
            _ => {
                self.unsupported(map, keyword, value, at);
                None
            }
        };
        out.extend(new_value.map(|value| (keyword.to_owned(), value)));
        Ok(())
    }

    /// Reports assertions that cannot be generated; skips annotations and words that are not JSON Schema.
    fn unsupported(&mut self, map: &Map<String, Value>, keyword: &str, value: &Value, at: &str) {
        let Some(Support::Reported(reason)) = support(keyword) else { return };
        let asserts_nothing = match keyword {
            "uniqueItems" => value == &Value::Bool(false),
            "unevaluatedItems" | "unevaluatedProperties" => value == &Value::Bool(true),
            "then" | "else" => !map.contains_key("if"),
            "if" => !map.contains_key("then") && !map.contains_key("else"),
            "minContains" | "maxContains" => !map.contains_key("contains"),
            _ => false,
        };
        if !asserts_nothing {
            self.report(at, keyword, reason);
        }
    }

    fn report(&mut self, at: &str, keyword: &str, reason: &str) {
        self.unenforced.push(dropped(at, keyword, reason));
    }

    fn enumeration(&mut self, value: &Value, at: &str, here: &str) -> Result<Option<Value>, GrammarError> {
        let Some(values) = value.as_array().filter(|values| !values.is_empty()) else {
            return Err(bad(here, "an array with at least one value"));
        };
        if !values.iter().all(exact_numbers) {
            self.report(at, "enum", "it has a number above 2^53");
            return Ok(None);
        }
        let mut seen = HashSet::new();
        let unique = values.iter().filter(|value| seen.insert(value.to_string())).cloned().collect();
        Ok(Some(Value::Array(unique)))
    }

    fn exact(&mut self, value: &Value, keyword: &str, at: &str) -> bool {
        let is_exact = exact_numbers(value);
        if !is_exact {
            self.report(at, keyword, "it has a number above 2^53");
        }
        is_exact
    }

    /// `minimum` or `maximum`; gives way to draft 4's boolean `exclusive…` beside it.
    fn bound(
        &mut self,
        map: &Map<String, Value>,
        keyword: &str,
        value: &Value,
        at: &str,
    ) -> Result<Option<Value>, GrammarError> {
        let exclusive = if keyword == "minimum" { "exclusiveMinimum" } else { "exclusiveMaximum" };
        let number = value.as_f64().ok_or_else(|| bad(&format!("{at}/{keyword}"), "a number"))?;
        if map.get(exclusive) == Some(&Value::Bool(true)) {
            return Ok(None);
        }
        if number.abs() >= BOUND_MAX {
            self.report(at, keyword, "it is above 2^63 in size");
            return Ok(None);
        }
        Ok(Some(value.clone()))
    }

    fn exclusive_bound(
        &mut self,
        map: &Map<String, Value>,
        keyword: &str,
        value: &Value,
        at: &str,
    ) -> Result<Option<Value>, GrammarError> {
        let inclusive = if keyword == "exclusiveMinimum" { "minimum" } else { "maximum" };
        let bound = match value {
            Value::Bool(true) => map.get(inclusive).unwrap_or(&Value::Null),
            Value::Bool(false) => return Ok(None),
            _ => value,
        };
        let expected = || bad(&format!("{at}/{keyword}"), "a number");
        if bound.as_f64().ok_or_else(expected)?.abs() >= BOUND_MAX {
            self.report(at, keyword, "it is above 2^63 in size");
            return Ok(None);
        }
        Ok(Some(bound.clone()))
    }

    /// `multipleOf`: the work grows with its digits read as an integer, and with the product of two that meet.
    fn multiple(&mut self, value: &Value, at: &str, merged: bool) -> Result<Option<Value>, GrammarError> {
        let Some(mut scaled) = value.as_f64().filter(|number| *number > 0.0) else {
            return Err(bad(&format!("{at}/multipleOf"), "a number above zero"));
        };
        for _ in 0..9 {
            if scaled.fract() != 0.0 {
                scaled *= 10.0;
            }
        }
        if scaled.fract() != 0.0 || scaled > MULTIPLE_MAX {
            self.report(at, "multipleOf", "it has too many digits");
            return Ok(None);
        }
        self.multiples_sum += scaled;
        let what = "sum of all multipleOf";
        too_large(at, self.multiples_sum as usize, what, MULTIPLES_SUM_MAX)?;
        if merged && std::mem::replace(&mut self.has_merged_multiple, true) {
            self.report(at, "multipleOf", "two of them may hold for one number");
            return Ok(None);
        }
        Ok(Some(value.clone()))
    }

    fn limit(&mut self, keyword: &str, count: u64, limit: u64, at: &str) -> Option<Value> {
        if count > limit {
            self.report(at, keyword, "it is above the largest enforced limit");
            return None;
        }
        Some(json!(count))
    }

    fn pattern(&mut self, value: &Value, at: &str, here: &str) -> Result<Option<Value>, GrammarError> {
        let text = value.as_str().ok_or_else(|| bad(here, "a string"))?;
        Ok(self.translated(text, "pattern", at)?.map(Value::String))
    }

    fn translated(&mut self, text: &str, keyword: &str, at: &str) -> Result<Option<String>, GrammarError> {
        too_large(&format!("{at}/{keyword}"), text.len(), "bytes in a pattern", PATTERN_BYTES_MAX)?;
        match pattern::translate(text) {
            Ok(translated) => Ok(Some(translated)),
            Err(reason) => {
                self.report(at, keyword, reason);
                Ok(None)
            }
        }
    }

    fn format(&mut self, value: &Value, at: &str, here: &str) -> Result<Option<Value>, GrammarError> {
        let name = value.as_str().ok_or_else(|| bad(here, "a string"))?;
        if formats::NAMES.contains(&name) {
            return Ok(Some(value.clone()));
        }
        self.report(at, "format", &format!("there is no grammar for the format {:?}", shorten(name)));
        Ok(None)
    }

    fn required(&mut self, value: &Value, at: &str, here: &str) -> Result<Option<Value>, GrammarError> {
        if value.is_boolean() {
            self.report(at, "required", "this is the draft 3 form; list the names in the object's schema");
            return Ok(None);
        }
        let names = value.as_array().ok_or_else(|| bad(here, "an array of property names"))?;
        if !names.iter().all(Value::is_string) {
            return Err(bad(here, "an array of property names"));
        }
        Ok(Some(value.clone()))
    }

    fn named(&mut self, value: &'s Value, here: &str, merged: bool) -> Result<Value, GrammarError> {
        let map = value.as_object().ok_or_else(|| bad(here, "an object of schemas"))?;
        too_large(here, map.len(), "properties", PROPERTIES_MAX)?;
        let mut out = Map::new();
        for (name, schema) in map {
            out.insert(name.clone(), self.schema(schema, &format!("{here}/{}", escape(name)), merged)?);
        }
        Ok(Value::Object(out))
    }

    fn patterns(&mut self, value: &'s Value, at: &str, merged: bool) -> Result<Value, GrammarError> {
        let here = format!("{at}/patternProperties");
        let map = value.as_object().ok_or_else(|| bad(&here, "an object of schemas"))?;
        too_large(&here, map.len(), "patterns for names", PATTERN_PROPERTIES_MAX)?;
        let mut out = Map::new();
        for (text, schema) in map {
            let schema = self.schema(schema, &format!("{here}/{}", escape(text)), merged)?;
            if let Some(pattern) = self.translated(text, "patternProperties", at)? {
                out.insert(pattern, schema);
            }
        }
        Ok(Value::Object(out))
    }

    /// `items`, `prefixItems` and the array form that they replace, as `prefixItems` and `items`.
    fn items(
        &mut self,
        map: &'s Map<String, Value>,
        keyword: &str,
        value: &'s Value,
        at: &str,
        merged: bool,
        out: &mut Map<String, Value>,
    ) -> Result<(), GrammarError> {
        let here = format!("{at}/{keyword}");
        let is_tuple = map.get("items").is_some_and(Value::is_array);
        match (keyword, value) {
            ("additionalItems", _) if !is_tuple => {}
            ("additionalItems", _) => {
                out.insert("items".into(), self.schema(value, &here, merged)?);
            }
            ("prefixItems", _) if is_tuple => return Err(bad(&here, "absent where items is an array")),
            ("items" | "prefixItems", Value::Array(schemas)) => {
                let schemas = schemas
                    .iter()
                    .enumerate()
                    .map(|(idx, schema)| self.schema(schema, &format!("{here}/{idx}"), merged))
                    .collect::<Result<_, _>>()?;
                out.insert("prefixItems".into(), Value::Array(schemas));
            }
            ("prefixItems", _) => return Err(bad(&here, "an array of schemas")),
            _ => {
                out.insert("items".into(), self.schema(value, &here, merged)?);
            }
        }
        Ok(())
    }

    fn branches(
        &mut self,
        map: &Map<String, Value>,
        keyword: &str,
        value: &'s Value,
        here: &str,
        merged: bool,
    ) -> Result<Value, GrammarError> {
        let Some(schemas) = value.as_array().filter(|schemas| !schemas.is_empty()) else {
            return Err(bad(here, "an array with at least one schema"));
        };
        too_large(here, schemas.len(), "branches", BRANCHES_MAX)?;
        let has_siblings = n_assertions(map) > 1;
        let merged = merged || has_siblings || (keyword == "allOf" && schemas.len() > 1);
        schemas
            .iter()
            .enumerate()
            .map(|(idx, schema)| self.schema(schema, &format!("{here}/{idx}"), merged))
            .collect::<Result<_, _>>()
            .map(Value::Array)
    }

    fn reference(
        &mut self,
        value: &Value,
        at: &str,
        here: &str,
        merged: bool,
    ) -> Result<Value, GrammarError> {
        let reference = value.as_str().ok_or_else(|| bad(here, "a string"))?;
        let pointer = self.resolve(reference, at)?;
        let target = lookup(self.root, &pointer)
            .ok_or_else(|| GrammarError::UnresolvedRef { at: shorten(at), reference: shorten(reference) })?;
        let key = (pointer, merged);
        if let Some(idx) = self.def_idx.get(&key) {
            return Ok(json!(format!("#/$defs/{idx}")));
        }
        let idx = self.defs.len();
        too_large(here, idx + 1, "definitions in use", DEFINITIONS_MAX)?;
        self.defs.push(Definition { at: key.0.clone(), schema: Value::Null });
        self.def_idx.insert(key, idx);
        self.pending.push_back((idx, target, merged));
        Ok(json!(format!("#/$defs/{idx}")))
    }

    /// The pointer that a reference stands for, as a fragment with canonical escapes.
    fn resolve(&self, reference: &str, at: &str) -> Result<String, GrammarError> {
        let root_id = self.root.get("$id").and_then(Value::as_str).unwrap_or_default();
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        if !document.is_empty() && document != root_id.trim_end_matches('#') {
            return Err(GrammarError::RemoteRef { at: shorten(at), reference: shorten(reference) });
        }
        let unresolved = || GrammarError::UnresolvedRef { at: shorten(at), reference: shorten(reference) };
        let fragment = percent_decode(fragment).ok_or_else(unresolved)?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return Ok(format!("#{}", fragment.trim_end_matches('/')));
        }
        self.anchors.get(&fragment).cloned().ok_or_else(unresolved)
    }

    /// Closes objects that declare their properties, and notes those that stay open beside declared names.
    fn finish_object(&mut self, map: &Map<String, Value>, merged: bool, out: &mut Map<String, Value>) {
        let names_something = ["properties", "patternProperties", "required"]
            .iter()
            .any(|keyword| out.get(*keyword).is_some_and(|names| !is_empty(names)));
        if !names_something {
            return;
        }
        let n_patterns = |map: &Map<String, Value>| {
            map.get("patternProperties").and_then(Value::as_object).map_or(0, Map::len)
        };
        let is_open = out.get("additionalProperties") != Some(&Value::Bool(false));
        if n_patterns(out) < n_patterns(map) && is_open {
            // Names of a dropped pattern must not fall under the schema for all other names.
            out.shift_remove("additionalProperties");
        }
        if !merged && closes(map, out) {
            out.insert("additionalProperties".into(), Value::Bool(false));
        }
        self.has_open_names |= out.get("additionalProperties") != Some(&Value::Bool(false));
    }
}

/// Makes formats exact where the library's grammars are not: lengths, leap days, leap seconds.
fn finish_format(out: &mut Map<String, Value>) {
    let Some(name) = out.get("format").and_then(Value::as_str) else { return };
    if let Some(longest) = formats::most_chars(name) {
        let asked = out.get("maxLength").and_then(Value::as_u64).unwrap_or(longest);
        out.insert("maxLength".into(), json!(asked.min(longest)));
    } else if let Some(pattern) = formats::pattern(name) {
        out.shift_remove("format");
        if !out.contains_key("pattern") {
            out.insert("pattern".into(), json!(pattern));
        } else if let Value::Array(all) = out.entry("allOf").or_insert_with(|| json!([])) {
            all.push(json!({"type": "string", "pattern": pattern}));
        }
    }
}

/// Whether an object may be generated without further properties although its schema does not say so.
fn closes(map: &Map<String, Value>, out: &Map<String, Value>) -> bool {
    let Some(properties) = out.get("properties").and_then(Value::as_object) else { return false };
    if properties.is_empty()
        || out.contains_key("additionalProperties")
        || OPENING.iter().any(|keyword| map.contains_key(*keyword))
    {
        return false;
    }
    let least = out.get("minProperties").and_then(Value::as_u64).unwrap_or(0);
    least <= properties.len() as u64 && names_within(out, properties)
}

/// Whether an array or object has no members.
fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
}

/// Whether a schema and its branches name no property outside of `properties`.
fn names_within(schema: &Map<String, Value>, properties: &Map<String, Value>) -> bool {
    let known = |name: &str| properties.contains_key(name);
    schema.iter().all(|(keyword, value)| match (keyword.as_str(), value) {
        ("required", Value::Array(names)) => names.iter().filter_map(Value::as_str).all(known),
        ("properties", Value::Object(children)) => children.keys().all(|name| known(name)),
        ("anyOf" | "oneOf" | "allOf", Value::Array(branches)) => {
            branches.iter().all(|branch| branch.as_object().is_none_or(|map| names_within(map, properties)))
        }
        ("$ref" | "patternProperties", _) => false,
        ("additionalProperties", value) => value == &Value::Bool(false),
        _ => true,
    })
}

/// Keywords of a schema that assert something, `type` aside.
fn n_assertions(map: &Map<String, Value>) -> usize {
    let asserts = |name: &str| !matches!(support(name), None | Some(Support::Annotation));
    map.keys()
        .filter(|name| asserts(name) && !matches!(name.as_str(), "type" | "$defs" | "definitions"))
        .count()
}

/// Whether a schema holds two schemas against the same value, so that children of one may meet those of another.
fn has_siblings_in_place(map: &Map<String, Value>) -> bool {
    IN_PLACE.iter().any(|keyword| map.contains_key(*keyword)) && n_assertions(map) > 1
}

/// Whether `unevaluatedProperties` says the same as `additionalProperties`.
fn is_plain_object(map: &Map<String, Value>) -> bool {
    let others = ["additionalProperties", "if", "dependentSchemas", "$dynamicRef", "$recursiveRef"];
    !IN_PLACE.iter().chain(&others).any(|keyword| map.contains_key(*keyword))
}

/// The root of tool arguments: as given where it is an object, narrowed to one where it may be.
fn narrow_to_object(root: Value, defs: &[Definition]) -> Result<Value, GrammarError> {
    let mut map = match root {
        Value::Bool(true) => Map::new(),
        Value::Object(map) => map,
        _ => return Err(GrammarError::Unsatisfiable { reason: "the schema is false".into() }),
    };
    if takes_nothing(&map) {
        map.insert("additionalProperties".into(), Value::Bool(false));
    }
    let is_object = |value: Option<&Value>| value.and_then(Value::as_str) == Some("object");
    let target = map.get("$ref").and_then(Value::as_str).and_then(|name| defs.get(def_of(name)?));
    if is_object(map.get("type")) || target.is_some_and(|def| is_object(def.schema.get("type"))) {
        return Ok(Value::Object(map));
    }
    match map.get("type") {
        None => {}
        Some(Value::Array(types)) if types.iter().any(|name| name == "object") => {}
        Some(_) => return Err(GrammarError::NotAnObject),
    }
    map.shift_insert(0, "type".into(), json!("object"));
    Ok(Value::Object(map))
}

/// Whether a tool's schema is the customary form of "no parameters", an empty `properties` and nothing else.
fn takes_nothing(map: &Map<String, Value>) -> bool {
    map.get("properties").is_some_and(is_empty)
        && map.keys().all(|keyword| matches!(keyword.as_str(), "type" | "properties" | "required"))
}

/// Index of the definition that a rewritten `$ref` names.
pub(super) fn def_of(reference: &str) -> Option<usize> {
    reference.strip_prefix("#/$defs/")?.parse().ok()
}

fn types(value: &Value, here: &str) -> Result<Value, GrammarError> {
    let is_type = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    let good = match value {
        Value::Array(names) => !names.is_empty() && names.iter().all(is_type),
        _ => is_type(value),
    };
    let expected = "one or more of null, boolean, object, array, number, integer and string";
    if good { Ok(value.clone()) } else { Err(bad(here, expected)) }
}

/// A count: an integer of at least zero, which may be written as `2.0`.
fn count(value: &Value, here: &str) -> Result<u64, GrammarError> {
    let whole = |number: f64| (number >= 0.0 && number.fract() == 0.0).then_some(number as u64);
    value
        .as_u64()
        .or_else(|| value.as_f64().and_then(whole))
        .ok_or_else(|| bad(here, "an integer of at least 0"))
}

fn exact_numbers(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(|number| number.abs() <= EXACT_MAX),
        Value::Array(items) => items.iter().all(exact_numbers),
        Value::Object(map) => map.values().all(exact_numbers),
        _ => true,
    }
}

fn bad(at: &str, expected: &'static str) -> GrammarError {
    GrammarError::BadKeyword { at: shorten(at), expected }
}

/// The value at a pointer in fragment form.
fn lookup<'v>(root: &'v Value, pointer: &str) -> Option<&'v Value> {
    root.pointer(pointer.strip_prefix('#')?)
}

/// A key as one segment of a JSON Pointer.
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// Text from outside, short enough for an error message.
pub(super) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
