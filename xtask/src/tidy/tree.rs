//! What the rules read: the text files of the repository.

use super::Violation;
use anyhow::{Context, Result, ensure};
use proc_macro2::TokenStream;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Text files by path from the repository root, with `/` between folders.
pub struct Tree {
    files: BTreeMap<String, String>,
}

/// One Rust file, parsed.
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    pub(super) tokens: TokenStream,
    pub(super) syntax: syn::File,
}

impl Tree {
    /// The files under `root` that git tracks or would track; files that are not UTF-8 are left out.
    ///
    /// # Errors
    /// When git is not there, `root` is no work tree of it, or a file cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let list = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("tidy asks git which files are the repository's; install git")?;
        ensure!(list.status.success(), "git ls-files: {}", String::from_utf8_lossy(&list.stderr).trim());
        let names = String::from_utf8(list.stdout).context("a path in the repository is not UTF-8")?;
        let mut files = BTreeMap::new();
        for name in names.split_terminator('\0') {
            let path = root.join(name);
            // A path deleted but not yet committed is still listed; a nested repository is listed as a folder.
            if path.is_file()
                && let Ok(text) = String::from_utf8(std::fs::read(&path).context(path.display().to_string())?)
            {
                files.insert(name.to_owned(), text);
            }
        }
        Ok(Self { files })
    }

    /// The text at `path`.
    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// Every (path, text), by path.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Every Rust file, parsed once for all rules; one that does not parse is a violation.
    pub(super) fn rust_sources(&self, violations: &mut Vec<Violation>) -> Vec<Source<'_>> {
        let mut sources = Vec::new();
        for (path, text) in self.iter().filter(|(path, _)| path.ends_with(".rs")) {
            match parse(text) {
                Ok((tokens, syntax)) => sources.push(Source { path, tokens, syntax }),
                Err(error) => {
                    let line = error.span().start().line;
                    violations.push(Violation::new(path, line, format!("is not Rust: {error}")));
                }
            }
        }
        sources
    }
}

/// A tree given in the text of a test.
impl<'a> FromIterator<(&'a str, &'a str)> for Tree {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(files: I) -> Self {
        Self { files: files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect() }
    }
}

fn parse(text: &str) -> syn::Result<(TokenStream, syn::File)> {
    let tokens: TokenStream = text.parse()?;
    let syntax = syn::parse2(tokens.clone())?;
    Ok((tokens, syntax))
}

/// The line, from 1, of the first line of `text` that starts with `needle`, or else contains it; 1 if none does.
pub(super) fn line_of(text: &str, needle: &str) -> usize {
    let starts = text.lines().position(|line| line.starts_with(needle));
    starts.or_else(|| text.lines().position(|line| line.contains(needle))).map_or(1, |at| at + 1)
}
