//! `search_files`: lines that hold words or match a pattern.

use super::arguments::{parse, text};
use super::read_file::cut_line;
use super::{Arguments, Declaration, Output, Parameter, Scope, Tool, WorkspaceError, ready};
use crate::gate::{Access, BoxFuture, Effect, Resource};
use regex::{Regex, RegexBuilder};

/// Most files that one search opens.
const N_FILES_MAX: usize = 100_000;
/// Size of a compiled pattern, bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Finds lines: `path:number: line`.
pub struct SearchFiles;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    query: String,
    #[serde(default = "here")]
    path: String,
    #[serde(default)]
    regex: bool,
}

fn here() -> String {
    ".".to_owned()
}

impl Tool for SearchFiles {
    fn declaration(&self) -> Declaration {
        let parameters = [
            Parameter::required("query", "string", "words to find"),
            Parameter::optional("path", "string", "file or folder"),
            Parameter::optional("regex", "boolean", "query is a pattern"),
        ];
        Declaration::flat("search_files", "Finds lines that hold all words.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Read
    }

    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        let path = text(arguments, "path").unwrap_or(".").to_owned();
        vec![Resource::Path { access: Access::Read, path }]
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        ready(match parse::<Args>(&self.declaration(), arguments) {
            Ok(args) => search(&args, scope).unwrap_or_else(Output::failed),
            Err(error) => error.into(),
        })
    }
}

fn search(args: &Args, scope: &Scope) -> Result<Output, String> {
    let wanted = Wanted::new(args)?;
    let mut found = Found { lines: Vec::new(), n_matches: 0, n_files: 0 };
    let path = scope.workspace.relative(&args.path).map_err(|error| error.to_string())?;
    walk(&path, &wanted, scope, &mut found).map_err(|error| scope.told(error))?;
    if found.n_matches == 0 {
        return Ok(Output::done(format!("no line holds {}", args.query)));
    }
    if found.n_matches > found.lines.len() {
        found.lines.push(format!("({} more; narrow the search)", found.n_matches - found.lines.len()));
    }
    Ok(Output::files(found.lines.join("\n")))
}

/// What a line must hold.
enum Wanted {
    /// Each of these, whatever their case.
    Words(Vec<String>),
    /// A match.
    Pattern(Regex),
}

impl Wanted {
    fn new(args: &Args) -> Result<Self, String> {
        if args.regex {
            let pattern = RegexBuilder::new(&args.query).size_limit(PATTERN_BYTES_MAX).build();
            return pattern.map(Self::Pattern).map_err(|error| {
                let error = error.to_string();
                let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("query is not a pattern: {reason}")
            });
        }
        let words: Vec<String> = args.query.split_whitespace().map(str::to_lowercase).collect();
        if words.is_empty() {
            return Err("query is empty; give words to find".to_owned());
        }
        Ok(Self::Words(words))
    }

    fn is_in(&self, line: &str) -> bool {
        match self {
            Self::Words(words) => {
                let line = line.to_lowercase();
                words.iter().all(|word| line.contains(word.as_str()))
            }
            Self::Pattern(pattern) => pattern.is_match(line),
        }
    }
}

/// What was found so far.
struct Found {
    lines: Vec<String>,
    n_matches: usize,
    n_files: usize,
}

/// Goes through a file or folder in the order of names; what cannot be read as text inside a folder is passed over.
fn walk(path: &str, wanted: &Wanted, scope: &Scope, found: &mut Found) -> Result<(), WorkspaceError> {
    let entries = match scope.workspace.entries(path) {
        Ok(entries) => entries,
        Err(WorkspaceError::IsFile { .. }) => return look(path, wanted, scope, found),
        Err(error) => return Err(error),
    };
    // What may be opened outside is this folder, not what lies in it.
    if scope.workspace.outside(path, Access::Read).is_some() {
        return Err(WorkspaceError::IsFolder { path: path.to_owned() });
    }
    for entry in entries {
        if found.n_files >= N_FILES_MAX {
            break;
        }
        let beneath = if path == "." { entry.name } else { format!("{path}/{}", entry.name) };
        let _ = if entry.is_folder {
            walk(&beneath, wanted, scope, found)
        } else {
            look(&beneath, wanted, scope, found)
        };
    }
    Ok(())
}

fn look(path: &str, wanted: &Wanted, scope: &Scope, found: &mut Found) -> Result<(), WorkspaceError> {
    let is_open = scope.workspace.outside(path, Access::Read).is_some();
    if scope.may_read.as_ref().is_some_and(|may_read| !may_read(path)) && !is_open {
        return Ok(());
    }
    let content = scope.workspace.read_text(path, scope.limits.file_bytes_max)?;
    // Before lines are matched: a search must not tell by its matches how a value goes on.
    let content = scope.secrets.redact(&content);
    found.n_files += 1;
    for (idx, line) in content.lines().enumerate().filter(|(_, line)| wanted.is_in(line)) {
        found.n_matches += 1;
        if found.lines.len() < scope.limits.n_lines_max {
            found.lines.push(format!("{path}:{}: {}", idx + 1, cut_line(line, scope.limits.line_bytes_max)));
        }
    }
    Ok(())
}
