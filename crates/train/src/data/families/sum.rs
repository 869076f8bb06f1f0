//! Numbers in a file, added or multiplied one by one; the running result is the last thing that the tool said, or
//! stands in the last thought.
//!
//! Each thought repeats the line that was taken last and the one that comes next, as the page shows them: what
//! follows is copied from behind what went before, not counted. Of a table's rows it says the number of the one and
//! writes out the other with a letter before each cell, up to the column's; that letter stands in the thought before,
//! at a page's turn too. A page that is out of sight is read again from the line that was taken last.

use super::{Draw, World};
use crate::data::Family;
use crate::data::decimal::Decimal;
use crate::data::episode::{Episode, Expert, Files, Goal};
use crate::data::names::{Names, NumberKind};
use crate::data::phrasing::{letter, lettered};
use crate::data::rng::Rng;
use crate::data::steps::{Call, Step, calculate, read, read_from, write, wrote};
use perilune_agent::context::words;
use perilune_chat::message::Message;
use serde_json::Value;

/// Most numbers that are drawn where none are asked for.
const N_NUMBERS_MAX: usize = 26;
/// Most factors of a product that are drawn where none are asked for.
const N_FACTORS_MAX: usize = 20;
/// Greatest of the factors that make a product long, and how many of them a product has at most.
const WIDE: usize = 999;
const N_WIDE_MAX: usize = 10;
/// Factors that end a product in zeros.
const ROUND: &[usize] = &[2, 4, 5, 8, 10, 20, 25, 50];
/// Most digits of a term in which digits repeat.
const N_HARD_DIGITS_MAX: usize = 7;
/// Most columns of a table.
const N_COLUMNS_MAX: usize = 4;
/// Most columns up to the one that is added.
const N_SHOWN_MAX: usize = 3;

/// A list or a table, and its total.
pub(super) fn episode(draw: &Draw<'_>, rng: &mut Rng) -> Episode {
    let mut names = Names::new(draw.pieces);
    let is_product = draw.form.kind == "product";
    let n_max = if is_product { N_FACTORS_MAX } else { N_NUMBERS_MAX };
    let n = draw.n_calls.map_or_else(|| rng.within(2, n_max), |n| n.max(1));
    let numbers = numbers(is_product, n, draw.pieces.is_some(), rng);
    let extension =
        if draw.form.kind == "column" { "csv" } else { *rng.pick(&["txt", "txt", "csv", "dat", "md"]) };
    let (file, out) = (names.file_of(rng, extension), names.file_of(rng, "txt"));
    let (list, column) = match draw.form.kind {
        "column" => table(&numbers, &mut names, rng),
        _ => (plain(&numbers), String::new()),
    };
    let start = Decimal::whole(i128::from(is_product));
    let total = numbers.iter().map(|it| Decimal::parse(it)).fold(start, |total, number| match is_product {
        true => total.times(number),
        false => total.plus(number),
    });
    let goal = Goal::file(&out, &total.to_string());
    let files = Files::from([(file.clone(), list.text.clone())]);
    let places = [("file", file.as_str()), ("out", &out), ("column", &column)];
    let adder = Adder {
        plan: draw.form.plan(&places),
        list,
        numbers,
        file: file.clone(),
        out: out.clone(),
        is_product,
        at: 0,
        total: start,
        page_from: 1,
        is_written: false,
    };
    let world = World { family: Family::Sum, files, goal, expert: Box::new(adder) };
    world.told(draw, &places)
}

fn numbers(is_product: bool, n: usize, is_varied: bool, rng: &mut Rng) -> Vec<String> {
    let is_hard = is_varied && rng.one_in(3);
    if is_hard {
        return if is_product { hard_factors(n, rng) } else { hard_terms(n, rng) };
    }
    if is_product {
        let mut factor = || {
            let high = *rng.pick(&[9, 9, 25]);
            rng.within(2, high).to_string()
        };
        return (0..n).map(|_| factor()).collect();
    }
    let kind = NumberKind::random(rng);
    (0..n).map(|_| kind.number(rng)).collect()
}

/// Factors whose products are long after few of them, or hold many zeros.
fn hard_factors(n: usize, rng: &mut Rng) -> Vec<String> {
    let is_wide = n <= N_WIDE_MAX && rng.one_in(2);
    let mut factor = || if is_wide { rng.within(2, WIDE) } else { *rng.pick(ROUND) };
    (0..n).map(|_| factor().to_string()).collect()
}

/// Numbers made of two digits, each of which often comes twice in a row.
fn hard_terms(n: usize, rng: &mut Rng) -> Vec<String> {
    let (first, second) = (rng.within(1, 9), rng.below(10));
    let n_digits = rng.within(2, N_HARD_DIGITS_MAX);
    let mut term = || {
        let n_more = rng.within(1, n_digits - 1);
        (0..n_more).fold(first.to_string(), |term, _| term + &rng.pick(&[first, second]).to_string())
    };
    (0..n).map(|_| term()).collect()
}

/// A file of numbers, and how its rows show in a thought.
struct List {
    text: String,
    /// For each number, its line in the file.
    line_of: Vec<usize>,
    /// For each number, how thoughts show its line.
    shown: Vec<Shown>,
    /// The line above the first number, where there is one.
    header: Option<String>,
    /// What a thought says of the column, where there is one, before a page is read.
    column: String,
}

/// A line in a thought.
struct Shown {
    /// When its number is taken.
    taken: String,
    /// When the next one's is.
    before: String,
}

fn plain(numbers: &[String]) -> List {
    List {
        text: numbers.iter().map(|number| format!("{number}\n")).collect(),
        line_of: (1..=numbers.len()).collect(),
        shown: (1..).zip(numbers).map(|(line, number)| twice(format!("{line}: {number}"))).collect(),
        header: None,
        column: String::new(),
    }
}

fn twice(line: String) -> Shown {
    Shown { before: line.clone(), taken: line }
}

/// A table with the numbers in one column, and that column's name.
fn table(numbers: &[String], names: &mut Names<'_>, rng: &mut Rng) -> (List, String) {
    let n_columns = rng.within(2, N_COLUMNS_MAX);
    let target = rng.below(n_columns.min(N_SHOWN_MAX));
    let header: Vec<String> = (0..n_columns).map(|_| names.name(rng)).collect();
    let kinds: Vec<usize> = (0..n_columns).map(|_| rng.below(3)).collect();
    let mut cells = |kind: usize, rng: &mut Rng| match kind {
        0 => names.name(rng),
        1 => format!("{}-{:02}-{:02}", rng.within(2019, 2027), rng.within(1, 12), rng.within(1, 28)),
        _ => NumberKind::Whole { n_digits: 3 }.number(rng),
    };
    let mut text = header.join(",") + "\n";
    let mut shown = Vec::new();
    for (idx, number) in numbers.iter().enumerate() {
        let mut row: Vec<String> = kinds.iter().map(|&kind| cells(kind, rng)).collect();
        row[target].clone_from(number);
        text += &(row.join(",") + "\n");
        let line = idx + 2;
        let taken = format!("{line}: {}", lettered(&row[..=target]));
        shown.push(Shown { taken, before: line.to_string() });
    }
    let list = List {
        text,
        line_of: (2..numbers.len() + 2).collect(),
        shown,
        header: Some(format!("1: {}", lettered(&header[..=target]))),
        column: format!(", {}", letter(target)),
    };
    (list, header[target].clone())
}

/// The expert: takes line after line from what is in sight.
struct Adder {
    plan: String,
    list: List,
    numbers: Vec<String>,
    file: String,
    out: String,
    is_product: bool,
    /// Numbers taken so far.
    at: usize,
    total: Decimal,
    /// First line of the page that was read last.
    page_from: usize,
    is_written: bool,
}

impl Expert for Adder {
    fn next(&mut self, visible: &[Message]) -> Step {
        let total = self.total.to_string();
        if self.is_written {
            return wrote(&total, &self.out);
        }
        let sight = Sight::of(visible, &self.list.text);
        let last = self.list.text.lines().count();
        let Some(line) = self.list.line_of.get(self.at).copied() else {
            return match sight.shows(last) {
                true => {
                    let thought = format!("{} {total} to {}", words::PAGE_END, self.out);
                    write(&self.out, &total).thinking(&self.after_last(&thought))
                }
                false => self.again(last),
            };
        };
        if sight.shows(line) {
            return self.take(&total);
        }
        match self.at.checked_sub(1).map(|before| self.list.line_of[before]) {
            None => read(&self.file).thinking(&self.plan),
            Some(before) if sight.shows(before) => {
                let thought = format!("{} {total}{}", words::page_more(last, line), self.list.column);
                read_from(&self.file, line).thinking(&self.after_last(&thought))
            }
            Some(before) => self.again(before),
        }
    }

    fn settle(&mut self, call: &Call, is_done: bool) {
        if !is_done {
            return;
        }
        if call.tool == "read_file" {
            self.page_from =
                call.arguments.get("from").and_then(Value::as_u64).map_or(1, |from| from as usize);
        }
        let total = self.total.to_string();
        if self.at < self.numbers.len() && self.take(&total).call.as_ref() == Some(call) {
            let number = Decimal::parse(&self.numbers[self.at]);
            self.total = if self.is_product { self.total.times(number) } else { self.total.plus(number) };
            self.at += 1;
        }
        let written = write(&self.out, &total);
        self.is_written =
            self.is_written || (self.at == self.numbers.len() && written.call.as_ref() == Some(call));
    }
}

impl Adder {
    fn take(&self, total: &str) -> Step {
        let sign = if self.is_product { '*' } else { '+' };
        let is_first_of_page = self.list.line_of[self.at] == self.page_from;
        let next = &self.list.shown[self.at].taken;
        let thought = if is_first_of_page { next.clone() } else { self.after_last(next) };
        calculate(&format!("{total}{sign}{}", self.numbers[self.at])).thinking(&thought)
    }

    /// A thought's last line, behind the line that was taken last or stands above the first.
    fn after_last(&self, line: &str) -> String {
        let last = match self.at.checked_sub(1) {
            Some(before) => Some(&self.list.shown[before].before),
            None => self.list.header.as_ref(),
        };
        last.map_or_else(|| line.to_owned(), |last| format!("{last}\n{line}"))
    }

    /// The page is out of sight: it is read again from the last line that was taken.
    fn again(&self, line: usize) -> Step {
        read_from(&self.file, line)
            .thinking(&format!("{}, again from {line}{}", self.total, self.list.column))
    }
}

/// Which lines of a file the visible results show.
struct Sight {
    shown: Vec<bool>,
}

impl Sight {
    fn of(visible: &[Message], text: &str) -> Self {
        let lines: Vec<String> =
            (1..).zip(text.lines()).map(|(number, line)| format!("{number}: {line}")).collect();
        let results = visible.iter().filter_map(|message| match message {
            Message::ToolResult(result) => Some(result.text.as_str()),
            _ => None,
        });
        let seen: std::collections::HashSet<&str> = results.flat_map(str::lines).collect();
        Self { shown: lines.iter().map(|line| seen.contains(line.as_str())).collect() }
    }

    fn shows(&self, line: usize) -> bool {
        self.shown[line - 1]
    }
}
