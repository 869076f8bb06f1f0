//! Arguments from the model's JSON: as the tool declares them and typed, or a sentence for the model.

use super::{Arguments, Declaration, Output};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What a model is told that an integer is.
const WHOLE_NUMBER: &str = "a whole number";

/// Arguments that the tool cannot take.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{problem}; {tool} takes {parameters}")]
pub struct ArgumentError {
    tool: String,
    problem: String,
    parameters: String,
}

impl Declaration {
    /// Whether arguments are those that are declared: each known and of its type, none missing. Says it in the
    /// words of `parse`, which models have learnt.
    ///
    /// # Errors
    /// [`ArgumentError`]: the first that is not, as one sentence for the model.
    pub fn check(&self, arguments: &Arguments) -> Result<(), ArgumentError> {
        let problem = arguments.iter().find_map(|(name, value)| self.problem_of(name, value));
        let missing = || self.required().find(|name| !arguments.contains_key(*name)).map(missing);
        problem.or_else(missing).map_or(Ok(()), |problem| Err(self.refuse(problem)))
    }

    fn problem_of(&self, name: &str, value: &Value) -> Option<String> {
        let Some(schema) = self.properties().find(|(known, _)| *known == name).map(|(_, schema)| schema)
        else {
            let names: Vec<_> = self.properties().map(|(name, _)| format!("`{name}`")).collect();
            let expected = match names.as_slice() {
                [] => "there are no fields".to_owned(),
                [one] => format!("expected {one}"),
                [one, other] => format!("expected {one} or {other}"),
                all => format!("expected one of {}", all.join(", ")),
            };
            return Some(format!("unknown field `{name}`, {expected}"));
        };
        // Some models write null for what they leave out.
        if value.is_null() && !self.required().any(|it| it == name) {
            return None;
        }
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().map_or_else(Vec::new, |kind| vec![kind]),
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| is_of(value, kind)) {
            let wanted: Vec<_> = kinds.iter().map(|kind| words_of(kind)).collect();
            return Some(format!("invalid type: {}, expected {}", found(value), wanted.join(" or ")));
        }
        let allowed = schema["enum"].as_array().filter(|allowed| !allowed.contains(value))?;
        let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
        Some(format!("{name} is {value}, expected one of {}", allowed.join(", ")))
    }

    fn properties(&self) -> impl Iterator<Item = (&str, &Value)> {
        let properties = self.parameters.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().map(|(name, schema)| (name.as_str(), schema))
    }

    fn required(&self) -> impl Iterator<Item = &str> {
        let required = self.parameters.get("required").and_then(Value::as_array);
        required.into_iter().flatten().filter_map(Value::as_str)
    }

    fn refuse(&self, problem: String) -> ArgumentError {
        let is_required = |name: &str| self.required().any(|it| it == name);
        let names = self.properties().map(|(name, _)| name);
        let named = names.map(|name| match is_required(name) {
            true => name.to_owned(),
            false => format!("{name} (optional)"),
        });
        let parameters = named.collect::<Vec<_>>().join(", ");
        ArgumentError { tool: self.name.clone(), problem, parameters }
    }
}

/// The typed arguments of a call.
pub(super) fn parse<T: DeserializeOwned>(
    declaration: &Declaration,
    arguments: &Arguments,
) -> Result<T, ArgumentError> {
    let mut arguments = arguments.clone();
    // As the schema's check does: null for what may be left out is left out.
    arguments.retain(|name, value| !value.is_null() || declaration.required().any(|it| it == name.as_str()));
    serde_json::from_value(Value::Object(arguments)).map_err(|error| {
        let problem = error.to_string();
        declaration.refuse(problem.replace("usize", WHOLE_NUMBER).replace("u64", WHOLE_NUMBER))
    })
}

/// A text argument as the model wrote it, for [`super::Tool::resources`].
pub(super) fn text<'a>(arguments: &'a Arguments, name: &str) -> Option<&'a str> {
    arguments.get(name).and_then(Value::as_str)
}

impl From<ArgumentError> for Output {
    fn from(error: ArgumentError) -> Self {
        Self::failed(error.to_string())
    }
}

fn missing(name: &str) -> String {
    format!("missing field `{name}`")
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => true,
    }
}

fn words_of(kind: &str) -> &str {
    match kind {
        "string" => "a string",
        "integer" => WHOLE_NUMBER,
        "number" => "a number",
        "boolean" => "a boolean",
        "array" => "a sequence",
        "object" => "a map",
        other => other,
    }
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("boolean `{value}`"),
        Value::Number(value) if value.is_f64() => format!("floating point `{value}`"),
        Value::Number(value) => format!("integer `{value}`"),
        Value::String(text) => format!("string {text:?}"),
        Value::Array(_) => "sequence".to_owned(),
        Value::Object(_) => "map".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::Parameter;
    use serde_json::json;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)] // Only whether it can be read is of interest.
    struct Args {
        path: String,
        #[serde(default)]
        from: usize,
        #[serde(default)]
        regex: bool,
    }

    fn declaration() -> Declaration {
        let parameters = [
            Parameter::required("path", "string", "file"),
            Parameter::optional("from", "integer", "line"),
            Parameter::optional("regex", "boolean", "is it"),
        ];
        Declaration::flat("t", "Does.", &parameters)
    }

    /// Models were trained on the sentences of typed reading.
    #[test]
    fn a_schema_says_what_typed_reading_says() {
        let table = [
            (json!({"path": "a"}), None),
            (json!({"path": "a", "from": 3, "regex": true}), None),
            (json!({"regex": true, "path": "a"}), None),
            (json!({}), Some("missing field `path`")),
            (json!({"from": 1}), Some("missing field `path`")),
            (json!({"path": 12}), Some("invalid type: integer `12`, expected a string")),
            (json!({"path": -1.5}), Some("invalid type: floating point `-1.5`, expected a string")),
            (json!({"path": null}), Some("invalid type: null, expected a string")),
            (json!({"path": ["a"]}), Some("invalid type: sequence, expected a string")),
            (json!({"path": {"a": 1}}), Some("invalid type: map, expected a string")),
            (json!({"path": true}), Some("invalid type: boolean `true`, expected a string")),
            (json!({"path": "a", "from": "7"}), Some("invalid type: string \"7\", expected a whole number")),
            (
                json!({"path": "a", "from": 1.5}),
                Some("invalid type: floating point `1.5`, expected a whole number"),
            ),
            (json!({"path": "a", "regex": 1}), Some("invalid type: integer `1`, expected a boolean")),
            (
                json!({"file": "a", "path": 1}),
                Some("unknown field `file`, expected one of `path`, `from`, `regex`"),
            ),
        ];
        for (arguments, problem) in table {
            let arguments = arguments.as_object().unwrap();
            let checked = declaration().check(arguments).err().map(|error| error.to_string());
            let typed = parse::<Args>(&declaration(), arguments).err().map(|error| error.to_string());
            assert_eq!(checked, typed, "{arguments:?}");
            let told =
                problem.map(|problem| format!("{problem}; t takes path, from (optional), regex (optional)"));
            assert_eq!(checked, told);
        }
    }

    #[test]
    fn what_typed_reading_cannot_say() {
        let mut declaration = declaration();
        declaration.parameters["properties"]["path"]["enum"] = json!(["a", "b"]);
        let error = declaration.check(json!({"path": "c"}).as_object().unwrap()).unwrap_err().to_string();
        assert!(error.starts_with("path is \"c\", expected one of \"a\", \"b\"; t takes"), "{error}");
        let left_out = json!({"path": "a", "from": null});
        assert_eq!(declaration.check(left_out.as_object().unwrap()), Ok(()));
        assert_eq!(parse::<Args>(&declaration, left_out.as_object().unwrap()).err(), None);
        declaration.parameters["properties"]["path"]["type"] = json!(["string", "integer"]);
        declaration.parameters["properties"]["path"].as_object_mut().unwrap().remove("enum");
        assert_eq!(declaration.check(json!({"path": 1}).as_object().unwrap()), Ok(()));
    }
}
