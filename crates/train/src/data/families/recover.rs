//! Something goes wrong on the way: a file is elsewhere, a search finds nothing, a tool is busy.

use super::records::Records;
use super::{Draw, World, to_write};
use crate::data::Family;
use crate::data::decimal::Decimal;
use crate::data::episode::{Episode, Files, Goal, Script};
use crate::data::names::{Names, NumberKind};
use crate::data::rng::Rng;
use crate::data::steps::{Step, calculate, list, read, search, write, wrote};
use crate::data::tools::{Fault, Kit};

/// One task with one thing that goes wrong.
pub(super) fn episode(draw: &Draw<'_>, rng: &mut Rng) -> Episode {
    match draw.form.kind {
        "moved" => moved(draw, rng),
        "either" => either(draw, rng),
        _ => busy(draw, rng),
    }
}

/// The file lies in a folder: the listing tells which.
fn moved(draw: &Draw<'_>, rng: &mut Rng) -> Episode {
    let mut names = Names::new(draw.pieces);
    let (file, folder, out) = (names.file(rng), names.name(rng), names.file_of(rng, "txt"));
    let (code, path) = (names.key(rng), format!("{folder}/{file}"));
    let mut files = Files::from([(path.clone(), format!("code: {code}\n"))]);
    for _ in 0..rng.below(4) {
        files.insert(names.file(rng), format!("code: {}\n", names.key(rng)));
    }
    let places = [("file", file.as_str()), ("out", &out)];
    let steps = vec![
        read(&file).thinking(&draw.form.plan(&places)).that_may_fail(),
        list(None).thinking("look around"),
        list(Some(&folder)).thinking(&format!("folder {folder}")),
        read(&path).thinking(&format!("found {path}")),
        write(&out, &code).thinking(&format!("code {code} to {out}")),
        wrote(&code, &out),
    ];
    let goal = Goal::file(&out, &code);
    let world = World { family: Family::Recover, files, goal, expert: Box::new(Script::new(steps)) };
    world.told(draw, &places)
}

/// Only one of two files knows the key.
fn either(draw: &Draw<'_>, rng: &mut Rng) -> Episode {
    let mut names = Names::new(draw.pieces);
    let (file, file2, out) = (names.path(rng), names.path(rng), names.file_of(rng, "txt"));
    let key = names.key(rng);
    let is_first = rng.one_in(4);
    let mut first = Records::numbers(&mut names, rng, 2, 9);
    let mut second = Records::numbers(&mut names, rng, 2, 9);
    let value = NumberKind::random(rng).number(rng);
    let owner = if is_first { &mut first } else { &mut second };
    let at = owner.put(&key, &value, rng);
    let shown = owner.found(if is_first { &file } else { &file2 }, at);
    if [&first, &second].iter().map(|it| it.n_holding(&key)).sum::<usize>() != 1 {
        return either(draw, rng);
    }
    let files = Files::from([(file.clone(), first.text()), (file2.clone(), second.text())]);
    let places = [("file", file.as_str()), ("file2", &file2), ("out", &out), ("key", &key)];
    let mut steps = vec![search(&key, &file).thinking(&draw.form.plan(&places))];
    if !is_first {
        steps.push(search(&key, &file2).thinking(&format!("none\nfind {key} in {file2}")));
    }
    steps.push(write(&out, &value).thinking(&to_write(&shown, &value, &out)));
    steps.push(wrote(&value, &out));
    let goal = Goal::file(&out, &value);
    let world = World { family: Family::Recover, files, goal, expert: Box::new(Script::new(steps)) };
    world.told(draw, &places)
}

/// A tool does not answer at first: the same call again, once or twice.
fn busy(draw: &Draw<'_>, rng: &mut Rng) -> Episode {
    let mut names = Names::new(draw.pieces);
    let (file, out, text) = (names.path(rng), names.file_of(rng, "txt"), names.key(rng));
    let numbers = NumberKind::random(rng);
    let (left, right, sign) = (numbers.number(rng), numbers.number(rng), *rng.pick(&["+", "-"]));
    let is_sum = draw.form.has("left");
    let mut files = Files::new();
    let places = [("file", file.as_str()), ("out", &out), ("left", &left), ("right", &right), ("op", sign)];
    let plan = draw.form.plan(&places);
    let (first, shown, result) = if is_sum {
        let (a, b) = (Decimal::parse(&left), Decimal::parse(&right));
        let result = if sign == "+" { a.plus(b) } else { a.minus(b) }.to_string();
        let expression = format!("{left}{sign}{right}");
        (calculate(&expression).thinking(&plan), result.clone(), result)
    } else {
        files.insert(file.clone(), format!("{text}\n"));
        (read(&file).thinking(&plan), format!("1: {text}"), text)
    };
    let written = write(&out, &result).thinking(&to_write(&shown, &result, &out));
    let (fault, expert) = with_fault(first, written, wrote(&result, &out), rng);
    let goal = Goal::file(&out, &result);
    let world = World { family: Family::Recover, files, goal, expert };
    Episode { tools: Kit { fault: Some(fault), ..Kit::default() }, ..world.told(draw, &places) }
}

fn with_fault(first: Step, written: Step, last: Step, rng: &mut Rng) -> (Fault, Box<Script>) {
    let n_times = rng.within(1, 2);
    let failing = if rng.one_in(3) { &written } else { &first };
    let tool = failing.call.as_ref().expect("both steps call a tool").tool.clone();
    let fault = Fault::draw(&tool, n_times, rng);
    (fault, Box::new(Script::new(vec![first, written, last])))
}
