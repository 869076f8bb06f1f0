//! Byte-pair merging of one piece: always the adjacent pair of lowest rank, the leftmost of equals.

use super::min_tree::MinTree;
use super::pairs::PairMemory;
use super::ranks::{NO_RANK, RankTable};

/// Longest piece, in bytes, merged by looking at every join each time; longer ones use a tree of minima.
const SCAN_BYTES_MAX: usize = 64;
/// Join key of a part that cannot be joined with the one after it.
const NO_JOIN: u32 = u32::MAX;

/// Merging with its reusable work space.
pub(super) struct Merger<'r> {
    ranks: &'r RankTable,
    pairs: PairMemory,
    scan: Box<Scan>,
    /// Parts of a long piece by start byte.
    links: Vec<Link>,
    /// Ranks of the joins of a long piece, by the start of their left part.
    joins: MinTree,
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
    /// Start of the part after this one, the piece's length for the last.
    next: u32,
    id: u32,
}

impl<'r> Merger<'r> {
    /// Work space for texts of about `n_bytes`.
    pub(super) fn new(ranks: &'r RankTable, n_bytes: usize) -> Self {
        let scan = Scan { joins: [NO_JOIN; 256], ids: [0; 256], prev: [0; 256], next: [0; 256] };
        let pairs = PairMemory::new(n_bytes);
        Self { ranks, pairs, scan: Box::new(scan), links: Vec::new(), joins: MinTree::default() }
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
            self.merge_by_tree(piece, ids);
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
                let rank = first_join(ranks, pairs, &piece[left..start + len], part_ids[left], id);
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
    fn merge_by_tree(&mut self, piece: &[u8], ids: &mut Vec<u32>) {
        self.fill_links(piece);
        let end = piece.len() as u32;
        while let Some((rank, left)) = self.joins.lowest() {
            let Link { prev: before, next: right, .. } = self.links[left];
            let after = self.links[right as usize].next;
            self.joins.set(right as usize, NO_RANK);
            self.links[left].next = after;
            self.links[left].id = rank;
            if after < end {
                self.links[after as usize].prev = left as u32;
            }
            self.price(piece, left);
            if left > 0 {
                self.price(piece, before as usize);
            }
        }
        let mut start = 0;
        while start < end {
            let Link { next, id, .. } = self.links[start as usize];
            ids.push(id);
            start = next;
        }
    }

    /// Makes the first parts of `piece` and the ranks of their joins.
    fn fill_links(&mut self, piece: &[u8]) {
        let Self { ranks, pairs, links, joins, .. } = self;
        links.clear();
        links.resize(piece.len(), Link { prev: 0, next: 0, id: 0 });
        let mut join_ranks = vec![NO_RANK; piece.len()];
        let (mut start, mut before) = (0, None);
        while start < piece.len() {
            let (len, id) = ranks.first_part(piece, start);
            let prev = before.unwrap_or_default();
            links[start] = Link { prev: prev as u32, next: (start + len) as u32, id };
            if before.is_some() {
                join_ranks[prev] = first_join(ranks, pairs, &piece[prev..start + len], links[prev].id, id);
            }
            before = Some(start);
            start += len;
        }
        joins.fill(join_ranks.into_iter());
    }

    /// Sets the rank of the join at `start`.
    fn price(&mut self, piece: &[u8], start: usize) {
        let Link { id, next: right, .. } = self.links[start];
        let join = match self.links.get(right as usize) {
            Some(&Link { id: right_id, next: end, .. }) => {
                let look_up = || self.ranks.rank(&piece[start..end as usize]);
                self.pairs.rank(id, right_id, look_up)
            }
            None => NO_RANK,
        };
        self.joins.set(start, join);
    }
}

/// Rank of the join of two first parts, which are `bytes` together.
#[inline]
fn first_join(ranks: &RankTable, pairs: &mut PairMemory, bytes: &[u8], left: u32, right: u32) -> u32 {
    match *bytes {
        [a, b] => ranks.pair_rank(a, b),
        _ => pairs.rank(left, right, || ranks.rank(bytes)),
    }
}

/// `NO_RANK` gives `NO_JOIN`; ranks have at most 24 bits.
fn join_key(rank: u32, start: usize) -> u32 {
    if rank == NO_RANK { NO_JOIN } else { rank << 8 | start as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Merging as it is defined, byte by byte: the judge of both faster ways.
    fn merge_as_defined(ranks: &RankTable, piece: &[u8]) -> Vec<u32> {
        let mut starts: Vec<usize> = (0..=piece.len()).collect();
        loop {
            let joins = starts.windows(3).map(|w| ranks.rank(&piece[w[0]..w[2]]));
            match joins.enumerate().min_by_key(|&(_, rank)| rank) {
                Some((at, rank)) if rank != NO_RANK => starts.remove(at + 1),
                _ => return starts.windows(2).map(|w| ranks.rank(&piece[w[0]..w[1]])).collect(),
            };
        }
    }

    #[test]
    fn every_way_merges_as_defined() {
        let ranks = RankTable::parse(include_bytes!("../../tests/data/small.tiktoken")).unwrap();
        let corpus: Vec<char> = include_str!("../../tests/data/corpus.txt").chars().collect();
        let mut merger = Merger::new(&ranks, 1 << 20);
        for seed in 0..2000usize {
            // Characters of the corpus at a stride, so that neighbours are both usual and unusual.
            let (first, stride, len) = (seed * 37, seed % 5 + 1, seed % 60 + 1);
            let piece: String = (0..len).map(|i| corpus[(first + i * stride) % corpus.len()]).collect();
            let expected = merge_as_defined(&ranks, piece.as_bytes());
            let (mut by_scan, mut by_tree) = (Vec::new(), Vec::new());
            merger.merge_by_scan(piece.as_bytes(), &mut by_scan);
            merger.merge_by_tree(piece.as_bytes(), &mut by_tree);
            assert_eq!((&by_scan, &by_tree), (&expected, &expected), "seed {seed}: {piece:?}");
        }
    }
}
