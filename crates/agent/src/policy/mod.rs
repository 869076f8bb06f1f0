//! What may a run do? Typed rules over tools and their JSON arguments, written in TOML.
//!
//! A call is taken apart into what it touches ([`facets`]): paths where links lead, hosts, the commands of a
//! line, or the call itself. Each facet is decided by all rules that match it, deny before ask before allow,
//! and the strictest facet decides the call; the order of rules means nothing. Where no rule matches, the
//! policy asks (or denies, if it says so). An allow rule may name the ask rule that it `answers`: that is how
//! a person's answer for always is written down; nothing lifts a deny.
//!
//! Every rule carries examples that it must match and must not match. They are checked when the policy is
//! read: rules rot silently otherwise.
//!
//! Reading order: [`Policy`], the text, rules, facets; then paths, command lines and hosts.

mod error;
mod example;
mod facet;
mod grant;
pub mod host;
mod place;
mod rule;
pub mod shell;
mod text;

pub use error::PolicyError;
pub use facet::{Facet, facets};
pub(crate) use grant::{Grant, grants};
pub use place::{Place, PlaceError, Workspace};
pub use text::SecretsText;

use crate::gate::{Decision, OnNoAnswer, ProposedCall};
use rule::Rule;
use std::cmp::Reverse;
use std::path::Path;
use std::time::Duration;
use text::{Otherwise, PolicyText, Says};

/// The policy that holds where none is given: TOML.
pub const DEFAULT: &str = include_str!("default.toml");
/// Longest policy that is read, in bytes.
pub const POLICY_BYTES_MAX: u64 = 1 << 20;

/// Names of the decisions that no rule makes.
const OTHERWISE: &str = "otherwise";
const OPAQUE: &str = "unreadable-command";
const BAD: &str = "malformed";

/// A policy that was read and whose examples hold.
#[derive(Debug, Clone)]
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Otherwise,
    timeout: Option<Duration>,
    secrets: SecretsText,
}

/// Why a call is decided as it is: its facets, each with its decision and the rules that match it.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What holds for the call.
    pub decision: Decision,
    /// One entry per facet.
    pub facets: Vec<FacetExplanation>,
}

/// One facet's part of an [`Explanation`].
#[derive(Debug, Clone, PartialEq)]
pub struct FacetExplanation {
    /// What is touched.
    pub facet: Facet,
    /// What holds for it alone.
    pub decision: Decision,
    /// Rules that match it: name, line in the file (from 1), `allow`, `ask` or `deny`.
    pub rules: Vec<(String, usize, &'static str)>,
}

impl Policy {
    /// Reads a policy's text; `file` names it in errors.
    ///
    /// # Errors
    /// [`PolicyError`]: what is wrong, in which line; also an example that a rule does not hold to.
    pub fn parse(text: &str, file: &str) -> Result<Self, PolicyError> {
        let line_at = |at: usize| text[..text.floor_char_boundary(at)].matches('\n').count() + 1;
        let refused = |line: usize, what: String| PolicyError::Text { file: file.to_owned(), line, what };
        let read: PolicyText = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_at(span.start));
            refused(line, error.message().replace('\n', " "))
        })?;
        if read.version != text::VERSION {
            let what = format!(
                "this is version {} of the language; write version = {}",
                read.version,
                text::VERSION
            );
            return Err(refused(1, what));
        }
        let mut rules: Vec<Rule> = Vec::new();
        for spanned in &read.rules {
            let (line, written) = (line_at(spanned.span().start), spanned.get_ref());
            let name = &written.name;
            let wrong = |what| PolicyError::Rule { file: file.to_owned(), line, rule: name.clone(), what };
            if rules.iter().any(|rule| rule.name == *name)
                || [OTHERWISE, OPAQUE, BAD].contains(&name.as_str())
            {
                return Err(wrong("has a name that is taken; give it another".to_owned()));
            }
            let rule = Rule::new(written, line).map_err(wrong)?;
            example::check(&rule, written, file)?;
            rules.push(rule);
        }
        check_answers(&rules, file)?;
        let timeout = read.approvals.timeout_s.map(Duration::from_secs);
        Ok(Self { rules, otherwise: read.otherwise, timeout, secrets: read.secrets })
    }

    /// Reads a policy's file.
    ///
    /// # Errors
    /// [`PolicyError::Unreadable`], also for more than [`POLICY_BYTES_MAX`] bytes; else as [`Policy::parse`].
    pub fn load(file: &Path) -> Result<Self, PolicyError> {
        let name = file.display().to_string();
        let unreadable = |cause: String| PolicyError::Unreadable { file: name.clone(), cause };
        let size = file.metadata().map_err(|error| unreadable(error.to_string()))?.len();
        if size > POLICY_BYTES_MAX {
            return Err(unreadable(format!("it has {size} bytes, more than {POLICY_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
        Self::parse(&text, &name)
    }

    /// The policy that holds where none is given: reads and writes inside the workspace happen, what leaves
    /// it, the network, the shell and code are asked, known dangers are denied.
    #[must_use]
    pub fn standard() -> Self {
        Self::parse(DEFAULT, "the default policy")
            .expect("a test reads the default policy, which is part of the program")
    }

    /// How long a question may wait for its answer; `None` is without end.
    #[must_use]
    pub fn approval_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Where this policy says that secret values are.
    #[must_use]
    pub fn secrets(&self) -> &SecretsText {
        &self.secrets
    }

    /// Number of rules.
    #[must_use]
    pub fn n_rules(&self) -> usize {
        self.rules.len()
    }

    /// Whether a rule has this name.
    #[must_use]
    pub fn has_rule(&self, name: &str) -> bool {
        self.rules.iter().any(|rule| rule.name == name)
    }

    /// What the policy says of a call.
    #[must_use]
    pub fn decide(&self, call: &ProposedCall, workspace: &Workspace) -> Decision {
        self.decide_with(call, workspace, &[])
    }

    /// The same, with answers that persons gave.
    pub(crate) fn decide_with(
        &self,
        call: &ProposedCall,
        workspace: &Workspace,
        given: &[Grant],
    ) -> Decision {
        let decided = facets(call, workspace).into_iter().map(|facet| self.decide_facet(call, &facet, given));
        strictest(decided.collect())
    }

    /// What the policy says of a call, and why.
    #[must_use]
    pub fn explain(&self, call: &ProposedCall, workspace: &Workspace) -> Explanation {
        let explain = |facet: Facet| {
            let matching = self.rules.iter().filter(|rule| rule.matches(call, &facet));
            let rules = matching.map(|rule| (rule.name.clone(), rule.line, rule.says.word())).collect();
            FacetExplanation { decision: self.decide_facet(call, &facet, &[]), rules, facet }
        };
        let facets: Vec<_> = facets(call, workspace).into_iter().map(explain).collect();
        let decision = strictest(facets.iter().map(|facet| facet.decision.clone()).collect());
        Explanation { decision, facets }
    }

    fn decide_facet(&self, call: &ProposedCall, facet: &Facet, given: &[Grant]) -> Decision {
        if let Facet::Bad { why } = facet {
            return Decision::Deny { rule: BAD.to_owned(), reason: why.clone() };
        }
        let matching: Vec<_> = self.rules.iter().filter(|rule| rule.matches(call, facet)).collect();
        let of = |says: Says| matching.iter().filter(move |rule| rule.says == says);
        if let Some(rule) = of(Says::Deny).min_by_key(|rule| &rule.name) {
            return Decision::Deny { rule: rule.name.clone(), reason: rule.reason.clone() };
        }
        let given: Vec<_> = given.iter().filter(|grant| grant.rule.matches(call, facet)).collect();
        let is_answered = |name: &str| {
            let names = |rule: &Rule| rule.answers.as_deref() == Some(name);
            of(Says::Allow).any(|rule| names(rule)) || given.iter().any(|grant| names(&grant.rule))
        };
        // Of several questions the one that says no to an empty room goes first.
        let asking = of(Says::Ask).filter(|rule| !is_answered(&rule.name));
        if let Some(rule) = asking.min_by_key(|rule| (Reverse(rule.unattended), &rule.name)) {
            let (rule, reason, unattended) = (rule.name.clone(), rule.reason.clone(), rule.unattended);
            return Decision::Ask { rule, reason, unattended };
        }
        let allowing = of(Says::Allow).map(|rule| &rule.name).min();
        match (allowing, facet) {
            (Some(rule), _) => Decision::Allow { rule: rule.clone() },
            (None, Facet::Opaque { why, .. }) if !is_answered(OPAQUE) => Decision::Ask {
                rule: OPAQUE.to_owned(),
                reason: format!("nobody can tell which commands this line runs: {why}"),
                unattended: OnNoAnswer::Deny,
            },
            _ => self.nothing_matches(given.first().map(|grant| grant.rule.name.clone())),
        }
    }

    fn nothing_matches(&self, answer: Option<String>) -> Decision {
        match (answer, self.otherwise) {
            (Some(rule), _) => Decision::Allow { rule },
            (None, Otherwise::Ask) => Decision::Ask {
                rule: OTHERWISE.to_owned(),
                reason: "no rule of the policy speaks of this".to_owned(),
                unattended: OnNoAnswer::Deny,
            },
            (None, Otherwise::Deny) => Decision::Deny {
                rule: OTHERWISE.to_owned(),
                reason: "no rule of the policy allows this".to_owned(),
            },
        }
    }
}

/// The strictest of a call's decisions; of equals the one whose name comes first.
fn strictest(decisions: Vec<Decision>) -> Decision {
    let severity = |decision: &Decision| match decision {
        Decision::Deny { .. } => (0, OnNoAnswer::Deny),
        Decision::Ask { unattended, .. } => (1, *unattended),
        Decision::Allow { .. } => (2, OnNoAnswer::Deny),
    };
    let key = |decision: &Decision| {
        let (kind, unattended) = severity(decision);
        (kind, Reverse(unattended), decision.rule().to_owned())
    };
    decisions.into_iter().min_by_key(key).expect("a call has at least one facet")
}

/// An answer names an ask rule of the same policy.
fn check_answers(rules: &[Rule], file: &str) -> Result<(), PolicyError> {
    let asks = |name: &str| rules.iter().any(|rule| rule.says == Says::Ask && rule.name == name);
    let is_known = |name: &str| name == OPAQUE || name == OTHERWISE || asks(name);
    for rule in rules {
        if let Some(answers) = rule.answers.as_deref().filter(|name| !is_known(name)) {
            let what = format!("answers {answers:?}, which is no ask rule of this policy");
            return Err(PolicyError::Rule {
                file: file.to_owned(),
                line: rule.line,
                rule: rule.name.clone(),
                what,
            });
        }
    }
    Ok(())
}

impl Says {
    fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}
