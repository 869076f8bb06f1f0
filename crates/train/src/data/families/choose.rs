//! A short task with tools whose names and parameters stand in their declarations only.

use super::records::Records;
use super::{Draw, World, to_write};
use crate::data::Family;
use crate::data::costumes;
use crate::data::decimal::Decimal;
use crate::data::episode::{Episode, Files, Goal, Script};
use crate::data::names::{Names, NumberKind};
use crate::data::rng::Rng;
use crate::data::steps::{Step, calculate, list, read, search, write, wrote};
use crate::data::tools::Kit;

/// One to two calls with renamed tools.
pub(super) fn episode(draw: &Draw<'_>, rng: &mut Rng) -> Episode {
    let mut names = Names::new(draw.pieces);
    let (file, out, folder) = (names.path(rng), names.file_of(rng, "txt"), names.name(rng));
    let (key, numbers) = (names.key(rng), NumberKind::random(rng));
    let (left, right, op) = (numbers.number(rng), numbers.number(rng), *rng.pick(&["+", "-", "*"]));
    let mut files = Files::new();
    let mut value = names.key(rng);
    // The call that finds the value, and how its result shows it.
    let (first, shown): (Option<Step>, String) = match draw.form.kind {
        "copy" => {
            files.insert(file.clone(), format!("{value}\n"));
            (Some(read(&file)), format!("1: {value}"))
        }
        "calculate" => {
            value = result(&left, op, &right);
            (Some(calculate(&format!("{left}{op}{right}"))), value.clone())
        }
        "search" => {
            let mut records = Records::numbers(&mut names, rng, 2, 9);
            value = numbers.number(rng);
            let at = records.put(&key, &value, rng);
            if records.n_holding(&key) != 1 {
                return episode(draw, rng);
            }
            files.insert(file.clone(), records.text());
            (Some(search(&key, &file)), records.found(&file, at))
        }
        "list" => {
            value = names.file(rng);
            files.insert(format!("{folder}/{value}"), format!("{}\n", names.key(rng)));
            (Some(list(Some(&folder))), value.clone())
        }
        _ => (None, String::new()),
    };
    let places = [
        ("file", file.as_str()),
        ("out", &out),
        ("folder", &folder),
        ("key", &key),
        ("value", &value),
        ("left", &left),
        ("right", &right),
        ("op", op),
    ];
    let plan = draw.form.plan(&places);
    let kit = Kit { costumes: costumes::draw(&mut names, rng), fault: None };
    // What the tool is to do, which it is and what its parameters are is said before the call, apart from their values.
    let naming = |step: Step, thought: &str| {
        let tool = step.call.as_ref().map_or("", |call| call.tool.as_str());
        let costume = kit.costumes.iter().find(|it| it.tool == Some(tool));
        let naming = costume.expect("every tool of the expert has a costume").naming();
        step.thinking(&format!("{thought}\n{naming}"))
    };
    let written = write(&out, &value);
    let mut steps = match first {
        Some(first) => {
            vec![naming(first, &plan), naming(written, &to_write(&shown, &value, &out))]
        }
        None => vec![naming(written, &plan)],
    };
    steps.push(wrote(&value, &out));
    let goal = Goal::file(&out, &value);
    let world = World { family: Family::Choose, files, goal, expert: Box::new(Script::new(steps)) };
    Episode { tools: kit, ..world.told(draw, &places) }
}

fn result(left: &str, op: &str, right: &str) -> String {
    let (a, b) = (Decimal::parse(left), Decimal::parse(right));
    match op {
        "+" => a.plus(b),
        "-" => a.minus(b),
        _ => a.times(b),
    }
    .to_string()
}
