//! Other words for a sentence form, so that training sees more ways to say a task than there are forms: words of the same
//! meaning in each other's place, quotes, openings, and filler words left out. Held-out forms are never touched.

use super::rng::Rng;

/// Words and short phrases that may stand for each other in a task. The first group that knows a word decides.
const ALIKE: &[&[&str]] = &[
    &["should", "must", "has to", "have to", "ought to", "needs to"],
    &["write", "put", "save", "store", "record", "note", "leave", "keep", "enter"],
    &["total", "sum"],
    &["result", "answer", "figure", "outcome"],
    &["numbers", "values", "amounts", "figures", "entries"],
    &["add up", "sum up", "total", "add together", "add"],
    &["look up", "find", "search for", "look for", "get", "locate", "fetch", "hunt for"],
    &["larger", "bigger", "higher", "greater", "more"],
    &["equal", "the same", "identical", "alike"],
    &["agree", "match"],
    &["difference", "gap", "distance"],
    &["compute", "calculate", "work out", "evaluate", "determine", "figure out"],
    &["change", "alter", "adjust", "modify", "correct", "fix", "edit"],
    &["replace", "swap", "exchange", "substitute"],
    &["verify", "check", "confirm", "double-check", "make sure", "test"],
    &["follow", "trace", "track", "walk", "chase"],
    &["trail", "chain", "path", "line of files"],
    &["last", "final"],
    &["end up", "be found", "arrive"],
    &["end", "last file"],
    &["copy", "transfer", "carry", "bring", "reproduce"],
    &["content", "contents", "text"],
    &["create", "make", "set up"],
    &["names", "mentions", "points to"],
    &["holds", "has", "contains", "lists"],
    &["contain", "hold", "have"],
    &["goes", "belongs", "has to go"],
    &["multiply", "take the product of"],
    &["then", "afterwards", "and then"],
    &["read", "open", "look into", "look at"],
    &["start", "begin"],
    &["both", "each of"],
    &["need", "want", "would like"],
];
/// Words without which a task still says what it asks for.
const FILLERS: &[&str] = &["the", "a", "an", "please", "all", "every", "then", "there"];
/// What people put before a task.
const OPENINGS: &[&str] = &[
    "Hi! ",
    "Hello. ",
    "Next task: ",
    "Task: ",
    "One more thing. ",
    "I have a job for you. ",
    "Could you help? ",
    "Now: ",
    "Please do this: ",
    "When you have time: ",
    "A small job: ",
    "Quick: ",
];
/// What people put behind it.
const CLOSINGS: &[&str] =
    &[" Thanks!", " Thank you.", " That is all.", " Please.", " Be careful.", " No hurry."];
/// Signs around a name.
const QUOTES: &[[&str; 2]] = &[["\"", "\""], ["`", "`"], ["'", "'"], ["“", "”"]];

/// The form with other words for what it says; its places stay, and what stands for them does not change.
#[must_use]
pub fn varied(form: &str, rng: &mut Rng) -> String {
    if rng.one_in(3) {
        return form.to_owned();
    }
    let mut text = alike(form, rng);
    if rng.one_in(3) {
        text = without_filler(&text, rng);
    }
    if rng.one_in(4) && !text.contains(['"', '`']) {
        let [open, close] = *rng.pick(QUOTES);
        text = text.replace('{', &format!("{open}{{")).replace('}', &format!("}}{close}"));
    }
    if rng.one_in(8) {
        text = text.trim_end_matches('.').to_owned();
    } else if rng.one_in(8) {
        text += *rng.pick(CLOSINGS);
    }
    if rng.one_in(6) {
        text = (*rng.pick(OPENINGS)).to_owned() + &text;
    } else if rng.one_in(8) {
        text = lowered(&text);
    }
    text
}

/// Every second phrase that has others like it is said by one of them.
fn alike(form: &str, rng: &mut Rng) -> String {
    let mut text = String::new();
    let mut rest = form;
    let mut is_at_word = true;
    while let Some(first) = rest.chars().next() {
        let known =
            is_at_word.then(|| ALIKE.iter().find_map(|group| Some((group, begins(rest, group)?)))).flatten();
        if let Some((group, len)) = known {
            let said = &rest[..len];
            let other = if rng.one_in(2) { *rng.pick(group) } else { said };
            let is_capital = first.is_uppercase();
            text += &if is_capital { raised(other) } else { other.to_owned() };
            rest = &rest[len..];
            is_at_word = false;
            continue;
        }
        // A place is copied whole: its name may be a word that is known.
        let len = if first == '{' { rest.find('}').map_or(1, |at| at + 1) } else { first.len_utf8() };
        text += &rest[..len];
        rest = &rest[len..];
        is_at_word = !first.is_alphanumeric() && first != '{';
    }
    text
}

/// How much of `text` is a phrase of the group, as a whole word and in any case.
fn begins(text: &str, group: &[&str]) -> Option<usize> {
    let is_phrase = |phrase: &&&str| {
        text.get(..phrase.len()).is_some_and(|start| start.eq_ignore_ascii_case(phrase))
            && !text[phrase.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '-')
    };
    group.iter().filter(is_phrase).map(|phrase| phrase.len()).max()
}

/// The text with one filler in three left out.
fn without_filler(text: &str, rng: &mut Rng) -> String {
    let is_left_out = |word: &str, rng: &mut Rng| FILLERS.contains(&word) && rng.one_in(3);
    let words: Vec<&str> = text.split(' ').filter(|word| !is_left_out(word, rng)).collect();
    words.join(" ")
}

fn raised(phrase: &str) -> String {
    let mut chars = phrase.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn lowered(phrase: &str) -> String {
    let mut chars = phrase.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// What stands before a cell in a thought.
pub(super) fn letter(column_idx: usize) -> char {
    char::from(b'a' + column_idx as u8)
}

/// The first cells of a row, up to the one that counts, each behind its letter.
pub(super) fn lettered(cells: &[String]) -> String {
    let cells: Vec<String> =
        cells.iter().enumerate().map(|(idx, cell)| format!("{} {cell}", letter(idx))).collect();
    cells.join(", ")
}
