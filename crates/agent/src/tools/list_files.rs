//! `list_files`: names in a folder.

use super::arguments::{parse, text};
use super::{Arguments, Declaration, Output, Parameter, Scope, Tool, WorkspaceError, ready};
use crate::gate::{Access, BoxFuture, Effect, Resource};

/// Lists a folder: one name a line, folders with a slash at the end.
pub struct ListFiles;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    #[serde(default = "here")]
    path: String,
}

fn here() -> String {
    ".".to_owned()
}

impl Tool for ListFiles {
    fn declaration(&self) -> Declaration {
        let parameters = [Parameter::optional("path", "string", "folder")];
        Declaration::flat("list_files", "Lists a folder.", &parameters)
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
            Ok(args) => list(&args.path, scope).unwrap_or_else(|error| Output::failed(scope.told(error))),
            Err(error) => error.into(),
        })
    }
}

fn list(path: &str, scope: &Scope) -> Result<Output, WorkspaceError> {
    let entries = scope.workspace.entries(path)?;
    if entries.is_empty() {
        return Ok(Output::done("the folder is empty"));
    }
    let shown = entries.iter().take(scope.limits.n_lines_max);
    let mut lines: Vec<String> =
        shown.map(|entry| format!("{}{}", entry.name, if entry.is_folder { "/" } else { "" })).collect();
    if entries.len() > lines.len() {
        lines.push(format!("({} more)", entries.len() - lines.len()));
    }
    Ok(Output::files(lines.join("\n")))
}
