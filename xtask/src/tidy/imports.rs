//! Who may import whom: every Cargo.toml against the table, dev- and build-dependencies too.

use super::rooms::{PAGE, Rooms, package};
use super::tree::line_of;
use super::{Tree, Violation};
use toml::Table;

pub(super) fn check(tree: &Tree, rooms: &Rooms, violations: &mut Vec<Violation>) {
    for room in &rooms.0 {
        let path = room.manifest();
        match tree.get(&path) {
            None => violations.push(Violation::new(PAGE, room.line, format!("{path} does not exist"))),
            Some(text) => check_manifest(&path, text, &room.package(), &room.may_import, violations),
        }
    }
    for (path, text) in tree.iter().filter(|(path, _)| is_manifest_of_a_crate(path)) {
        if rooms.of_path(path).is_none() {
            violations.push(Violation::new(path, 1, format!("this crate is not in the table of {PAGE}")));
            check_manifest(path, text, "", &[], violations);
        }
    }
    if let Some(text) = tree.get("xtask/Cargo.toml") {
        check_manifest("xtask/Cargo.toml", text, "xtask", &[], violations);
    }
}

fn is_manifest_of_a_crate(path: &str) -> bool {
    path.starts_with("crates/") && path.ends_with("/Cargo.toml")
}

/// One manifest: the package's name, and each of our crates that it imports.
fn check_manifest(path: &str, text: &str, name: &str, allowed: &[String], violations: &mut Vec<Violation>) {
    let manifest: Table = match text.parse() {
        Ok(manifest) => manifest,
        Err(error) => {
            violations.push(Violation::new(path, 1, format!("is not TOML: {}", error.message())));
            return;
        }
    };
    let found = manifest.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str()).unwrap_or("");
    if found != name && !name.is_empty() {
        violations.push(Violation::new(
            path,
            line_of(text, "name"),
            format!("the package is `{name}` by rule"),
        ));
    }
    let allowed: Vec<_> = allowed.iter().map(|folder| package(folder)).collect();
    for (key, import) in imports(&manifest) {
        let ours = import == "perilune" || import.starts_with("perilune-");
        if ours && !allowed.contains(&import) {
            let what = format!("`{found}` may not import `{import}`: see the table in {PAGE}");
            violations.push(Violation::new(path, line_of(text, &key), what));
        }
    }
}

/// (key, package) of every dependency of every kind, also those for one target only.
fn imports(manifest: &Table) -> Vec<(String, String)> {
    let targets = manifest.get("target").and_then(|t| t.as_table());
    let per_target = targets.into_iter().flat_map(Table::values).filter_map(|t| t.as_table());
    std::iter::once(manifest)
        .chain(per_target)
        .flat_map(|scope| {
            ["dependencies", "dev-dependencies", "build-dependencies"].map(|kind| scope.get(kind))
        })
        .filter_map(|kind| kind.and_then(|k| k.as_table()))
        .flatten()
        .map(|(key, spec)| {
            let renamed = spec.get("package").and_then(|p| p.as_str());
            (key.clone(), renamed.unwrap_or(key).to_owned())
        })
        .collect()
}
