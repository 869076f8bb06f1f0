//! Text to ids and ids to text, as the published K2 tokenizer does it.
//!
//! The walk of a text: cuts for very long input (`cut`), special names where they are wanted
//! (`specials`), the pre-tokenisation pattern (`split`), then merging by rank inside each piece
//! (`merge`). Back: token bytes end to end, decoded as UTF-8 with replacement ([`Detokenizer`]).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;

mod classes;
mod cut;
mod detokenize;
mod error;
mod merge;
mod min_tree;
mod pairs;
mod ranks;
mod specials;
mod split;
pub mod train;
mod whole_chars;

pub use detokenize::Detokenizer;
pub use error::{ConfigProblem, RankFileProblem, RankProblem, TokenizerError};
pub use specials::Markers;

use merge::Merger;
use ranks::RankTable;
use specials::{N_SPECIALS, Specials};

/// Name of the rank file in a checkpoint's folder.
const RANK_FILE: &str = "tiktoken.model";
/// Name of the file beside it that names the special ids.
const CONFIG_FILE: &str = "tokenizer_config.json";

/// Ranks, special ids and the pattern; immutable once made, share it behind an `Arc`.
pub struct Tokenizer {
    ranks: RankTable,
    specials: Specials,
    markers: Markers,
}

/// What the name of a special token inside a text becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecialText {
    /// Plain text, never a special id: for content from outside.
    #[default]
    AsText,
    /// The special id, as the published tokenizer does by default.
    AsTokens,
}

impl Tokenizer {
    /// Reads `tiktoken.model` in `dir`, and `tokenizer_config.json` where there is one.
    ///
    /// # Errors
    /// As [`Self::from_rank_file`].
    pub fn from_dir(dir: &Path) -> Result<Self, TokenizerError> {
        Self::from_rank_file(&dir.join(RANK_FILE))
    }

    /// Reads a rank file, and the `tokenizer_config.json` beside it where there is one.
    ///
    /// # Errors
    /// [`TokenizerError`] with the file, where one cannot be read or its content is wrong.
    pub fn from_rank_file(path: &Path) -> Result<Self, TokenizerError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })
        };
        let in_file =
            |path: &Path, source| TokenizerError::File { path: path.to_owned(), source: Box::new(source) };
        let ranks = RankTable::parse(&read(path)?).map_err(|error| in_file(path, error))?;
        let config_path = path.with_file_name(CONFIG_FILE);
        if !config_path.exists() {
            return Self::with_config(ranks, None);
        }
        let config = String::from_utf8(read(&config_path)?)
            .map_err(|error| TokenizerError::Config(ConfigProblem::Json(error.to_string())))
            .map_err(|error| in_file(&config_path, error))?;
        Self::with_config(ranks, Some(&config)).map_err(|error| in_file(&config_path, error))
    }

    /// Makes a tokenizer from the contents of a rank file (lines of `base64(token) SPACE rank`, as tiktoken reads
    /// them) and of a `tokenizer_config.json`. Without the latter, or without `added_tokens_decoder` in it, the K2
    /// names stand after the last rank.
    ///
    /// # Errors
    /// [`TokenizerError`] with the line or the key that is wrong.
    pub fn from_ranks(ranks: &[u8], tokenizer_config: Option<&str>) -> Result<Self, TokenizerError> {
        Self::with_config(RankTable::parse(ranks)?, tokenizer_config)
    }

    /// The K2 names over the 256 single bytes as ordinary tokens: reads the markers in a text whose own tokenizer is
    /// not at hand. Its ids are no model's.
    pub fn of_bytes() -> Self {
        let line = |byte: u8| format!("{} {byte}\n", STANDARD.encode([byte]));
        let ranks: String = (0..=u8::MAX).map(line).collect();
        Self::from_ranks(ranks.as_bytes(), None).expect("every byte stands there once, in order")
    }

    fn with_config(ranks: RankTable, config: Option<&str>) -> Result<Self, TokenizerError> {
        let specials = Specials::new(ranks.len(), config)?;
        let markers = specials.markers()?;
        Ok(Self { ranks, specials, markers })
    }

    /// Number of ordinary tokens; ids below it are ordinary.
    pub fn n_ranks(&self) -> usize {
        self.ranks.len()
    }

    /// Size of the vocabulary: the ranks and 256 special ids.
    pub fn n_vocab(&self) -> usize {
        self.n_ranks() + N_SPECIALS
    }

    /// Ids of `text`, without begin or end tokens: those of the published tokenizer.
    pub fn encode(&self, text: &str, specials: SpecialText) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 4);
        let mut merger = Merger::new(&self.ranks, text.len());
        for part in cut::parts(text) {
            match specials {
                SpecialText::AsText => encode_plain(part, &mut merger, &mut ids),
                SpecialText::AsTokens => self.encode_with_specials(part, &mut merger, &mut ids),
            }
        }
        ids
    }

    /// Ids of `text` with the names of special tokens taken as plain text.
    pub fn encode_ordinary(&self, text: &str) -> Vec<u32> {
        self.encode(text, SpecialText::AsText)
    }

    fn encode_with_specials(&self, text: &str, merger: &mut Merger<'_>, ids: &mut Vec<u32>) {
        let mut at = 0;
        while let Some((start, end, id)) = self.specials.find(text, at) {
            encode_plain(&text[at..start], merger, ids);
            ids.push(id);
            at = end;
        }
        encode_plain(&text[at..], merger, ids);
    }

    /// Id of the special token with this name, `None` where there is none.
    pub fn special_id(&self, name: &str) -> Option<u32> {
        self.specials.id(name)
    }

    /// Name of a special id, `<|reserved_token_{id}|>` for one without a name of its own; `None` for ordinary ids.
    pub fn special_name(&self, id: u32) -> Option<&str> {
        self.specials.name(id)
    }

    /// Whether `id` is one of the 256 special ids.
    pub fn is_special(&self, id: u32) -> bool {
        self.specials.name(id).is_some()
    }

    /// Whether `id` is left out of text for readers: `special` is true in tokenizer_config.json, or the id is
    /// reserved. Thinking and tool-call markers are among the 256 special ids and not hidden.
    pub fn is_hidden(&self, id: u32) -> bool {
        self.specials.is_hidden(id)
    }

    /// Bytes of an ordinary token, name of a special one, `None` outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.ranks.bytes(id).or_else(|| self.specials.name(id).map(str::as_bytes))
    }

    /// Bytes of `ids` end to end; an id outside the vocabulary gives the bytes of U+FFFD.
    pub fn decode_bytes(&self, ids: &[u32]) -> Vec<u8> {
        let unknown = "\u{fffd}".as_bytes();
        ids.iter().flat_map(|&id| self.token_bytes(id).unwrap_or(unknown)).copied().collect()
    }

    /// Text of `ids`, special ones by name; what is not UTF-8 is replaced by U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(ids)).into_owned()
    }

    /// As [`Tokenizer::decode`].
    ///
    /// # Errors
    /// [`TokenizerError::UnknownId`] for the first id outside the vocabulary.
    pub fn try_decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let n_vocab = self.n_vocab();
        match ids.iter().position(|&id| id as usize >= n_vocab) {
            Some(position) => Err(TokenizerError::UnknownId { id: ids[position], position, n_vocab }),
            None => Ok(self.decode(ids)),
        }
    }

    /// Ids of the special tokens the chat format is built on.
    pub fn markers(&self) -> &Markers {
        &self.markers
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("n_ranks", &self.n_ranks()).finish_non_exhaustive()
    }
}

fn encode_plain(text: &str, merger: &mut Merger<'_>, ids: &mut Vec<u32>) {
    for piece in split::pieces(text) {
        merger.encode(piece, ids);
    }
}
