//! The sentences that give a task: forms with places for names, from one text file a family.
//!
//! A fifth of the forms is held out: training never sees them, and evaluation reports them apart.

use super::Family;
use super::phrasing;
use super::rng::Rng;
use std::sync::LazyLock;

/// Which forms may be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Forms that training sees.
    Train,
    /// Forms that it never sees.
    HeldOut,
}

/// One sentence form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// The section of the family's file that it stands in: what kind of task it gives.
    pub kind: &'static str,
    /// Whether training may see it.
    pub split: Split,
    /// The sentence, with places such as `{file}`.
    pub text: &'static str,
}

impl Form {
    /// The form as one person might say it: a form that training may see in other words most of the time, one that
    /// is held out as it stands.
    #[must_use]
    pub fn phrased(&self, rng: &mut Rng) -> String {
        match self.split {
            Split::Train => phrasing::varied(self.text, rng),
            Split::HeldOut => self.text.to_owned(),
        }
    }

    /// What the sentence asks for, in the few words that the expert's first thought says it with.
    #[must_use]
    pub fn plan(&self, values: &[(&str, &str)]) -> String {
        let text = match self.kind {
            "list" if self.has("folder") => "list {folder} to {out}",
            "list" => "sum {file} to {out}",
            "column" => "sum {column} of {file} to {out}",
            "product" => "multiply {file} to {out}",
            "trail" => "start {file}, code to {out}",
            "difference" => "{key} in {file} minus {file2} to {out}",
            "total" => "{key} in {file} plus {file2} to {out}",
            "larger" => "{key} in {file} or {file2}, larger to {out}",
            "same" => "{key} in {file} and {file2}, same to {out}",
            "set" => "in {file} set {key} to {value}",
            "replace" => "in {file} replace {old} by {value}",
            "write" => "write {value} to {out}",
            "search" => "find {key} in {file} to {out}",
            "either" => "find {key} in {file} or {file2} to {out}",
            _ if self.has("left") => "calculate {left}{op}{right} to {out}",
            _ => "read {file} to {out}",
        };
        fill(text, values)
    }

    /// Whether the form has this place.
    #[must_use]
    pub fn has(&self, place: &str) -> bool {
        self.text.contains(&format!("{{{place}}}"))
    }
}

/// A form's text with its places filled.
///
/// # Panics
/// When a place is not among `values`: the forms are part of this program, and a test fills all.
#[must_use]
pub fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (place, after) = after.split_once('}').expect("a form closes every place that it opens");
        let value = values.iter().find(|(name, _)| *name == place);
        let (_, value) = value.expect("a task fills every place of its forms");
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled + rest
}

/// All forms of a family.
#[must_use]
pub fn forms(family: Family) -> &'static [Form] {
    static FORMS: LazyLock<[Vec<Form>; Family::ALL.len()]> =
        LazyLock::new(|| Family::ALL.map(|family| parse(text_of(family))));
    &FORMS[family as usize]
}

/// One form of a family, kind by kind equally often.
pub fn draw(family: Family, split: Split, rng: &mut Rng) -> &'static Form {
    let all = forms(family);
    let mut kinds: Vec<&str> = all.iter().map(|form| form.kind).collect();
    kinds.dedup();
    let kind = *rng.pick(&kinds);
    let fitting: Vec<&Form> = all.iter().filter(|form| form.kind == kind && form.split == split).collect();
    fitting[rng.below(fitting.len())]
}

fn text_of(family: Family) -> &'static str {
    match family {
        Family::Sum => include_str!("forms/sum.txt"),
        Family::Trail => include_str!("forms/trail.txt"),
        Family::Compare => include_str!("forms/compare.txt"),
        Family::Edit => include_str!("forms/edit.txt"),
        Family::Choose => include_str!("forms/choose.txt"),
        Family::Recover => include_str!("forms/recover.txt"),
    }
}

fn parse(text: &'static str) -> Vec<Form> {
    let mut kind = "";
    let mut forms = Vec::new();
    for line in text.lines() {
        if let Some(section) = line.strip_prefix('[') {
            kind = section.trim_end_matches(']');
        } else if let Some(text) = line.strip_prefix("- ") {
            forms.push(Form { kind, split: Split::Train, text });
        } else if let Some(text) = line.strip_prefix("* ") {
            forms.push(Form { kind, split: Split::HeldOut, text });
        }
    }
    forms
}
