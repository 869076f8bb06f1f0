//! The table of crates in ARCHITECTURE.md, read as data.

use super::{Tree, Violation};

/// Where the table stands.
pub(super) const PAGE: &str = "ARCHITECTURE.md";

const HEADER: [&str; 6] = ["crate", "door sign", "may import (ours)", "must never know", "async", "unsafe"];

/// The rooms of the house, in table order.
pub(super) struct Rooms(pub(super) Vec<Room>);

/// One crate under `crates/`.
pub(super) struct Room {
    /// Folder name: `kernels`.
    pub(super) folder: String,
    /// The question that the crate answers, and the first line of its docs.
    pub(super) sign: String,
    /// Folder names of the crates it may depend on.
    pub(super) may_import: Vec<String>,
    /// Whether `unsafe` may stand here.
    pub(super) may_be_unsafe: bool,
    /// Line of the row in the page.
    pub(super) line: usize,
}

impl Rooms {
    /// Read the table; a page without it, or a row that cannot be read, is a violation.
    pub(super) fn read(tree: &Tree) -> Result<Self, Violation> {
        let page = tree.get(PAGE).ok_or_else(|| Violation::new(PAGE, 1, "is missing".into()))?;
        let mut lines = page.lines().enumerate().skip_while(|(_, line)| cells(line) != HEADER);
        if lines.next().is_none() {
            let what = format!("has no table with the header | {} |", HEADER.join(" | "));
            return Err(Violation::new(PAGE, 1, what));
        }
        let rows = lines.skip(1).take_while(|(_, line)| line.starts_with('|'));
        let rows: Vec<_> = rows.map(|(at, line)| (at + 1, cells(line))).collect();
        let names: Vec<_> = rows.iter().map(|(_, row)| unquote(row[0]).to_owned()).collect();
        rows.iter().map(|(line, row)| Room::read(*line, row, &names)).collect::<Result<_, _>>().map(Self)
    }

    /// The room whose folder holds `path`.
    pub(super) fn of_path(&self, path: &str) -> Option<&Room> {
        let folder = path.strip_prefix("crates/")?.split('/').next()?;
        self.0.iter().find(|room| room.folder == folder)
    }
}

impl Room {
    fn read(line: usize, row: &[&str], names: &[String]) -> Result<Self, Violation> {
        let wrong = |what: String| Violation::new(PAGE, line, what);
        let &[folder, sign, may_import, _never, _async, danger] = row else {
            return Err(wrong(format!("this row has {} cells, the table has {}", row.len(), HEADER.len())));
        };
        let may_import = match may_import {
            "none" => Vec::new(),
            "all" => names.to_vec(),
            list => list.split(", ").map(|name| unquote(name).to_owned()).collect(),
        };
        if let Some(stranger) = may_import.iter().find(|name| !names.contains(name)) {
            return Err(wrong(format!("`{stranger}` is no crate of this table; write none, all or a list")));
        }
        let may_be_unsafe = match danger {
            "only here" => true,
            "forbid" => false,
            other => return Err(wrong(format!("unsafe is `only here` or `forbid`, not `{other}`"))),
        };
        Ok(Self {
            folder: unquote(folder).to_owned(),
            sign: sign.to_owned(),
            may_import,
            may_be_unsafe,
            line,
        })
    }

    /// The package in this folder; the binary alone has no prefix.
    pub(super) fn package(&self) -> String {
        package(&self.folder)
    }

    /// Path of its manifest.
    pub(super) fn manifest(&self) -> String {
        format!("crates/{}/Cargo.toml", self.folder)
    }
}

/// Package name of a folder under `crates/`.
pub(super) fn package(folder: &str) -> String {
    if folder == "perilune" { folder.to_owned() } else { format!("perilune-{folder}") }
}

fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

fn unquote(cell: &str) -> &str {
    cell.trim_matches('`')
}
