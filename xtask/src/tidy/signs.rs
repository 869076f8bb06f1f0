//! The sign on each door: the first line of a crate's docs is the question that ARCHITECTURE.md says it answers.

use super::rooms::{PAGE, Room, Rooms};
use super::tree::line_of;
use super::{Tree, Violation};

pub(super) fn check(tree: &Tree, rooms: &Rooms, violations: &mut Vec<Violation>) {
    for room in &rooms.0 {
        check_door(tree, room, violations);
        let path = room.manifest();
        let description = format!("description = \"{}\"", room.sign);
        if let Some(text) = tree.get(&path).filter(|text| text.lines().all(|line| line != description)) {
            let what = format!("its description must be the sign in {PAGE}: {}", room.sign);
            violations.push(Violation::new(&path, line_of(text, "description"), what));
        }
    }
}

fn check_door(tree: &Tree, room: &Room, violations: &mut Vec<Violation>) {
    let doors = ["lib.rs", "main.rs"].map(|file| format!("crates/{}/src/{file}", room.folder));
    let mut doors = doors.iter().filter_map(|path| Some((path, tree.get(path)?))).peekable();
    if doors.peek().is_none() {
        let what = format!("crates/{} has neither src/lib.rs nor src/main.rs", room.folder);
        violations.push(Violation::new(PAGE, room.line, what));
    }
    let want = format!("//! {}", room.sign);
    for (path, text) in doors {
        if text.lines().next() != Some(&want) {
            violations.push(Violation::new(
                path,
                1,
                format!("the first line must be the sign in {PAGE}: {want}"),
            ));
        }
    }
}
