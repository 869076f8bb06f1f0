//! Characters that merging always completes before anything joins across their edges, so that it may begin
//! with them whole.
//!
//! Let R be the highest rank among the joins that make one token of a character's bytes alone. If every token
//! that reaches over an edge of the character (some bytes before it and its first bytes, or its last bytes and
//! some after it; the whole character counts as both) has a rank above R, then as long as the character is in
//! parts a join inside it has a lower rank than any join over its edges. Merging takes the lowest rank first,
//! so the character is complete before its neighbours matter, and beginning with it whole gives the same ids.

use rustc_hash::FxHashMap;

use super::ranks::NO_RANK;

/// Token of each such character of two to four bytes, by its bytes as one number.
#[derive(Default)]
pub(super) struct WholeChars {
    ids: FxHashMap<u32, u32>,
}

impl WholeChars {
    /// Finds them among `tokens` (bytes in the order of their rank); `rank_of` is the look-up in the same tokens.
    pub(super) fn find<'t>(
        tokens: impl Iterator<Item = &'t [u8]> + Clone,
        rank_of: impl Fn(&[u8]) -> u32,
    ) -> Self {
        let edges = Edges::of(tokens.clone());
        let ids = (0..)
            .zip(tokens)
            .filter(|(_, token)| token.len() <= 4 && char_len(token[0]) == token.len() && token.len() > 1)
            .filter(|(_, token)| std::str::from_utf8(token).is_ok())
            .filter(|(_, token)| highest_join(token, &rank_of).is_some_and(|rank| edges.lowest(token) > rank))
            .map(|(id, token)| (key(token), id))
            .collect();
        Self { ids }
    }

    /// Byte length and token of such a character at the start of `text` (valid UTF-8 from a character on).
    #[inline]
    pub(super) fn at_start(&self, text: &[u8]) -> Option<(usize, u32)> {
        let len = char_len(text[0]);
        if len == 1 {
            return None;
        }
        let id = self.ids.get(&key(text.get(..len)?))?;
        Some((len, *id))
    }
}

/// Lowest ranks of tokens that reach over an edge of a character.
struct Edges<'t> {
    /// By the bytes after the last edge inside the token: a character or its first bytes.
    before: FxHashMap<&'t [u8], u32>,
    /// By the bytes before the first edge inside the token: a character or its last bytes.
    after: FxHashMap<&'t [u8], u32>,
}

impl<'t> Edges<'t> {
    fn of(tokens: impl Iterator<Item = &'t [u8]>) -> Self {
        let mut edges = Self { before: FxHashMap::default(), after: FxHashMap::default() };
        for (rank, token) in (0..).zip(tokens) {
            let is_edge = |&at: &usize| token[at] & 0xC0 != 0x80;
            // Ranks ascend, so the first entry is the lowest.
            if let Some(last) = (1..token.len()).rev().find(is_edge) {
                edges.before.entry(&token[last..]).or_insert(rank);
            }
            if let Some(first) = (1..token.len()).find(is_edge) {
                edges.after.entry(&token[..first]).or_insert(rank);
            }
        }
        edges
    }

    /// Lowest rank of a token that reaches over an edge of `character`.
    fn lowest(&self, character: &[u8]) -> u32 {
        let heads = (1..=character.len()).filter_map(|end| self.before.get(&character[..end]));
        let tails = (0..character.len()).filter_map(|start| self.after.get(&character[start..]));
        heads.chain(tails).copied().min().unwrap_or(NO_RANK)
    }
}

/// Highest rank among the joins that make one token of `bytes`, `None` when they stay in parts.
fn highest_join(bytes: &[u8], rank_of: impl Fn(&[u8]) -> u32) -> Option<u32> {
    let mut starts: Vec<usize> = (0..=bytes.len()).collect();
    let mut highest = 0;
    while starts.len() > 2 {
        let joins = starts.windows(3).map(|w| rank_of(&bytes[w[0]..w[2]]));
        let (at, rank) = joins.enumerate().min_by_key(|&(_, rank)| rank)?;
        if rank == NO_RANK {
            return None;
        }
        starts.remove(at + 1);
        highest = highest.max(rank);
    }
    Some(highest)
}

/// Byte length of the character that begins with `lead`.
fn char_len(lead: u8) -> usize {
    match lead {
        0..0xC0 => 1,
        0xC0..0xE0 => 2,
        0xE0..0xF0 => 3,
        0xF0.. => 4,
    }
}

/// Up to four bytes as one number; characters of different lengths differ in their lead byte.
fn key(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |key, &byte| key << 8 | u32::from(byte))
}
