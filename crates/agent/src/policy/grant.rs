//! An answer that reaches beyond its call, as a rule: exactly this again, and nothing wider.

use super::facet::{Facet, facets};
use super::place::Workspace;
use super::rule::Rule;
use super::text::{AccessText, CommandText, Example, RuleText, Says};
use super::{Decision, Policy};
use crate::gate::{Access, ProposedCall};
use std::collections::BTreeMap;

/// One answered question.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(super) rule: Rule,
    text: RuleText,
}

impl Grant {
    /// The rule's name.
    pub(crate) fn name(&self) -> &str {
        &self.text.name
    }

    /// The rule as a piece of a policy's file.
    pub(crate) fn to_toml(&self) -> Result<String, String> {
        #[derive(serde::Serialize)]
        struct File<'a> {
            rule: [&'a RuleText; 1],
        }
        toml::to_string(&File { rule: [&self.text] }).map_err(|error| error.to_string())
    }
}

/// The grants that an answer to this call makes: one for each facet that is asked.
pub(crate) fn grants(
    policy: &Policy,
    call: &ProposedCall,
    workspace: &Workspace,
    given: &[Grant],
) -> Result<Vec<Grant>, String> {
    let mut made: Vec<Grant> = Vec::new();
    // Where a link leads now may be elsewhere than when the person was asked: an answer reaches on to no link.
    let is_link = |facet: &Facet| matches!(facet, Facet::Path { place, .. } if place.real != place.written);
    for facet in facets(call, workspace).into_iter().filter(|facet| !is_link(facet)) {
        // A facet may be asked by several rules: each answer shows the next question.
        loop {
            let known: Vec<_> = given.iter().chain(&made).cloned().collect();
            let Decision::Ask { rule, .. } = policy.decide_facet(call, &facet, &known) else { break };
            let text = rule_text(call, &facet, rule);
            let grant = Grant { rule: Rule::new(&text, 0)?, text };
            if known.iter().any(|known| known.name() == grant.name()) {
                break;
            }
            made.push(grant);
        }
    }
    Ok(made)
}

fn rule_text(call: &ProposedCall, facet: &Facet, answers: String) -> RuleText {
    let tool = call.tool.clone();
    let mut text = RuleText {
        name: String::new(),
        decision: Says::Allow,
        reason: None,
        answers: Some(answers),
        unattended: None,
        tools: Some(vec![globset::escape(&tool)]),
        access: None,
        paths: None,
        outside: None,
        hosts: None,
        private: None,
        commands: None,
        with_words: None,
        any_command: None,
        arguments: BTreeMap::new(),
        arguments_exactly: None,
        matches: Vec::new(),
        no_match: Vec::new(),
    };
    let example = Example { tool, ..Example::default() };
    let mut other = Example { tool: format!("not_{}", call.tool), ..Example::default() };
    let mut this = example;
    match facet {
        Facet::Path { access, place } => {
            let path = place.inside.as_ref().unwrap_or(&place.real);
            let path = if path.as_os_str().is_empty() { ".".to_owned() } else { path.display().to_string() };
            text.paths = Some(vec![globset::escape(&path)]);
            let slot = |example: &mut Example| match access {
                Access::Read => example.read = Some(path.clone()),
                Access::Write => example.write = Some(path.clone()),
            };
            text.access = Some(if *access == Access::Read { AccessText::Read } else { AccessText::Write });
            slot(&mut this);
            slot(&mut other);
        }
        Facet::Host { host, .. } => {
            text.hosts = Some(vec![globset::escape(host)]);
            this.host = Some(host.clone());
            other.host = Some(host.clone());
        }
        Facet::Command(command) if command.words.iter().all(|word| !word.expands) => {
            let words: Vec<_> = command.words.iter().map(|word| word.text.clone()).collect();
            text.commands =
                Some(vec![CommandText::Words(words.iter().map(|word| globset::escape(word)).collect())]);
            this.command = Some(words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
            other.command.clone_from(&this.command);
        }
        _ => {
            let arguments = serde_json::Value::Object(call.arguments.clone()).to_string();
            if let Facet::Opaque { text, .. } = facet {
                this.command = Some(text.clone());
                other.command = Some(text.clone());
            }
            text.arguments_exactly = Some(arguments.clone());
            this.arguments = Some(arguments.clone());
            other.arguments = Some(arguments);
        }
    }
    text.matches = vec![this];
    text.no_match = vec![other];
    text.name = name(&text);
    text
}

/// A name that says what was answered and is the same for the same answer.
fn name(text: &RuleText) -> String {
    use sha2::Digest;
    let whole = serde_json::to_vec(text).expect("a rule made here holds only text");
    let digest = sha2::Sha256::digest(&whole);
    let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("answer-{short}")
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
