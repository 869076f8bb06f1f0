//! Forced completions, walks through the tool envelope, masks against brute force, and hostile schemas.

#[path = "../support/costly.rs"]
mod costly;
#[allow(dead_code)] // Shared with other tests.
#[path = "../support/forced.rs"]
mod forced;
#[path = "../support/random_schema.rs"]
mod random_schema;
#[allow(dead_code)] // Shared with other tests.
#[path = "../support/vocab.rs"]
mod vocab;

mod forced_completions;
mod masks;
mod refusals;
mod walks;

use perilune_chat::grammar::ToolSpec;
use serde_json::Value;

fn specs(tools: &[(impl AsRef<str>, Value)]) -> Vec<ToolSpec> {
    tools
        .iter()
        .map(|(name, schema)| ToolSpec {
            name: name.as_ref().to_owned(),
            parameters: Some(schema.clone()),
            strict: false,
        })
        .collect()
}
