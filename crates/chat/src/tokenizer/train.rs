//! Training a rank file from text: byte-level pair merging under the same pre-tokenisation pattern.
//!
//! The most frequent adjacent pair becomes the next rank; of equally frequent pairs, the one with the lowest
//! left rank, then the lowest right rank. Texts of another order give the same file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustc_hash::{FxHashMap, FxHashSet};

use super::specials::N_SPECIALS;
use super::{cut, split};

/// Smallest vocabulary, in ids: 256 single bytes and 256 special ids.
pub const VOCAB_SIZE_MIN: usize = 256 + N_SPECIALS;
/// Largest vocabulary that may be trained, in ids.
pub const VOCAB_SIZE_MAX: usize = 1 << 22;

/// How a rank file is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainOptions {
    /// Ids in all: ranks and the 256 special ids, as `vocab_size` in config.json.
    pub vocab_size: usize,
    /// No token of two bytes or more contains an ASCII digit.
    pub digits_single: bool,
    /// A pair that occurs less often in the texts is not merged.
    pub min_count: u64,
    /// Longest token, in bytes.
    pub max_token_bytes: usize,
}

impl Default for TrainOptions {
    /// 4,096 ids, digits free to merge, pairs that occur twice, tokens of up to 256 bytes (the published longest).
    fn default() -> Self {
        Self { vocab_size: 4096, digits_single: false, min_count: 2, max_token_bytes: 256 }
    }
}

/// Why a rank file could not be trained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    /// The vocabulary asked for is outside the written limits.
    #[error(
        "vocab_size {0} is outside {VOCAB_SIZE_MIN} to {VOCAB_SIZE_MAX} (256 single bytes and 256 special ids are always in it)"
    )]
    VocabSize(usize),
    /// The texts do not hold enough different pairs.
    #[error(
        "the texts give a vocab_size of {reached} only, {wanted} was asked for; give more text, or ask for less"
    )]
    TooFewPairs {
        /// Largest `vocab_size` these texts give under these options.
        reached: usize,
        /// `vocab_size` asked for.
        wanted: usize,
    },
}

/// Trains on `texts` and returns the bytes of a rank file (`base64(token) SPACE rank` lines, ranks ascending) with
/// exactly `vocab_size - 256` ranks.
///
/// # Errors
/// [`TrainError`] when the vocabulary asked for is outside the limits, or the texts do not give as many pairs.
pub fn train_ranks<'t>(
    texts: impl Iterator<Item = &'t str>,
    options: &TrainOptions,
) -> Result<Vec<u8>, TrainError> {
    if !(VOCAB_SIZE_MIN..=VOCAB_SIZE_MAX).contains(&options.vocab_size) {
        return Err(TrainError::VocabSize(options.vocab_size));
    }
    let n_ranks = options.vocab_size - N_SPECIALS;
    let mut trainer = Trainer::new(texts, options);
    while trainer.tokens.len() < n_ranks {
        let Some(pair) = trainer.pop_best() else {
            let reached = trainer.tokens.len() + N_SPECIALS;
            return Err(TrainError::TooFewPairs { reached, wanted: options.vocab_size });
        };
        trainer.merge(pair);
    }
    Ok(rank_file(&trainer.tokens))
}

type Pair = (u32, u32);

/// A piece that occurs in the texts, as ranks, and how often it does.
struct Word {
    ranks: Vec<u32>,
    count: u64,
}

/// Where a pair occurs.
#[derive(Default)]
struct Occurrences {
    count: u64,
    /// Indices of the words that hold it, or once held it.
    words: FxHashSet<u32>,
}

struct Trainer<'o> {
    options: &'o TrainOptions,
    tokens: Vec<Vec<u8>>,
    rank_of: FxHashMap<Vec<u8>, u32>,
    words: Vec<Word>,
    pairs: FxHashMap<Pair, Occurrences>,
    /// Best first; an entry whose count is no longer the pair's is put back with the right one.
    heap: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl<'o> Trainer<'o> {
    fn new<'t>(texts: impl Iterator<Item = &'t str>, options: &'o TrainOptions) -> Self {
        let tokens: Vec<Vec<u8>> = byte_order().map(|byte| vec![byte]).collect();
        let rank_of: FxHashMap<_, _> = tokens.iter().cloned().zip(0..).collect();
        let mut counts: FxHashMap<&[u8], u64> = FxHashMap::default();
        for piece in texts.flat_map(cut::parts).flat_map(split::pieces) {
            *counts.entry(piece).or_default() += 1;
        }
        let byte_rank = |&byte: &u8| rank_of[[byte].as_slice()];
        let words =
            counts.iter().map(|(piece, &count)| Word { ranks: piece.iter().map(byte_rank).collect(), count });
        let words = words.collect();
        let mut trainer =
            Self { options, tokens, rank_of, words, pairs: FxHashMap::default(), heap: BinaryHeap::new() };
        for idx in 0..trainer.words.len() {
            trainer.add_pairs_of(idx as u32, &mut FxHashSet::default());
        }
        trainer.heap = trainer.pairs.iter().map(|(&pair, seen)| (seen.count, Reverse(pair))).collect();
        trainer
    }

    /// The most frequent pair that may be merged.
    fn pop_best(&mut self) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.heap.pop() {
            let now = self.pairs.get(&pair).map_or(0, |seen| seen.count);
            if now < self.options.min_count.max(1) {
                continue;
            }
            if now == count {
                return Some(pair);
            }
            self.heap.push((now, Reverse(pair)));
        }
        None
    }

    /// Joins `pair` everywhere; bytes that are a token already keep its rank.
    fn merge(&mut self, pair: Pair) {
        let joined = [self.tokens[pair.0 as usize].as_slice(), &self.tokens[pair.1 as usize]].concat();
        let rank = *self.rank_of.entry(joined.clone()).or_insert_with(|| {
            self.tokens.push(joined);
            self.tokens.len() as u32 - 1
        });
        let Some(seen) = self.pairs.remove(&pair) else { return };
        let mut grown = FxHashSet::default();
        for word in seen.words {
            self.remove_pairs_of(word);
            join(&mut self.words[word as usize].ranks, pair, rank);
            self.add_pairs_of(word, &mut grown);
        }
        self.heap.extend(grown.iter().filter_map(|p| Some((self.pairs.get(p)?.count, Reverse(*p)))));
    }

    fn remove_pairs_of(&mut self, word: u32) {
        let Word { ranks, count } = &self.words[word as usize];
        for pair in ranks.windows(2) {
            if let Some(seen) = self.pairs.get_mut(&(pair[0], pair[1])) {
                seen.count -= count;
            }
        }
    }

    /// Counts the mergeable pairs of a word and notes them in `grown`.
    fn add_pairs_of(&mut self, word: u32, grown: &mut FxHashSet<Pair>) {
        let Word { ranks, count } = &self.words[word as usize];
        for pair in ranks.windows(2).map(|pair| (pair[0], pair[1])) {
            if !may_merge(&self.tokens, pair, self.options) {
                continue;
            }
            let seen = self.pairs.entry(pair).or_default();
            seen.count += count;
            seen.words.insert(word);
            grown.insert(pair);
        }
    }
}

fn may_merge(tokens: &[Vec<u8>], (left, right): Pair, options: &TrainOptions) -> bool {
    let (left, right) = (&tokens[left as usize], &tokens[right as usize]);
    let has_digit = || left.iter().chain(right).any(u8::is_ascii_digit);
    left.len() + right.len() <= options.max_token_bytes && !(options.digits_single && has_digit())
}

/// Replaces `pair` by `rank` in `ranks`, from the left.
fn join(ranks: &mut Vec<u32>, pair: Pair, rank: u32) {
    let (mut from, mut to) = (0, 0);
    while from < ranks.len() {
        let is_pair = ranks[from] == pair.0 && ranks.get(from + 1) == Some(&pair.1);
        ranks[to] = if is_pair { rank } else { ranks[from] };
        from += if is_pair { 2 } else { 1 };
        to += 1;
    }
    ranks.truncate(to);
}

/// The 256 bytes in the order the published rank file ranks them: printable Latin-1 first, then the others.
fn byte_order() -> impl Iterator<Item = u8> {
    let printable = |b: &u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    (0..=255).filter(printable).chain((0..=255).filter(move |b| !printable(b)))
}

fn rank_file(tokens: &[Vec<u8>]) -> Vec<u8> {
    let line = |(rank, token): (usize, &Vec<u8>)| format!("{} {rank}\n", STANDARD.encode(token));
    tokens.iter().enumerate().map(line).collect::<String>().into_bytes()
}
