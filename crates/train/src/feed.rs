//! Where sequences come from: a pure function of a stage, a seed and an index.
//!
//! Nothing is remembered between calls, so a run resumes exactly from one number and any thread may draw ahead.

use crate::data::stream::{Stage, Stream};
use crate::rng::Rng;
use perilune_chat::tokenizer::{Tokenizer, TokenizerError};
use perilune_model::train::Batch;
use std::path::Path;
use std::sync::Arc;

/// Tokens to learn from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence {
    /// Token ids `[T]`, at least two.
    pub ids: Vec<u32>,
    /// Factor of the loss of predicting each token from those before it `[T]`; that of the first has no use.
    pub loss_weights: Vec<f32>,
}

/// An endless stream of sequences.
pub trait Feed: Send + Sync {
    /// Sequence `index`, the same at every call. It is at most [`Draw::n_tokens`] plus one tokens long.
    ///
    /// # Panics
    /// Where it cannot be drawn here: a stream with holes would not be the same stream again.
    fn sequence(&self, index: u64) -> Sequence;
}

/// What a stage asks of a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Seed of the stream.
    pub seed: u64,
    /// Tokens that one sequence puts into the model, at most.
    pub n_tokens: usize,
    /// Number of ids the model has rows for.
    pub vocab_size: usize,
    /// A stream apart from that of training, to measure on.
    pub is_held_out: bool,
}

/// Why a stream cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// No stream has that name.
    #[error("there is no feed called `{name}`; a stage may take {}", NAMES.join(", "))]
    Unknown {
        /// What the recipe says.
        name: String,
    },
    /// Too few ids to draw from.
    #[error("the feed `{name}` needs a vocabulary of at least {needed} ids, and the model has {found}")]
    Vocabulary {
        /// The feed.
        name: String,
        /// Fewest ids that it takes.
        needed: usize,
        /// V of the model.
        found: usize,
    },
    /// The stream is text, and no tokenizer is at hand.
    #[error("the feed `{name}` needs a tokenizer; name the folder with its rank file in the recipe")]
    NoTokenizer {
        /// The feed.
        name: String,
    },
    /// The tokenizer cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Names that a stage may give as its `feed`.
pub const NAMES: &[&str] = &["copies", "text", "episodes", "turns", "short-turns"];

/// Open the stream called `name`. `tokenizer` is the folder with the recipe's rank file, for streams of text.
///
/// # Errors
/// [`FeedError`]: a name that is not among [`NAMES`], a tokenizer that is missing or cannot be read, or a vocabulary
/// that is too small for the stream.
pub fn open(name: &str, draw: Draw, tokenizer: Option<&Path>) -> Result<Arc<dyn Feed>, FeedError> {
    match name {
        "copies" if draw.vocab_size < COPIES_VOCAB_MIN => Err(FeedError::Vocabulary {
            name: name.to_owned(),
            needed: COPIES_VOCAB_MIN,
            found: draw.vocab_size,
        }),
        "copies" => Ok(Arc::new(Copies::new(draw))),
        "text" => worlds(name, Stage::Text, draw, tokenizer),
        "episodes" => worlds(name, Stage::Episodes, draw, tokenizer),
        "turns" => worlds(name, Stage::Turns, draw, tokenizer),
        "short-turns" => worlds(name, Stage::ShortTurns, draw, tokenizer),
        _ => Err(FeedError::Unknown { name: name.to_owned() }),
    }
}

fn worlds(
    name: &str,
    stage: Stage,
    draw: Draw,
    tokenizer: Option<&Path>,
) -> Result<Arc<dyn Feed>, FeedError> {
    let folder = tokenizer.ok_or_else(|| FeedError::NoTokenizer { name: name.to_owned() })?;
    let tokenizer = Arc::new(Tokenizer::from_dir(folder)?);
    let (needed, found) = (tokenizer.n_vocab(), draw.vocab_size);
    if found < needed {
        return Err(FeedError::Vocabulary { name: name.to_owned(), needed, found });
    }
    Ok(Arc::new(Stream::new(stage, draw.seed, draw.is_held_out, draw.n_tokens + 1, tokenizer)))
}

impl Feed for Stream {
    /// # Panics
    /// When the folder for temporary files cannot hold an episode's world: a stream with holes would not be the
    /// same stream again.
    fn sequence(&self, index: u64) -> Sequence {
        let drawn = self.draw(index);
        drawn.unwrap_or_else(|error| panic!("sequence {index} cannot be drawn: {error}"))
    }
}

/// Sequences put behind each other as the model takes them: every token but the last predicts its successor. One of
/// fewer than two tokens is left out.
pub fn pack(sequences: &[Sequence]) -> Batch {
    let mut batch = Batch::default();
    for sequence in sequences {
        let n = sequence.ids.len().saturating_sub(1);
        if n == 0 {
            continue;
        }
        batch.ids.extend_from_slice(&sequence.ids[..n]);
        batch.targets.extend_from_slice(&sequence.ids[1..]);
        batch.weights.extend_from_slice(&sequence.loss_weights[1..]);
        batch.lengths.push(n);
    }
    batch
}

/// Strings that repeat: a random piece, then copies of it, so that all but the first are predictable by induction.
///
/// Needs no tokenizer. The first id separates the pieces; the loss counts copies only.
pub struct Copies {
    draw: Draw,
    stream: u64,
}

/// Shortest and longest piece that is repeated, tokens.
const PIECE_TOKENS: std::ops::RangeInclusive<usize> = 4..=16;
/// Fewest ids that copies can be made of.
const COPIES_VOCAB_MIN: usize = 4;
/// The id between two pieces.
const SEPARATOR: u32 = 0;

impl Copies {
    /// The stream that `draw` asks for.
    pub fn new(draw: Draw) -> Copies {
        let stream = if draw.is_held_out { Rng::mixed(draw.seed, u64::MAX) } else { draw.seed };
        Copies { draw, stream }
    }
}

impl Feed for Copies {
    fn sequence(&self, index: u64) -> Sequence {
        let mut rng = Rng::new(Rng::mixed(self.stream, index));
        let n = self.draw.n_tokens + 1;
        let letters = self.draw.vocab_size as u64 - 1;
        let longest = (*PIECE_TOKENS.end()).min(n / 3).max(1);
        let shortest = (*PIECE_TOKENS.start()).min(longest);
        let n_piece = shortest + rng.below((longest - shortest) as u64 + 1) as usize;
        let mut ids = vec![SEPARATOR];
        ids.extend((1..n_piece).map(|_| 1 + rng.below(letters) as u32));
        let ids: Vec<u32> = ids.into_iter().cycle().take(n).collect();
        let loss_weights = (0..n).map(|i| if i < n_piece { 0.0 } else { 1.0 }).collect();
        Sequence { ids, loss_weights }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAW: Draw = Draw { seed: 3, n_tokens: 48, vocab_size: 32, is_held_out: false };

    #[test]
    fn a_sequence_is_a_function_of_its_index() {
        let (feed, again) = (Copies::new(DRAW), Copies::new(DRAW));
        let held_out = Copies::new(Draw { is_held_out: true, ..DRAW });
        for index in [0, 1, 7, 1 << 40] {
            let sequence = feed.sequence(index);
            assert_eq!(sequence, again.sequence(index));
            assert_ne!(sequence, held_out.sequence(index));
            assert_eq!((sequence.ids.len(), sequence.loss_weights.len()), (49, 49));
            assert!(sequence.ids.iter().all(|id| *id < 32));
        }
        assert_ne!(feed.sequence(0), feed.sequence(1));
    }

    #[test]
    fn targets_are_successors_and_copies_alone_count() {
        let batch = pack(&[Copies::new(DRAW).sequence(5), Copies::new(DRAW).sequence(6)]);
        assert_eq!(batch.lengths, [48, 48]);
        assert_eq!(batch.ids[1..48], batch.targets[..47]);
        for at in (0..48).filter(|i| batch.weights[*i] > 0.0) {
            assert!(batch.ids[..=at].contains(&batch.targets[at]), "a counted token stood there before");
        }
        assert!(batch.weights.contains(&0.0) && batch.weights.contains(&1.0));
    }
}
