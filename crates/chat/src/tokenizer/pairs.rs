//! A small direct-mapped memory of which pairs of tokens join, so that most joins cost no hashing of bytes.

use super::ranks::{MAX_RANKS, NO_RANK};

/// Fewest bits of a slot number: with them, what is left of a pair and its rank fit into 64 bits.
const SLOT_BITS_MIN: u32 = 8;
/// Most bits of a slot number: 128 KiB of slots stay in the second-level cache.
const SLOT_BITS_MAX: u32 = 14;
/// A pair of ids has this many bits.
const PAIR_BITS: u32 = 48;
/// Odd, so that multiplying by it modulo 2^48 loses nothing: slot number and tag together are the pair.
const MIX: u64 = 0x9E37_79B9_7F4B;
/// Stored for pairs that do not join; 0 marks an empty slot, other values are the rank plus 1.
const STORED_NO_RANK: u64 = 0xFF_FFFF;

const _: () = assert!((MAX_RANKS as u64) < STORED_NO_RANK);

/// Ranks of recently joined pairs.
pub(super) struct PairMemory {
    /// Tag in the high 40 bits, stored rank in the low 24.
    slots: Vec<u64>,
    tag_bits: u32,
}

impl PairMemory {
    /// A memory in proportion to the bytes that will be encoded with it.
    pub(super) fn new(n_bytes: usize) -> Self {
        let slot_bits = n_bytes.max(1).ilog2().clamp(SLOT_BITS_MIN, SLOT_BITS_MAX);
        Self { slots: vec![0; 1 << slot_bits], tag_bits: PAIR_BITS - slot_bits }
    }

    /// Rank of the join of two tokens: remembered, or from `look_up` (`NO_RANK` where they do not join).
    #[inline(always)]
    pub(super) fn rank(&mut self, left: u32, right: u32, look_up: impl FnOnce() -> u32) -> u32 {
        let pair = u64::from(left) << 24 | u64::from(right);
        let mixed = pair.wrapping_mul(MIX) & ((1 << PAIR_BITS) - 1);
        let tag = mixed & ((1 << self.tag_bits) - 1);
        let slot = &mut self.slots[(mixed >> self.tag_bits) as usize];
        let mut stored = *slot & STORED_NO_RANK;
        if *slot >> 24 != tag || stored == 0 {
            let rank = look_up();
            stored = if rank == NO_RANK { STORED_NO_RANK } else { u64::from(rank) + 1 };
            *slot = tag << 24 | stored;
        }
        if stored == STORED_NO_RANK { NO_RANK } else { stored as u32 - 1 }
    }
}
