//! Secret values never leave: not to the model, not to a log or the journal, not into a sandbox.
//!
//! A value is recognised as it is and in its common encodings: base64 in both alphabets at any alignment,
//! percent-encoding, hexadecimal, and escaped as in JSON. What was encoded otherwise, cut into pieces or
//! encrypted is not recognised: the sandbox, which never holds the values, is what stands before that.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Shortest secret value in bytes: a shorter one would stand in ordinary text by chance.
pub const SECRET_BYTES_MIN: usize = 6;
/// Longest secret value in bytes.
pub const SECRET_BYTES_MAX: usize = 64 << 10;
/// Shortest encoded form that is searched, in bytes.
const FORM_BYTES_MIN: usize = 6;

/// The secret values of a run, and what stands in their place.
pub struct Secrets {
    names: Vec<String>,
    search: Option<AhoCorasick>,
    /// For each searched form, which secret it is of.
    owner: Vec<usize>,
}

/// Why a value cannot be kept secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Too short or too long.
    #[error(
        "the secret {name:?} has {bytes} bytes; only values of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes can be told from ordinary text"
    )]
    Length {
        /// Name of the secret.
        name: String,
        /// Length of its value, bytes.
        bytes: usize,
    },
    /// The values are more than one search can hold.
    #[error("the secrets cannot be searched for: {cause}")]
    Search {
        /// Why.
        cause: String,
    },
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secrets").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Secrets {
    /// No secrets.
    #[must_use]
    pub fn none() -> Self {
        Self { names: Vec::new(), search: None, owner: Vec::new() }
    }

    /// Secrets by name, blanks around a value taken off. Of a value of several lines each line of at least twice
    /// [`SECRET_BYTES_MIN`] is secret too.
    ///
    /// # Errors
    /// [`SecretError`]: a value is too short or too long, or all are too many. The value is not in it.
    pub fn new<N: Into<String>, V: AsRef<str>>(
        values: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, SecretError> {
        let mut names = Vec::new();
        let mut forms = BTreeMap::new();
        for (name, value) in values {
            let (name, value) = (name.into(), value.as_ref().trim());
            if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&value.len()) {
                return Err(SecretError::Length { name, bytes: value.len() });
            }
            let lines = value.lines().map(str::trim).filter(|line| line.len() >= 2 * SECRET_BYTES_MIN);
            for part in std::iter::once(value).chain(lines) {
                forms.extend(self::forms(part).into_iter().map(|form| (form, names.len())));
            }
            names.push(name);
        }
        if names.is_empty() {
            return Ok(Self::none());
        }
        let (forms, owner): (Vec<_>, Vec<_>) = forms.into_iter().unzip();
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .build(forms);
        let search = search.map_err(|error| SecretError::Search { cause: error.to_string() })?;
        Ok(Self { names, search: Some(search), owner })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.search.is_none()
    }

    /// Whether a text or a file's bytes hold a secret value.
    #[must_use]
    pub fn is_in(&self, text: impl AsRef<[u8]>) -> bool {
        self.search.as_ref().is_some_and(|search| search.is_match(text.as_ref()))
    }

    /// The first secret whose placeholder stands in a text: what was shown redacted comes back like this.
    #[must_use]
    pub fn named_in(&self, text: &str) -> Option<&str> {
        self.names.iter().map(String::as_str).find(|name| text.contains(&placeholder(name)))
    }

    /// The text with `[secret NAME]` in place of every secret value.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(search) = self.search.as_ref().filter(|search| search.is_match(text)) else {
            return Cow::Borrowed(text);
        };
        let mut clean = String::with_capacity(text.len());
        search.replace_all_with(text, &mut clean, |found, _, clean| {
            clean.push_str(&placeholder(&self.names[self.owner[found.pattern().as_usize()]]));
            true
        });
        Cow::Owned(clean)
    }

    /// The same for a file's bytes; `None` where they hold no secret value.
    #[must_use]
    pub fn redact_bytes(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let search = self.search.as_ref().filter(|search| search.is_match(bytes))?;
        let mut clean = Vec::with_capacity(bytes.len());
        search.replace_all_with_bytes(bytes, &mut clean, |found, _, clean| {
            let name = &self.names[self.owner[found.pattern().as_usize()]];
            clean.extend_from_slice(placeholder(name).as_bytes());
            true
        });
        Some(clean)
    }

    /// Redacts a text in its place. Returns whether there was anything.
    pub fn redact_text(&self, text: &mut String) -> bool {
        let Cow::Owned(clean) = self.redact(text) else { return false };
        *text = clean;
        true
    }

    /// Redacts JSON that came as text, valid or not, whatever escapes spell a value.
    pub fn redact_json(&self, text: &mut String) {
        if self.is_empty() {
            return;
        }
        let parsed = serde_json::from_str::<Value>(text);
        match parsed.map(|mut value| self.redact_value(&mut value).then(|| value.to_string())) {
            Ok(Some(clean)) => *text = clean,
            Ok(None) | Err(_) => drop(self.redact_text(text)),
        }
    }

    /// Redacts the values and keys of an object.
    pub fn redact_map(&self, map: &mut Map<String, Value>) {
        let mut value = Value::Object(std::mem::take(map));
        self.redact_value(&mut value);
        if let Value::Object(clean) = value {
            *map = clean;
        }
    }

    /// Redacts every string of a JSON value, keys too. Returns whether there was anything.
    pub fn redact_value(&self, value: &mut Value) -> bool {
        match value {
            Value::String(text) => match self.redact(text) {
                Cow::Borrowed(_) => false,
                Cow::Owned(clean) => {
                    *text = clean;
                    true
                }
            },
            Value::Array(values) => {
                values.iter_mut().filter_map(|value| self.redact_value(value).then_some(())).count() > 0
            }
            Value::Object(map) => {
                let mut any =
                    map.values_mut().filter_map(|value| self.redact_value(value).then_some(())).count() > 0;
                if map.keys().any(|key| self.is_in(key)) {
                    any = true;
                    let clean = std::mem::take(map).into_iter();
                    *map = clean.map(|(key, value)| (self.redact(&key).into_owned(), value)).collect();
                }
                any
            }
            Value::Number(number) => match self.redact(&number.to_string()) {
                Cow::Borrowed(_) => false,
                Cow::Owned(clean) => {
                    *value = Value::String(clean);
                    true
                }
            },
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// Drops every variable of an environment that holds a secret, in its value or by its name.
    pub fn keep_clean(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<(String, String)> {
        let is_clean = |(name, value): &(String, String)| !self.names.contains(name) && !self.is_in(value);
        environment.into_iter().filter(is_clean).collect()
    }
}

/// The values in a file of secrets: the value of each line `NAME=value`, or the whole where there is none. What
/// is no name before a `=`, as in an address, and a `=` at a line's end, as in base64, name nothing. Values shorter
/// than [`SECRET_BYTES_MIN`] are left out.
#[must_use]
pub fn values_of_file(name: &str, text: &str) -> Vec<(String, String)> {
    let unquoted = |value: &str| value.trim().trim_matches(['"', '\'']).to_owned();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let named = lines.filter_map(|line| line.trim().trim_start_matches("export ").split_once('='));
    let is_name = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let named = named.filter(|(key, value)| is_name(key.trim()) && !value.trim_matches('=').is_empty());
    let named: Vec<_> = named.map(|(key, value)| (key.trim().to_owned(), unquoted(value))).collect();
    let all = if named.is_empty() { vec![(name.to_owned(), text.trim().to_owned())] } else { named };
    all.into_iter().filter(|(_, value)| value.len() >= SECRET_BYTES_MIN).collect()
}

/// What stands in place of a value.
fn placeholder(name: &str) -> String {
    format!("[secret {name}]")
}

/// A value and its encodings; the case of letters does not matter to the search.
fn forms(value: &str) -> Vec<String> {
    let bytes = |form: &dyn Fn(u8) -> String| value.bytes().map(form).collect::<String>();
    let percent = |kept: &'static str| {
        bytes(&|byte| match char::from(byte) {
            plain if plain.is_ascii_alphanumeric() || kept.contains(plain) => plain.to_string(),
            _ => format!("%{byte:02x}"),
        })
    };
    // RFC 3986's unreserved characters, those of forms, and those that a whole address may hold.
    let percents = ["-._~", "-._*", "-._~:/?#[]@!$&'()*+,;="].map(percent);
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut all = vec![
        value.to_owned(),
        value.chars().rev().collect(),
        json.get(1..json.len().saturating_sub(1)).unwrap_or_default().to_owned(),
        bytes(&|byte| format!("{byte:02x}")),
        bytes(&|byte| format!("%{byte:02x}")),
    ];
    for form in percents {
        all.extend([form.replace("%20", "+"), form]);
    }
    for before in 0..3 {
        all.extend(base64_inside(value.as_bytes(), before));
    }
    all.retain(|form| form.len() >= FORM_BYTES_MIN);
    all
}

/// What of a base64 text depends on the value alone when `before` bytes modulo 3 stand before it: the first
/// and the last character also hold bits of its neighbours.
fn base64_inside(value: &[u8], before: usize) -> Vec<String> {
    let mut padded = vec![0; before];
    padded.extend_from_slice(value);
    let first = (before * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    let cut = |text: String| text.get(first..end).unwrap_or_default().to_owned();
    vec![cut(STANDARD_NO_PAD.encode(&padded)), cut(URL_SAFE_NO_PAD.encode(&padded))]
}
