//! Rank files trained from text against those of Hugging Face tokenizers, and their limits.

use perilune_chat::tokenizer::Tokenizer;
use perilune_chat::tokenizer::train::{TrainError, TrainOptions, train_ranks};

use super::{CORPUS, DIGITS_RANKS, SMALL_RANKS};

const VOCAB_SIZE: usize = 1792 + 256;

fn options(digits_single: bool) -> TrainOptions {
    TrainOptions { vocab_size: VOCAB_SIZE, digits_single, min_count: 1, ..TrainOptions::default() }
}

fn assert_same_file(trained: &[u8], expected: &[u8]) {
    let lines = |file: &[u8]| {
        String::from_utf8(file.to_vec()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (trained, expected) = (lines(trained), lines(expected));
    let differing = trained.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!((differing, trained.len()), (None, expected.len()));
}

#[test]
fn equals_hugging_face() {
    assert_same_file(&train_ranks([CORPUS].into_iter(), &options(false)).unwrap(), SMALL_RANKS);
}

#[test]
fn equals_hugging_face_with_single_digits() {
    assert_same_file(&train_ranks([CORPUS].into_iter(), &options(true)).unwrap(), DIGITS_RANKS);
}

#[test]
fn order_of_texts_does_not_matter() {
    let lines: Vec<&str> = CORPUS.lines().collect();
    let forward = train_ranks(lines.iter().copied(), &options(false)).unwrap();
    let backward = train_ranks(lines.iter().rev().copied(), &options(false)).unwrap();
    assert_same_file(&forward, &backward);
}

#[test]
fn single_digits_encode_one_by_one() {
    let ranks = train_ranks([CORPUS].into_iter(), &options(true)).unwrap();
    let tokenizer = Tokenizer::from_ranks(&ranks, None).unwrap();
    for id in 0..tokenizer.n_ranks() as u32 {
        let token = tokenizer.token_bytes(id).unwrap();
        assert!(token.len() == 1 || !token.iter().any(u8::is_ascii_digit), "{token:?}");
    }
    assert_eq!(tokenizer.encode_ordinary("1234567890").len(), 10);
    assert_eq!(tokenizer.n_vocab(), VOCAB_SIZE);
}

#[test]
fn tokens_keep_to_the_longest_length_and_lowest_count() {
    let options =
        TrainOptions { vocab_size: 512 + 2, max_token_bytes: 2, min_count: 3, ..TrainOptions::default() };
    let text = "ab ab ab cd cd cd xyz xyz";
    let ranks = train_ranks([text].into_iter(), &options).unwrap();
    let tokenizer = Tokenizer::from_ranks(&ranks, None).unwrap();
    assert_eq!(
        (tokenizer.token_bytes(256).unwrap(), tokenizer.token_bytes(257).unwrap()),
        (&b"ab"[..], &b"cd"[..])
    );
    let more = TrainOptions { vocab_size: 512 + 3, ..options };
    assert_eq!(
        train_ranks([text].into_iter(), &more),
        Err(TrainError::TooFewPairs { reached: 514, wanted: 515 })
    );
}

#[test]
fn too_little_text_and_wrong_sizes_are_refused() {
    let few = train_ranks(["ab ab"].into_iter(), &options(false)).unwrap_err();
    assert!(matches!(few, TrainError::TooFewPairs { wanted: VOCAB_SIZE, .. }), "{few}");
    let TrainError::TooFewPairs { reached, .. } = few else { unreachable!() };
    let most = TrainOptions { vocab_size: reached, ..options(false) };
    assert!(train_ranks(["ab ab"].into_iter(), &most).is_ok());
    let none = TrainOptions { vocab_size: 511, ..TrainOptions::default() };
    assert_eq!(train_ranks([""].into_iter(), &none), Err(TrainError::VocabSize(511)));
}
