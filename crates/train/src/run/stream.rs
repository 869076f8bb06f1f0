//! A feed in order, drawn ahead by all threads.

use crate::feed::{Feed, Sequence};
use perilune_kernels::cpu::Cpu;
use perilune_kernels::train::for_chunks;
use std::collections::VecDeque;
use std::sync::Arc;

/// Sequences that each thread draws at a time.
const PER_THREAD: usize = 4;

/// Where a stage draws from.
pub struct Stream {
    feed: Arc<dyn Feed>,
    next: u64,
    ahead: VecDeque<Sequence>,
}

impl Stream {
    /// The sequences of `feed` from index `next` on.
    pub fn new(feed: Arc<dyn Feed>, next: u64) -> Stream {
        Stream { feed, next, ahead: VecDeque::new() }
    }

    /// Index of the sequence that comes next.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Whole sequences, in order, of `n_tokens` predicted tokens or a little more.
    pub fn take(&mut self, cpu: &Cpu, n_tokens: usize) -> Vec<Sequence> {
        let (mut taken, mut n) = (Vec::new(), 0);
        while n < n_tokens {
            let Some(sequence) = self.ahead.pop_front() else {
                self.draw(cpu);
                continue;
            };
            self.next += 1;
            // A sequence that predicts nothing still counts as one token, so that this ends.
            n += sequence.ids.len().saturating_sub(1).max(1);
            taken.push(sequence);
        }
        taken
    }

    fn draw(&mut self, cpu: &Cpu) {
        let mut drawn = vec![Sequence::default(); PER_THREAD * cpu.pool().n_threads()];
        for_chunks(cpu, &mut drawn, 1, |i, sequence| sequence[0] = self.feed.sequence(self.next + i as u64));
        self.ahead.extend(drawn);
    }
}
