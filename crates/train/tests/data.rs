//! Worlds, experts and sequences, held to what they promise.
#![allow(clippy::unwrap_used)]

use perilune_agent::context::Profile;
use perilune_chat::message::{Arguments, Message};
use perilune_chat::tokenizer::Tokenizer;
use perilune_train::data::Family;
use perilune_train::data::episode::{Episode, Files};
use perilune_train::data::families::{Ask, episode};
use perilune_train::data::forms::{Split, forms};
use perilune_train::data::names::{Names, NumberKind};
use perilune_train::data::rng::Rng;
use perilune_train::data::sample::{self, Noise, Stretch};
use perilune_train::data::session::{Counter, SharedCounter};
use perilune_train::data::stream::{Stage, Stream};
use perilune_train::data::vocabulary::{SEED, VOCAB_SIZE, corpus, train_vocabulary};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn tokenizer_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/tokenizer")
}

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_dir(&tokenizer_folder()).unwrap())
}

fn counter() -> SharedCounter {
    Arc::new(Counter::new(tokenizer()))
}

fn asks() -> impl Iterator<Item = Ask<'static>> {
    let splits = [Split::Train, Split::HeldOut];
    Family::ALL
        .into_iter()
        .flat_map(move |family| splits.map(|split| Ask { family, split, n_calls: None, pieces: Some(&[]) }))
}

fn played(
    mut episode: Episode,
    noise: Noise,
    rng: &mut Rng,
    counter: &SharedCounter,
) -> (Files, Files, Vec<Stretch>) {
    let mut stretches = Vec::new();
    let agent = Profile::embedded();
    let session =
        sample::play(&mut episode, &agent, counter, noise, rng, &mut |stretch| stretches.push(stretch))
            .unwrap();
    (session.files_before().clone(), session.files().unwrap(), stretches)
}

#[test]
fn the_expert_reaches_every_goal() {
    let counter = counter();
    for ask in asks() {
        for index in 0..16 {
            let episode = episode(ask, 11, index);
            let (goal, sentence) = (episode.goal.clone(), episode.sentence.clone());
            let noise = Noise { wrong_call_percent: 5 };
            let (before, after, _) = played(episode, noise, &mut Rng::at(12, index), &counter);
            let judged = goal.judge(&before, &after);
            assert_eq!(judged, Ok(()), "seed 11, index {index}, {}: {sentence}", ask.family.name());
        }
    }
}

#[test]
fn the_judge_sees_a_wrong_digit_a_missing_file_and_a_stray_one() {
    for ask in asks() {
        let episode = episode(ask, 13, 5);
        let mut right = episode.files.clone();
        right.extend(episode.goal.files.clone());
        assert_eq!(episode.goal.judge(&episode.files, &right), Ok(()));
        let (path, text) = episode.goal.files.first_key_value().unwrap();
        let last = text.trim_end().chars().last().unwrap();
        let other = if last == '7' { "8" } else { "7" };
        let mut wrong = right.clone();
        wrong.insert(path.clone(), format!("{}{other}", text.trim_end().strip_suffix(last).unwrap()));
        assert!(episode.goal.judge(&episode.files, &wrong).is_err(), "{text} with another end");
        let mut missing = right.clone();
        missing.remove(path);
        assert!(episode.goal.judge(&episode.files, &missing).is_err());
        right.insert("stray.txt".to_owned(), String::new());
        assert!(episode.goal.judge(&episode.files, &right).is_err());
    }
}

/// Words and numbers of a text.
fn atoms(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|atom| !atom.is_empty())
}

/// What the model must know without seeing it: the words of verdicts, and the neutral elements of a sum and a product.
const KNOWN: [&str; 4] = ["yes", "no", "0", "1"];

#[test]
fn everything_in_a_call_stands_in_sight() {
    let counter = counter();
    for ask in asks() {
        for index in 0..12 {
            let episode = episode(ask, 17, index);
            let (_, _, stretches) = played(episode, Noise::NONE, &mut Rng::at(18, index), &counter);
            let place = format!("seed 17, index {index}, {}", ask.family.name());
            for stretch in &stretches {
                check_sight(stretch, &place);
                if ask.family == Family::Sum {
                    check_letters(stretch, &place);
                }
            }
        }
    }
}

fn check_sight(stretch: &Stretch, place: &str) {
    let mut seen = String::new();
    let mut weights = stretch.has_weight.iter();
    for message in stretch.conversation.messages() {
        match message {
            Message::System { text, .. } | Message::User { text, .. } => seen += text,
            Message::ToolResult(result) => seen += &result.text,
            Message::Assistant(turn) => {
                let has_weight = *weights.next().unwrap();
                for call in turn.tool_calls.iter().filter(|_| has_weight) {
                    let Arguments::Text(arguments) = &call.arguments else { unreachable!("calls are text") };
                    let values: serde_json::Map<String, serde_json::Value> =
                        serde_json::from_str(arguments).unwrap();
                    let visible: HashSet<&str> = atoms(&seen).collect();
                    for value in values.values().map(ToString::to_string) {
                        let missing = atoms(&value).find(|it| !visible.contains(it) && !KNOWN.contains(it));
                        assert_eq!(missing, None, "{place}: {arguments} in\n{seen}");
                    }
                }
                seen += &format!("\n{}\n", turn.reasoning);
            }
        }
        seen.push('\n');
    }
}

/// The letter of the last cell in a line of a thought: before the cell, or alone before a page is read.
fn letter(line: &str) -> Option<char> {
    let cell = line.rsplit(", ").next()?;
    let cell = cell.split_once(": ").map_or(cell, |(_, cell)| cell);
    let mut chars = cell.chars();
    let letter = chars.next().filter(char::is_ascii_lowercase)?;
    matches!(chars.next(), None | Some(' ')).then_some(letter)
}

/// Where a row ends is copied from an earlier thought, or found by the column's name in the header.
fn check_letters(stretch: &Stretch, place: &str) {
    let mut thoughts = String::new();
    let mut weights = stretch.has_weight.iter();
    for message in stretch.conversation.messages() {
        let Message::Assistant(turn) = message else { continue };
        let has_weight = *weights.next().unwrap();
        let (before, row) = turn.reasoning.rsplit_once('\n').unwrap_or(("", &turn.reasoning));
        thoughts = format!("{thoughts}{before}\n");
        if let Some(letter_of_row) = letter(row).filter(|_| has_weight) {
            let is_in_sight = thoughts.lines().any(|line| letter(line) == Some(letter_of_row));
            assert!(is_in_sight, "{place}: {row} behind\n{thoughts}");
        }
        thoughts = format!("{thoughts}{row}\n");
    }
}

#[test]
fn every_turn_fits_into_a_reply() {
    let policy = Profile::embedded().policy;
    let stream =
        Stream::new(Stage::Turns, 5, false, policy.budget_tokens + policy.reply_tokens_max, tokenizer());
    for index in 0..300 {
        let weights = stream.draw(index).unwrap().loss_weights;
        let longest = weights.split(|&weight| weight == 0.0).map(<[f32]>::len).max().unwrap();
        assert!(longest <= policy.reply_tokens_max, "index {index}: a turn of {longest} tokens");
    }
}

#[test]
fn each_family_has_its_forms_and_a_fifth_is_held_out() {
    for family in Family::ALL {
        let all = forms(family);
        let texts: HashSet<&str> = all.iter().map(|form| form.text).collect();
        assert_eq!(texts.len(), all.len(), "{} has a form twice", family.name());
        let n_held_out = all.iter().filter(|form| form.split == Split::HeldOut).count();
        assert!(all.len() >= 50, "{} has {} forms", family.name(), all.len());
        assert!(n_held_out * 6 >= all.len() && n_held_out * 4 <= all.len(), "{n_held_out} of {}", all.len());
        assert_eq!(Family::named(family.name()), Some(family));
    }
}

#[test]
fn a_stream_is_a_function_of_its_index_and_fits() {
    let policy = Profile::embedded().policy;
    let n_ids_max = policy.budget_tokens + policy.reply_tokens_max;
    for stage in [Stage::Text, Stage::Episodes, Stage::Turns, Stage::ShortTurns] {
        let stream = Stream::new(stage, 3, false, n_ids_max, tokenizer());
        let again = Stream::new(stage, 3, false, n_ids_max, tokenizer());
        let held_out = Stream::new(stage, 3, true, n_ids_max, tokenizer());
        for index in (0..60).chain([1 << 40]) {
            let sequence = stream.draw(index).unwrap();
            assert_eq!(sequence, again.draw(index).unwrap(), "{stage:?}, index {index}");
            assert_ne!(sequence, held_out.draw(index).unwrap());
            assert_eq!(sequence.ids.len(), sequence.loss_weights.len());
            assert!(
                sequence.ids.len() <= n_ids_max && sequence.ids.iter().all(|&id| (id as usize) < VOCAB_SIZE)
            );
            assert!(sequence.loss_weights.contains(&1.0), "{stage:?}, index {index}: nothing to learn");
        }
        let short = Stream::new(stage, 3, false, 300, tokenizer());
        assert!((0..20).all(|index| short.draw(index).unwrap().ids.len() <= 300));
    }
}

#[test]
fn a_stream_holds_every_kind_of_task() {
    let tokenizer = tokenizer();
    let stream = Stream::new(Stage::Episodes, 1, false, 1_024, Arc::clone(&tokenizer));
    let texts: Vec<String> =
        (0..400).map(|index| tokenizer.decode(&stream.draw(index).unwrap().ids)).collect();
    let plans = [
        ["<think>sum ", " of ", " to "],
        ["<think>sum ", ".", " to "],
        ["<think>multiply ", ".", " to "],
        ["<think>start ", ".", ", code to "],
        ["<think>", " minus ", " to "],
        ["<think>", " plus ", " to "],
        ["<think>", " or ", ", larger to "],
        ["<think>", " and ", ", same to "],
        ["<think>in ", " set ", " to "],
        ["<think>in ", " replace ", " by "],
        ["<think>write ", "", " to "],
        ["<think>list ", "", " to "],
        ["<think>calculate ", "", " to "],
        ["<think>find ", " or ", " to "],
        ["<think>find ", " in ", " to "],
        ["<think>read ", ".", " to "],
    ];
    for plan in plans {
        let says = |thought: &str| {
            let places = plan.iter().map(|part| format!("<think>{thought}").find(part));
            places.is_sorted() && plan.iter().all(|part| format!("<think>{thought}").contains(part))
        };
        let thoughts = texts
            .iter()
            .flat_map(|text| text.split("<think>").skip(1))
            .filter_map(|it| it.split("</think>").next());
        assert!(thoughts.into_iter().any(says), "no task of 400 is begun with {plan:?}");
    }
}

#[test]
fn turns_begin_with_thinking_and_end_with_their_mark() {
    let tokenizer = tokenizer();
    let marks = tokenizer.markers();
    let stream = Stream::new(Stage::Turns, 4, false, 2_000, tokenizer.clone());
    for index in 0..60 {
        let sequence = stream.draw(index).unwrap();
        let weight = |at: usize| sequence.loss_weights[at];
        for at in 1..sequence.ids.len() {
            if weight(at) == 1.0 && weight(at - 1) == 0.0 {
                assert_eq!(sequence.ids[at], marks.think_begin, "index {index}, token {at}");
                assert_eq!(sequence.ids[at - 1], marks.im_middle, "index {index}, token {at}");
            }
            if weight(at) == 0.0 && weight(at - 1) == 1.0 {
                assert_eq!(sequence.ids[at - 1], marks.im_end, "index {index}, token {at}");
            }
        }
        assert_eq!(*sequence.ids.last().unwrap(), marks.im_end);
    }
}

/// A model that is schooled further keeps its vocabulary: the one beside the recipes is the embedded model's, made by this
/// code from the sentences of the first schooling. A vocabulary of today's sentences has as many ranks, other ones.
#[test]
fn the_vocabulary_beside_the_recipes_is_the_embedded_models() {
    let committed = std::fs::read(tokenizer_folder().join("tiktoken.model")).unwrap();
    let embedded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../perilune/embedded/tiktoken.model");
    assert!(committed == std::fs::read(embedded).unwrap());
    let today = train_vocabulary(&corpus(SEED).unwrap()).unwrap();
    let n_ranks = |ranks: &[u8]| ranks.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(n_ranks(&today), n_ranks(&committed));
}

#[test]
fn a_name_has_the_same_tokens_wherever_it_stands() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.n_vocab(), VOCAB_SIZE);
    let mut rng = Rng::at(21, 0);
    let (mut n_names, mut n_same) = (0, 0);
    for _ in 0..2_000 {
        let name = Names::default().path(&mut rng);
        let bare = tokenizer.encode_ordinary(&name);
        let contains =
            |text: String| tokenizer.encode_ordinary(&text).windows(bare.len()).any(|part| part == bare);
        n_names += 1;
        let places = [format!("see {name} next"), format!("\"path\":\"{name}\"}}"), format!("`{name}`")];
        n_same += usize::from(places.into_iter().all(contains));
    }
    assert!(n_same * 100 >= n_names * 99, "{n_same} of {n_names} names keep their tokens");
    for _ in 0..200 {
        let number = NumberKind::random(&mut rng).number(&mut rng);
        assert_eq!(tokenizer.encode_ordinary(&number).len(), number.len(), "{number}");
    }
}
