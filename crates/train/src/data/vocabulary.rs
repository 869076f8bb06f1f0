//! The small model's rank file, trained on rendered text so that a name has the same tokens wherever it stands.
//!
//! Pair merging alone would join a space, a quote or an underscore with the first letters of the word behind it,
//! and then ` tilo` and `"tilo` share no token with `tilo`: a copy would no longer be a copy. So merges are first
//! trained on letters apart from what stands before them; then the most frequent *whole* words of prose get one
//! more token each with their leading sign (` the`, `_file`). Digits stay single.

use super::Family;
use super::families::{self, Ask};
use super::forms::Split;
use super::names::begins_names;
use super::pretrain;
use super::rng::Rng;
use super::sample::{self, Noise};
use super::session::{SessionError, SharedCounter};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use perilune_agent::context::{Bytes, Policy, Profile};
use perilune_chat::tokenizer::train::{TrainError, TrainOptions, train_ranks};
use perilune_chat::tokenizer::{Tokenizer, TokenizerError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The seed of the vocabulary that stands beside the recipes.
pub const SEED: u64 = 1;
/// V of the small model: ranks and 256 special ids.
pub const VOCAB_SIZE: usize = 2048;
/// Of these, whole words with their leading sign.
const N_JOINED: usize = 224;
/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16;
/// A pair, or a word with its sign, that occurs less often gets no token.
const COUNT_MIN: u64 = 3;

/// Why the rank file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VocabularyError {
    /// The texts are too few.
    #[error("the vocabulary could not be trained: {0}")]
    Train(#[from] TrainError),
    /// The ranks do not load.
    #[error("the trained ranks do not load: {0}")]
    Load(#[from] TokenizerError),
    /// Fewer frequent words than places for them.
    #[error("the texts hold {n_found} frequent words, {N_JOINED} are wanted; give more text")]
    TooFewWords {
        /// Words found.
        n_found: usize,
    },
}

/// The bytes of a rank file (as `tiktoken.model`: base64 and rank, one a line) for [`VOCAB_SIZE`] ids, trained on these
/// texts; a pure function of them.
///
/// # Errors
/// [`VocabularyError`]: the texts are too few.
pub fn train_vocabulary(texts: &[String]) -> Result<Vec<u8>, VocabularyError> {
    let options = TrainOptions {
        vocab_size: VOCAB_SIZE - N_JOINED,
        digits_single: true,
        min_count: COUNT_MIN,
        max_token_bytes: TOKEN_BYTES_MAX,
    };
    let may_merge =
        |fragment: &&str| is_prose(fragment) || !fragment.starts_with(|c: char| c.is_ascii_alphabetic());
    let fragments_of_all = texts.iter().flat_map(|text| fragments(text)).filter(may_merge);
    let mut ranks = train_ranks(fragments_of_all, &options)?;
    let letters = Tokenizer::from_ranks(&ranks, None)?;
    let joined = frequent_words(texts, &letters);
    if joined.len() < N_JOINED {
        return Err(VocabularyError::TooFewWords { n_found: joined.len() });
    }
    for (place, word) in joined[..N_JOINED].iter().enumerate() {
        ranks.extend(format!("{} {}\n", STANDARD.encode(word), letters.n_ranks() + place).into_bytes());
    }
    Ok(ranks)
}

/// The text cut before every word: a run of ASCII letters without the sign before it.
fn fragments(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let is_cut = move |&at: &usize| bytes[at].is_ascii_alphabetic() != bytes[at - 1].is_ascii_alphabetic();
    let cuts = (1..bytes.len()).filter(move |at| text.is_char_boundary(*at)).filter(is_cut);
    let mut from = 0;
    cuts.chain([bytes.len()]).map(move |to| {
        let fragment = &text[from..to];
        from = to;
        fragment
    })
}

/// Words of one token with the sign before them, the most frequent first.
fn frequent_words(texts: &[String], letters: &Tokenizer) -> Vec<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for text in texts {
        let mut at = 0;
        for fragment in fragments(text) {
            let is_word = is_prose(fragment) && !begins_names(fragment);
            if is_word && at > 0 && is_sign(text.as_bytes()[at - 1]) {
                *counts.entry(&text[at - 1..at + fragment.len()]).or_default() += 1;
            }
            at += fragment.len();
        }
    }
    let is_one = |word: &str| letters.encode_ordinary(&word[1..]).len() == 1;
    let mut frequent: Vec<_> =
        counts.into_iter().filter(|(word, count)| *count >= COUNT_MIN && is_one(word)).collect();
    frequent.sort_by_key(|(word, count)| (std::cmp::Reverse(*count), *word));
    frequent.into_iter().map(|(word, _)| word.to_owned()).collect()
}

/// A word of prose: keys have capitals only, and capitals of a key stay single.
fn is_prose(fragment: &str) -> bool {
    fragment.len() > 1 && fragment.ends_with(|last: char| last.is_ascii_lowercase())
}

/// Signs that the pre-tokenisation pattern takes into the word behind them, as far as prose uses them.
fn is_sign(byte: u8) -> bool {
    matches!(byte, b' ' | b'_')
}

/// Episodes whose text trains the vocabulary.
const N_EPISODES: u64 = 1_800;
/// Room of those episodes' contexts, in tokens as the agent estimates them from bytes.
const ROOM_TOKENS: usize = 4_000;

/// The texts that the vocabulary of the small model is trained on: stretches of episodes, and text of the first stage.
///
/// # Errors
/// [`SessionError`]: an episode cannot be played here.
pub fn corpus(seed: u64) -> Result<Vec<String>, SessionError> {
    let embedded = Profile::embedded();
    let policy = Policy { budget_tokens: ROOM_TOKENS, low_water_tokens: ROOM_TOKENS / 2, ..embedded.policy };
    let profile = Profile { policy, ..embedded };
    let counter: SharedCounter = Arc::new(Bytes);
    let mut texts = Vec::new();
    for index in 0..N_EPISODES {
        let family = Family::ALL[(index % Family::ALL.len() as u64) as usize];
        let mut episode = families::episode(
            Ask { family, split: Split::Train, n_calls: None, pieces: Some(&[]) },
            seed,
            index,
        );
        let mut rng = Rng::at(!seed, index);
        let take = &mut |stretch| texts.extend(sample::texts(&stretch));
        sample::play(&mut episode, &profile, &counter, Noise { wrong_call_percent: 2 }, &mut rng, take)?;
        texts.push(pretrain::text(&mut rng));
    }
    Ok(texts)
}
