//! A policy as it is written: TOML, every key known.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use toml::Spanned;

/// The one version of the language.
pub(super) const VERSION: u32 = 1;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyText {
    pub(super) version: u32,
    #[serde(default)]
    pub(super) otherwise: Otherwise,
    #[serde(default)]
    pub(super) approvals: ApprovalsText,
    #[serde(default)]
    pub(super) secrets: SecretsText,
    #[serde(default, rename = "rule")]
    pub(super) rules: Vec<Spanned<RuleText>>,
}

/// What holds where no rule matches. Never allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Otherwise {
    #[default]
    Ask,
    Deny,
}

/// How questions are treated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalsText {
    pub(super) timeout_s: Option<u64>,
}

/// Where secret values come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsText {
    /// Names of environment variables whose values are secret.
    #[serde(default)]
    pub names: Vec<String>,
    /// Files whose content is secret: all of it, and each value of lines `NAME=value`.
    #[serde(default)]
    pub files: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Says {
    Allow,
    Ask,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AccessText {
    Read,
    Write,
}

/// One rule.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleText {
    pub(super) name: String,
    pub(super) decision: Says,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// For an allow rule: the ask rule whose question it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answers: Option<String>,
    /// For an ask rule: what holds where nobody answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unattended: Option<Says>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tools: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) access: Option<AccessText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outside: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hosts: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) private: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) commands: Option<Vec<CommandText>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) with_words: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) any_command: Option<bool>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) arguments: BTreeMap<String, Bound>,
    /// The whole of the arguments, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) arguments_exactly: Option<String>,
    #[serde(rename = "match")]
    pub(super) matches: Vec<Example>,
    pub(super) no_match: Vec<Example>,
}

/// A command's words: one text cut at blanks, or a list.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum CommandText {
    Text(String),
    Words(Vec<String>),
}

/// What one argument must be. Each key that is given must hold.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bound {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max: Option<f64>,
    /// The whole text must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) regex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) one_of: Option<Vec<Value>>,
}

/// A call that a rule must match, or must not.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Example {
    pub(super) tool: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) read: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) write: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
    /// JSON text of the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) arguments: Option<String>,
}
