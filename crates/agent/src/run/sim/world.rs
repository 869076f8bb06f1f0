//! The world outside the process: it survives crashes, and counts.

use crate::journal::Row;
use perilune_chat::tokenizer::Tokenizer;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Deaths in one life.
const N_DEATHS_MAX: u64 = 100;

/// Something that a tool did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deed {
    /// The tool.
    pub(super) tool: &'static str,
    /// What the model called it with.
    pub(super) id: u64,
    /// The key of the attempt.
    pub(super) key: String,
    /// Whether an intent with the call's arguments stood in the journal, and was on the disk.
    pub(super) was_announced: bool,
    pub(super) was_synced: bool,
}

#[derive(Default)]
struct Inner {
    random: u64,
    now_ms: u64,
    rows: Vec<Row>,
    n_synced: usize,
    n_rises: u64,
    dies_in: u64,
    is_dead: bool,
    next_id: u64,
    deeds: Vec<Deed>,
    keys: BTreeMap<String, u64>,
    /// Newest messages that the model was sent, as text.
    sent: Vec<String>,
}

/// The world, and when the process dies in it.
pub(super) struct World {
    inner: Mutex<Inner>,
    /// Reads leaked calls.
    pub(super) tokenizer: Arc<Tokenizer>,
    /// Turns before the model answers.
    pub(super) n_turns: u64,
    /// Turns that the budget allows.
    pub(super) n_steps_max: u64,
    /// The model makes one call again and again.
    pub(super) is_circling: bool,
    /// Crashes of this life take the machine with them.
    loses_unsynced: bool,
    crash_every: u64,
}

impl World {
    pub(super) fn new(seed: u64, tokenizer: &Arc<Tokenizer>) -> Self {
        let inner =
            Inner { random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d, ..Inner::default() };
        let mut world = Self {
            inner: Mutex::new(inner),
            tokenizer: Arc::clone(tokenizer),
            n_turns: 0,
            n_steps_max: 60,
            is_circling: false,
            loses_unsynced: false,
            crash_every: 0,
        };
        world.n_turns = 2 + world.below(9);
        world.is_circling = world.below(12) == 0;
        if world.below(12) == 0 {
            world.n_steps_max = 1 + world.below(4);
        }
        world.loses_unsynced = world.below(3) == 0;
        world.crash_every = [0, 15, 40, 120][world.below(4) as usize];
        world.rise();
        world
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// A random number below `n`.
    pub(super) fn below(&self, n: u64) -> u64 {
        let mut inner = self.inner();
        inner.random ^= inner.random << 13;
        inner.random ^= inner.random >> 7;
        inner.random ^= inner.random << 17;
        (inner.random >> 11) % n
    }

    pub(super) fn tick(&self) -> u64 {
        let mut inner = self.inner();
        inner.now_ms += 1;
        inner.now_ms
    }

    // ---- death ----

    /// One more moment; whether the process is dead after it.
    pub(super) fn dies(&self) -> bool {
        let mut inner = self.inner();
        inner.dies_in = inner.dies_in.saturating_sub(1);
        inner.is_dead |= inner.dies_in == 0;
        inner.is_dead
    }

    pub(super) fn has_died(&self) -> bool {
        self.inner().is_dead
    }

    /// The next process; what the machine had not synced may be lost.
    pub(super) fn rise(&self) {
        let dies_in = if self.crash_every == 0 { u64::MAX } else { 3 + self.below(self.crash_every) };
        let loses = self.loses_unsynced && self.below(2) == 0;
        let mut inner = self.inner();
        if inner.is_dead && loses {
            let n_synced = inner.n_synced;
            inner.rows.truncate(n_synced);
        }
        inner.is_dead = false;
        inner.n_rises += 1;
        // A machine that keeps dying may never get on; one that stops dying must.
        inner.dies_in = if inner.n_rises > N_DEATHS_MAX { u64::MAX } else { dies_in };
    }

    // ---- the journal's disk ----

    pub(super) fn keep(&self, row: &Row, is_synced: bool) {
        let mut inner = self.inner();
        inner.rows.push(row.clone());
        if is_synced {
            inner.n_synced = inner.rows.len();
        }
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        self.inner().rows.clone()
    }

    // ---- effects ----

    /// Does something, unless the process is dead; whether it was done.
    pub(super) fn act(&self, tool: &'static str, id: u64, key: &str) -> bool {
        if self.dies() {
            return false;
        }
        let mark = "\"event\":\"intent\"".to_owned();
        let argument = format!("\"id\":{id}}}");
        let mut inner = self.inner();
        let is_intent = |row: &Row| row.body.contains(&mark) && row.body.contains(&argument);
        let was_announced = inner.rows.iter().any(is_intent);
        let was_synced = inner.rows[..inner.n_synced].iter().any(is_intent);
        let is_known = tool == "pay" && inner.keys.contains_key(key);
        if !is_known {
            inner.keys.insert(key.to_owned(), id);
            inner.deeds.push(Deed { tool, id, key: key.to_owned(), was_announced, was_synced });
        }
        drop(inner);
        !self.dies()
    }

    pub(super) fn deeds(&self) -> Vec<Deed> {
        self.inner().deeds.clone()
    }

    pub(super) fn has_done(&self, id: u64) -> bool {
        self.inner().deeds.iter().any(|deed| deed.id == id)
    }

    pub(super) fn next_id(&self) -> u64 {
        let mut inner = self.inner();
        inner.next_id += 1;
        inner.next_id
    }

    // ---- what was sent ----

    pub(super) fn send(&self, text: String) {
        self.inner().sent.push(text);
    }

    pub(super) fn sent(&self) -> Vec<String> {
        self.inner().sent.clone()
    }

    pub(super) fn think(&self) -> String {
        format!("thought {}.", self.next_id())
    }
}
