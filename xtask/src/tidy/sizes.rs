//! How long files and functions are, and the list of those that are longer than they should be.

use super::tree::{Source, line_of};
use super::{Tree, Violation};
use std::fmt;
use syn::visit::{self, Visit};

/// Lines a Rust file may have.
pub const FILE_LINES_MAX: usize = 800;
/// Lines a function may have, from `fn` to its last brace.
pub const FUNCTION_LINES_MAX: usize = 70;
/// The list of what is longer. A number there is a limit of its own: it may fall, never rise.
pub const EXCEPTIONS: &str = "xtask/exceptions.txt";

/// The length of one file or function.
#[derive(Debug, PartialEq, Eq)]
pub struct Length {
    /// `file PATH` or `fn PATH NAME`, as the list of exceptions writes it.
    pub subject: String,
    /// Path from the repository root.
    pub path: String,
    /// Line that it starts in, from 1.
    pub line: usize,
    /// Number of its lines.
    pub lines: usize,
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:5}  {}", self.lines, self.subject)
    }
}

/// Rust files, longest first.
pub(super) fn files(tree: &Tree) -> Vec<Length> {
    let rust = tree.iter().filter(|(path, _)| path.ends_with(".rs"));
    longest_first(rust.map(|(path, text)| Length {
        subject: format!("file {path}"),
        path: path.to_owned(),
        line: 1,
        lines: text.lines().count(),
    }))
}

/// Functions with a body, longest first; of several with one name in a file, the longest.
pub(super) fn functions(sources: &[Source<'_>]) -> Vec<Length> {
    let mut all = longest_first(sources.iter().flat_map(|source| {
        let mut bodies = Bodies { path: source.path, found: Vec::new() };
        bodies.visit_file(&source.syntax);
        bodies.found
    }));
    let mut seen = std::collections::HashSet::new();
    all.retain(|length| seen.insert(length.subject.clone()));
    all
}

/// Over the limit needs a line in the list; a line in the list needs a subject over the limit.
pub(super) fn check(tree: &Tree, files: &[Length], functions: &[Length], violations: &mut Vec<Violation>) {
    let list = tree.get(EXCEPTIONS).unwrap_or_default();
    let mut exceptions = Vec::new();
    for (at, line) in list.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    {
        match line.rsplit_once(' ').and_then(|(subject, lines)| Some((subject, lines.parse().ok()?))) {
            Some((subject, lines)) => exceptions.push((subject, lines)),
            None => violations.push(Violation::new(EXCEPTIONS, at + 1, "ends in no number of lines".into())),
        }
    }
    let over = files.iter().filter(|l| l.lines > FILE_LINES_MAX);
    let over: Vec<_> = over.chain(functions.iter().filter(|l| l.lines > FUNCTION_LINES_MAX)).collect();
    for length in &over {
        let allowed =
            exceptions.iter().find(|(subject, _)| *subject == length.subject).map(|(_, lines)| *lines);
        let what = match allowed {
            None => "is longer than the limit: part it by what a reader wants to know",
            Some(lines) if length.lines > lines => "has grown beyond its exception: part it",
            Some(_) => continue,
        };
        let what = format!("{what} ({length})", length = length.to_string().trim());
        violations.push(Violation::new(&length.path, length.line, what));
    }
    for (subject, _) in exceptions.iter().filter(|(subject, _)| over.iter().all(|l| l.subject != *subject)) {
        let what = format!("remove this line: `{subject}` is within the limit or gone");
        violations.push(Violation::new(EXCEPTIONS, line_of(list, subject), what));
    }
}

fn longest_first(lengths: impl Iterator<Item = Length>) -> Vec<Length> {
    let mut lengths: Vec<_> = lengths.collect();
    lengths.sort_by(|a, b| b.lines.cmp(&a.lines).then_with(|| a.subject.cmp(&b.subject)));
    lengths
}

struct Bodies<'a> {
    path: &'a str,
    found: Vec<Length>,
}

impl Bodies<'_> {
    fn push(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (first, last) = (signature.fn_token.span.start().line, block.brace_token.span.close().end().line);
        self.found.push(Length {
            subject: format!("fn {} {}", self.path, signature.ident),
            path: self.path.to_owned(),
            line: first,
            lines: last - first + 1,
        });
    }
}

impl<'ast> Visit<'ast> for Bodies<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.push(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.push(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.push(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}
