//! What did they send, and what do they get? Wire types: exactly the JSON of the published formats.
//!
//! Nothing here judges: a wire value may be illegal (an unknown role, a negative limit). `message`
//! turns it into a value that cannot be. Unknown request fields are kept in `extra`, unknown response
//! fields are ignored. Descriptions of types and fields are published too, in the server's OpenAPI document and in
//! `docs/reference/api.md`, which is made from it.

pub mod anthropic;
pub mod openai;

use serde::de::DeserializeOwned;

/// JSON that does not have the shape of the wire type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct WireError {
    /// Where in the document, for example `messages[2].content`; `body` for the document itself.
    pub path: String,
    /// What is wrong there, with line and column where the text itself is broken.
    pub problem: String,
}

/// Reads one wire value from JSON bytes; the error names the field, or the byte that is not UTF-8.
///
/// # Errors
/// [`WireError`] when the bytes are not UTF-8, not JSON, or not of the shape of `T`.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let text = std::str::from_utf8(bytes).map_err(|error| WireError {
        path: "body".to_owned(),
        problem: format!("not UTF-8 at byte {}; send JSON encoded as UTF-8", error.valid_up_to()),
    })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." || path == "?" { "body".to_owned() } else { path };
        WireError { path, problem: error.into_inner().to_string() }
    })?;
    reader.end().map_err(|error| WireError {
        path: "body".to_owned(),
        problem: format!("more text after the JSON value: {error}"),
    })?;
    Ok(value)
}
