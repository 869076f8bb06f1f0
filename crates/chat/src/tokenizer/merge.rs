//! Byte-pair merging of one piece: always the adjacent pair of lowest rank, the leftmost of equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pairs::PairMemory;
use super::ranks::{NO_RANK, RankTable};

/// Longest piece, in bytes, merged by looking at every join each time; longer ones use a heap.
const SCAN_BYTES_MAX: usize = 64;
/// Join key of a part that cannot be joined with the one after it.
const NO_JOIN: u32 = u32::MAX;
/// `Link::next` of a part that was merged away.
const MERGED_AWAY: u32 = u32::MAX;

/// Merging with its reusable work space.
pub(super) struct Merger<'r> {
    ranks: &'r RankTable,
    pairs: PairMemory,
    scan: Box<Scan>,
    /// Parts of a long piece by start byte.
    links: Vec<Link>,
    /// Joins of a long piece, rank in the high and start of the left part in the low half; stale ones are skipped.
    heap: BinaryHeap<Reverse<u64>>,
}

/// Parts of a short piece, named by their start byte.
struct Scan {
    /// Rank of the join with the part after it in the high 24 bits, start byte in the low 8.
    joins: [u32; 256],
    ids: [u32; 256],
    prev: [u8; 256],
    next: [u8; 256],
}

/// A part of a long piece.
#[derive(Clone, Copy)]
struct Link {
    prev: u32,
    /// Start of the part after this one, the piece's length for the last; `MERGED_AWAY` once merged away.
    next: u32,
    id: u32,
    /// Rank of this part joined with the one after it.
    join: u32,
}

impl<'r> Merger<'r> {
    /// Work space for texts of about `n_bytes`.
    pub(super) fn new(ranks: &'r RankTable, n_bytes: usize) -> Self {
        let scan = Scan { joins: [NO_JOIN; 256], ids: [0; 256], prev: [0; 256], next: [0; 256] };
        let pairs = PairMemory::new(n_bytes);
        Self { ranks, pairs, scan: Box::new(scan), links: Vec::new(), heap: BinaryHeap::new() }
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
        let Self { ranks, pairs, scan, .. } = self;
        let Scan { joins, ids: part_ids, prev, next } = &mut **scan;
        let end = piece.len();
        joins[..end].fill(NO_JOIN);
        let (mut start, mut before) = (0, None);
        while start < end {
            let (len, id) = ranks.first_part(piece, start);
            part_ids[start] = id;
            next[start] = (start + len) as u8;
            if let Some(left) = before {
                let rank = pairs.rank(part_ids[left], id, || ranks.rank(&piece[left..start + len]));
                joins[left] = join_key(rank, left);
                prev[start] = left as u8;
            }
            before = Some(start);
            start += len;
        }
        loop {
            let lowest = joins[..end].iter().fold(NO_JOIN, |lowest, &join| lowest.min(join));
            if lowest == NO_JOIN {
                break;
            }
            let left = lowest as u8 as usize;
            let right = next[left] as usize;
            let after = next[right] as usize;
            part_ids[left] = lowest >> 8;
            joins[right] = NO_JOIN;
            next[left] = after as u8;
            prev[after] = left as u8;
            joins[left] = if after < end {
                let look_up = || ranks.rank(&piece[left..next[after] as usize]);
                join_key(pairs.rank(part_ids[left], part_ids[after], look_up), left)
            } else {
                NO_JOIN
            };
            if left > 0 {
                let before = prev[left] as usize;
                let look_up = || ranks.rank(&piece[before..after]);
                joins[before] = join_key(pairs.rank(part_ids[before], part_ids[left], look_up), before);
            }
        }
        let mut start = 0;
        while start < end {
            ids.push(part_ids[start]);
            start = next[start] as usize;
        }
    }

    /// `n log n` in the length of the piece.
    fn merge_by_heap(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        self.fill_links(piece);
        let end = piece.len() as u32;
        while let Some(Reverse(key)) = self.heap.pop() {
            let (rank, left) = ((key >> 32) as u32, key as u32);
            let Link { prev: before, next: right, join, .. } = self.links[left as usize];
            if join != rank || right == MERGED_AWAY {
                continue;
            }
            let after = self.links[right as usize].next;
            self.links[right as usize].next = MERGED_AWAY;
            self.links[left as usize].next = after;
            self.links[left as usize].id = rank;
            if after < end {
                self.links[after as usize].prev = left;
            }
            self.price(piece, left);
            if left > 0 {
                self.price(piece, before);
            }
        }
        let mut start = 0;
        while start < end {
            let Link { next, id, .. } = self.links[start as usize];
            ids.push(id);
            start = next;
        }
    }

    /// Makes the first parts of `piece` and queues their joins.
    fn fill_links(&mut self, piece: &[u8]) {
        let inside = Link { prev: 0, next: MERGED_AWAY, id: 0, join: NO_RANK };
        self.links.clear();
        self.links.resize(piece.len(), inside);
        let (mut start, mut before) = (0, None);
        while start < piece.len() {
            let (len, id) = self.ranks.first_part(piece, start);
            let prev = before.unwrap_or_default();
            self.links[start] = Link { prev: prev as u32, next: (start + len) as u32, id, join: NO_RANK };
            if before.is_some() {
                let look_up = || self.ranks.rank(&piece[prev..start + len]);
                self.links[prev].join = self.pairs.rank(self.links[prev].id, id, look_up);
            }
            before = Some(start);
            start += len;
        }
        let mut keys = std::mem::take(&mut self.heap).into_vec();
        keys.clear();
        let joins = self.links.iter().enumerate().filter(|(_, link)| link.join != NO_RANK);
        keys.extend(joins.map(|(start, link)| Reverse(heap_key(link.join, start as u32))));
        self.heap = keys.into();
    }

    /// Sets the rank of the join at `start` and queues it when there is one.
    fn price(&mut self, piece: &[u8], start: u32) {
        let Link { id, next: right, .. } = self.links[start as usize];
        let join = match self.links.get(right as usize) {
            Some(&Link { id: right_id, next: end, .. }) => {
                let look_up = || self.ranks.rank(&piece[start as usize..end as usize]);
                self.pairs.rank(id, right_id, look_up)
            }
            None => NO_RANK,
        };
        self.links[start as usize].join = join;
        if join != NO_RANK {
            self.heap.push(Reverse(heap_key(join, start)));
        }
    }
}

/// `NO_RANK` gives `NO_JOIN`; ranks have at most 24 bits.
fn join_key(rank: u32, start: usize) -> u32 {
    if rank == NO_RANK { NO_JOIN } else { rank << 8 | start as u32 }
}

fn heap_key(rank: u32, start: u32) -> u64 {
    u64::from(rank) << 32 | u64::from(start)
}
