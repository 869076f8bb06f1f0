//! Tools as TypeScript declarations: the form K2.5 and later were trained on.
//!
//! Rules from the published tokenizer's `tool_declaration_ts.py`: parse each parameter schema into a
//! type, then print it with two-space indents; keywords it does not know are left out.

use super::json;
use serde_json::{Map, Value};
use std::collections::HashMap;

const INDENT: &str = "  ";

/// The declaration text of tools with sorted keys; `None` where a schema has no TypeScript form.
pub(super) fn declare(tools: &Value) -> Option<String> {
    let tools = tools.as_array()?;
    let functions: Option<Vec<_>> =
        tools.iter().map(|tool| function(tool.get("function")?.as_object()?)).collect();
    Some(format!("# Tools\n\n## functions\nnamespace functions {{\n{}\n}}\n", functions?.join("\n")))
}

fn function(function: &Map<String, Value>) -> Option<String> {
    let none = Map::new();
    let parameters = function.get("parameters").and_then(Value::as_object).unwrap_or(&none);
    let mut registry = Registry::default();
    let root = Type::object(parameters, &mut registry)?;
    let name = function.get("name")?.as_str()?;
    let mut lines = Vec::new();
    let declared = if registry.has_self_ref {
        lines.push(root_interface(&root)?);
        format!("type {name} = (_: parameters) => any;")
    } else {
        format!("type {name} = (_: {}) => any;", root.print("")?)
    };
    let definitions: Vec<_> = registry.order.clone();
    for definition in definitions {
        lines.push(interface(&definition, &mut registry)?);
    }
    if let Some(text) = description(function)? {
        lines.push(comment(text, ""));
    }
    lines.push(declared);
    Some(lines.join("\n"))
}

fn root_interface(root: &Type) -> Option<String> {
    let Kind::Object { properties, .. } = &root.kind else { return None };
    let printed: Option<Vec<_>> = properties.iter().map(|property| property.print(INDENT)).collect();
    let body = printed?.join(",\n");
    Some(if body.is_empty() {
        "interface parameters {}".to_owned()
    } else {
        format!("interface parameters {{\n{body}\n}}")
    })
}

fn interface(name: &str, registry: &mut Registry) -> Option<String> {
    let schema = registry.schemas.get(name)?.as_object()?.clone();
    let body = Type::parse(&Value::Object(schema.clone()), registry)?.print("")?;
    let head = description(&schema)?.map(|text| comment(text, "") + "\n").unwrap_or_default();
    Some(format!("{head}interface {name} {body}"))
}

/// The schemas under `$defs`, in the order met.
#[derive(Default)]
struct Registry {
    order: Vec<String>,
    schemas: HashMap<String, Value>,
    has_self_ref: bool,
}

impl Registry {
    fn add(&mut self, definitions: &Map<String, Value>) {
        for (name, schema) in definitions {
            if self.schemas.insert(name.clone(), schema.clone()).is_none() {
                self.order.push(name.clone());
            }
        }
    }

    /// The type name that a reference prints; `None` for remote and unknown references.
    fn resolve(&mut self, reference: &str) -> Option<String> {
        if reference == "#" {
            self.has_self_ref = true;
            return Some("parameters".to_owned());
        }
        let name = reference.strip_prefix("#/$defs/")?.rsplit('/').next()?;
        self.schemas.get(name)?.is_object().then(|| name.to_owned())
    }
}

/// A parsed schema with the comment lines that stand above it.
struct Type {
    description: Option<String>,
    constraints: Vec<String>,
    kind: Kind,
}

enum Kind {
    /// Prints its words joined by ` | `: scalars, enums, unions of types, references.
    Words(Vec<String>),
    AnyOf(Vec<Type>),
    Array(Box<Type>),
    Object {
        properties: Vec<Property>,
        rest: Option<Rest>,
    },
}

/// `additionalProperties`.
enum Rest {
    Any,
    Never,
    Typed(Box<Type>),
}

struct Property {
    name: String,
    optional: bool,
    default: Option<String>,
    value: Type,
}

impl Type {
    fn word(word: &str) -> Self {
        Self { description: None, constraints: Vec::new(), kind: Kind::Words(vec![word.to_owned()]) }
    }

    fn parse(schema: &Value, registry: &mut Registry) -> Option<Self> {
        let schema = match schema {
            Value::Bool(true) => return Some(Self::word("any")),
            Value::Bool(false) => return Some(Self::word("null")),
            other => other.as_object()?,
        };
        if let Some(reference) = schema.get("$ref") {
            let name = registry.resolve(reference.as_str()?)?;
            return Self::with(schema, &[], Kind::Words(vec![name]));
        }
        if let Some(any_of) = schema.get("anyOf") {
            let types: Option<Vec<_>> =
                any_of.as_array()?.iter().map(|one| Self::parse(one, registry)).collect();
            return Self::with(schema, &[], Kind::AnyOf(types?));
        }
        if let Some(values) = schema.get("enum") {
            return Self::with(schema, &[], Kind::Words(enum_words(values, schema.get("type"))?));
        }
        match schema.get("type") {
            Some(Value::Array(types)) => {
                let words: Option<Vec<_>> = types.iter().map(|one| union_word(one.as_str()?)).collect();
                Self::with(schema, &[], Kind::Words(words?))
            }
            Some(Value::String(kind)) => Self::named(kind, schema, registry),
            None if schema.is_empty() => Some(Self::word("any")),
            _ => None,
        }
    }

    fn named(kind: &str, schema: &Map<String, Value>, registry: &mut Registry) -> Option<Self> {
        let word = |word: &str| Kind::Words(vec![word.to_owned()]);
        match kind {
            "object" => Self::object(schema, registry),
            "array" => Self::array(schema, registry),
            "string" => Self::with(schema, &["maxLength", "minLength", "pattern"], word("string")),
            "number" | "integer" => Self::with(schema, &["maximum", "minimum"], word("number")),
            other => Self::with(schema, &[], word(other)),
        }
    }

    fn array(schema: &Map<String, Value>, registry: &mut Registry) -> Option<Self> {
        let item = match schema.get("items") {
            Some(items) if is_truthy(items) => Self::parse(items, registry)?,
            _ => Self::word("any"),
        };
        Self::with(schema, &["maxItems", "minItems"], Kind::Array(Box::new(item)))
    }

    fn object(schema: &Map<String, Value>, registry: &mut Registry) -> Option<Self> {
        if let Some(definitions) = schema.get("$defs").filter(|value| is_truthy(value)) {
            registry.add(definitions.as_object()?);
        }
        let rest = match schema.get("additionalProperties") {
            None | Some(Value::Null) => None,
            Some(Value::Bool(true)) => Some(Rest::Any),
            Some(Value::Bool(false)) => Some(Rest::Never),
            Some(other) => Some(Rest::Typed(Box::new(Self::parse(other, registry)?))),
        };
        let mut properties = Vec::new();
        if let Some(declared) = schema.get("properties") {
            let required = schema.get("required").and_then(Value::as_array);
            for (name, value) in declared.as_object()? {
                let is_required =
                    required.is_some_and(|names| names.iter().any(|n| n.as_str() == Some(name)));
                properties.push(Property {
                    name: name.clone(),
                    optional: !is_required,
                    default: value.get("default").and_then(default_text),
                    value: Self::parse(value, registry)?,
                });
            }
        }
        Self::with(schema, &[], Kind::Object { properties, rest })
    }

    /// A type with the description and, of these keywords (sorted by name), the constraints of its schema.
    fn with(schema: &Map<String, Value>, keywords: &[&str], kind: Kind) -> Option<Self> {
        let mut constraints = Vec::new();
        for keyword in keywords {
            if let Some(value) = schema.get(*keyword) {
                constraints.push(format!("{keyword}: {}", plain_text(value)?));
            }
        }
        Some(Self { description: description(schema)?.map(str::to_owned), constraints, kind })
    }

    /// The comment lines above a value of this type, each ended by a newline.
    fn comments(&self, indent: &str) -> String {
        let mut lines = String::new();
        if let Some(text) = &self.description {
            lines += &comment(text, indent);
            lines.push('\n');
        }
        if !self.constraints.is_empty() {
            lines += &format!("{indent}// {}\n", self.constraints.join(", "));
        }
        lines
    }

    fn print(&self, indent: &str) -> Option<String> {
        match &self.kind {
            Kind::Words(words) => Some(words.join(" | ")),
            Kind::AnyOf(types) => {
                let printed: Option<Vec<_>> = types.iter().map(|one| one.print(indent)).collect();
                Some(printed?.join(" | "))
            }
            Kind::Array(item) => {
                let inner = format!("{indent}{INDENT}");
                let comments = item.comments(&inner);
                if comments.is_empty() {
                    return Some(format!("Array<{}>", item.print(indent)?));
                }
                Some(format!("Array<\n{comments}{inner}{}\n{indent}>", item.print(&inner)?))
            }
            Kind::Object { properties, rest } => print_object(properties, rest.as_ref(), indent),
        }
    }
}

impl Property {
    fn print(&self, indent: &str) -> Option<String> {
        let mut text = self.value.comments(indent);
        if let Some(default) = &self.default {
            text += &format!("{indent}// Default: {default}\n");
        }
        let mark = if self.optional { "?" } else { "" };
        Some(text + &format!("{indent}{}{mark}: {}", self.name, self.value.print(indent)?))
    }
}

/// Required properties first, each group by name, then the index signature.
fn print_object(properties: &[Property], rest: Option<&Rest>, indent: &str) -> Option<String> {
    let inner = format!("{indent}{INDENT}");
    let mut ordered: Vec<_> = properties.iter().collect();
    ordered.sort_by(|a, b| (a.optional, &a.name).cmp(&(b.optional, &b.name)));
    let mut fields = Vec::new();
    for property in ordered {
        fields.push(property.print(&inner)?);
    }
    if let Some(rest) = rest {
        let word = match rest {
            Rest::Any => "any".to_owned(),
            Rest::Never => "never".to_owned(),
            Rest::Typed(value) => value.print(&inner)?,
        };
        fields.push(format!("{inner}[k: string]: {word}"));
    }
    if fields.is_empty() {
        return Some("{}".to_owned());
    }
    Some(format!("{{\n{}\n{indent}}}", fields.join(",\n")))
}

// ---- the words of Python ----

fn description(schema: &Map<String, Value>) -> Option<Option<&str>> {
    match schema.get("description") {
        Some(value) if is_truthy(value) => value.as_str().map(Some),
        _ => Some(None),
    }
}

/// Comment lines; an empty line of the text stays an empty line.
fn comment(text: &str, indent: &str) -> String {
    let line = |line: &str| if line.is_empty() { String::new() } else { format!("{indent}// {line}") };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A scalar as Python's `str` prints it; lists and objects have no agreed text.
fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("None".to_owned()),
        Value::Bool(true) => Some("True".to_owned()),
        Value::Bool(false) => Some("False".to_owned()),
        Value::Number(number) => Some(json::number(number)),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn default_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Bool(_) | Value::Number(_) => plain_text(value),
        _ => Some(json::python(value)),
    }
}

fn union_word(kind: &str) -> Option<String> {
    let word = match kind {
        "string" | "boolean" | "null" | "number" => kind,
        "integer" => "number",
        "object" => "{}",
        "array" => "Array<any>",
        _ => return None,
    };
    Some(word.to_owned())
}

/// The values of an enum, checked against its declared type as the published code does.
fn enum_words(values: &Value, declared: Option<&Value>) -> Option<Vec<String>> {
    let kind = match declared {
        None => None,
        Some(Value::Array(types)) => Some(match types.as_slice() {
            [one] => one.as_str()?,
            [one, null] if null == "null" => one.as_str()?,
            [null, one] if null == "null" => one.as_str()?,
            _ => return None,
        }),
        Some(one) => one.as_str(),
    };
    let fits = |value: &Value| match kind {
        _ if value.is_null() => true,
        Some("string") => value.is_string(),
        Some("number") => value.is_number() || value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64() || value.is_boolean(),
        Some("boolean") => value.is_boolean(),
        _ => true,
    };
    let word = |value: &Value| match value {
        _ if !fits(value) => None,
        Value::String(text) => Some(format!("\"{text}\"")),
        other => plain_text(other),
    };
    values.as_array()?.iter().map(word).collect()
}
