//! `edit_file`: one passage of a file replaced, guarded by the content that the model has seen.

use super::arguments::{parse, text};
use super::scope::hash;
use super::{Arguments, Declaration, Output, Parameter, Probe, Scope, Tool, ready};
use crate::gate::{Access, BoxFuture, Effect, Resource};
use serde_json::{Value, json};

/// Replaces a passage that stands in the file exactly once. Refuses when the file is not as the model saw it last.
pub struct EditFile;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    path: String,
    old: String,
    new: String,
}

/// A change that can be made.
struct Change {
    before: String,
    content: String,
}

impl Tool for EditFile {
    fn declaration(&self) -> Declaration {
        let parameters = [
            Parameter::required("path", "string", "file"),
            Parameter::required("old", "string", "text in it, found once"),
            Parameter::required("new", "string", "text instead"),
        ];
        Declaration::flat("edit_file", "Replaces text in a file that was read.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Once
    }

    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        let path = text(arguments, "path").map(str::to_owned);
        path.map(|path| Resource::Path { access: Access::Write, path }).into_iter().collect()
    }

    /// The hashes of the content before and after.
    fn prepare(&self, arguments: &Arguments, scope: &Scope) -> Option<Value> {
        let args = parse::<Args>(&self.declaration(), arguments).ok()?;
        let change = plan(&args, scope).ok()?;
        Some(json!({ "before": hash(change.before.as_bytes()), "after": hash(change.content.as_bytes()) }))
    }

    /// The file's hash tells which side of the change it stands on.
    fn probe(&self, arguments: &Arguments, note: &Value, scope: &Scope) -> Probe {
        let Ok(args) = parse::<Args>(&self.declaration(), arguments) else { return Probe::NotStarted };
        let Ok(content) = scope.workspace.read(&args.path, scope.limits.file_bytes_max) else {
            return Probe::Unknown;
        };
        let found = hash(&content);
        if note["after"] == found.as_str() {
            Probe::Done(edited(&args, scope, found))
        } else if note["before"] == found.as_str() {
            Probe::NotStarted
        } else {
            Probe::Unknown
        }
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        ready(match parse::<Args>(&self.declaration(), arguments) {
            Ok(args) => edit(&args, scope).unwrap_or_else(Output::failed),
            Err(error) => error.into(),
        })
    }
}

fn edit(args: &Args, scope: &Scope) -> Result<Output, String> {
    let change = plan(args, scope)?;
    scope.workspace.write(&args.path, change.content.as_bytes()).map_err(|error| error.to_string())?;
    Ok(edited(args, scope, hash(change.content.as_bytes())))
}

fn edited(args: &Args, scope: &Scope, hash: String) -> Output {
    let relative = scope.workspace.relative(&args.path).unwrap_or_else(|_| args.path.clone());
    scope.seen.put(&relative, &hash);
    Output { seen: vec![(relative, hash)], ..Output::done(format!("edited {}", args.path)) }
}

fn plan(args: &Args, scope: &Scope) -> Result<Change, String> {
    let path = &args.path;
    let relative = scope.workspace.relative(path).map_err(|error| error.to_string())?;
    let before =
        scope.workspace.read_text(path, scope.limits.file_bytes_max).map_err(|error| scope.told(error))?;
    match scope.seen.get(&relative) {
        None => return Err(format!("{path} has not been read; read it first")),
        Some(seen) if seen != hash(before.as_bytes()) => {
            return Err(format!("{path} has changed since it was read; read it again"));
        }
        Some(_) => {}
    }
    if args.old.is_empty() {
        return Err("old is empty; give the text to replace".to_owned());
    }
    if args.old == args.new {
        return Err("old and new are the same; nothing was changed".to_owned());
    }
    let content = match before.matches(args.old.as_str()).count() {
        0 => return Err(format!("old is not in {path}; read it again")),
        1 => before.replacen(args.old.as_str(), &args.new, 1),
        n => return Err(format!("old is in {path} {n} times; give more of the line")),
    };
    Ok(Change { before, content })
}
