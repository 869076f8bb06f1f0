//! A call taken apart: each thing that it touches is decided by itself, and the strictest answer holds.

use super::host;
use super::place::{Place, Workspace};
use super::shell::{self, Command};
use crate::gate::{Access, ProposedCall, Resource};
use std::fmt;

/// One thing that a call touches, ready to be matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Facet {
    /// The call itself, where it touches nothing.
    Bare,
    /// A file or folder.
    Path {
        /// What is done with it.
        access: Access,
        /// Where it leads.
        place: Place,
    },
    /// A host.
    Host {
        /// Normalised name or address.
        host: String,
        /// Port, where one is named.
        port: Option<u16>,
    },
    /// One command of a line that can be read.
    Command(Command),
    /// A line that cannot be read without running it.
    Opaque {
        /// The line.
        text: String,
        /// Why.
        why: &'static str,
        /// Commands that it may hold, for rules that deny.
        guesses: Vec<Command>,
    },
    /// Something that is not what it should be; always denied.
    Bad {
        /// One sentence for the model.
        why: String,
    },
}

impl fmt::Display for Facet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare => f.write_str("the call"),
            Self::Path { access, place } => {
                let verb = if *access == Access::Read { "read" } else { "write" };
                match &place.inside {
                    Some(inside) if inside.as_os_str().is_empty() => write!(f, "{verb} ."),
                    Some(inside) => write!(f, "{verb} {}", inside.display()),
                    None => write!(f, "{verb} {} (outside the workspace)", place.real.display()),
                }
            }
            Self::Host { host, port: Some(port) } => write!(f, "host {host}:{port}"),
            Self::Host { host, port: None } => write!(f, "host {host}"),
            Self::Command(command) => {
                f.write_str("command")?;
                command.words.iter().try_for_each(|word| write!(f, " {}", word.text))
            }
            Self::Opaque { text, .. } => write!(f, "command line {text:?}"),
            Self::Bad { why } => f.write_str(why),
        }
    }
}

/// What a call touches, paths resolved and command lines parsed; never empty.
#[must_use]
pub fn facets(call: &ProposedCall, workspace: &Workspace) -> Vec<Facet> {
    let found: Vec<_> = call.resources.iter().flat_map(|resource| of_resource(resource, workspace)).collect();
    if found.is_empty() { vec![Facet::Bare] } else { found }
}

fn of_resource(resource: &Resource, workspace: &Workspace) -> Vec<Facet> {
    match resource {
        Resource::Path { access, path } => vec![of_path(*access, path, workspace)],
        Resource::Host { host, port } => vec![match host::normalise(host) {
            Some(host) => Facet::Host { host, port: *port },
            None => Facet::Bad { why: format!("{host:?} is no host") },
        }],
        Resource::Command { text } => of_command(text, workspace),
    }
}

fn of_path(access: Access, path: &str, workspace: &Workspace) -> Facet {
    match workspace.resolve(path) {
        Ok(place) => Facet::Path { access, place },
        Err(error) => Facet::Bad { why: error.to_string() },
    }
}

fn of_command(text: &str, workspace: &Workspace) -> Vec<Facet> {
    let line = shell::parse(text);
    if let Some(why) = line.opaque {
        return vec![Facet::Opaque { text: text.to_owned(), why, guesses: line.guesses }];
    }
    let paths = line.redirects.iter().map(|(access, path)| match path.as_str() {
        "/dev/null" => None,
        path => Some(of_path(*access, path, workspace)),
    });
    line.commands.iter().cloned().map(Facet::Command).chain(paths.flatten()).collect()
}
