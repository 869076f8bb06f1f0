//! The worlds of each skill, and their experts.

mod choose;
mod compare;
mod edit;
mod records;
mod recover;
mod sum;
mod trail;

use super::Family;
use super::episode::{Episode, Expert, Files, Goal};
use super::forms::{self, Form, Split};
use super::rng::Rng;
use super::tools::Kit;

/// What is asked of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask<'a> {
    /// The skill.
    pub family: Family,
    /// Which sentences may be drawn.
    pub split: Split,
    /// Numbers to add, files of the trail; other families have their own length. `None` draws it.
    pub n_calls: Option<usize>,
    /// Where there are any, the task is varied as training sees it: its form in other words, and names and numbers
    /// that are hard to copy, some of them made of these pieces; else the form stands as it is listed.
    pub pieces: Option<&'a [String]>,
}

/// The world of an index under a seed: a pure function of what is asked, seed and index.
#[must_use]
pub fn episode(ask: Ask<'_>, seed: u64, index: u64) -> Episode {
    let mut rng = Rng::at(seed, index);
    let form = forms::draw(ask.family, ask.split, &mut rng);
    let phrased = if ask.pieces.is_some() { form.phrased(&mut rng) } else { form.text.to_owned() };
    let draw = Draw { form, phrased, n_calls: ask.n_calls, pieces: ask.pieces };
    match ask.family {
        Family::Sum => sum::episode(&draw, &mut rng),
        Family::Trail => trail::episode(&draw, &mut rng),
        Family::Compare => compare::episode(&draw, &mut rng),
        Family::Edit => edit::episode(&draw, &mut rng),
        Family::Choose => choose::episode(&draw, &mut rng),
        Family::Recover => recover::episode(&draw, &mut rng),
    }
}

/// What has been drawn before the world.
struct Draw<'a> {
    form: &'static Form,
    /// The form in the words of this task, its places open.
    phrased: String,
    n_calls: Option<usize>,
    pieces: Option<&'a [String]>,
}

/// What a family makes.
struct World {
    family: Family,
    files: Files,
    goal: Goal,
    expert: Box<dyn Expert + Send>,
}

impl World {
    fn told(self, draw: &Draw<'_>, places: &[(&str, &str)]) -> Episode {
        Episode {
            family: self.family,
            kind: draw.form.kind,
            split: draw.form.split,
            sentence: forms::fill(&draw.phrased, places),
            files: self.files,
            goal: self.goal,
            tools: Kit::default(),
            expert: self.expert,
        }
    }
}

/// The thought before a value is written: where it stands, where that says more than the value, and where it goes.
fn to_write(shown: &str, value: &str, out: &str) -> String {
    if shown == value { format!("{value} to {out}") } else { format!("{shown}\n{value} to {out}") }
}
