//! A rule's examples, checked when it is read.

use super::error::PolicyError;
use super::facet::facets;
use super::place::Workspace;
use super::rule::Rule;
use super::text::{Example, RuleText, Says};
use crate::gate::{Access, Effect, ProposedCall, Resource};

/// Holds a rule to its examples.
///
/// # Errors
/// [`PolicyError::Lie`], or an example that is no call.
pub(super) fn check(rule: &Rule, text: &RuleText, file: &str) -> Result<(), PolicyError> {
    let workspace = Workspace::imagined();
    let must = text.matches.iter().map(|example| (example, true));
    let must_not = text.no_match.iter().map(|example| (example, false));
    for (example, expected) in must.chain(must_not) {
        let wrong = |what| PolicyError::Rule {
            file: file.to_owned(),
            line: rule.line,
            rule: rule.name.clone(),
            what,
        };
        let call = call(example).map_err(wrong)?;
        let facets = facets(&call, &workspace);
        let matches = |facet| rule.matches(&call, facet);
        // What is allowed must be allowed whole; what is denied needs one part.
        let does = match rule.says {
            Says::Allow => facets.iter().all(matches),
            Says::Ask | Says::Deny => facets.iter().any(matches),
        };
        if does != expected {
            return Err(PolicyError::Lie {
                file: file.to_owned(),
                line: rule.line,
                rule: rule.name.clone(),
                example: tell(example),
                expected: if expected { "match" } else { "not match" },
                actual: if expected { " not" } else { "" },
            });
        }
    }
    Ok(())
}

/// The call that an example stands for.
fn call(example: &Example) -> Result<ProposedCall, String> {
    let path = |access, path: &Option<String>| path.clone().map(|path| Resource::Path { access, path });
    let resources = [
        path(Access::Read, &example.read),
        path(Access::Write, &example.write),
        example.host.clone().map(|host| Resource::Host { host, port: None }),
        example.command.clone().map(|text| Resource::Command { text }),
    ];
    let arguments = example.arguments.as_deref().map(serde_json::from_str).transpose();
    Ok(ProposedCall {
        run: String::new(),
        step: 0,
        tool: example.tool.clone(),
        effect: Effect::Once,
        arguments: arguments
            .map_err(|error| format!("has an example whose arguments are no JSON object: {error}"))?
            .unwrap_or_default(),
        resources: resources.into_iter().flatten().collect(),
    })
}

fn tell(example: &Example) -> String {
    serde_json::to_string(example).unwrap_or_else(|_| example.tool.clone())
}
