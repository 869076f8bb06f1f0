//! Characters that merging always completes before anything joins across their edges, so that it may begin
//! with them whole.
//!
//! Let R be the highest rank among the joins that make one token of a character's bytes alone. A token reaches
//! over an edge of the character when it holds bytes before it and its first bytes, or its last bytes and bytes
//! after it (the whole character counts as both). If every such token that the neighbouring bytes allow has a
//! rank above R, then as long as the character is in parts a join inside it has a lower rank than any join over
//! its edges. Merging takes the lowest rank first, so the character is complete before its neighbours matter,
//! and beginning with it whole gives the same ids.

use rustc_hash::FxHashMap;

use super::ranks::NO_RANK;

/// Tokens that are one character of two to four bytes, by their bytes as one number.
#[derive(Default)]
pub(super) struct WholeChars {
    chars: FxHashMap<u32, WholeChar>,
}

/// A token that is one character, and beside which bytes it is not always completed first.
struct WholeChar {
    id: u32,
    unless_after: ByteMask,
    unless_before: ByteMask,
}

/// A set of bytes that may hold more than were put in: bytes share a bit when their low six bits are equal.
#[derive(Default)]
struct ByteMask(u64);

impl ByteMask {
    fn holds(&self, byte: u8) -> bool {
        self.0 >> (byte & 63) & 1 != 0
    }
}

impl FromIterator<u8> for ByteMask {
    fn from_iter<I: IntoIterator<Item = u8>>(bytes: I) -> Self {
        Self(bytes.into_iter().fold(0, |mask, byte| mask | 1 << (byte & 63)))
    }
}

impl WholeChars {
    /// Finds them among `tokens` (bytes in the order of their rank); `rank_of` is the look-up in the same tokens.
    pub(super) fn find<'t>(
        tokens: impl Iterator<Item = &'t [u8]> + Clone,
        rank_of: impl Fn(&[u8]) -> u32,
    ) -> Self {
        let edges = Edges::of(tokens.clone());
        let whole_char = |(id, token): (u32, &'t [u8])| {
            let is_wide = (2..=4).contains(&token.len()) && char_len(token[0]) == token.len();
            let highest = if is_wide { highest_join(token, &rank_of)? } else { return None };
            let (unless_after, unless_before) = edges.up_to(highest, token);
            Some((key(token), WholeChar { id, unless_after, unless_before }))
        };
        Self { chars: (0..).zip(tokens).filter_map(whole_char).collect() }
    }

    /// Byte length and token of the character at `at`, when its bytes are always completed first there.
    #[inline]
    pub(super) fn get(&self, text: &[u8], at: usize) -> Option<(usize, u32)> {
        let len = char_len(text[at]);
        if len == 1 {
            return None;
        }
        let (before, after) = (text[..at].last(), text.get(at + len));
        let char = self.chars.get(&key(text.get(at..at + len)?))?;
        let is_split = before.is_some_and(|&byte| char.unless_after.holds(byte))
            || after.is_some_and(|&byte| char.unless_before.holds(byte));
        (!is_split).then_some((len, char.id))
    }
}

/// The tokens that reach over an edge of a character: the byte next to it and the token's rank, ranks ascending.
struct Edges<'t> {
    /// By the bytes after the last edge inside the token: a character or its first bytes.
    before: FxHashMap<&'t [u8], Vec<(u8, u32)>>,
    /// By the bytes before the first edge inside the token: a character or its last bytes.
    after: FxHashMap<&'t [u8], Vec<(u8, u32)>>,
}

impl<'t> Edges<'t> {
    fn of(tokens: impl Iterator<Item = &'t [u8]>) -> Self {
        let mut edges = Self { before: FxHashMap::default(), after: FxHashMap::default() };
        for (rank, token) in (0..).zip(tokens) {
            let is_edge = |&at: &usize| token[at] & 0xC0 != 0x80;
            let is_wide = |bytes: &&[u8]| !bytes.is_ascii();
            let last = (1..token.len()).rev().find(is_edge).unwrap_or(token.len());
            if let Some(head) = Some(&token[last..]).filter(is_wide) {
                edges.before.entry(head).or_default().push((token[last - 1], rank));
            }
            let first = (1..token.len()).find(is_edge).unwrap_or(0);
            if let Some(tail) = Some(&token[..first]).filter(is_wide) {
                edges.after.entry(tail).or_default().push((token[first], rank));
            }
        }
        edges
    }

    /// Bytes before and bytes after `character` with which a token of at most `rank` reaches over its edge.
    fn up_to(&self, rank: u32, character: &[u8]) -> (ByteMask, ByteMask) {
        let low = |reaching: &'_ Vec<(u8, u32)>| {
            let n_low = reaching.partition_point(|&(_, r)| r <= rank);
            reaching[..n_low].iter().map(|&(byte, _)| byte).collect::<Vec<_>>()
        };
        let heads = (1..=character.len()).filter_map(|end| self.before.get(&character[..end]));
        let tails = (0..character.len()).filter_map(|start| self.after.get(&character[start..]));
        (heads.flat_map(low).collect(), tails.flat_map(low).collect())
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
