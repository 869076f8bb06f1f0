//! The tokenizer against Python tiktoken and Hugging Face tokenizers (stored fixtures), and its properties.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

use perilune_chat::tokenizer::Tokenizer;

mod bad_input;
mod fixtures;
mod k2;
mod properties;
mod training;

/// Rank file trained by Hugging Face tokenizers on `data/corpus.txt`.
const SMALL_RANKS: &[u8] = include_bytes!("../data/small.tiktoken");
/// The same with digits single.
const DIGITS_RANKS: &[u8] = include_bytes!("../data/digits.tiktoken");
const CORPUS: &str = include_str!("../data/corpus.txt");

/// The tokenizer of `SMALL_RANKS` with the K2 special names.
fn small() -> Tokenizer {
    Tokenizer::from_ranks(SMALL_RANKS, None).unwrap()
}

/// SplitMix64; a test prints the seed it starts from when it fails.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
