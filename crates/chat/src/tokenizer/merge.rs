//! Byte-pair merging of one piece: always the adjacent pair of lowest rank, the leftmost of equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ranks::{NO_RANK, RankTable};

/// Longest piece, in bytes, merged by scanning for the minimum each time; longer ones use a heap.
const SCAN_BYTES_MAX: usize = 128;
/// `Link::next` of a part that was merged away.
const MERGED_AWAY: u32 = u32::MAX;

/// Merging with its reusable work space.
pub(super) struct Merger<'r> {
    ranks: &'r RankTable,
    /// Scan path: start of each part, and the rank of the part joined with the one after it.
    parts: Vec<(u32, u32)>,
    /// Heap path: part by start byte.
    links: Vec<Link>,
    /// Heap path: (rank of the join, start of its left part); stale entries are skipped.
    heap: BinaryHeap<Reverse<(u32, u32)>>,
}

/// A part of a long piece; parts are named by their start byte.
#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    /// Start of the part after this one, the piece's length for the last; `MERGED_AWAY` once merged away.
    next: u32,
    /// Rank of this part joined with the one after it.
    join: u32,
}

impl<'r> Merger<'r> {
    pub(super) fn new(ranks: &'r RankTable) -> Self {
        Self { ranks, parts: Vec::new(), links: Vec::new(), heap: BinaryHeap::new() }
    }

    /// Appends the ids of `piece` (at least one byte) to `ids`; a piece that is a token is that token.
    #[inline]
    pub(super) fn encode(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        let whole = self.ranks.rank(piece);
        if whole != NO_RANK {
            ids.push(whole);
        } else if piece.len() <= SCAN_BYTES_MAX {
            self.merge_by_scan(piece, ids);
        } else {
            self.merge_by_heap(piece, ids);
        }
    }

    /// Quadratic in the length of the piece, with the least work for short ones.
    fn merge_by_scan(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        let Self { ranks, parts, .. } = self;
        parts.clear();
        parts.extend(piece.windows(2).enumerate().map(|(i, pair)| (i as u32, ranks.rank(pair))));
        parts.push((piece.len() as u32 - 1, NO_RANK));
        parts.push((piece.len() as u32, NO_RANK));
        let span = |parts: &[(u32, u32)], from: usize, to: usize| {
            let end = parts.get(to)?.0 as usize;
            Some(&piece[parts[from].0 as usize..end])
        };
        let joined =
            |parts: &[(u32, u32)], i: usize| span(parts, i, i + 2).map_or(NO_RANK, |s| ranks.rank(s));
        loop {
            let (mut lowest, mut at) = (NO_RANK, 0);
            for (i, &(_, rank)) in parts.iter().enumerate() {
                if rank < lowest {
                    (lowest, at) = (rank, i);
                }
            }
            if lowest == NO_RANK {
                break;
            }
            parts.remove(at + 1);
            parts[at].1 = joined(parts, at);
            if at > 0 {
                parts[at - 1].1 = joined(parts, at - 1);
            }
        }
        ids.extend(parts.windows(2).map(|w| ranks.rank(&piece[w[0].0 as usize..w[1].0 as usize])));
    }

    /// `n log n` in the length of the piece.
    fn merge_by_heap(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        let end = piece.len() as u32;
        self.links.clear();
        self.links.extend((0..end).map(|i| Link { prev: i.wrapping_sub(1), next: i + 1, join: NO_RANK }));
        self.heap.clear();
        for start in 0..end {
            self.price(piece, start);
        }
        while let Some(Reverse((rank, left))) = self.heap.pop() {
            let Link { next: right, join, .. } = self.links[left as usize];
            if join != rank || right == MERGED_AWAY {
                continue;
            }
            let after = self.links[right as usize].next;
            self.links[right as usize].next = MERGED_AWAY;
            self.links[left as usize].next = after;
            if after < end {
                self.links[after as usize].prev = left;
            }
            self.price(piece, left);
            if left > 0 {
                self.price(piece, self.links[left as usize].prev);
            }
        }
        let mut start = 0;
        while start < end {
            let next = self.links[start as usize].next;
            ids.push(self.ranks.rank(&piece[start as usize..next as usize]));
            start = next;
        }
    }

    /// Sets the rank of the join at `start` and queues it when there is one.
    fn price(&mut self, piece: &[u8], start: u32) {
        let end = piece.len() as u32;
        let right = self.links[start as usize].next;
        let join = if right < end {
            self.ranks.rank(&piece[start as usize..self.links[right as usize].next as usize])
        } else {
            NO_RANK
        };
        self.links[start as usize].join = join;
        if join != NO_RANK {
            self.heap.push(Reverse((join, start)));
        }
    }
}
