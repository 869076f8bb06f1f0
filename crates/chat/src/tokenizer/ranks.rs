//! The rank file (`tiktoken.model`): one line a token, `base64(bytes) SPACE rank`.

use std::hash::Hasher;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxHasher;

use super::error::{RankFileProblem, RankProblem, TokenizerError};
use super::whole_chars::WholeChars;

/// Largest rank file read, in bytes; the published one has 2.8 MB.
pub(super) const MAX_RANK_FILE_BYTES: usize = 256 << 20;
/// Longest token in a rank file, in bytes; the longest published one has 256.
pub(super) const MAX_TOKEN_BYTES: usize = 65_535;
/// Most tokens in a rank file; the published one has 163,584.
pub(super) const MAX_RANKS: usize = (1 << 24) - 2;
/// Rank of bytes that are no token; greater than every rank.
pub(super) const NO_RANK: u32 = u32::MAX;

/// Token bytes by rank and rank by token bytes.
pub(super) struct RankTable {
    /// All tokens end to end, in the order of the file.
    blob: Vec<u8>,
    /// Start and end in `blob` of the token of each rank.
    spans: Vec<(u32, u32)>,
    /// Ranks hashed by their token's bytes.
    by_bytes: HashTable<u32>,
    /// Rank of every single byte.
    byte_ranks: [u32; 256],
    /// Rank of every two bytes `a, b` at `a * 256 + b`, `NO_RANK` where they are no token.
    pair_ranks: Vec<u32>,
    /// Longest token in bytes.
    longest: usize,
    whole_chars: WholeChars,
}

/// One line as read.
struct Line {
    number: usize,
    rank: u32,
    span: (u32, u32),
}

impl RankTable {
    /// Reads a rank file; the error names the first wrong line.
    pub(super) fn parse(file: &[u8]) -> Result<Self, TokenizerError> {
        if file.len() > MAX_RANK_FILE_BYTES {
            let problem = RankFileProblem::TooLarge { bytes: file.len(), limit: MAX_RANK_FILE_BYTES };
            return Err(TokenizerError::RankFile(problem));
        }
        let mut blob = Vec::with_capacity(file.len() / 2);
        let mut lines = Vec::with_capacity(file.len() / 16);
        for (idx, text) in file.split(|&b| b == b'\n').enumerate() {
            let number = idx + 1;
            let line = read_line(text, number, &mut blob)
                .map_err(|problem| TokenizerError::RankLine { line: number, problem })?;
            lines.extend(line);
        }
        if lines.len() > MAX_RANKS {
            let problem = RankFileProblem::TooManyRanks { n_ranks: lines.len(), limit: MAX_RANKS };
            return Err(TokenizerError::RankFile(problem));
        }
        let line_of_rank =
            dense(&lines).map_err(|(line, problem)| TokenizerError::RankLine { line, problem })?;
        let spans = line_of_rank.iter().map(|&i| lines[i].span).collect();
        let mut table = Self {
            blob,
            spans,
            by_bytes: HashTable::with_capacity(lines.len()),
            byte_ranks: [NO_RANK; 256],
            pair_ranks: vec![NO_RANK; 1 << 16],
            longest: 0,
            whole_chars: WholeChars::default(),
        };
        table.index(&lines)?;
        let tokens = table.spans.iter().map(|&(start, end)| &table.blob[start as usize..end as usize]);
        table.whole_chars = WholeChars::find(tokens, |bytes| table.rank(bytes));
        Ok(table)
    }

    /// Fills the look-up by bytes, in file order, so that a duplicate is reported on its later line.
    fn index(&mut self, lines: &[Line]) -> Result<(), TokenizerError> {
        let mut file_line = vec![0; self.spans.len()];
        for line in lines {
            let token = &self.blob[line.span.0 as usize..line.span.1 as usize];
            let same = |&rank: &u32| bytes_of(&self.blob, &self.spans, rank) == token;
            let rehash = |&rank: &u32| hash(bytes_of(&self.blob, &self.spans, rank));
            match self.by_bytes.entry(hash(token), same, rehash) {
                Entry::Occupied(first) => {
                    let problem =
                        RankProblem::DuplicateToken { first_line: file_line[*first.get() as usize] };
                    return Err(TokenizerError::RankLine { line: line.number, problem });
                }
                Entry::Vacant(slot) => slot.insert(line.rank),
            };
            file_line[line.rank as usize] = line.number;
            self.longest = self.longest.max(token.len());
            match *token {
                [a] => self.byte_ranks[a as usize] = line.rank,
                [a, b] => self.pair_ranks[pair_idx(a, b)] = line.rank,
                _ => {}
            }
        }
        if lines.is_empty() {
            return Err(TokenizerError::RankFile(RankFileProblem::Empty));
        }
        match (0..=255u8).find(|&b| self.byte_ranks[b as usize] == NO_RANK) {
            Some(byte) => Err(TokenizerError::RankFile(RankFileProblem::MissingByte(byte))),
            None => Ok(()),
        }
    }

    /// Number of ranks.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Bytes of the token with this rank.
    pub(super) fn bytes(&self, rank: u32) -> Option<&[u8]> {
        let &(start, end) = self.spans.get(rank as usize)?;
        Some(&self.blob[start as usize..end as usize])
    }

    /// Rank of a single byte.
    #[inline]
    pub(super) fn byte_rank(&self, byte: u8) -> u32 {
        self.byte_ranks[byte as usize]
    }

    /// Rank of two bytes, `NO_RANK` where they are no token.
    #[inline]
    pub(super) fn pair_rank(&self, a: u8, b: u8) -> u32 {
        self.pair_ranks[pair_idx(a, b)]
    }

    /// Byte length and id of the part that merging begins with at `at` in `text` (valid UTF-8): a character that
    /// is always completed first, else one byte.
    #[inline]
    pub(super) fn first_part(&self, text: &[u8], at: usize) -> (usize, u32) {
        self.whole_chars.get(text, at).unwrap_or_else(|| (1, self.byte_rank(text[at])))
    }

    /// Rank of `bytes` (at least one), `NO_RANK` where they are no token.
    #[inline]
    pub(super) fn rank(&self, bytes: &[u8]) -> u32 {
        match *bytes {
            [a] => self.byte_rank(a),
            [a, b] => self.pair_rank(a, b),
            _ if bytes.len() > self.longest => NO_RANK,
            _ => {
                let same = |&rank: &u32| bytes_of(&self.blob, &self.spans, rank) == bytes;
                self.by_bytes.find(hash(bytes), same).copied().unwrap_or(NO_RANK)
            }
        }
    }
}

fn bytes_of<'b>(blob: &'b [u8], spans: &[(u32, u32)], rank: u32) -> &'b [u8] {
    let (start, end) = spans[rank as usize];
    &blob[start as usize..end as usize]
}

fn pair_idx(a: u8, b: u8) -> usize {
    usize::from(a) << 8 | usize::from(b)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(bytes);
    hasher.finish()
}

/// Reads one line and appends its token to `blob`; `None` for an empty line.
fn read_line(text: &[u8], number: usize, blob: &mut Vec<u8>) -> Result<Option<Line>, RankProblem> {
    let mut fields = text.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let Some(token) = fields.next() else { return Ok(None) };
    let rank = fields.next().ok_or(RankProblem::MissingRank)?;
    if fields.next().is_some() {
        return Err(RankProblem::ExtraField);
    }
    let start = blob.len();
    STANDARD.decode_vec(token, blob).map_err(|error| RankProblem::BadBase64(error.to_string()))?;
    match blob.len() - start {
        0 => return Err(RankProblem::EmptyToken),
        len if len > MAX_TOKEN_BYTES => {
            return Err(RankProblem::TokenTooLong { len, limit: MAX_TOKEN_BYTES });
        }
        _ => {}
    }
    let rank = std::str::from_utf8(rank)
        .ok()
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| RankProblem::BadRank(String::from_utf8_lossy(rank).into_owned()))?;
    Ok(Some(Line { number, rank, span: (start as u32, blob.len() as u32) }))
}

/// Index into `lines` of every rank, when the ranks are 0 to the number of lines less one, each once;
/// else the line and what is wrong with it.
fn dense(lines: &[Line]) -> Result<Vec<usize>, (usize, RankProblem)> {
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by_key(|&i| (lines[i].rank, i));
    for (expected, &i) in order.iter().enumerate() {
        let Line { number, rank, .. } = lines[i];
        if rank as usize == expected {
            continue;
        }
        return Err(if expected > 0 && lines[order[expected - 1]].rank == rank {
            (number, RankProblem::DuplicateRank { rank, first_line: lines[order[expected - 1]].number })
        } else {
            (number, RankProblem::Gap { rank, missing: expected as u32 })
        });
    }
    Ok(order)
}
