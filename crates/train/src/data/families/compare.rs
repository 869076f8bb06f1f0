//! One key in two files: its values are looked up, and compared by calculation.

use super::records::Records;
use super::{Draw, World, to_write};
use crate::data::Family;
use crate::data::decimal::Decimal;
use crate::data::episode::{Episode, Files, Goal, Script};
use crate::data::names::{Names, NumberKind};
use crate::data::rng::Rng;
use crate::data::steps::{calculate, search, write, wrote};

/// Two files that both know a key.
pub(super) fn episode(draw: &Draw<'_>, rng: &mut Rng) -> Episode {
    let mut names = Names::new(draw.pieces);
    let (file, file2, out) = (names.path(rng), names.path(rng), names.file_of(rng, "txt"));
    let key = names.key(rng);
    let (first, second) = values(draw.form.kind, rng);
    let mut files = Files::new();
    let mut found = Vec::new();
    for (path, value) in [(&file, &first), (&file2, &second)] {
        let mut records = Records::numbers(&mut names, rng, 2, 14);
        let at = records.put(&key, value, rng);
        if records.n_holding(&key) != 1 {
            return episode(draw, rng);
        }
        files.insert(path.clone(), records.text());
        found.push(records.found(path, at));
    }
    let places = [("file", file.as_str()), ("file2", &file2), ("out", &out), ("key", &key)];
    let (operation, said, answer) = conclusion(draw.form.kind, &first, &second, &file, &file2);
    let word = word_for(draw.form.kind);
    let expression = format!("{first}{operation}{second}");
    // What a later turn needs is said again in each: the first value stands out of reach behind the second's.
    let steps = vec![
        search(&key, &file).thinking(&draw.form.plan(&places)),
        search(&key, &file2).thinking(&format!("{}\n{word}, first {first}\nfind {key} in {file2}", found[0])),
        calculate(&expression).thinking(&format!("{}\n{word}, first {first}\n{expression}", found[1])),
        write(&out, &answer).thinking(&to_write(&said, &answer, &out)),
        wrote(&answer, &out),
    ];
    let goal = Goal::file(&out, &answer);
    let world = World { family: Family::Compare, files, goal, expert: Box::new(Script::new(steps)) };
    world.told(draw, &places)
}

/// Two values; equal ones half of the time where equality is asked, never where one has to be larger.
fn values(kind: &str, rng: &mut Rng) -> (String, String) {
    let numbers = NumberKind::random(rng);
    let first = numbers.number(rng);
    if kind == "same" && rng.one_in(2) {
        return (first.clone(), first);
    }
    loop {
        let second = numbers.number(rng);
        if second != first {
            return (first, second);
        }
    }
}

/// What the plan asks for, in the word that each later thought says again.
fn word_for(kind: &str) -> &'static str {
    match kind {
        "difference" => "minus",
        "total" => "plus",
        "larger" => "larger",
        _ => "same",
    }
}

/// Sign of the calculation, thought after it, and what is to be written.
fn conclusion(
    kind: &str,
    first: &str,
    second: &str,
    file: &str,
    file2: &str,
) -> (&'static str, String, String) {
    let (a, b) = (Decimal::parse(first), Decimal::parse(second));
    let result = if kind == "total" { a.plus(b) } else { a.minus(b) };
    let sign = if kind == "total" { "+" } else { "-" };
    let (said, answer) = match kind {
        "larger" if result.is_negative() => (format!("larger, {result} so {file2}"), file2.to_owned()),
        "larger" => (format!("larger, {result} so {file}"), file.to_owned()),
        "same" if result.is_zero() => (format!("same, {result} so yes"), "yes".to_owned()),
        "same" => (format!("same, {result} so no"), "no".to_owned()),
        _ => (result.to_string(), result.to_string()),
    };
    (sign, said, answer)
}
