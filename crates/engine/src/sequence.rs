//! One request inside the engine.

use crate::blocks::{BLOCK_TOKENS, Blocks, PhaseBits};
use crate::mask::{self, TokenMask};
use crate::request::{
    Class, Delivery, Event, EventSink, Failure, Finish, ForcedAfter, Request, RequestId, TokenEvent, Usage,
};
use crate::sampler::{Allowed, Sampler, Scratch, logprobs};
use perilune_model::forward::Phase;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What was asked for, and the tokens so far: everything that does not depend on who else runs.
pub(crate) struct Generation {
    /// Prompt, then what was generated.
    pub(crate) ids: Vec<u32>,
    pub(crate) n_prompt: usize,
    pub(crate) n_new_max: usize,
    n_new_min: usize,
    stop_ids: Vec<u32>,
    sampler: Sampler,
    mask: Option<Box<dyn TokenMask>>,
    forced: Option<ForcedAfter>,
}

impl Generation {
    pub(crate) fn new(request: Request) -> Self {
        Generation {
            n_prompt: request.prompt.len(),
            n_new_max: request.n_new_max,
            n_new_min: request.n_new_min,
            stop_ids: request.stop_ids,
            sampler: Sampler::new(request.sampling, &request.prompt),
            mask: request.mask,
            forced: request.forced,
            ids: request.prompt,
        }
    }

    pub(crate) fn n_generated(&self) -> usize {
        self.ids.len() - self.n_prompt
    }

    /// Take the next token from finite `logits` [V], and how the request ends if it does.
    pub(crate) fn next(
        &mut self,
        logits: &[f32],
        s: &mut Draw,
    ) -> Result<(TokenEvent, Option<Finish>), Failure> {
        let index = self.n_generated();
        let id = self.choose(logits, index, s)?;
        if let Some(mask) = &mut self.mask {
            mask.accept(id).map_err(|e| Failure::Mask(e.to_string()))?;
        }
        self.sampler.accept(id);
        self.ids.push(id);
        if self.forced.as_ref().is_some_and(|f| f.id == id || f.unless_seen.contains(&id)) {
            self.forced = None;
        }
        let (logprob, top_logprobs) = match self.sampler.sampling().n_top_logprobs {
            Some(n) => {
                let (logprob, top) = logprobs(logits, id, n);
                (Some(logprob), top)
            }
            None => (None, Vec::new()),
        };
        Ok((TokenEvent { index, id, logprob, top_logprobs }, self.finish(id)))
    }

    fn choose(&mut self, logits: &[f32], index: usize, s: &mut Draw) -> Result<u32, Failure> {
        s.mask.clear();
        s.mask.resize(mask::n_words(logits.len()), 0);
        let bits = match &mut self.mask {
            Some(mask) => {
                mask.fill(&mut s.mask).map_err(|e| Failure::Mask(e.to_string()))?;
                Some(&s.mask[..])
            }
            None => None,
        };
        let due = self.forced.as_ref().filter(|f| index >= f.n_tokens).map(|f| f.id);
        if let Some(id) = due.filter(|&id| bits.is_none_or(|bits| mask::allows(bits, id))) {
            return Ok(id);
        }
        let banned = if index < self.n_new_min { &self.stop_ids[..] } else { &[] };
        let allowed = Allowed { mask: bits, banned };
        self.sampler.sample(logits, index, allowed, &mut s.scratch).ok_or(Failure::NothingAllowed)
    }

    fn finish(&self, id: u32) -> Option<Finish> {
        if self.stop_ids.contains(&id) {
            return Some(Finish::Stop { id });
        }
        if self.mask.as_ref().is_some_and(|mask| mask.is_complete()) {
            return Some(Finish::MaskComplete);
        }
        (self.n_generated() >= self.n_new_max).then_some(Finish::Length)
    }
}

/// Buffers for drawing tokens, kept between steps.
#[derive(Default)]
pub(crate) struct Draw {
    mask: Vec<u32>,
    scratch: Scratch,
}

/// A request with its place in the cache and in the queue.
pub(crate) struct Sequence {
    pub(crate) id: RequestId,
    pub(crate) class: Class,
    pub(crate) generation: Generation,
    pub(crate) share_prompt_with: Option<RequestId>,
    sink: EventSink,
    cancel: Arc<AtomicBool>,
    is_gone: bool,
    /// Blocks first to last; the first `n_shared` are nodes of the tree, the others its own.
    pub(crate) blocks: Vec<u32>,
    pub(crate) n_shared: usize,
    /// Tokens cached in `blocks`.
    pub(crate) n_computed: usize,
    /// Phases of the tokens computed so far, in this or an earlier admission [blocks].
    phases: Vec<PhaseBits>,
    /// Tokens those phases speak of.
    n_known_phases: usize,
    n_cached: Option<usize>,
    /// Counts as a request of the latency class from now on, by its age.
    pub(crate) is_promoted: bool,
    pub(crate) n_preemptions: u32,
    /// The engine's count of latency admissions when it last joined the queue.
    pub(crate) queued_at: u64,
}

impl Sequence {
    pub(crate) fn new(id: RequestId, request: Request, sink: EventSink, cancel: Arc<AtomicBool>) -> Self {
        Sequence {
            id,
            class: request.class,
            share_prompt_with: request.share_prompt_with,
            generation: Generation::new(request),
            sink,
            cancel,
            is_gone: false,
            blocks: Vec::new(),
            n_shared: 0,
            n_computed: 0,
            phases: Vec::new(),
            n_known_phases: 0,
            n_cached: None,
            is_promoted: false,
            n_preemptions: 0,
            queued_at: 0,
        }
    }

    /// Lower goes first: whoever counts as latency before the others, then by age.
    pub(crate) fn rank(&self) -> (bool, RequestId) {
        (self.class == Class::Throughput && !self.is_promoted, self.id)
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_gone || self.cancel.load(Ordering::Relaxed)
    }

    /// Whether every token it knows is computed but the newest, which it generated.
    pub(crate) fn is_decoding(&self) -> bool {
        self.generation.n_generated() > 0 && self.n_computed + 1 == self.generation.ids.len()
    }

    /// Tokens computed once, now or before a preemption.
    pub(crate) fn n_known(&self) -> usize {
        self.n_known_phases
    }

    /// The cached chain it can start from.
    pub(crate) fn find(&self, blocks: &Blocks) -> Vec<u32> {
        let ids = &self.generation.ids;
        if self.n_cached.is_none() {
            return blocks.longest(ids);
        }
        blocks.exact(ids, &self.phases[..self.n_known_phases / BLOCK_TOKENS])
    }

    /// Start from a locked chain; the tokens found cached where this is the first admission.
    ///
    /// At least the newest token is computed: it is what gives logits. Where the chain covers it, it is computed
    /// again in the phase it was written in, which writes the same bits.
    pub(crate) fn start(&mut self, chain: Vec<u32>, blocks: &Blocks) -> Option<usize> {
        self.n_shared = chain.len();
        self.n_computed = (chain.len() * BLOCK_TOKENS).min(self.generation.ids.len() - 1);
        let is_first = self.n_cached.is_none();
        if is_first {
            self.phases = chain.iter().map(|&b| blocks.phases(b)).collect();
            self.n_known_phases = chain.len() * BLOCK_TOKENS;
            self.n_cached = Some(self.n_computed);
        }
        self.blocks = chain;
        is_first.then_some(self.n_computed)
    }

    /// Tokens to run next: one phase, and at most `chunk_tokens` (whole blocks) up to the end of a block.
    pub(crate) fn next_chunk(&self, chunk_tokens: usize) -> (Range<usize>, Phase) {
        let start = self.n_computed;
        let end = self.generation.ids.len().min(start / BLOCK_TOKENS * BLOCK_TOKENS + chunk_tokens);
        let phase = self.phase(start);
        let end = (start..end).find(|&at| self.phase(at) != phase).unwrap_or(end);
        (start..end, phase)
    }

    /// The phase of a token: the one it was first computed in; else prefill in the prompt, decode after it.
    fn phase(&self, position: usize) -> Phase {
        let is_decode = if position < self.n_known_phases {
            self.phases[position / BLOCK_TOKENS] >> (position % BLOCK_TOKENS) & 1 == 1
        } else {
            position >= self.generation.n_prompt
        };
        if is_decode { Phase::Decode } else { Phase::Prefill }
    }

    /// Note that `chunk` is cached; where the phases write the same bits they are not told apart.
    pub(crate) fn advance(&mut self, chunk: Range<usize>, phase: Phase, phases_differ: bool) {
        self.n_computed = chunk.end;
        let bit = PhaseBits::from(phases_differ && phase == Phase::Decode);
        for position in chunk.start.max(self.n_known_phases)..chunk.end {
            if position % BLOCK_TOKENS == 0 {
                self.phases.push(0);
            }
            self.phases[position / BLOCK_TOKENS] |= bit << (position % BLOCK_TOKENS);
        }
        self.n_known_phases = self.n_known_phases.max(chunk.end);
    }

    /// Let others find the full blocks.
    pub(crate) fn share(&mut self, blocks: &mut Blocks) {
        while self.n_shared < self.n_computed / BLOCK_TOKENS {
            let i = self.n_shared;
            let parent = i.checked_sub(1).map(|parent| self.blocks[parent]);
            let ids = self.generation.ids.as_chunks::<BLOCK_TOKENS>().0[i];
            self.blocks[i] = blocks.share(parent, &ids, self.phases[i], self.blocks[i]);
            self.n_shared += 1;
        }
    }

    /// Leave the cache; what was shared stays findable.
    pub(crate) fn release(&mut self, blocks: &mut Blocks) {
        self.blocks.drain(self.n_shared..).for_each(|block| blocks.give_back(block));
        blocks.unlock(&self.blocks);
        self.blocks.clear();
        self.n_shared = 0;
        self.n_computed = 0;
    }

    /// Tell the sink; a sink that is gone cancels the request.
    pub(crate) fn tell(&mut self, event: Event) {
        if !self.is_gone && (self.sink)(event) == Delivery::Gone {
            self.is_gone = true;
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            n_prompt: self.generation.n_prompt,
            n_cached: self.n_cached.unwrap_or(0),
            n_generated: self.generation.n_generated(),
        }
    }
}
