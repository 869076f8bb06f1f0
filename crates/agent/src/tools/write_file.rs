//! `write_file`: a whole file.

use super::arguments::{parse, text};
use super::scope::hash;
use super::{Arguments, Declaration, Output, Parameter, Scope, Tool, WorkspaceError, ready};
use crate::gate::{Access, BoxFuture, Effect, Resource};

/// Writes a whole file, folders made on the way. Twice is as once.
pub struct WriteFile;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    path: String,
    text: String,
}

impl Tool for WriteFile {
    fn declaration(&self) -> Declaration {
        let parameters = [
            Parameter::required("path", "string", "file"),
            Parameter::required("text", "string", "its whole content"),
        ];
        Declaration::flat("write_file", "Writes a file.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Idempotent
    }

    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        let path = text(arguments, "path").map(str::to_owned);
        path.map(|path| Resource::Path { access: Access::Write, path }).into_iter().collect()
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        ready(match parse::<Args>(&self.declaration(), arguments) {
            Ok(args) => write(&args, scope).unwrap_or_else(|error| Output::failed(error.to_string())),
            Err(error) => error.into(),
        })
    }
}

fn write(args: &Args, scope: &Scope) -> Result<Output, WorkspaceError> {
    let relative = scope.workspace.relative(&args.path)?;
    let content = with_line_end(&args.text);
    scope.workspace.write(&args.path, content.as_bytes())?;
    let seen = (relative, hash(content.as_bytes()));
    scope.seen.put(&seen.0, &seen.1);
    Ok(Output { seen: vec![seen], ..Output::done(format!("wrote {}", args.path)) })
}

/// A text file ends its last line (POSIX, 3.206); an empty one has none.
fn with_line_end(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}
