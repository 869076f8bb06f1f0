//! Which JSON Schema keywords hold while generating, as data: the page `docs/json-schema.md` and the tests read it.

/// How far a keyword is enforced while generating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// Every generated value satisfies it.
    Enforced,
    /// Enforced within the stated range; outside of it the keyword is reported, like [`Support::Reported`].
    Partly(&'static str),
    /// Dropped (the schema becomes looser) and reported; `strict` schemas that have it are refused.
    Reported(&'static str),
    /// Says nothing about validity, by the specification; skipped.
    Annotation,
}

/// One JSON Schema keyword and what happens to it.
#[derive(Debug, Clone, Copy)]
pub struct Keyword {
    /// The keyword as written in a schema.
    pub name: &'static str,
    /// What happens to it.
    pub support: Support,
}

const fn kw(name: &'static str, support: Support) -> Keyword {
    Keyword { name, support }
}

use Support::{Annotation, Enforced, Partly, Reported};

/// All keywords that this module knows: JSON Schema draft 4 to draft 2020-12, and with them all of MFJS, the dialect
/// of Moonshot's API. Unknown words are annotations by the specification.
pub const KEYWORDS: &[Keyword] = &[
    kw("type", Enforced),
    kw("enum", Partly("numbers up to 2^53 exactly")),
    kw("const", Partly("numbers up to 2^53 exactly")),
    kw("properties", Partly("written in the order of the schema")),
    kw("required", Enforced),
    kw("additionalProperties", Partly("absent beside `properties` is generated as false")),
    kw("patternProperties", Partly("patterns that do not overlap")),
    kw("minProperties", Partly("when all of `properties` are required, or as \"at least one\"")),
    kw("maxProperties", Partly("when all of `properties` are required, or as \"at most one\"")),
    kw("items", Enforced),
    kw("prefixItems", Enforced),
    kw("additionalItems", Enforced),
    kw("minItems", Enforced),
    kw("maxItems", Partly("up to 4,096")),
    kw("minLength", Enforced),
    kw("maxLength", Partly("up to 32,768")),
    kw("pattern", Partly("no lookaround, back-references or word boundaries")),
    kw(
        "format",
        Partly(
            "date-time, time, date, duration, email (up to 64 characters), hostname, ipv4, ipv6, uuid, uri",
        ),
    ),
    kw("minimum", Partly("up to 2^63 in size; then written without exponent")),
    kw("maximum", Partly("up to 2^63 in size; then written without exponent")),
    kw("exclusiveMinimum", Partly("up to 2^63 in size; then written without exponent")),
    kw("exclusiveMaximum", Partly("up to 2^63 in size; then written without exponent")),
    kw("multipleOf", Partly("up to 10,000, its digits read as an integer (25 for 0.25)")),
    kw("anyOf", Enforced),
    kw("allOf", Enforced),
    kw("oneOf", Partly("when the branches cannot overlap; else as anyOf")),
    kw("$ref", Partly("inside the schema; recursive ones without other assertions beside them")),
    kw("$defs", Enforced),
    kw("definitions", Enforced),
    kw("$anchor", Enforced),
    kw("not", Reported("negation cannot be generated")),
    kw("if", Reported("conditions cannot be generated")),
    kw("then", Reported("conditions cannot be generated")),
    kw("else", Reported("conditions cannot be generated")),
    kw("contains", Reported("needs to look at the whole array")),
    kw("minContains", Reported("needs to look at the whole array")),
    kw("maxContains", Reported("needs to look at the whole array")),
    kw("uniqueItems", Reported("needs to remember all items")),
    kw("propertyNames", Reported("use patternProperties with additionalProperties false")),
    kw("dependentRequired", Reported("conditions cannot be generated")),
    kw("dependentSchemas", Reported("conditions cannot be generated")),
    kw("dependencies", Reported("conditions cannot be generated")),
    kw("unevaluatedItems", Reported("use items or additionalItems")),
    kw("unevaluatedProperties", Reported("use additionalProperties")),
    kw("$dynamicRef", Reported("use $ref")),
    kw("$recursiveRef", Reported("use $ref")),
    kw("$schema", Annotation),
    kw("$id", Annotation),
    kw("id", Annotation),
    kw("$vocabulary", Annotation),
    kw("$dynamicAnchor", Annotation),
    kw("$recursiveAnchor", Annotation),
    kw("$comment", Annotation),
    kw("title", Annotation),
    kw("description", Annotation),
    kw("default", Annotation),
    kw("deprecated", Annotation),
    kw("readOnly", Annotation),
    kw("writeOnly", Annotation),
    kw("example", Annotation),
    kw("examples", Annotation),
    kw("contentEncoding", Annotation),
    kw("contentMediaType", Annotation),
    kw("contentSchema", Annotation),
];

/// What happens to `name`; `None` for a word that JSON Schema does not define.
pub fn support(name: &str) -> Option<Support> {
    KEYWORDS.iter().find(|keyword| keyword.name == name).map(|keyword| keyword.support)
}

/// The table of [`KEYWORDS`] in Markdown, as `docs/json-schema.md` shows it.
pub fn table() -> String {
    let mut text = String::from("| keyword | while generating |\n|---|---|\n");
    for keyword in KEYWORDS {
        let cell = match keyword.support {
            Enforced => "enforced".to_owned(),
            Partly(range) => format!("enforced: {range}"),
            Reported(reason) => format!("reported, not enforced: {reason}"),
            Annotation => "annotation, skipped".to_owned(),
        };
        text.push_str(&format!("| `{}` | {} |\n", keyword.name, cell.replace('|', "\\|")));
    }
    text
}
