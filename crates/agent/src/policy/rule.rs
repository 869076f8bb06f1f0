//! One rule, checked and compiled.

use super::facet::Facet;
use super::host;
use super::shell::{Command, Word};
use super::text::{AccessText, Bound, CommandText, RuleText, Says};
use crate::gate::{Access, OnNoAnswer, ProposedCall};
use globset::{Glob, GlobBuilder, GlobMatcher};
use regex::Regex;
use serde_json::{Map, Value};

/// What stands at the end of a command pattern for any further words.
const REST: &str = "...";

/// One rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Line of the file, from 1; 0 where it stands in none.
    pub(super) line: usize,
    pub(super) says: Says,
    pub(super) reason: String,
    pub(super) answers: Option<String>,
    pub(super) unattended: OnNoAnswer,
    tools: Option<Vec<GlobMatcher>>,
    resource: Condition,
    arguments: Vec<(Vec<String>, Limit)>,
    arguments_exactly: Option<Map<String, Value>>,
}

/// Which facets a rule is about.
#[derive(Debug, Clone)]
enum Condition {
    /// All of the tool's.
    Any {
        any_command: bool,
    },
    Path {
        access: Option<Access>,
        paths: Vec<PathGlob>,
        outside: bool,
    },
    Host {
        hosts: Vec<GlobMatcher>,
        private: bool,
    },
    Command {
        commands: Vec<CommandPattern>,
        with_words: Vec<GlobMatcher>,
    },
}

#[derive(Debug, Clone)]
struct PathGlob {
    glob: GlobMatcher,
    /// Matches whole paths outside; else paths beneath the workspace.
    is_absolute: bool,
}

#[derive(Debug, Clone)]
struct CommandPattern {
    words: Vec<GlobMatcher>,
    any_more: bool,
}

#[derive(Debug, Clone)]
struct Limit {
    bound: Bound,
    regex: Option<Regex>,
}

impl Rule {
    /// Checks and compiles a rule; its examples are checked elsewhere.
    ///
    /// # Errors
    /// What the rule does wrong, to follow its name in a sentence.
    pub(super) fn new(text: &RuleText, line: usize) -> Result<Self, String> {
        check_shape(text)?;
        let tools = text.tools.as_ref().map(|tools| globs(tools, false)).transpose()?;
        let arguments = text.arguments.iter().map(|(key, bound)| limit(key, bound));
        let exactly = text.arguments_exactly.as_deref().map(serde_json::from_str);
        let exactly = exactly
            .transpose()
            .map_err(|error| format!("has `arguments_exactly` that is no JSON object: {error}"))?;
        Ok(Self {
            name: text.name.clone(),
            line,
            says: text.decision,
            reason: text.reason.clone().unwrap_or_default(),
            answers: text.answers.clone(),
            unattended: if text.unattended == Some(Says::Allow) {
                OnNoAnswer::Allow
            } else {
                OnNoAnswer::Deny
            },
            tools,
            resource: condition(text)?,
            arguments: arguments.collect::<Result<_, _>>()?,
            arguments_exactly: exactly,
        })
    }

    /// Whether the rule is about this facet of this call. Rules that allow see only where a path leads and
    /// what surely runs; others see the name too, and what may run.
    pub(super) fn matches(&self, call: &ProposedCall, facet: &Facet) -> bool {
        self.fits_call(call) && self.fits_facet(facet)
    }

    fn fits_call(&self, call: &ProposedCall) -> bool {
        let tool = self.tools.as_ref().is_none_or(|tools| tools.iter().any(|glob| glob.is_match(&call.tool)));
        let limits = self.arguments.iter().all(|(key, limit)| limit.holds(look_up(&call.arguments, key)));
        tool && limits && self.arguments_exactly.as_ref().is_none_or(|exactly| *exactly == call.arguments)
    }

    fn fits_facet(&self, facet: &Facet) -> bool {
        let strict = self.says == Says::Allow;
        match (&self.resource, facet) {
            // Arguments that are given whole leave nothing unread; otherwise only the rule's own word does.
            (Condition::Any { any_command }, Facet::Opaque { .. }) => {
                !strict || *any_command || self.arguments_exactly.is_some()
            }
            // What lies beyond the workspace must be named to be allowed.
            (Condition::Any { .. }, Facet::Host { .. }) => !strict,
            (Condition::Any { .. }, Facet::Path { place, .. }) => !strict || place.inside.is_some(),
            (Condition::Any { .. }, _) => true,
            (Condition::Path { access: wanted, paths, outside }, Facet::Path { access, place }) => {
                let leads = paths.iter().any(|path| path.fits(&place.real, place.inside.as_deref()));
                let is_named =
                    || paths.iter().any(|path| path.fits(&place.written, place.written_inside.as_deref()));
                let is_outside = *outside && place.inside.is_none();
                let everywhere = paths.is_empty() && !outside && (!strict || place.inside.is_some());
                wanted.is_none_or(|wanted| wanted == *access)
                    && (everywhere || is_outside || leads || (!strict && is_named()))
            }
            (Condition::Host { hosts, private }, Facet::Host { host, .. }) => {
                let is_private = host::is_private_host(host);
                let names = |glob: &GlobMatcher| glob.glob().glob() == host || !(strict && is_private);
                hosts.iter().any(|glob| glob.is_match(host) && names(glob)) || (*private && is_private)
            }
            (Condition::Command { commands, with_words }, Facet::Command(command)) => {
                fits_command(commands, with_words, command, strict)
            }
            (Condition::Command { commands, with_words }, Facet::Opaque { guesses, .. }) => {
                !strict && guesses.iter().any(|command| fits_command(commands, with_words, command, false))
            }
            _ => false,
        }
    }
}

fn check_shape(text: &RuleText) -> Result<(), String> {
    let has_reason = text.reason.as_deref().is_some_and(|reason| !reason.trim().is_empty());
    let path_keys = text.access.is_some() || text.paths.is_some() || text.outside.is_some();
    let host_keys = text.hosts.is_some() || text.private.is_some();
    let command_keys = text.commands.is_some() || text.with_words.is_some();
    let n_kinds = usize::from(path_keys) + usize::from(host_keys) + usize::from(command_keys);
    let wrong = match () {
        () if text.name.trim().is_empty() => "has no name",
        () if text.decision != Says::Allow && !has_reason => {
            "needs a `reason`: one sentence for the model or the person"
        }
        () if text.answers.is_some() && text.decision != Says::Allow => {
            "has `answers`, which only an allow rule may have"
        }
        () if text.unattended.is_some() && text.decision != Says::Ask => {
            "has `unattended`, which only an ask rule may have"
        }
        () if text.unattended == Some(Says::Ask) => "has `unattended = \"ask\"`; write \"allow\" or \"deny\"",
        () if n_kinds > 1 => "mixes keys for paths, hosts and commands; write one rule for each",
        () if text.any_command.is_some() && (text.decision != Says::Allow || n_kinds > 0) => {
            "has `any_command`, which only an allow rule without other conditions on paths, hosts or commands may have"
        }
        () if text.matches.is_empty() => "has no example under `match`; give a call that it must match",
        () if text.no_match.is_empty() => {
            "has no example under `no_match`; give a call that it must not match"
        }
        () => return Ok(()),
    };
    Err(wrong.to_owned())
}

fn condition(text: &RuleText) -> Result<Condition, String> {
    let access = text.access.map(|access| match access {
        AccessText::Read => Access::Read,
        AccessText::Write => Access::Write,
    });
    if access.is_some() || text.paths.is_some() || text.outside.is_some() {
        let paths = text.paths.iter().flatten().map(|path| path_glob(path)).collect::<Result<_, _>>()?;
        return Ok(Condition::Path { access, paths, outside: text.outside.unwrap_or(false) });
    }
    if text.hosts.is_some() || text.private.is_some() {
        let hosts = text.hosts.iter().flatten().map(|host| host.to_ascii_lowercase()).collect::<Vec<_>>();
        return Ok(Condition::Host { hosts: globs(&hosts, false)?, private: text.private.unwrap_or(false) });
    }
    if text.commands.is_some() || text.with_words.is_some() {
        let commands = text.commands.iter().flatten().map(command_pattern).collect::<Result<_, _>>()?;
        let with_words = text.with_words.as_deref().map(|words| globs(words, false)).transpose()?;
        return Ok(Condition::Command { commands, with_words: with_words.unwrap_or_default() });
    }
    Ok(Condition::Any { any_command: text.any_command.unwrap_or(false) })
}

fn globs(patterns: &[String], literal_separator: bool) -> Result<Vec<GlobMatcher>, String> {
    patterns.iter().map(|pattern| Ok(glob(pattern, literal_separator)?.compile_matcher())).collect()
}

fn glob(pattern: &str, literal_separator: bool) -> Result<Glob, String> {
    let built = GlobBuilder::new(pattern).literal_separator(literal_separator).backslash_escape(true).build();
    built.map_err(|error| format!("has a pattern that cannot be read: {error}"))
}

fn path_glob(pattern: &str) -> Result<PathGlob, String> {
    if pattern.split('/').any(|part| part == ".." || part == ".") {
        return Err(format!(
            "has the path pattern {pattern:?} with `.` or `..`; paths are matched without them"
        ));
    }
    Ok(PathGlob { glob: glob(pattern, true)?.compile_matcher(), is_absolute: pattern.starts_with('/') })
}

impl PathGlob {
    fn fits(&self, whole: &std::path::Path, inside: Option<&std::path::Path>) -> bool {
        match inside {
            _ if self.is_absolute => self.glob.is_match(whole),
            Some(inside) if inside.as_os_str().is_empty() => self.glob.is_match("."),
            Some(inside) => self.glob.is_match(inside),
            None => false,
        }
    }
}

fn command_pattern(text: &CommandText) -> Result<CommandPattern, String> {
    let mut words = match text {
        CommandText::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
        CommandText::Words(words) => words.clone(),
    };
    let any_more = words.last().is_some_and(|word| word == REST);
    if any_more {
        words.pop();
    }
    if words.is_empty() || words.iter().any(|word| word == REST) {
        return Err(format!("has a command pattern without a name or with {REST:?} before its end"));
    }
    Ok(CommandPattern { words: globs(&words, false)?, any_more })
}

/// `strict`: a word that the shell would replace fits only where any word does, and the name stands as written.
fn fits_command(patterns: &[CommandPattern], with: &[GlobMatcher], command: &Command, strict: bool) -> bool {
    let fits_word = |glob: &GlobMatcher, word: &Word| glob.is_match(&word.text) && !(strict && word.expands);
    let fits = |pattern: &CommandPattern| {
        let long_enough = command.words.len() >= pattern.words.len();
        let not_longer = pattern.any_more || command.words.len() == pattern.words.len();
        let mut pairs = pattern.words.iter().zip(&command.words).enumerate();
        long_enough
            && not_longer
            && pairs.all(|(at, (glob, word))| {
                fits_word(glob, word) || (!strict && at == 0 && glob.is_match(command.base_name()))
            })
    };
    let has_word = || command.words.iter().skip(1).any(|word| with.iter().any(|glob| fits_word(glob, word)));
    (patterns.is_empty() || patterns.iter().any(fits)) && (with.is_empty() || has_word())
}

fn limit(key: &str, bound: &Bound) -> Result<(Vec<String>, Limit), String> {
    // Read alone first, so that no bracket of it closes ours.
    let whole = |regex: &String| Regex::new(regex).and_then(|_| Regex::new(&format!("^(?:{regex})$")));
    let regex = bound.regex.as_ref().map(whole);
    let regex = regex.transpose().map_err(|error| {
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("has a `regex` for {key:?} that cannot be read: {why}")
    })?;
    if bound.min.is_none() && bound.max.is_none() && regex.is_none() && bound.one_of.is_none() {
        return Err(format!("says nothing about the argument {key:?}; give min, max, regex or one_of"));
    }
    Ok((key.split('.').map(str::to_owned).collect(), Limit { bound: bound.clone(), regex }))
}

fn look_up<'a>(arguments: &'a Map<String, Value>, key: &[String]) -> Option<&'a Value> {
    let (first, rest) = key.split_first()?;
    rest.iter().try_fold(arguments.get(first)?, |value, key| value.get(key))
}

impl Limit {
    fn holds(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return false };
        let number = |holds: &dyn Fn(f64) -> bool| value.as_f64().is_some_and(holds);
        self.bound.min.is_none_or(|min| number(&|value| value >= min))
            && self.bound.max.is_none_or(|max| number(&|value| value <= max))
            && self.bound.one_of.as_ref().is_none_or(|all| all.contains(value))
            && self.regex.as_ref().is_none_or(|regex| value.as_str().is_some_and(|text| regex.is_match(text)))
    }
}
