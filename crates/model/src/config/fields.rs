//! Typed reads from a JSON object, each naming its key when it fails.

use super::ConfigProblem;
use serde_json::{Map, Value};

/// One object of a config, with the outer object that stands in for absent keys.
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    outer: Option<&'a Map<String, Value>>,
    path: String,
}

impl<'a> Fields<'a> {
    /// The top object.
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Fields { map, outer: None, path: String::new() }
    }

    /// The object under `key`; keys absent from it are looked up in this one.
    pub(crate) fn nested(&self, key: &str) -> Result<Fields<'a>, ConfigProblem> {
        let inner = self.object(key)?.ok_or_else(|| self.missing(key, "the language model's settings"))?;
        Ok(Fields { outer: Some(self.map), ..inner })
    }

    /// The object under `key` alone, `None` when absent or null.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Fields<'a>>, ConfigProblem> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Fields { map, outer: None, path: format!("{}.", self.name_of(key)) }))
            }
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// The raw value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).or_else(|| self.outer.and_then(|outer| outer.get(key)))
    }

    /// The objects under this one, with their keys.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Result<Fields<'a>, ConfigProblem>> + '_ {
        self.map.keys().filter_map(|key| self.object(key).transpose())
    }

    /// The key with its parents, as a message shows it.
    pub(crate) fn name_of(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// A whole number in `1..=max`.
    pub(crate) fn size(&self, key: &str, max: usize) -> Result<usize, ConfigProblem> {
        self.whole(key, 1, max)
    }

    /// A whole number in `0..=max`.
    pub(crate) fn count(&self, key: &str, max: usize) -> Result<usize, ConfigProblem> {
        self.whole(key, 0, max)
    }

    /// A whole number in `0..=max`, `default` when absent or null.
    pub(crate) fn count_or(&self, key: &str, default: usize, max: usize) -> Result<usize, ConfigProblem> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.count(key, max),
        }
    }

    /// A finite number above zero.
    pub(crate) fn positive(&self, key: &str) -> Result<f64, ConfigProblem> {
        let value = self.get(key).ok_or_else(|| self.missing(key, "a number above 0"))?;
        match value.as_f64() {
            Some(number) if number.is_finite() && number > 0.0 && (number as f32).is_normal() => Ok(number),
            _ => Err(self.wrong(key, value, "a number above 0")),
        }
    }

    /// A finite number of at least zero, `default` when absent or null.
    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64, ConfigProblem> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => match value.as_f64() {
                Some(number) if number.is_finite() && (0.0..1e30).contains(&number) => Ok(number),
                _ => Err(self.wrong(key, value, "a number of at least 0")),
            },
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, ConfigProblem> {
        let value = self.get(key).ok_or_else(|| self.missing(key, "true or false"))?;
        value.as_bool().ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// `true` or `false`, `default` when absent or null.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool, ConfigProblem> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.flag(key),
        }
    }

    /// A string, `None` when absent or null.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigProblem> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    /// The first string of a list, where there is one.
    pub(crate) fn first_text(&self, key: &str) -> Option<String> {
        Some(self.get(key)?.as_array()?.first()?.as_str()?.to_owned())
    }

    /// One token id or a list of them; empty when absent or null.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Vec<u32>, ConfigProblem> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let read = match self.get(key) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        let found = self.get(key).unwrap_or(&Value::Null);
        read.ok_or_else(|| self.wrong(key, found, "a token id or a list of token ids"))
    }

    /// `key`, where present, must be the string `wanted`.
    pub(crate) fn only_text(&self, key: &str, wanted: &str) -> Result<(), ConfigProblem> {
        self.only(key, &Value::from(wanted))
    }

    /// `key`, where present and not null, must be `wanted`.
    pub(crate) fn only(&self, key: &str, wanted: &Value) -> Result<(), ConfigProblem> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(found) if found == wanted => Ok(()),
            Some(found) => {
                Err(self.unsupported(key, found, &format!("Perilune runs {} only", shown(wanted))))
            }
        }
    }

    /// `key` must be absent, null, false or empty.
    pub(crate) fn never(&self, key: &str, reason: &str) -> Result<(), ConfigProblem> {
        match self.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => Ok(()),
            Some(Value::Object(map)) if map.is_empty() => Ok(()),
            Some(Value::Array(list)) if list.is_empty() => Ok(()),
            Some(found) => Err(self.unsupported(key, found, reason)),
        }
    }

    pub(crate) fn unsupported(&self, key: &str, found: &Value, supported: &str) -> ConfigProblem {
        ConfigProblem::Unsupported {
            key: self.name_of(key),
            found: shown(found),
            supported: supported.to_owned(),
        }
    }

    fn whole(&self, key: &str, min: usize, max: usize) -> Result<usize, ConfigProblem> {
        let expected = format!("a whole number from {min} to {max}");
        let value = self.get(key).ok_or_else(|| self.missing(key, &expected))?;
        match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(number) if (min..=max).contains(&number) => Ok(number),
            _ => Err(self.wrong(key, value, &expected)),
        }
    }

    fn missing(&self, key: &str, expected: &str) -> ConfigProblem {
        ConfigProblem::Missing { key: self.name_of(key), expected: expected.to_owned() }
    }

    fn wrong(&self, key: &str, found: &Value, expected: &str) -> ConfigProblem {
        ConfigProblem::Wrong { key: self.name_of(key), found: shown(found), expected: expected.to_owned() }
    }
}

/// What sort of JSON value this is, in words.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The value as a sentence shows it: short, strings in backquotes.
fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 60;
    let text = match value {
        Value::String(text) => format!("`{text}`"),
        Value::Array(_) | Value::Object(_) => kind_of(value).to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    text.chars().take(CHARS_MAX).chain("...".chars()).collect()
}
