//! The engine: its settings, its door and its step.

use crate::blocks::{BLOCK_TOKENS, Blocks};
use crate::forward::ForwardModel;
use crate::request::{
    Class, Event, EventSink, Failure, Finish, Request, RequestId, STOP_IDS_MAX, SubmitError,
};
use crate::sequence::{Draw, Sequence};
use crate::stats::Stats;
use perilune_model::forward::{Phase, Segment, Wanted};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How the engine shares its time and memory; every queue and budget has its maximum here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Sequences that run at once, at least 1.
    pub n_running_max: usize,
    /// Most requests that wait, by class (latency, throughput); a full queue refuses more.
    pub n_waiting_max: [usize; 2],
    /// Prefill chunks end at multiples of this position, tokens; rounded up to whole blocks of 64.
    pub chunk_tokens: usize,
    /// The same for throughput sequences while latency sequences run, whose tokens wait for such a chunk now and then.
    ///
    /// Both are multiples of a block, so chunks end on one grid whatever the load; and a chunk reads what it wrote from
    /// the cache, so where it ends changes no bit.
    pub busy_chunk_tokens: usize,
    /// Most prompt tokens a class computes in one step (one chunk is always allowed).
    pub prefill_tokens_max: usize,
    /// Tokens of generation for which blocks are reserved at admission.
    pub reserve_tokens: usize,
    /// While latency sequences run, throughput sequences run in one step of this many, and in no other.
    ///
    /// 32 leaves 97 of 100 latency tokens undisturbed, so the 95th percentile of their distance is an idle server's.
    pub throughput_every: u64,
    /// Later latency requests that may be admitted while a throughput request waits; then its age alone counts.
    pub n_overtaken_max: u64,
    /// Times that latency requests may preempt one throughput sequence.
    pub n_preempted_max: u32,
    /// Whether requests share full blocks of 64 tokens.
    pub prefix_cache: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            n_running_max: 64,
            n_waiting_max: [1_024, 4_096],
            chunk_tokens: 512,
            busy_chunk_tokens: 128,
            prefill_tokens_max: 512,
            reserve_tokens: 256,
            throughput_every: 32,
            n_overtaken_max: 16,
            n_preempted_max: 2,
            prefix_cache: true,
        }
    }
}

/// What a request must fit, known before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// V: ids are below it.
    pub vocab_size: usize,
    /// Tokens of prompt and generation together: the model's positions or the whole cache, whichever is less.
    pub context_max: usize,
}

impl Limits {
    /// Whether `request` could ever run.
    ///
    /// # Errors
    /// [`SubmitError`] for the first thing that is wrong with it; never [`SubmitError::QueueFull`] or
    /// [`SubmitError::Stopping`].
    pub fn check(&self, request: &Request) -> Result<(), SubmitError> {
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if request.n_new_max == 0 {
            return Err(SubmitError::NothingWanted);
        }
        if request.stop_ids.len() > STOP_IDS_MAX {
            return Err(SubmitError::TooManyStopIds { given: request.stop_ids.len() });
        }
        let needed = request.prompt.len().saturating_add(request.n_new_max);
        if needed > self.context_max {
            return Err(SubmitError::ContextTooLong { needed, limit: self.context_max });
        }
        let biased = request.sampling.logit_bias.iter().map(|(id, _)| id);
        let forced = request.forced.iter().map(|f| &f.id);
        let mut ids = request.prompt.iter().chain(&request.stop_ids).chain(biased).chain(forced);
        match ids.find(|&&id| id as usize >= self.vocab_size) {
            Some(&id) => Err(SubmitError::OutsideVocabulary { id, vocab_size: self.vocab_size }),
            None => Ok(request.sampling.check()?),
        }
    }
}

/// Places in the queues, counted where a request is sent from.
#[derive(Debug)]
pub(crate) struct Places {
    taken: [AtomicUsize; 2],
    max: [usize; 2],
}

impl Places {
    /// Take a place in the queue of `class`.
    pub(crate) fn enter(&self, class: Class) -> Result<(), SubmitError> {
        let (taken, max) = (&self.taken[class.index()], self.max[class.index()]);
        let more = |n: usize| (n < max).then_some(n + 1);
        match taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
            Ok(_) => Ok(()),
            Err(queued) => Err(SubmitError::QueueFull { queued }),
        }
    }

    pub(crate) fn leave(&self, class: Class) {
        self.taken[class.index()].fetch_sub(1, Ordering::AcqRel);
    }

    /// A preempted sequence comes back even where the queue is full: it was taken once.
    fn come_back(&self, class: Class) {
        self.taken[class.index()].fetch_add(1, Ordering::AcqRel);
    }
}

/// Tokens of one sequence in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Whose.
    pub id: RequestId,
    /// Its positions, tokens from the start of the prompt.
    pub positions: Range<usize>,
    /// Attention form.
    pub phase: Phase,
    /// Whether the last row gives the next token: its context is then complete.
    pub samples: bool,
}

/// A sequence changes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// From the queue to the running.
    Admitted(RequestId),
    /// From the running back to the queue.
    Preempted(RequestId),
}

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Who came and who had to go back, in order.
    pub moves: Vec<Move>,
    /// What ran.
    pub work: Vec<Work>,
}

/// Time since a fixed moment, from outside, read around forward passes.
pub type Clock = Box<dyn FnMut() -> Duration + Send>;

/// Many requests over one model and its cache.
pub struct Engine<M> {
    pub(crate) model: M,
    pub(crate) settings: Settings,
    pub(crate) blocks: Blocks,
    pub(crate) running: BTreeMap<RequestId, Sequence>,
    /// By class.
    pub(crate) waiting: [BTreeMap<RequestId, Sequence>; 2],
    pub(crate) places: Arc<Places>,
    pub(crate) n_latency_admissions: u64,
    pub(crate) n_steps_without_throughput: u64,
    pub(crate) stats: Stats,
    pub(crate) draw: Draw,
    next_id: u64,
    clock: Clock,
}

impl<M: ForwardModel> Engine<M> {
    /// An engine with nothing to do; `clock` is read around forward passes.
    ///
    /// Settings of zero count as one, and chunks are whole blocks.
    pub fn new(model: M, mut settings: Settings, clock: Clock) -> Self {
        settings.n_running_max = settings.n_running_max.max(1);
        let whole_blocks = |n: usize| n.max(1).next_multiple_of(BLOCK_TOKENS);
        settings.chunk_tokens = whole_blocks(settings.chunk_tokens);
        settings.busy_chunk_tokens = whole_blocks(settings.busy_chunk_tokens).min(settings.chunk_tokens);
        settings.reserve_tokens = settings.reserve_tokens.max(1);
        settings.throughput_every = settings.throughput_every.max(1);
        let places = Places { taken: Default::default(), max: settings.n_waiting_max };
        Engine {
            blocks: Blocks::new(model.n_blocks()),
            model,
            settings,
            running: BTreeMap::new(),
            waiting: Default::default(),
            places: Arc::new(places),
            n_latency_admissions: 0,
            n_steps_without_throughput: 0,
            stats: Stats::default(),
            draw: Draw::default(),
            next_id: 0,
            clock,
        }
    }

    /// What requests must fit.
    pub fn limits(&self) -> Limits {
        let context_max = self.model.n_positions_max().min(self.model.n_blocks() * BLOCK_TOKENS);
        Limits { vocab_size: self.model.vocab_size(), context_max }
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Queue a request; its events go to `sink`.
    ///
    /// # Errors
    /// [`SubmitError`] for a request that can never run, or a full queue.
    pub fn submit(&mut self, request: Request, sink: EventSink) -> Result<RequestId, SubmitError> {
        self.limits().check(&request)?;
        self.places.enter(request.class)?;
        let id = RequestId(self.next_id);
        self.enqueue(id, request, sink, Arc::default());
        Ok(id)
    }

    /// Queue a request that was checked and has its place.
    pub(crate) fn enqueue(
        &mut self,
        id: RequestId,
        request: Request,
        sink: EventSink,
        cancel: Arc<AtomicBool>,
    ) {
        self.next_id = self.next_id.max(id.0 + 1);
        self.stats.submitted[request.class.index()] += 1;
        let mut sequence = Sequence::new(id, request, sink, cancel);
        sequence.queued_at = self.n_latency_admissions;
        self.waiting[sequence.class.index()].insert(id, sequence);
    }

    /// End a request now as [`Finish::Cancelled`]; `false` where it is not there (any more).
    pub fn cancel(&mut self, id: RequestId) -> bool {
        let sequence = self.remove(id);
        let found = sequence.is_some();
        if let Some(sequence) = sequence {
            self.end(sequence, Finish::Cancelled);
        }
        found
    }

    /// End every request as [`Finish::Cancelled`].
    pub fn cancel_all(&mut self) {
        self.ids().into_iter().for_each(|id| {
            self.cancel(id);
        });
    }

    /// End every request as failed.
    pub(crate) fn fail_all(&mut self, reason: &str) {
        for id in self.ids() {
            if let Some(sequence) = self.remove(id) {
                self.end(sequence, Finish::Failed(Failure::Forward(reason.to_owned())));
            }
        }
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.iter().all(BTreeMap::is_empty)
    }

    /// Run one step: schedule, forward, settle. What ran, and who moved.
    pub fn step(&mut self) -> StepReport {
        let report = self.schedule();
        let outcome = self.forward(&report.work);
        self.settle(&report.work, outcome);
        report
    }

    fn forward(&mut self, work: &[Work]) -> Result<Vec<f32>, String> {
        if work.is_empty() {
            return Ok(Vec::new());
        }
        let segments: Vec<Segment<'_>> = work
            .iter()
            .map(|w| {
                let sequence = &self.running[&w.id];
                Segment {
                    ids: &sequence.generation.ids[w.positions.clone()],
                    first_position: w.positions.start,
                    blocks: &sequence.blocks,
                    phase: w.phase,
                    // A finite row vouches for every cached token before it, so each chunk gives one.
                    wanted: Wanted::Last,
                }
            })
            .collect();
        let before = (self.clock)();
        let forwarded = self.model.forward(&segments)?;
        self.stats.forward_s += (self.clock)().saturating_sub(before).as_secs_f64();
        self.stats.weight_bytes += forwarded.weight_bytes;
        Ok(forwarded.logits)
    }

    /// The books: counters since the start; gauges as of now, those of a batch as of the last step.
    pub fn stats(&self) -> Stats {
        let count = |class| self.running.values().filter(|s| s.class == class).count();
        let (free, cached) = (self.blocks.n_free(), self.blocks.n_cached());
        let blocks = self.model.n_blocks();
        Stats {
            waiting: [self.waiting[0].len(), self.waiting[1].len()],
            running: [count(Class::Latency), count(Class::Throughput)],
            blocks,
            blocks_free: free,
            blocks_cached: cached,
            blocks_used: blocks - free - cached,
            evictions: self.blocks.n_evicted(),
            ..self.stats.clone()
        }
    }

    /// Check that each block is owned once.
    ///
    /// # Errors
    /// What is wrong, which is always a mistake in this crate.
    pub fn audit(&self) -> Result<(), String> {
        let chains: Vec<&[u32]> = self.running.values().map(|s| &s.blocks[..s.n_shared]).collect();
        let own: Vec<u32> = self.running.values().flat_map(|s| &s.blocks[s.n_shared..]).copied().collect();
        if self.waiting.iter().flat_map(BTreeMap::values).any(|s| !s.blocks.is_empty()) {
            return Err("a waiting request holds blocks".into());
        }
        self.blocks.audit(&chains, &own)
    }

    fn ids(&self) -> Vec<RequestId> {
        self.running.keys().chain(self.waiting.iter().flat_map(BTreeMap::keys)).copied().collect()
    }

    pub(crate) fn remove(&mut self, id: RequestId) -> Option<Sequence> {
        if let Some(sequence) = self.running.remove(&id) {
            return Some(sequence);
        }
        let sequence = self.waiting.iter_mut().find_map(|queue| queue.remove(&id))?;
        self.places.leave(sequence.class);
        Some(sequence)
    }

    /// Back to the queue, at the place its age gives it.
    pub(crate) fn preempt(&mut self, id: RequestId) {
        let mut sequence = self.running.remove(&id).expect("victims are chosen among the running");
        sequence.release(&mut self.blocks);
        sequence.queued_at = self.n_latency_admissions;
        self.stats.preemptions[sequence.class.index()] += 1;
        self.places.come_back(sequence.class);
        self.waiting[sequence.class.index()].insert(id, sequence);
    }

    /// Free what a removed sequence holds and tell its sink how it ended.
    pub(crate) fn end(&mut self, mut sequence: Sequence, finish: Finish) {
        if matches!(finish, Finish::Failed(Failure::NonFinite { .. })) {
            self.blocks.unlist(&sequence.blocks[..sequence.n_shared]);
        }
        sequence.release(&mut self.blocks);
        match finish {
            Finish::Cancelled => self.stats.cancelled += 1,
            Finish::Failed(_) => self.stats.failed += 1,
            Finish::Stop { .. } | Finish::MaskComplete | Finish::Length => self.stats.completed += 1,
        }
        let usage = sequence.usage();
        sequence.tell(Event::Finished { finish, usage });
    }
}
