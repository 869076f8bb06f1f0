//! Schedule: who is admitted, who makes room, which tokens run.
//!
//! *Order.* Latency requests come first, then throughput requests, each by age. A throughput request that
//! [`n_overtaken_max`](crate::Settings::n_overtaken_max) latency requests have passed in the queue is promoted: from
//! then on its age alone counts among the latency requests, and none of them preempts it.
//!
//! *Why nobody starves.* Call a request first-rank when it is of the latency class or promoted. The oldest
//! first-rank request is never preempted, runs in at least every `throughput_every`-th step and ends after as many
//! tokens as it asked for; while it waits nobody is admitted before it, so those that run end and it is admitted,
//! since it fits the empty cache. A throughput request is preempted at most `n_preempted_max` times for an admission;
//! when it has lost its memory more often than that in all, it is promoted too. Between preemptions it waits for
//! finitely many admissions or is promoted, and once promoted only the finitely many older requests come before it.

use crate::blocks::{BLOCK_TOKENS, blocks_for};
use crate::engine::{Engine, Move, Settings, StepReport, Work};
use crate::forward::ForwardModel;
use crate::request::{Class, Event, RequestId};
use crate::sequence::Sequence;
use std::collections::BTreeMap;

/// What one class may prefill in one step.
#[derive(Clone, Copy)]
struct Prefill {
    /// Tokens of a chunk at most.
    chunk_tokens: usize,
    /// Tokens that may still be taken.
    left: usize,
    /// Tokens taken.
    n: usize,
}

impl Prefill {
    /// Take `n` tokens, where they fit or are the first.
    fn take(&mut self, n: usize) -> bool {
        let fits = self.n == 0 || n <= self.left;
        if fits {
            self.n += n;
            self.left = self.left.saturating_sub(n);
        }
        fits
    }
}

impl<M: ForwardModel> Engine<M> {
    pub(crate) fn schedule(&mut self) -> StepReport {
        let mut report = StepReport::default();
        self.reap();
        while let Some(id) = self.next_waiting() {
            if !self.try_admit(id, &mut report) {
                break;
            }
        }
        self.plan(&mut report);
        report
    }

    /// End the requests whose owners are gone.
    fn reap(&mut self) {
        let all = self.running.values().chain(self.waiting.iter().flat_map(BTreeMap::values));
        let gone: Vec<RequestId> = all.filter(|s| s.is_cancelled()).map(|s| s.id).collect();
        for id in gone {
            self.cancel(id);
        }
    }

    /// Whose turn it is; `None` where nobody waits who may start.
    fn next_waiting(&mut self) -> Option<RequestId> {
        let (n_admitted, max) = (self.n_latency_admissions, self.settings.n_overtaken_max);
        for sequence in self.waiting[Class::Throughput.index()].values_mut() {
            sequence.is_promoted |= n_admitted - sequence.queued_at >= max;
        }
        let waiting = self.waiting.iter().flat_map(BTreeMap::values);
        waiting.filter(|s| !self.is_held(s)).map(Sequence::rank).min().map(|(_, id)| id)
    }

    /// Whether the request waits for another's prompt.
    fn is_held(&self, sequence: &Sequence) -> bool {
        let Some(leader) = sequence.share_prompt_with.filter(|leader| *leader < sequence.id) else {
            return false;
        };
        let mut places = [&self.running].into_iter().chain(&self.waiting);
        places.find_map(|place| place.get(&leader)).is_some_and(|leader| leader.generation.n_generated() == 0)
    }

    /// Give a waiting request a place and blocks, preempting others where its rank allows; `false`: it must wait.
    fn try_admit(&mut self, id: RequestId, report: &mut StepReport) -> bool {
        loop {
            let lacking = self.n_lacking(id);
            if lacking == 0 && self.running.len() < self.settings.n_running_max {
                self.start(id);
                report.moves.push(Move::Admitted(id));
                return true;
            }
            let Some(victim) = self.victim_of_admission(id, lacking) else { return false };
            if let Some(victim) = self.running.get_mut(&victim) {
                victim.n_preemptions += 1;
            }
            self.preempt(victim);
            report.moves.push(Move::Preempted(victim));
        }
    }

    fn waiting(&self, id: RequestId) -> &Sequence {
        let mut queues = self.waiting.iter();
        queues.find_map(|queue| queue.get(&id)).expect("candidates are chosen among the waiting")
    }

    /// Blocks that a waiting request's first tokens take beyond its cached chain.
    fn n_needed(&self, sequence: &Sequence, n_chain: usize) -> usize {
        let generation = &sequence.generation;
        let most = generation.n_prompt + generation.n_new_max;
        blocks_for(most.min(generation.ids.len() + self.settings.reserve_tokens)) - n_chain
    }

    fn chain(&self, sequence: &Sequence) -> Vec<u32> {
        if self.settings.prefix_cache { sequence.find(&self.blocks) } else { Vec::new() }
    }

    /// Blocks that are not there for a waiting request.
    fn n_lacking(&self, id: RequestId) -> usize {
        let sequence = self.waiting(id);
        let chain = self.chain(sequence);
        let available = self.blocks.n_available() - self.blocks.n_unlocked_of(&chain);
        self.n_needed(sequence, chain.len()).saturating_sub(available)
    }

    /// Move a request that fits from the queue to the running.
    fn start(&mut self, id: RequestId) {
        let chain = self.chain(self.waiting(id));
        let n_needed = self.n_needed(self.waiting(id), chain.len());
        let mut sequence = self.remove(id).expect("candidates are chosen among the waiting");
        self.blocks.lock(&chain);
        if let Some(n_cached) = sequence.start(chain, &self.blocks) {
            self.stats.prompt_tokens += sequence.generation.n_prompt as u64;
            self.stats.cached_tokens += n_cached as u64;
            sequence.tell(Event::Started { n_cached });
        }
        sequence.blocks.extend((0..n_needed).map_while(|_| self.blocks.take()));
        self.stats.admissions += 1;
        self.n_latency_admissions += u64::from(sequence.class == Class::Latency);
        self.running.insert(id, sequence);
    }

    /// Who makes room for a waiting request: the youngest that may be preempted, where room enough can be made.
    fn victim_of_admission(&self, id: RequestId, n_lacking: usize) -> Option<RequestId> {
        let (is_second_rank, _) = self.waiting(id).rank();
        let max = self.settings.n_preempted_max;
        let victims = || self.running.values().filter(|s| s.rank().0 && s.n_preemptions < max);
        let n_gained: usize = victims().map(|s| s.blocks.len()).sum();
        let victim = victims().map(|s| s.id).max();
        victim.filter(|_| !is_second_rank && n_gained >= n_lacking)
    }

    /// Choose the tokens of this step, strongest first.
    fn plan(&mut self, report: &mut StepReport) {
        let is_busy = self.running.values().any(|s| s.class == Class::Latency);
        let is_turn = !is_busy || self.n_steps_without_throughput + 1 >= self.settings.throughput_every;
        let mut order: Vec<_> = self.running.values().map(|s| (s.rank(), s.class)).collect();
        order.sort_unstable();
        let Settings { chunk_tokens, busy_chunk_tokens, prefill_tokens_max, .. } = self.settings;
        let usual = Prefill { chunk_tokens, left: prefill_tokens_max, n: 0 };
        let busy = Prefill { chunk_tokens: busy_chunk_tokens, left: busy_chunk_tokens, n: 0 };
        let mut prefill = [usual, if is_busy { busy } else { usual }];
        for ((_, id), class) in order {
            if class == Class::Latency || is_turn {
                self.plan_one(id, &mut prefill[class.index()], report);
            }
        }
        let is_throughput =
            |id| self.running.get(id).is_some_and(|s: &Sequence| s.class == Class::Throughput);
        let has_waited = self.running.values().any(|s| s.class == Class::Throughput)
            && !report.work.iter().any(|w| is_throughput(&w.id));
        self.n_steps_without_throughput = if has_waited { self.n_steps_without_throughput + 1 } else { 0 };
    }

    /// Tokens of a sequence's next chunk at most: `most` where nobody waits for it, else what the model finds worth it.
    fn chunk_tokens(&self, sequence: &Sequence, most: usize) -> usize {
        let is_alone = self.running.len() == 1 && self.waiting.iter().all(BTreeMap::is_empty);
        if is_alone {
            return most;
        }
        let worth = self.model.chunk_tokens(sequence.n_computed, most);
        (worth / BLOCK_TOKENS * BLOCK_TOKENS).clamp(BLOCK_TOKENS, most)
    }

    fn plan_one(&mut self, id: RequestId, prefill: &mut Prefill, report: &mut StepReport) {
        // Who was strong enough to be planned before may have preempted this one.
        let Some(sequence) = self.running.get(&id) else { return };
        let (positions, phase) = sequence.next_chunk(self.chunk_tokens(sequence, prefill.chunk_tokens));
        if !sequence.is_decoding() && !prefill.take(positions.len()) {
            return;
        }
        let samples = positions.end == sequence.generation.ids.len();
        if self.grow(id, positions.end, report) {
            report.work.push(Work { id, positions, phase, samples });
        }
    }

    /// Blocks for `n_tokens` of a running sequence, from those weaker than it where there are no others; `false` where
    /// it is the weakest and goes back to the queue itself.
    fn grow(&mut self, id: RequestId, n_tokens: usize, report: &mut StepReport) -> bool {
        while self.running[&id].blocks.len() * BLOCK_TOKENS < n_tokens {
            if let Some(block) = self.blocks.take() {
                self.running.get_mut(&id).expect("indexed above").blocks.push(block);
                continue;
            }
            let weakest = self.running.values().map(Sequence::rank).max().map(|(_, id)| id);
            let victim = weakest.expect("this sequence runs");
            let max = self.settings.n_preempted_max;
            if let Some(victim) = self.running.get_mut(&victim) {
                victim.n_preemptions += 1;
                victim.is_promoted |= victim.n_preemptions > max;
            }
            self.preempt(victim);
            report.moves.push(Move::Preempted(victim));
            if victim == id {
                return false;
            }
        }
        true
    }
}
