//! Is the model going round in circles? Calls with the same or nearly the same arguments and the same result.

use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, VecDeque};

/// Same calls after which the model is reminded, and again after as many more.
pub const REMIND_AT: usize = 3;
/// Same calls after which the run stops.
pub const STOP_AT: usize = 12;
/// Calls that are looked back on.
const WINDOW: usize = 36;
/// Share of words, in percent, that texts have in common which are nearly the same.
const NEAR_PERCENT: usize = 75;

/// Words of a call's sentences that are looked at.
const N_WORDS_MAX: usize = 256;

/// What tells a call from another one.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    exact: [u8; 32],
    near: Option<Near>,
}

/// What tells a call from another one if nearly the same is the same.
#[derive(Debug, Clone)]
struct Near {
    /// Tool, keys, values that are no sentences, and the result without the words of the arguments, which many
    /// results repeat.
    fixed: [u8; 32],
    /// Words of sentences, each with its key.
    words: BTreeSet<String>,
}

impl Fingerprint {
    /// Case, blanks and the order of keys do not tell calls apart. A call that changed nothing is also the same as
    /// one that is nearly the same: what changed something may well be meant to change it a little more.
    #[must_use]
    pub fn new(name: &str, arguments: &str, result: &str, changed_nothing: bool) -> Self {
        let parsed = serde_json::from_str::<serde_json::Value>(arguments).map(|mut value| {
            value.sort_all_objects();
            value
        });
        let text = parsed.as_ref().map_or_else(|_| arguments.to_owned(), ToString::to_string);
        let text: String = text.to_lowercase().replace("\\n", "").split_whitespace().collect();
        let exact = hash([name, text.as_str(), result]);
        let object = parsed.as_ref().ok().and_then(serde_json::Value::as_object).filter(|_| changed_nothing);
        Self { exact, near: object.map(|object| Near::new(name, object, result)) }
    }

    fn is_like(&self, other: &Self) -> bool {
        let is_near =
            self.near.as_ref().zip(other.near.as_ref()).is_some_and(|(near, other)| near.is_like(other));
        self.exact == other.exact || is_near
    }
}

impl Near {
    fn new(name: &str, arguments: &serde_json::Map<String, serde_json::Value>, result: &str) -> Self {
        let (mut fixed, mut words, mut all) = (vec![name.to_owned()], BTreeSet::new(), BTreeSet::new());
        for (key, value) in arguments {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            all.extend(words_of(&text));
            fixed.push(key.clone());
            if text.trim().contains(char::is_whitespace) {
                words.extend(words_of(&text).map(|word| format!("{key} {word}")));
            } else {
                fixed.push(text.trim().to_lowercase());
            }
        }
        words = words.into_iter().take(N_WORDS_MAX).collect();
        fixed.extend(words_of(result).filter(|word| !all.contains(word)));
        Self { fixed: hash(fixed.iter().map(String::as_str)), words }
    }

    fn is_like(&self, other: &Self) -> bool {
        let n_common = self.words.intersection(&other.words).count();
        let n_all = self.words.union(&other.words).count();
        self.fixed == other.fixed && n_common * 100 >= n_all * NEAR_PERCENT
    }
}

/// Fingerprints of the newest calls.
#[derive(Debug, Clone, Default)]
pub struct Repeats {
    newest: VecDeque<Fingerprint>,
}

impl Repeats {
    /// Keeps a call. After one that changed something, and is not itself made again, it is right to look again at
    /// what was looked at before.
    pub fn add(&mut self, call: Fingerprint, has_changed: bool) {
        if has_changed && self.count(&call) == 1 {
            self.newest.retain(|it| it.near.is_none());
        }
        self.newest.push_back(call);
        if self.newest.len() > WINDOW {
            self.newest.pop_front();
        }
    }

    /// How often such a call has been made among the newest, this time included.
    #[must_use]
    pub fn count(&self, call: &Fingerprint) -> usize {
        self.newest.iter().filter(|it| it.is_like(call)).count() + 1
    }
}

fn words_of(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(arguments: &str, result: &str) -> Fingerprint {
        Fingerprint::new("search_files", arguments, result, true)
    }

    fn count(before: &Fingerprint, now: &Fingerprint) -> usize {
        let mut repeats = Repeats::default();
        repeats.add(before.clone(), false);
        repeats.count(now)
    }

    #[test]
    fn case_blanks_and_order_do_not_tell_calls_apart() {
        let before = search(r#"{"query":"Red  Fox","path":"a"}"#, "none");
        assert_eq!(count(&before, &search(r#"{"path":"a", "query":"red fox "}"#, "none")), 2);
        assert_eq!(count(&before, &search(r#"{"path":"a","query":"red fox"}"#, "a:1: red fox")), 1);
        assert_eq!(count(&before, &search(r#"{"path":"b","query":"red fox"}"#, "none")), 1);
    }

    #[test]
    fn a_question_in_other_words_is_nearly_the_same() {
        let told =
            |query: &str| search(&format!(r#"{{"query":"{query}"}}"#), &format!("no line holds {query}"));
        let before = told("where is the red fox's den");
        assert_eq!(count(&before, &told("the red fox's den, where is it")), 2);
        assert_eq!(count(&before, &told("where is the brown bear's cave")), 1);
        assert_eq!(count(&before, &told("where")), 1);
        let found =
            search(r#"{"query":"the red fox's den, where is it"}"#, "a.txt:3: the den is under the oak");
        assert_eq!(count(&before, &found), 1);
    }

    #[test]
    fn names_numbers_and_changes_tell_calls_apart() {
        let read = |path: &str, from: u64| {
            let arguments = format!(r#"{{"path":"{path}","from":{from}}}"#);
            Fingerprint::new("read_file", &arguments, "the file is empty", true)
        };
        assert_eq!(count(&read("a/very/deep/folder/one.txt", 1), &read("a/very/deep/folder/two.txt", 1)), 1);
        assert_eq!(count(&read("a.txt", 1), &read("a.txt", 11)), 1);
        let write = |text: &str| {
            let arguments = format!(r#"{{"path":"a.txt","text":"{text}"}}"#);
            Fingerprint::new("write_file", &arguments, "written", false)
        };
        let (draft, better) = ("one two three four five six", "one two three four five seven");
        assert_eq!(count(&write(draft), &write(better)), 1);
        assert_eq!(count(&write(draft), &write(draft)), 2);
    }

    #[test]
    fn after_a_change_it_is_right_to_look_again() {
        let look = search(r#"{"path":"a.txt"}"#, "1: one");
        let edit = |n: u32| Fingerprint::new("edit_file", &format!("{{\"n\":{n}}}"), "edited", false);
        let after = |edits: &[u32]| {
            let mut repeats = Repeats::default();
            for n in edits {
                repeats.add(look.clone(), false);
                repeats.add(edit(*n), true);
            }
            (repeats.count(&look), repeats.count(&edit(edits[0])))
        };
        assert_eq!(after(&[1, 2, 3, 4]), (1, 2));
        // Who makes the same change again and again goes in a circle.
        assert_eq!(after(&[1, 1, 1, 1]), (4, 5));
        let mut repeats = Repeats::default();
        (0..3).for_each(|_| repeats.add(look.clone(), false));
        repeats.add(edit(1), false);
        assert_eq!(repeats.count(&look), 4, "a change that failed changed nothing");
    }

    #[test]
    fn what_is_long_ago_is_forgotten() {
        let mut repeats = Repeats::default();
        let call = |n: usize| Fingerprint::new("t", &n.to_string(), "", true);
        (0..=WINDOW).for_each(|n| repeats.add(call(n), false));
        assert_eq!(repeats.count(&call(0)), 1);
        assert_eq!(repeats.count(&call(1)), 2);
    }
}
