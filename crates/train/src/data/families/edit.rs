//! A line changed in a file, and the file read again.

use super::records::Records;
use super::{Draw, World};
use crate::data::Family;
use crate::data::episode::{Episode, Files, Goal, Script};
use crate::data::names::{Names, NumberKind};
use crate::data::rng::Rng;
use crate::data::steps::{answer, edit, read};

/// A file of records, one of which gets another value.
pub(super) fn episode(draw: &Draw<'_>, rng: &mut Rng) -> Episode {
    let mut names = Names::new(draw.pieces);
    let file = names.path(rng);
    let mut records = Records::numbers(&mut names, rng, 1, 7);
    for idx in 0..records.lines.len() {
        if rng.one_in(2) {
            records.lines[idx].1 = names.name(rng);
        }
    }
    let (key, old, value) = (names.key(rng), new_value(&mut names, rng), new_value(&mut names, rng));
    let at = records.put(&key, &old, rng);
    let before = records.text();
    let old_line = records.line(at);
    records.lines[at].1.clone_from(&value);
    let (after, new_line) = (records.text(), records.line(at));
    // A word is replaced where it stands once; else the line that begins with the key is.
    let is_word = draw.form.kind == "replace";
    let (passage, passage_new) = if is_word { (&old, &value) } else { (&old_line, &new_line) };
    if before.matches(passage.as_str()).count() != 1
        || after.matches(passage_new.as_str()).count() != 1
        || old == value
    {
        return episode(draw, rng);
    }
    let places = [("file", file.as_str()), ("key", &key), ("old", &old), ("value", &value)];
    let steps = vec![
        read(&file).thinking(&draw.form.plan(&places)),
        edit(&file, passage, passage_new).thinking(&format!("from {passage}\nto {passage_new}")),
        read(&file).thinking(&format!("check {file}")),
        answer(&format!("{file} says {passage_new}.")).thinking(&format!("now {passage_new}")),
    ];
    let files = Files::from([(file.clone(), before)]);
    let goal = Goal::file(&file, &after);
    let world = World { family: Family::Edit, files, goal, expert: Box::new(Script::new(steps)) };
    world.told(draw, &places)
}

/// A name, or a number of three digits or more, so that it seldom stands in another number.
fn new_value(names: &mut Names<'_>, rng: &mut Rng) -> String {
    if rng.one_in(2) {
        return names.name(rng);
    }
    loop {
        let number = NumberKind::random(rng).number(rng);
        if number.len() > 2 {
            return number;
        }
    }
}
