//! `read_file`: a page of a file, with line numbers.

use super::arguments::{parse, text};
use super::scope::hash;
use super::{Arguments, Declaration, Output, Parameter, Pdf, Scope, Tool, WorkspaceError};
use crate::context::words;
use crate::gate::{Access, BoxFuture, Effect, Resource};
use std::fmt::Write;

/// Reads a page of a file: `number: line`, then where to go on, or that there is no more.
pub struct ReadFile;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    path: String,
    #[serde(default = "one")]
    from: usize,
}

fn one() -> usize {
    1
}

impl Tool for ReadFile {
    fn declaration(&self) -> Declaration {
        let parameters = [
            Parameter::required("path", "string", "file"),
            Parameter::optional("from", "integer", "first line, 1 if left out"),
        ];
        Declaration::flat("read_file", "Reads a file with line numbers.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Read
    }

    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        let path = text(arguments, "path").map(str::to_owned);
        path.map(|path| Resource::Path { access: Access::Read, path }).into_iter().collect()
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        Box::pin(async move {
            match parse::<Args>(&self.declaration(), arguments) {
                Ok(args) => read(&args, scope).await.unwrap_or_else(Output::failed),
                Err(error) => error.into(),
            }
        })
    }
}

async fn read(args: &Args, scope: &Scope) -> Result<Output, String> {
    let bytes = scope.workspace.read(&args.path, scope.limits.file_bytes_max);
    let bytes = bytes.map_err(|error| scope.told(error))?;
    let relative = scope.workspace.relative(&args.path).map_err(|error| error.to_string())?;
    let seen = (relative, hash(&bytes));
    let content = match String::from_utf8(bytes) {
        Ok(text) if !Pdf::is_one(text.as_bytes()) => text,
        Ok(text) => Pdf::text(scope.pdf.as_deref(), text.as_bytes()).await?,
        Err(error) if Pdf::is_one(error.as_bytes()) => {
            Pdf::text(scope.pdf.as_deref(), error.as_bytes()).await?
        }
        Err(_) => return Err(WorkspaceError::NotText { path: args.path.clone() }.to_string()),
    };
    scope.seen.put(&seen.0, &seen.1);
    // Before lines are cut: half a value would not be recognised any more.
    let page = page(&scope.secrets.redact(&content), args.from, scope);
    Ok(Output { seen: vec![seen], ..page })
}

fn page(content: &str, from: usize, scope: &Scope) -> Output {
    let lines: Vec<&str> = content.lines().collect();
    if lines.is_empty() {
        return Output::done("the file is empty");
    }
    if from == 0 || from > lines.len() {
        return Output::failed(format!("the file has lines 1 to {}; ask for one of these", lines.len()));
    }
    let end = (from - 1 + scope.limits.n_lines_max).min(lines.len());
    let mut text = String::new();
    for (idx, line) in lines[from - 1..end].iter().enumerate() {
        let cut = cut_line(line, scope.limits.line_bytes_max);
        let _ = writeln!(text, "{}: {cut}", from + idx);
    }
    match end < lines.len() {
        true => text.push_str(&words::page_more(lines.len(), end + 1)),
        false => text.push_str(words::PAGE_END),
    }
    Output::files(&text)
}

/// A line no longer than the limit; a mark says how many bytes are left out.
pub(super) fn cut_line(line: &str, bytes_max: usize) -> String {
    if line.len() <= bytes_max {
        return line.to_owned();
    }
    let end = line.floor_char_boundary(bytes_max);
    format!("{} ({} bytes left out)", &line[..end], line.len() - end)
}
