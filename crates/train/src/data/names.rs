//! Names and numbers from an open set: what a model has to copy, because it cannot know it.

use super::rng::Rng;
use std::collections::HashSet;

const CONSONANTS: &[u8] = b"bcdfghjklmnpqrstvwxz";
const VOWELS: &[u8] = b"aeiouy";
const EXTENSIONS: &[&str] = &["txt", "txt", "txt", "csv", "md", "log", "dat"];

/// Words that people name files, columns and keys with; a third of the names are made of them.
const WORDS: &[&str] = &[
    "account", "amount", "april", "archive", "area", "august", "backup", "balance", "batch", "billing",
    "blue", "book", "branch", "budget", "build", "cable", "cargo", "cash", "city", "client", "code",
    "colour", "config", "copper", "cost", "count", "crew", "daily", "data", "date", "delta", "depot", "desk",
    "draft", "east", "energy", "entry", "event", "expense", "export", "farm", "fees", "field", "final",
    "fleet", "freight", "fuel", "garden", "gate", "green", "grid", "group", "harbour", "hours", "house",
    "income", "index", "input", "invoice", "iron", "item", "january", "july", "june", "kitchen", "label",
    "lamp", "ledger", "level", "limit", "list", "load", "lunar", "main", "march", "market", "master",
    "material", "meter", "mill", "mode", "month", "north", "notes", "number", "office", "oil", "order",
    "output", "owner", "paper", "parts", "pay", "place", "plan", "plant", "port", "price", "prices", "pump",
    "quota", "rate", "rates", "record", "red", "region", "rent", "report", "result", "river", "road", "room",
    "route", "sales", "score", "seed", "sensor", "serial", "shift", "ship", "shop", "size", "south", "speed",
    "staff", "start", "station", "stock", "stone", "store", "street", "sugar", "supply", "table", "tank",
    "task", "tax", "team", "temp", "timber", "total", "totals", "track", "trade", "train", "unit", "units",
    "user", "value", "water", "week", "weight", "west", "wheat", "wind", "wood", "yard", "year", "zone",
];

/// Words that the expert's thoughts say for themselves: a name made of one is easily confused with what stands beside it.
const SAID: &[&str] = &[
    "start", "code", "next", "sum", "multiply", "in", "set", "to", "replace", "by", "find", "read", "write",
    "list", "or", "and", "minus", "plus", "larger", "same", "first", "found", "folder", "check", "from",
    "now", "end", "line",
];
/// Most letters of a name in which letters repeat.
const N_REPEATED_MAX: usize = 7;

/// Names that no other name of the same world equals.
#[derive(Debug, Default)]
pub struct Names<'a> {
    used: HashSet<String>,
    /// In the order in which they were given.
    given: Vec<String>,
    pieces: Option<&'a [String]>,
}

impl<'a> Names<'a> {
    /// Names of a task as training sees it where there are `pieces`: one in four is hard to copy, since it is made of
    /// those pieces, its parts repeat, it is like a name that was given before, or it is a word of the expert's own
    /// thoughts.
    #[must_use]
    pub fn new(pieces: Option<&'a [String]>) -> Self {
        Self { pieces, ..Self::default() }
    }

    /// A bare name, given once: syllables, letters or a word, sometimes with digits, `_` or `-`.
    pub fn name(&mut self, rng: &mut Rng) -> String {
        loop {
            let name = self.candidate(rng);
            if self.used.insert(name.clone()) {
                self.given.push(name.clone());
                return name;
            }
        }
    }

    fn candidate(&self, rng: &mut Rng) -> String {
        let Some(pieces) = self.pieces.filter(|_| rng.one_in(4)) else { return fresh_name(rng) };
        match (rng.below(8), self.given.is_empty()) {
            (4.., _) if !pieces.is_empty() => pieced(pieces, rng),
            (0, _) => repeated(rng),
            (1, _) => (*rng.pick(SAID)).to_owned(),
            (2, false) => format!("{}{}", rng.pick(&self.given), letters(rng)),
            (3, false) => neighbour(&rng.pick(&self.given).clone(), rng),
            _ => {
                let part = rng.pick(WORDS);
                format!("{part}{}{part}", rng.pick(&["", "_", "-"]))
            }
        }
    }

    /// A file name with an extension.
    pub fn file(&mut self, rng: &mut Rng) -> String {
        let extension = rng.pick(EXTENSIONS);
        self.file_of(rng, extension)
    }

    /// A file name with this extension, which is given without its point.
    pub fn file_of(&mut self, rng: &mut Rng, extension: &str) -> String {
        format!("{}.{extension}", self.name(rng))
    }

    /// A path: a file, one time in four in a folder.
    pub fn path(&mut self, rng: &mut Rng) -> String {
        let file = self.file(rng);
        if !rng.one_in(4) {
            return file;
        }
        let stem = file.split('.').next().unwrap_or(&file);
        let is_alike = self.pieces.is_some() && rng.one_in(6);
        if is_alike { format!("{stem}/{file}") } else { format!("{}/{file}", self.name(rng)) }
    }

    /// A key as records have them, given once: a name, or capitals and digits with or without a dash.
    pub fn key(&mut self, rng: &mut Rng) -> String {
        loop {
            let key = match rng.below(3) {
                0 => fresh_name(rng),
                1 => format!("{}-{}", upper(rng, 2), digits(rng, 3)),
                _ => format!("{}{}", upper(rng, 3), digits(rng, 2)),
            };
            if self.used.insert(key.clone()) {
                return key;
            }
        }
    }
}

/// Whether many names begin with this word, being made of it, or of syllables like it: it may stand anywhere, so
/// it gets no token for one place alone.
#[must_use]
pub fn begins_names(word: &str) -> bool {
    let is_syllable = match word.as_bytes() {
        [first, second] => CONSONANTS.contains(first) && VOWELS.contains(second),
        _ => false,
    };
    is_syllable || WORDS.contains(&word)
}

fn fresh_name(rng: &mut Rng) -> String {
    let stem = match rng.below(10) {
        0..=3 => syllables(rng),
        4..=5 => letters(rng),
        6..=7 => (*rng.pick(WORDS)).to_owned(),
        8 => format!("{}_{}", rng.pick(WORDS), syllables(rng)),
        _ => format!("{}-{}", syllables(rng), rng.pick(WORDS)),
    };
    match rng.below(6) {
        0 => format!("{stem}{}", rng.within(1, 99)),
        1 => format!("{stem}_{}", rng.within(1, 2030)),
        _ => stem,
    }
}

fn syllables(rng: &mut Rng) -> String {
    let mut name = String::new();
    for _ in 0..rng.within(2, 3) {
        name.push(*rng.pick(CONSONANTS) as char);
        name.push(*rng.pick(VOWELS) as char);
    }
    if rng.one_in(3) {
        name.push(*rng.pick(CONSONANTS) as char);
    }
    name
}

fn letters(rng: &mut Rng) -> String {
    (0..rng.within(2, 6)).map(|_| (b'a' + rng.below(26) as u8) as char).collect()
}

/// One to three pieces, so that none of the tokenizer's is too rare to be copied.
fn pieced(pieces: &[String], rng: &mut Rng) -> String {
    let between = *rng.pick(&["", "", "", "_", "-"]);
    let chosen: Vec<&str> = (0..rng.within(1, 3)).map(|_| rng.pick(pieces).as_str()).collect();
    chosen.join(between)
}

/// A few letters, each of which often comes twice in a row.
fn repeated(rng: &mut Rng) -> String {
    let few: Vec<char> = (0..2).map(|_| (b'a' + rng.below(26) as u8) as char).collect();
    (0..rng.within(3, N_REPEATED_MAX)).map(|_| *rng.pick(&few)).collect()
}

/// The name with one of its letters or digits another one, or written twice.
fn neighbour(name: &str, rng: &mut Rng) -> String {
    let mut chars: Vec<char> = name.chars().collect();
    let at = rng.below(chars.len());
    match chars[at] {
        char if rng.one_in(2) => chars.insert(at, char),
        char if char.is_ascii_digit() => chars[at] = (b'0' + rng.below(10) as u8) as char,
        char if char.is_ascii_alphabetic() => chars[at] = (b'a' + rng.below(26) as u8) as char,
        char => chars.insert(at, char),
    }
    chars.into_iter().collect()
}

fn upper(rng: &mut Rng, n: usize) -> String {
    (0..n).map(|_| (b'A' + rng.below(26) as u8) as char).collect()
}

/// `n` decimal digits, the first of them not zero.
pub fn digits(rng: &mut Rng, n: usize) -> String {
    (0..n).map(|i| (b'0' + rng.within(usize::from(i == 0), 9) as u8) as char).collect()
}

/// How the numbers of one list look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberKind {
    /// Whole numbers of one to `n_digits` digits.
    Whole {
        /// Most digits.
        n_digits: usize,
    },
    /// Prices: two decimals.
    Cents {
        /// Most digits before the point.
        n_digits: usize,
    },
}

impl NumberKind {
    /// A random kind of up to four digits; one in three has two decimals.
    pub fn random(rng: &mut Rng) -> Self {
        let n_digits = rng.within(1, 4);
        if rng.one_in(3) { Self::Cents { n_digits } } else { Self::Whole { n_digits } }
    }

    /// A number of this kind in digits, not zero.
    pub fn number(self, rng: &mut Rng) -> String {
        match self {
            Self::Whole { n_digits } => some_digits(rng, n_digits),
            Self::Cents { n_digits } => {
                format!("{}.{}{}", some_digits(rng, n_digits), rng.below(10), rng.within(1, 9))
            }
        }
    }
}

fn some_digits(rng: &mut Rng, n_max: usize) -> String {
    let n = rng.within(1, n_max);
    digits(rng, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_training_are_made_of_every_piece_and_all_differ() {
        let pieces = ["how", "pare", "qqz"].map(str::to_owned);
        let (mut names, mut plain, mut rng) = (Names::new(Some(&pieces)), Names::new(None), Rng::at(5, 0));
        let drawn: Vec<String> = (0..2_000).map(|_| names.name(&mut rng)).collect();
        let distinct: HashSet<&String> = drawn.iter().collect();
        assert_eq!(distinct.len(), drawn.len());
        for piece in &pieces {
            let n = drawn.iter().filter(|name| name.contains(piece.as_str())).count();
            assert!(n > 20, "{piece} stands in {n} names");
        }
        assert!((0..500).all(|_| !plain.name(&mut rng).contains("qqz")));
    }
}
