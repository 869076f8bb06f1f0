//! What the soak's model sets out to do: one call a step, each known beforehand with its result.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The file of effects: only edits that must happen once change it.
pub(crate) const LEDGER: &str = "ledger.txt";
/// Its last line, before which each effect is entered.
const END: &str = "(end of the ledger)";
/// Bytes before the first effect: they make an edit long enough to be killed in its middle.
const FILLER_BYTES: usize = 1 << 20;
/// Each so many steps change the ledger.
pub(crate) const EFFECT_EVERY: usize = 3;
/// Files that are written over and over.
const N_FILES: usize = 5;

/// A source of choices from a seed (splitmix64).
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0, below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// A call and what its result must hold.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) arguments: Value,
    pub(crate) expected: String,
}

/// All steps of a run.
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: Vec<Step>,
    /// The files as they must be at the end.
    pub(crate) files: BTreeMap<String, String>,
    /// Effects that must happen once.
    pub(crate) n_effects: usize,
}

/// What nothing but one step would write.
fn mark(seed: u64, step: usize) -> String {
    format!("{:016x}", Random::new(seed ^ ((step as u64) << 32)).next())
}

pub(crate) fn filler() -> String {
    let line = "an old line of the ledger that nobody has asked about for a long time\n";
    format!("{}{END}\n", line.repeat(FILLER_BYTES / line.len()))
}

impl Plan {
    pub(crate) fn new(seed: u64, n_steps: usize) -> Self {
        let files = BTreeMap::from([(LEDGER.to_owned(), filler())]);
        let mut plan = Self { seed, steps: Vec::new(), files, n_effects: 0 };
        for number in 0..n_steps {
            let step = match number {
                0 => plan.read(LEDGER, "an old line"),
                _ if number % EFFECT_EVERY == 1 => plan.effect(number),
                _ => plan.other(number),
            };
            plan.steps.push(step);
        }
        plan
    }

    fn effect(&mut self, number: usize) -> Step {
        let line = format!("effect {number} {}", mark(self.seed, number));
        let ledger = self.files.entry(LEDGER.to_owned()).or_default();
        *ledger = ledger.replacen(END, &format!("{line}\n{END}"), 1);
        self.n_effects += 1;
        let arguments = json!({"path": LEDGER, "old": END, "new": format!("{line}\n{END}")});
        Step { name: "edit_file", arguments, expected: format!("edited {LEDGER}") }
    }

    fn other(&mut self, number: usize) -> Step {
        let mut random = Random::new(self.seed.rotate_left(17) ^ number as u64);
        match random.below(5) {
            0 | 1 => {
                let path = format!("out/{}.txt", random.below(N_FILES));
                let text = format!("step {number}\n{}\n", mark(self.seed, number));
                self.files.insert(path.clone(), text.clone());
                let expected = format!("wrote {path}");
                Step { name: "write_file", arguments: json!({"path": path, "text": text}), expected }
            }
            2 => {
                let expression = format!("{number} * 17 + 3");
                let expected = (number * 17 + 3).to_string();
                Step { name: "calculate", arguments: json!({"expression": expression}), expected }
            }
            3 => {
                let path = self.files.keys().nth(random.below(self.files.len())).cloned();
                let path = path.unwrap_or_else(|| LEDGER.to_owned());
                let text = self.files[&path].lines().next().unwrap_or_default().to_owned();
                self.read(&path, &text)
            }
            _ => {
                let last = (number - 1) / EFFECT_EVERY * EFFECT_EVERY + 1;
                let query = mark(self.seed, last);
                let expected = format!("effect {last} {query}");
                let arguments = json!({"query": query, "path": LEDGER});
                Step { name: "search_files", arguments, expected }
            }
        }
    }

    fn read(&self, path: &str, holds: &str) -> Step {
        Step { name: "read_file", arguments: json!({"path": path}), expected: format!("1: {holds}") }
    }
}
