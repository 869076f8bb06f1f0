//! `cargo xtask tidy`: the rules of the house, checked on every text file of the repository.
//!
//! The table of crates in ARCHITECTURE.md is the data: what each door says, who may import whom, where
//! `unsafe` may stand. `tests/tidy.rs` runs the same check, and shows each rule a violation.

mod danger;
mod imports;
mod rooms;
mod signs;
mod sizes;
mod tree;
mod words;

use rooms::Rooms;
pub use sizes::{EXCEPTIONS, FILE_LINES_MAX, FUNCTION_LINES_MAX, Length};
use std::fmt;
pub use tree::Tree;

/// One broken rule, where it is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path from the repository root.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// One sentence: what is wrong and what to do.
    pub what: String,
}

/// What one run found.
#[derive(Debug)]
pub struct Report {
    /// Broken rules, in file order.
    pub violations: Vec<Violation>,
    /// Rust files, longest first.
    pub files: Vec<Length>,
    /// Rust functions, longest first.
    pub functions: Vec<Length>,
}

/// Apply every rule to `tree`; a file that is no Rust is a violation, not an error.
pub fn check(tree: &Tree) -> Report {
    let mut violations = Vec::new();
    let sources = tree.rust_sources(&mut violations);
    match Rooms::read(tree) {
        Ok(rooms) => {
            imports::check(tree, &rooms, &mut violations);
            danger::check_unsafe(tree, &sources, &rooms, &mut violations);
            signs::check(tree, &rooms, &mut violations);
        }
        Err(violation) => violations.push(violation),
    }
    danger::check_macros(&sources, &mut violations);
    words::check(tree, &mut violations);
    let (files, functions) = (sizes::files(tree), sizes::functions(&sources));
    sizes::check(tree, &files, &functions, &mut violations);
    violations.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Report { violations, files, functions }
}

impl Violation {
    fn new(path: &str, line: usize, what: String) -> Self {
        Self { path: path.to_owned(), line, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// How many of the longest files and functions a report lists.
const LONGEST_LISTED: usize = 10;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "longest files (limit {FILE_LINES_MAX} lines)")?;
        self.files.iter().take(LONGEST_LISTED).try_for_each(|length| writeln!(f, "  {length}"))?;
        writeln!(f, "longest functions (limit {FUNCTION_LINES_MAX} lines)")?;
        self.functions.iter().take(LONGEST_LISTED).try_for_each(|length| writeln!(f, "  {length}"))?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "{violation}"))?;
        match self.violations.len() {
            0 => writeln!(f, "tidy"),
            n => writeln!(f, "{n} broken rules"),
        }
    }
}
