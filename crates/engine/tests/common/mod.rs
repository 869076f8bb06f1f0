//! A model whose answers anyone can predict, and what the tests share. Nothing here is taken from the engine.

#![allow(dead_code, clippy::unwrap_used)]

use perilune_engine::forward::{ForwardModel, Forwarded};
use perilune_engine::mask::{MaskError, TokenMask};
use perilune_engine::request::{Delivery, Event, EventSink, Finish, TokenEvent, Usage};
use perilune_model::forward::{Phase, Segment, Wanted};
use std::sync::{Arc, Mutex};

/// V of the fake model.
pub(crate) const VOCAB: usize = 67;
/// A prompt with this id gives NaN from there on; it is never generated.
pub(crate) const POISON: u32 = 66;
/// Tokens in a block.
pub(crate) const BLOCK: usize = 64;

/// SplitMix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        scramble(self.0)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Below `n` four times in five, else below `seldom`.
    pub(crate) fn mostly(&mut self, n: usize, seldom: usize) -> usize {
        let n = if self.chance(80) { n } else { seldom };
        self.below(n)
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

pub(crate) fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

const NAN_MARK: u64 = u64::MAX;

/// What the fake model keeps of a token, given what it kept of all tokens before it.
pub(crate) fn kept(before: u64, id: u32, is_decode: bool) -> u64 {
    if id == POISON || before == NAN_MARK {
        return NAN_MARK;
    }
    scramble(before ^ scramble(u64::from(id) * 2 + u64::from(is_decode) + 1)) >> 1
}

/// What it knows after a token: everything kept, in order.
pub(crate) fn gather(state: u64, kept: u64) -> u64 {
    if state == NAN_MARK || kept == NAN_MARK { NAN_MARK } else { scramble(state.rotate_left(7) ^ kept) >> 1 }
}

/// Logits after `state`.
pub(crate) fn logits(state: u64) -> Vec<f32> {
    if state == NAN_MARK {
        return vec![f32::NAN; VOCAB];
    }
    let logit = |i: usize| (scramble(state ^ (i as u64 + 1) << 40) >> 48) as f32 / 8192.0;
    (0..VOCAB).map(|i| if i == POISON as usize { -1e9 } else { logit(i) }).collect()
}

/// Reads and writes blocks as a real model would, so a block in wrong hands changes what it says.
pub(crate) struct Fake {
    slots: Vec<u64>,
    phases_differ: bool,
    /// Whether it finds chunks of other lengths worth it, by position.
    pub(crate) varies_chunks: bool,
    pub(crate) n_rows: u64,
}

impl Fake {
    pub(crate) fn new(n_blocks: usize, phases_differ: bool) -> Self {
        Fake { slots: vec![0; n_blocks * BLOCK], phases_differ, varies_chunks: false, n_rows: 0 }
    }

    fn run(&mut self, segment: &Segment<'_>) -> u64 {
        let is_decode = self.phases_differ && segment.phase == Phase::Decode;
        let slot = |at: usize| segment.blocks[at / BLOCK] as usize * BLOCK + at % BLOCK;
        let mut state = (0..segment.first_position).fold(0, |state, at| gather(state, self.slots[slot(at)]));
        for (i, &id) in segment.ids.iter().enumerate() {
            let kept = kept(state, id, is_decode);
            self.slots[slot(segment.first_position + i)] = kept;
            state = gather(state, kept);
        }
        self.n_rows += segment.ids.len() as u64;
        state
    }
}

impl ForwardModel for Fake {
    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn n_positions_max(&self) -> usize {
        100_000
    }

    fn n_blocks(&self) -> usize {
        self.slots.len() / BLOCK
    }

    fn phases_differ(&self) -> bool {
        self.phases_differ
    }

    fn chunk_tokens(&self, n_before: usize, most: usize) -> usize {
        if self.varies_chunks { n_before * 7 % (2 * most) } else { most }
    }

    fn forward(&mut self, segments: &[Segment<'_>]) -> Result<Forwarded, String> {
        assert!(segments.iter().all(|s| s.wanted == Wanted::Last && !s.ids.is_empty()));
        let logits = segments.iter().flat_map(|s| logits(self.run(s))).collect();
        Ok(Forwarded { logits, weight_bytes: 1 })
    }
}

/// What one request's sink has heard.
#[derive(Default, Clone)]
pub(crate) struct Heard {
    pub(crate) n_cached: Option<usize>,
    pub(crate) tokens: Vec<TokenEvent>,
    pub(crate) finish: Option<(Finish, Usage)>,
    /// The sink is gone from this token on.
    pub(crate) gone_at: Option<usize>,
}

impl Heard {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|t| t.id).collect()
    }
}

pub(crate) type Ear = Arc<Mutex<Heard>>;

/// A sink and where it writes.
pub(crate) fn sink(gone_at: Option<usize>) -> (EventSink, Ear) {
    let ear: Ear = Arc::new(Mutex::new(Heard { gone_at, ..Heard::default() }));
    let theirs = Arc::clone(&ear);
    let hear = move |event| {
        let mut heard = theirs.lock().unwrap();
        assert!(heard.finish.is_none(), "nothing comes after the last event");
        match event {
            Event::Started { n_cached } => assert_eq!(heard.n_cached.replace(n_cached), None, "started once"),
            Event::Token(token) => {
                assert_eq!(token.index, heard.tokens.len());
                heard.tokens.push(token);
            }
            Event::Finished { finish, usage } => heard.finish = Some((finish, usage)),
        }
        let is_gone = heard.gone_at.is_some_and(|n| heard.tokens.len() >= n);
        if is_gone { Delivery::Gone } else { Delivery::Taken }
    };
    (Box::new(hear), ear)
}

/// A clock that goes on by a millisecond whenever it is read.
pub(crate) fn clock() -> perilune_engine::Clock {
    let mut at = std::time::Duration::ZERO;
    Box::new(move || {
        at += std::time::Duration::from_millis(1);
        at
    })
}

/// Allows ids whose parity follows the count of tokens; complete after `n_left` tokens.
pub(crate) struct Parity {
    pub(crate) n_seen: u32,
    pub(crate) n_left: u32,
}

impl TokenMask for Parity {
    fn fill(&mut self, mask: &mut [u32]) -> Result<(), MaskError> {
        assert!(mask.iter().all(|word| *word == 0));
        mask.fill(if self.n_seen.is_multiple_of(2) { 0x5555_5555 } else { 0xAAAA_AAAA });
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<(), MaskError> {
        if id % 2 != self.n_seen % 2 {
            return Err(MaskError(format!("{id} has the wrong parity")));
        }
        self.n_seen += 1;
        self.n_left -= 1;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.n_left == 0
    }
}
