//! What can be wrong with a rank file, a tokenizer configuration or a list of ids.

use std::path::PathBuf;

/// Why a tokenizer could not be made, or ids not be turned into text.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file could not be read.
    #[error("cannot read {}: {source}; give the folder of a checkpoint that holds tiktoken.model, or a rank file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read but its content is wrong.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<TokenizerError>,
    },
    /// One line of a rank file is wrong.
    #[error("rank file line {line}: {problem}")]
    RankLine {
        /// Line number, counted from 1.
        line: usize,
        /// What is wrong with the line.
        problem: RankProblem,
    },
    /// A rank file as a whole lacks something.
    #[error("rank file: {0}")]
    RankFile(RankFileProblem),
    /// A tokenizer_config.json is wrong.
    #[error("tokenizer_config.json: {0}")]
    Config(ConfigProblem),
    /// An id is outside the vocabulary.
    #[error("id {id} at position {position} is outside the vocabulary of {n_vocab} ids (0 to {}); use the rank file of the model that made the ids", n_vocab - 1)]
    UnknownId {
        /// The id.
        id: u32,
        /// Its index in the list, counted from 0.
        position: usize,
        /// Size of the vocabulary, special ids included.
        n_vocab: usize,
    },
}

/// What is wrong with one line of a rank file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RankProblem {
    /// The line has one field.
    #[error("the rank is missing; a line is `base64(token bytes) rank`")]
    MissingRank,
    /// The line has three or more fields.
    #[error("unexpected text after the rank; a line is `base64(token bytes) rank`")]
    ExtraField,
    /// The first field is not base64.
    #[error("the token is not valid base64 ({0})")]
    BadBase64(String),
    /// The second field is not a number from 0 to 2^32 - 1.
    #[error("the rank `{0}` is not a whole number below 2^32")]
    BadRank(String),
    /// The token has no bytes.
    #[error("the token is empty")]
    EmptyToken,
    /// The token is longer than the written limit.
    #[error("the token has {len} bytes; the limit is {limit}")]
    TokenTooLong {
        /// Its length in bytes.
        len: usize,
        /// `MAX_TOKEN_BYTES`.
        limit: usize,
    },
    /// The rank stands on an earlier line too.
    #[error("rank {rank} already stands on line {first_line}; every rank may stand once")]
    DuplicateRank {
        /// The rank.
        rank: u32,
        /// Where it stood first, counted from 1.
        first_line: usize,
    },
    /// The token stands on an earlier line too.
    #[error("the same token already stands on line {first_line}; every token may stand once")]
    DuplicateToken {
        /// Where it stood first, counted from 1.
        first_line: usize,
    },
    /// Ranks are not 0, 1, 2 and so on.
    #[error(
        "rank {rank} leaves a gap: no line has rank {missing}; ranks must be 0 to the number of tokens less one"
    )]
    Gap {
        /// The lowest rank after the gap.
        rank: u32,
        /// The lowest rank that no line has.
        missing: u32,
    },
}

/// What is wrong with a rank file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RankFileProblem {
    /// The file has no token at all.
    #[error("it holds no tokens; give the tiktoken.model of the checkpoint")]
    Empty,
    /// One of the 256 single bytes has no token.
    #[error(
        "no line holds the single byte 0x{0:02X}; all 256 single bytes must be tokens, so that any text can be encoded"
    )]
    MissingByte(u8),
    /// The file has more tokens than the written limit.
    #[error("it holds {n_ranks} tokens; the limit is {limit}")]
    TooManyRanks {
        /// Tokens in it.
        n_ranks: usize,
        /// `MAX_RANKS`.
        limit: usize,
    },
    /// The file is larger than the written limit.
    #[error("it has {bytes} bytes; the limit is {limit}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// `MAX_RANK_FILE_BYTES`.
        limit: usize,
    },
}

/// What is wrong with a tokenizer_config.json.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// The text is not JSON, or a field has the wrong type.
    #[error("it does not parse ({0}); copy it from the checkpoint again")]
    Json(String),
    /// A key of `added_tokens_decoder` is not an id.
    #[error("added_tokens_decoder key `{0}` is not a token id (a whole number)")]
    BadId(String),
    /// An id of `added_tokens_decoder` is not one of the 256 after the ranks.
    #[error(
        "added_tokens_decoder id {id} is not a special id: with this rank file they are {first} to {last}; the two files must come from the same checkpoint"
    )]
    IdOutOfRange {
        /// The id.
        id: u32,
        /// First special id, the number of ranks.
        first: u32,
        /// Last special id.
        last: u32,
    },
    /// Two keys of `added_tokens_decoder` give the same id.
    #[error("added_tokens_decoder names id {0} twice")]
    DuplicateId(u32),
    /// A special token has an empty name.
    #[error("added_tokens_decoder id {0} has an empty content")]
    EmptyName(u32),
    /// Two special ids have the same name.
    #[error("added_tokens_decoder gives `{name}` to both id {first} and id {second}")]
    DuplicateName {
        /// The name.
        name: String,
        /// The lower id.
        first: u32,
        /// The higher id.
        second: u32,
    },
    /// A token the chat format is built on has no id.
    #[error(
        "added_tokens_decoder does not name `{0}`, which the chat format needs; use the tokenizer_config.json of Kimi K2 Thinking, or remove the file to use its table"
    )]
    MissingMarker(&'static str),
}
