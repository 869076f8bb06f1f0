//! Which token may come next: tool calls and JSON answers that always parse and validate.
//!
//! A [`GrammarFactory`] is made once per vocabulary. It turns a request's tools or `response_format` into a
//! [`Constraint`], which the sampler asks before each token ([`Constraint::fill_mask`]) and tells after it
//! ([`Constraint::accept`]). Only token ids and bit masks pass between them, so an engine can hold a constraint
//! behind a trait of its own without knowing text. The parsing of JSON by a schema is that of the llguidance library.
//!
//! What is constrained, and what stays free:
//!
//! - Thinking is always free text. With `tool_choice` auto the answer is free text too; only tokens that could not
//!   be parsed are masked (the inner markers of the tool section outside of it).
//! - From `<|tool_calls_section_begin|>` on, wherever it appears (inside thinking too), the section is exact: one or
//!   more of `<|tool_call_begin|>functions.NAME:IDX<|tool_call_argument_begin|>ARGUMENTS<|tool_call_end|>`, then
//!   `<|tool_calls_section_end|><|im_end|>`. NAME is a declared tool, IDX continues the dialogue's counter, ARGUMENTS
//!   is a JSON object by that tool's schema.
//! - With `tool_choice` required or a named tool, the section follows `</think>` at once, with no answer text, and the
//!   turn cannot end before it. A named tool is called exactly once.
//! - With `response_format`, the answer after `</think>` is one JSON value; with tools beside it, the model may open
//!   the tool section instead.
//!
//! Schemas come from outside and may be hostile: sizes, nesting, references and compile work have written limits, and
//! a schema beyond them is refused with a sentence ([`GrammarError`]). What a grammar cannot express is dropped and
//! reported ([`Unenforced`]), or refused where the request is strict. See [`keywords::KEYWORDS`].

mod compile;
mod constraint;
mod error;
mod formats;
mod guard;
mod header;
mod json_value;
pub mod keywords;
mod loosen;
mod pattern;
mod schema;
mod size;
mod survey;

pub use compile::{CACHE_BYTES_MAX, CACHE_ENTRIES_MAX, GrammarFactory, Report};
pub use constraint::{
    CALLS_MAX, Constraint, ConstraintSpec, ResponseFormat, StartsIn, TOOLS_BYTES_MAX, TOOLS_MAX, ToolChoice,
    ToolSpec, Tools,
};
pub use error::GrammarError;
pub use guard::{DIGITS_MAX, EXPONENT_DIGITS_MAX, VALUE_DEPTH_MAX};
pub use header::NAME_BYTES_MAX;
pub use schema::{
    BRANCHES_MAX, DEFINITIONS_MAX, ITEMS_MAX, LENGTH_MAX, PATTERN_BYTES_MAX, PATTERN_PROPERTIES_MAX,
    PATTERNS_TOGETHER_MAX, PROPERTIES_MAX, REFERENCES_MAX, SUBSCHEMAS_MAX, Unenforced, VALUE_BYTES_MAX,
};
pub use survey::{ENUM_VALUES_MAX, PATTERNS_MAX, SCHEMA_BYTES_MAX, SCHEMA_DEPTH_MAX};
