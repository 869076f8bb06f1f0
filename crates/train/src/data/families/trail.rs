//! A trail of files: each names the next, the last holds a code.

use super::{Draw, World};
use crate::data::Family;
use crate::data::episode::{Episode, Files, Goal, Script};
use crate::data::names::Names;
use crate::data::rng::Rng;
use crate::data::steps::{Step, read, write, wrote};

/// How a file names the next one.
const POINTERS: &[&str] = &[
    "next: {}",
    "Next file: {}",
    "Go on to {}",
    "The trail goes on in {}",
    "See {}",
    "Open {} now.",
    "-> {}",
    "Read \"{}\" next.",
    "continue in {}",
    "Then look at `{}`.",
    "{} comes next",
    "to: {}",
];
/// How the last file says its code.
const CODES: &[&str] =
    &["code: {}", "The code is {}", "end of the trail, code {}", "Code {}", "You are there. code: {}"];
/// Lines that say nothing.
const ASIDES: &[&str] = &[
    "Nothing else here.",
    "The wind was from the west.",
    "notes",
    "Day 3, rain.",
    "(kept for the record)",
    "Please keep this file.",
    "old copy",
    "The lamp was out again.",
];
/// Longest trail that is drawn where none is asked for: enough for the context to fold more than once.
const N_FILES_MAX: usize = 36;

/// A trail of files, one a call.
pub(super) fn episode(draw: &Draw<'_>, rng: &mut Rng) -> Episode {
    let mut names = Names::new(draw.pieces);
    let n_files = draw.n_calls.unwrap_or_else(|| rng.within(2, N_FILES_MAX)).max(1);
    let paths: Vec<String> = (0..n_files).map(|_| names.path(rng)).collect();
    let (code, out) = (names.key(rng), names.file_of(rng, "txt"));
    let mut files = Files::new();
    for (idx, path) in paths.iter().enumerate() {
        let line = match paths.get(idx + 1) {
            Some(next) => rng.pick(POINTERS).replace("{}", next),
            None => rng.pick(CODES).replace("{}", &code),
        };
        files.insert(path.clone(), with_asides(line, rng));
    }
    let places = [("file", paths[0].as_str()), ("out", &out)];
    let plan = draw.form.plan(&places);
    let hop = |(idx, path): (usize, &String)| match idx {
        0 => read(path).thinking(&plan),
        _ => read(path).thinking(&format!("next {path}")),
    };
    let mut steps: Vec<Step> = paths.iter().enumerate().map(hop).collect();
    steps.push(write(&out, &code).thinking(&format!("code {code} to {out}")));
    steps.push(wrote(&code, &out));
    let goal = Goal::file(&out, &code);
    let world = World { family: Family::Trail, files, goal, expert: Box::new(Script::new(steps)) };
    world.told(draw, &places)
}

fn with_asides(line: String, rng: &mut Rng) -> String {
    let mut lines = vec![line];
    if rng.one_in(4) {
        let aside = (*rng.pick(ASIDES)).to_owned();
        lines.insert(rng.below(2), aside);
    }
    lines.join("\n") + "\n"
}
