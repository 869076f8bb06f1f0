//! Text that teaches to copy: sentences, records, JSON and walks whose every answer stands in sight.

use super::Family;
use super::costumes;
use super::forms::{self, Split};
use super::names::{Names, NumberKind};
use super::phrasing::lettered;
use super::rng::Rng;
use serde_json::Value;
use std::fmt::Write;

/// One piece of text; all of it is to be learned.
#[must_use]
pub fn text(rng: &mut Rng) -> String {
    match rng.below(10) {
        0 => repeats(rng),
        1 => lookups(rng),
        2 => json_fields(rng),
        3 => walk(rng),
        4 => running_list(rng),
        5 => columns(rng),
        6 => declarations(rng),
        _ => sentences(rng),
    }
}

/// Most tokens of a piece of [`random_copies`].
const PIECE_TOKENS_MAX: usize = 9;

/// Pieces of random ids below `n_ids`, then each again in another order, twice or more. Half of the pieces are made
/// of few ids, so that what follows a token is told by the ones before it, not by the token alone.
#[must_use]
pub fn random_copies(n_ids: usize, rng: &mut Rng) -> Vec<u32> {
    let id = |rng: &mut Rng| rng.below(n_ids) as u32;
    let few: Vec<u32> = (0..rng.within(3, 10)).map(|_| id(rng)).collect();
    let is_of_few = rng.one_in(2);
    let between = id(rng);
    let mut pieces: Vec<Vec<u32>> = (0..rng.within(2, 9))
        .map(|_| {
            let n = rng.within(2, PIECE_TOKENS_MAX);
            (0..n).map(|_| if is_of_few { *rng.pick(&few) } else { id(rng) }).collect()
        })
        .collect();
    let mut ids = Vec::new();
    for _ in 0..rng.within(2, 4) {
        for piece in &pieces {
            ids.push(between);
            ids.extend(piece);
        }
        rng.shuffle(&mut pieces);
    }
    ids
}

/// Strings, each said twice.
fn repeats(rng: &mut Rng) -> String {
    let mut names = Names::default();
    let mut text = String::new();
    for _ in 0..rng.within(3, 8) {
        let string: Vec<String> = (0..rng.within(1, 5)).map(|_| word(&mut names, rng)).collect();
        let sign = *rng.pick(&[" ", ", ", "/", " | ", "-", ""]);
        let string = string.join(sign);
        let _ = writeln!(text, "{string}\n{string}");
    }
    text
}

/// Records, then some of their keys again with their values.
fn lookups(rng: &mut Rng) -> String {
    let records = records(rng, 3, 14);
    let sign = *rng.pick(&[": ", "=", " = ", ",", " -> ", "\t"]);
    let mut text = String::new();
    for (key, value) in &records {
        let _ = writeln!(text, "{key}{sign}{value}");
    }
    for _ in 0..rng.within(2, 8) {
        let (key, value) = rng.pick(&records);
        let _ = writeln!(text, "? {key}\n{value}");
    }
    text
}

/// A JSON object, then its fields one by one.
fn json_fields(rng: &mut Rng) -> String {
    let mut records = records(rng, 2, 7);
    let field = |(key, value): &(String, String)| format!("\"{key}\":\"{value}\"");
    let all: Vec<String> = records.iter().map(field).collect();
    let mut text = format!("{{{}}}\n", all.join(","));
    rng.shuffle(&mut records);
    for record in &records {
        let _ = writeln!(text, "{} {{{}}}", record.0, field(record));
    }
    text
}

/// Pointers in a random order, then the walk along them.
fn walk(rng: &mut Rng) -> String {
    let mut names = Names::default();
    let stops: Vec<String> = (0..rng.within(3, 12)).map(|_| word(&mut names, rng)).collect();
    let mut pointers: Vec<String> =
        stops.windows(2).map(|pair| format!("{}: next {}", pair[0], pair[1])).collect();
    let last = stops.last().expect("a walk has at least three stops");
    pointers.push(format!("{last}: end"));
    rng.shuffle(&mut pointers);
    format!("{}\nstart {}\n{}\n", pointers.join("\n"), stops[0], stops.join("\n"))
}

/// A numbered list, then its lines one after another with a running total that a tool gives.
fn running_list(rng: &mut Rng) -> String {
    let kind = NumberKind::random(rng);
    let first = rng.within(1, 60);
    let numbers: Vec<String> = (0..rng.within(3, 14)).map(|_| kind.number(rng)).collect();
    let mut text = String::new();
    for (idx, number) in numbers.iter().enumerate() {
        let _ = writeln!(text, "{}: {number}", first + idx);
    }
    let mut total = NumberKind::random(rng).number(rng);
    for (idx, number) in numbers.iter().enumerate() {
        let next = NumberKind::random(rng).number(rng);
        let _ = writeln!(text, "line {}: {number}\n{total}+{number} = {next}", first + idx);
        total = next;
    }
    text
}

/// A table with a header, then its rows up to one column, a letter before each cell.
fn columns(rng: &mut Rng) -> String {
    let mut names = Names::default();
    let n_columns = rng.within(2, 5);
    let header: Vec<String> = (0..n_columns).map(|_| names.name(rng)).collect();
    let column = rng.below(n_columns);
    let rows: Vec<Vec<String>> =
        (0..rng.within(3, 8)).map(|_| (0..n_columns).map(|_| word(&mut names, rng)).collect()).collect();
    let mut text = format!("{}\n", header.join(","));
    for row in &rows {
        let _ = writeln!(text, "{}", row.join(","));
    }
    let _ = writeln!(text, "column {}", lettered(&header[..=column]));
    for row in &rows {
        let _ = writeln!(text, "{}", lettered(&row[..=column]));
    }
    text
}

/// Declared tools, then of each what it is, and of its parameters what was said of them and what they are, by the agent's
/// own names.
fn declarations(rng: &mut Rng) -> String {
    let costumes = costumes::draw(&mut Names::default(), rng);
    let declared: Vec<Value> = costumes
        .iter()
        .filter_map(|it| it.declaration.to_tool().ok())
        .map(|tool| Value::Object(tool.declaration().clone()))
        .collect();
    let mut text = Value::from(declared).to_string() + "\n";
    let mut useful: Vec<_> = costumes.iter().filter(|costume| costume.tool.is_some()).collect();
    rng.shuffle(&mut useful);
    for costume in useful {
        let _ = writeln!(text, "{}", costume.naming());
    }
    text
}

/// Sentences that give tasks, with names filled in, and what each asks for in few words.
fn sentences(rng: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..rng.within(3, 8) {
        let form = forms::draw(*rng.pick(&Family::ALL), Split::Train, rng);
        let mut names = Names::default();
        let (file, file2, out) = (names.path(rng), names.path(rng), names.path(rng));
        let (key, column, folder) = (names.key(rng), names.name(rng), names.name(rng));
        let (value, old, op) = (word(&mut names, rng), names.name(rng), *rng.pick(&["+", "-", "*"]));
        let (left, right) = (NumberKind::random(rng).number(rng), NumberKind::random(rng).number(rng));
        let places = [
            ("file", &file),
            ("file2", &file2),
            ("out", &out),
            ("key", &key),
            ("column", &column),
            ("folder", &folder),
            ("value", &value),
            ("old", &old),
            ("left", &left),
            ("right", &right),
        ];
        let mut places = places.map(|(place, value)| (place, value.as_str())).to_vec();
        places.push(("op", op));
        let _ = writeln!(text, "{}\n{}", forms::fill(&form.phrased(rng), &places), form.plan(&places));
    }
    text
}

fn records(rng: &mut Rng, n_min: usize, n_max: usize) -> Vec<(String, String)> {
    let mut names = Names::default();
    (0..rng.within(n_min, n_max)).map(|_| (names.key(rng), word(&mut names, rng))).collect()
}

/// A name, key, path or number.
fn word(names: &mut Names<'_>, rng: &mut Rng) -> String {
    match rng.below(5) {
        0 => names.key(rng),
        1 => names.path(rng),
        2 => names.name(rng),
        _ => NumberKind::random(rng).number(rng),
    }
}
