//! Random requests over a tiny cache, and a judge that shares no code with the engine.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{BLOCK, Ear, Fake, POISON, Parity, Rng, VOCAB, clock, gather, kept, logits, sink};
use perilune_engine::request::{Class, Failure, Finish, ForcedAfter, Request, RequestId};
use perilune_engine::sampler::Sampling;
use perilune_engine::{Engine, Move, Settings, StepReport};
use perilune_model::forward::Phase;
use std::collections::{BTreeMap, BTreeSet};

const N_SEEDS: u64 = 400;

/// What the judge knows of a request.
#[derive(Clone)]
struct Asked {
    prompt: Vec<u32>,
    class: Class,
    n_new_max: usize,
    n_new_min: usize,
    stop_ids: Vec<u32>,
    /// Tokens after which the parity mask is complete.
    mask: Option<u32>,
    forced: Option<ForcedAfter>,
    ear: Ear,
    is_follower: bool,
    was_preempted: bool,
    /// Younger latency requests admitted while it waits.
    n_overtaken: u64,
}

/// What the fake model says when a request has it to itself; greedy, ties to the lower id.
fn alone(asked: &Asked, phases_differ: bool) -> (Vec<u32>, Finish) {
    let mut state = asked.prompt.iter().fold(0, |state, &id| gather(state, kept(state, id, false)));
    let mut ids: Vec<u32> = Vec::new();
    let mut is_forced = asked.forced.is_some();
    loop {
        let row = logits(state);
        if row[0].is_nan() {
            return (ids, Finish::Failed(Failure::NonFinite { position: 0 }));
        }
        let n = ids.len();
        let may = |id: u32| {
            let parity = asked.mask.is_none() || id as usize % 2 == n % 2;
            parity && (n >= asked.n_new_min || !asked.stop_ids.contains(&id))
        };
        let in_parity = |id: u32| asked.mask.is_none() || id as usize % 2 == n % 2;
        let forced = asked.forced.as_ref().filter(|f| is_forced && n >= f.n_tokens && in_parity(f.id));
        let mut best: Option<u32> = None;
        for id in (0..VOCAB as u32).filter(|&id| may(id)) {
            if best.is_none_or(|b| row[id as usize] > row[b as usize]) {
                best = Some(id);
            }
        }
        let id = forced.map_or_else(|| best.unwrap(), |f| f.id);
        ids.push(id);
        if let Some(f) = &asked.forced {
            is_forced &= f.id != id && !f.unless_seen.contains(&id);
        }
        if asked.stop_ids.contains(&id) {
            return (ids, Finish::Stop { id });
        }
        if asked.mask.is_some_and(|n| n as usize == ids.len()) {
            return (ids, Finish::MaskComplete);
        }
        if ids.len() == asked.n_new_max {
            return (ids, Finish::Length);
        }
        state = gather(state, kept(state, id, phases_differ));
    }
}

struct World {
    rng: Rng,
    settings: Settings,
    phases_differ: bool,
    engine: Engine<Fake>,
    asked: BTreeMap<RequestId, Asked>,
    /// Requests without a last event.
    alive: BTreeSet<RequestId>,
    prefixes: Vec<Vec<u32>>,
    /// Sinks that went away.
    gone: BTreeSet<RequestId>,
    running: BTreeSet<RequestId>,
    step: u64,
    n_without_throughput: u64,
    n_judged: u64,
    n_preempted: u64,
    n_cached: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let n_blocks = 6 + rng.below(20);
        let phases_differ = rng.chance(50);
        let settings = Settings {
            n_running_max: 1 + rng.below(8),
            n_waiting_max: [2 + rng.below(6), 2 + rng.below(12)],
            chunk_tokens: BLOCK * (1 + rng.below(4)),
            busy_chunk_tokens: BLOCK * (1 + rng.below(2)),
            prefill_tokens_max: BLOCK * (1 + rng.below(3)),
            reserve_tokens: 1 + rng.below(90),
            throughput_every: 1 + rng.below(6) as u64,
            n_overtaken_max: rng.below(5) as u64,
            n_preempted_max: rng.below(3) as u32,
            prefix_cache: rng.chance(80),
        };
        let prefixes = (0..3).map(|_| (0..250).map(|_| rng.below(60) as u32).collect()).collect();
        let mut fake = Fake::new(n_blocks, phases_differ);
        fake.varies_chunks = rng.chance(50);
        let engine = Engine::new(fake, settings.clone(), clock());
        World {
            rng,
            settings,
            phases_differ,
            engine,
            asked: BTreeMap::new(),
            alive: BTreeSet::new(),
            prefixes,
            gone: BTreeSet::new(),
            running: BTreeSet::new(),
            step: 0,
            n_without_throughput: 0,
            n_judged: 0,
            n_preempted: 0,
            n_cached: 0,
        }
    }

    fn prompt(&mut self) -> Vec<u32> {
        let prefix = self.rng.below(3);
        // Where the phases differ a generated prefix would make outputs depend on the cache, as documented.
        if self.rng.chance(25) && !self.phases_differ && !self.asked.is_empty() {
            let of = self.asked.values().nth(self.rng.below(self.asked.len())).unwrap();
            let mut ids = of.prompt.clone();
            ids.extend(of.ear.lock().unwrap().ids());
            ids.truncate(300);
            return ids;
        }
        let mut ids = self.prefixes[prefix][..self.rng.below(250)].to_vec();
        let n_own = 1 + self.rng.mostly(8, 100);
        ids.extend((0..n_own).map(|_| self.rng.below(60) as u32));
        if self.rng.chance(5) {
            let at = self.rng.below(ids.len());
            ids[at] = POISON;
        }
        ids
    }

    fn arrive(&mut self) {
        let prompt = self.prompt();
        let (ear_sink, ear) = sink(self.rng.chance(5).then(|| 1 + self.rng.below(9)));
        let leader = self.rng.chance(10).then(|| self.alive.last().copied()).flatten();
        let asked = Asked {
            prompt,
            class: if self.rng.chance(35) { Class::Latency } else { Class::Throughput },
            n_new_max: 1 + self.rng.mostly(20, 150),
            n_new_min: self.rng.below(4),
            stop_ids: (0..self.rng.below(3)).map(|_| self.rng.below(60) as u32).collect(),
            mask: self.rng.chance(15).then(|| 1 + self.rng.below(12) as u32),
            forced: self.rng.chance(20).then(|| ForcedAfter {
                n_tokens: self.rng.below(8),
                id: 61,
                unless_seen: vec![self.rng.below(60) as u32],
            }),
            ear,
            is_follower: leader.is_some(),
            was_preempted: false,
            n_overtaken: 0,
        };
        let request = Request {
            class: asked.class,
            n_new_min: asked.n_new_min,
            stop_ids: asked.stop_ids.clone(),
            mask: asked.mask.map(|n_left| Box::new(Parity { n_seen: 0, n_left }) as Box<_>),
            forced: asked.forced.clone(),
            share_prompt_with: leader,
            ..Request::greedy(asked.prompt.clone(), asked.n_new_max)
        };
        let n_waiting = self.engine.stats().waiting[asked.class.index()];
        let context = self.engine.limits().context_max;
        match self.engine.submit(request, ear_sink) {
            Ok(id) => {
                assert!(
                    n_waiting < self.settings.n_waiting_max[asked.class.index()],
                    "queue beyond its maximum"
                );
                assert!(asked.prompt.len() + asked.n_new_max <= context);
                self.alive.insert(id);
                assert!(self.asked.insert(id, asked).is_none());
            }
            Err(perilune_engine::request::SubmitError::QueueFull { queued }) => {
                assert_eq!(
                    (queued, true),
                    (n_waiting, n_waiting >= self.settings.n_waiting_max[asked.class.index()])
                );
            }
            Err(perilune_engine::request::SubmitError::ContextTooLong { .. }) => {
                assert!(asked.prompt.len() + asked.n_new_max > context);
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn tick(&mut self) {
        for _ in 0..self.rng.below(3) {
            if self.rng.chance(50) {
                self.arrive();
            }
        }
        if self.rng.chance(4) && !self.alive.is_empty() {
            let id = *self.alive.iter().nth(self.rng.below(self.alive.len())).unwrap();
            assert!(self.engine.cancel(id));
            self.forget(id);
            self.judge_output(id);
        }
        self.advance();
    }

    fn advance(&mut self) {
        let gone = self.gone.clone();
        let report = self.engine.step();
        self.step += 1;
        assert!(report.work.iter().all(|w| !gone.contains(&w.id)), "work for a sink that is gone");
        self.judge_order(&report);
        self.judge_budgets(&report);
        self.judge_share(&report);
        self.engine.audit().unwrap();
        for id in self.alive.clone() {
            let heard = self.asked[&id].ear.lock().unwrap().clone();
            if heard.finish.is_some() {
                self.forget(id);
                self.judge_output(id);
            } else if heard.gone_at.is_some_and(|n| heard.tokens.len() >= n) {
                self.gone.insert(id);
                self.forget(id);
            }
        }
        assert!(self.gone.len() > gone.len() || self.alive.is_empty() == self.engine.is_idle());
    }

    fn forget(&mut self, id: RequestId) {
        self.alive.remove(&id);
        self.running.remove(&id);
    }

    fn judge_order(&mut self, report: &StepReport) {
        for change in &report.moves {
            match change {
                Move::Admitted(id) => self.judge_admission(*id),
                Move::Preempted(id) => {
                    let asked = self.asked.get_mut(id).unwrap();
                    (asked.was_preempted, asked.n_overtaken) = (true, 0);
                    assert!(self.running.remove(id), "preempted without running");
                    self.n_preempted += 1;
                }
            }
            assert!(self.running.len() <= self.settings.n_running_max);
        }
    }

    /// Within a class by age, and no throughput request is passed too often; whoever was preempted stands apart.
    fn judge_admission(&mut self, id: RequestId) {
        let class = self.asked[&id].class;
        for old in self.alive.range(..id).filter(|old| !self.running.contains(old)) {
            let old = self.asked.get_mut(old).unwrap();
            assert!(old.class != class || old.is_follower || old.was_preempted, "admitted out of order");
            old.n_overtaken += u64::from(class == Class::Latency && old.class == Class::Throughput);
            let may = old.n_overtaken <= self.settings.n_overtaken_max;
            assert!(may || old.is_follower, "passed {} times", old.n_overtaken);
        }
        assert!(self.running.insert(id), "admitted twice");
    }

    fn judge_budgets(&self, report: &StepReport) {
        let chunk = self.settings.chunk_tokens;
        let mut n_prefill = [0; 2];
        let mut seen = BTreeSet::new();
        for w in &report.work {
            let asked = &self.asked[&w.id];
            assert!(seen.insert(w.id) && self.running.contains(&w.id));
            let end = w.positions.end;
            assert!(w.positions.len() <= chunk, "a chunk of {} tokens", w.positions.len());
            let ends_a_block = end % BLOCK == 0 || end >= asked.prompt.len();
            assert!(ends_a_block || self.phases_differ, "a chunk ends within a block, at {end}");
            assert!(
                w.phase == Phase::Prefill || w.positions.start >= asked.prompt.len() || !self.phases_differ
            );
            if w.positions.len() > 1 {
                n_prefill[asked.class.index()] += w.positions.len();
            }
        }
        let most = self.settings.prefill_tokens_max.max(chunk);
        let has_latency = report.work.iter().any(|w| self.asked[&w.id].class == Class::Latency);
        let busy = self.settings.busy_chunk_tokens.min(chunk);
        assert!(!has_latency || n_prefill[1] <= busy, "latency waits for {} tokens", n_prefill[1]);
        assert!(n_prefill.iter().all(|n| *n <= most), "prefill beyond its budget: {n_prefill:?}");
    }

    fn judge_share(&mut self, report: &StepReport) {
        let is_throughput = |id: &RequestId| self.asked[id].class == Class::Throughput;
        let ran = report.work.iter().any(|w| is_throughput(&w.id));
        let is_due = self.running.iter().any(is_throughput);
        self.n_without_throughput = if is_due && !ran { self.n_without_throughput + 1 } else { 0 };
        assert!(self.n_without_throughput < self.settings.throughput_every, "throughput has no share");
        assert!(
            !report.work.is_empty() || self.running.is_empty() || !report.moves.is_empty(),
            "a step for nothing"
        );
    }

    fn judge_output(&mut self, id: RequestId) {
        let asked = &self.asked[&id];
        let heard = asked.ear.lock().unwrap().clone();
        let (ids, finish) = alone(asked, self.phases_differ);
        let (got, usage) = heard.finish.clone().unwrap();
        let n_cached = heard.n_cached.unwrap_or(0);
        assert_eq!((usage.n_prompt, usage.n_generated), (asked.prompt.len(), heard.tokens.len()));
        assert_eq!(usage.n_cached, n_cached);
        assert!(n_cached < asked.prompt.len() && (n_cached == 0 || self.settings.prefix_cache));
        let poisoned_at = asked.prompt.iter().position(|id| *id == POISON);
        match got {
            Finish::Cancelled => assert!(ids.starts_with(&heard.ids())),
            Finish::Failed(Failure::NonFinite { position }) => {
                let at = poisoned_at.expect("only poison gives NaN");
                assert!(
                    at <= position
                        && position < asked.prompt.len()
                        && n_cached <= at
                        && heard.tokens.is_empty()
                );
            }
            other => assert_eq!((heard.ids(), other), (ids, finish), "prompt of {}", asked.prompt.len()),
        }
        self.n_judged += 1;
        self.n_cached += n_cached;
    }

    /// Let the rest finish: each in the steps its tokens take, times its share, for each that may come before it.
    fn settle_down(&mut self) {
        let n_tokens: usize =
            self.alive.iter().map(|id| self.asked[id].prompt.len() + self.asked[id].n_new_max).sum();
        let bound = self.step + (n_tokens as u64 + 10) * self.settings.throughput_every * 4 + 100;
        while !self.engine.is_idle() {
            self.advance();
            assert!(self.step < bound, "{} requests are stuck", self.alive.len());
        }
        assert!(self.alive.is_empty());
        let stats = self.engine.stats();
        assert_eq!(stats.blocks_used, 0);
        assert_eq!(stats.completed + stats.cancelled + stats.failed, self.asked.len() as u64);
        assert_eq!(
            stats.prompt_tokens,
            stats.cached_tokens + stats.prefill_tokens + self.n_prompt_tokens_left()
        );
    }

    /// Prompt tokens that cancelled and failed requests left undone are bounded by their prompts.
    fn n_prompt_tokens_left(&self) -> u64 {
        let stats = self.engine.stats();
        let left = stats.prompt_tokens - stats.cached_tokens - stats.prefill_tokens;
        let unfinished = self.asked.values().filter(|asked| {
            let heard = asked.ear.lock().unwrap();
            heard.finish.as_ref().is_none_or(|(f, _)| matches!(f, Finish::Cancelled | Finish::Failed(_)))
        });
        assert!(left <= unfinished.map(|asked| asked.prompt.len() as u64).sum());
        left
    }
}

#[test]
fn random_worlds_pass_the_judge() {
    let (mut n_steps, mut n_judged, mut n_preempted, mut n_cached) = (0, 0, 0, 0);
    let first = std::env::var("PERILUNE_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let seeds = first.map_or(1..N_SEEDS + 1, |seed| seed..seed + 1);
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..150).for_each(|_| world.tick());
            world.settle_down();
            (world.step, world.n_judged, world.n_preempted, world.n_cached)
        });
        match outcome {
            Ok(world) => {
                n_steps += world.0;
                n_judged += world.1;
                n_preempted += world.2;
                n_cached += world.3;
            }
            Err(panic) => {
                println!("failed with PERILUNE_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{n_steps} steps, {n_judged} requests, {n_preempted} preemptions, {n_cached} cached tokens");
    if first.is_none() {
        assert!(
            n_steps > 50_000 && n_judged > 10_000 && n_preempted > 500 && n_cached > 100_000,
            "the worlds are too tame"
        );
    }
}

#[test]
fn a_flood_of_latency_requests_does_not_starve_throughput() {
    for seed in 1..6 {
        println!("seed {seed}");
        let mut rng = Rng(seed);
        let settings =
            Settings { n_running_max: 3, n_waiting_max: [8, 8], throughput_every: 4, ..Settings::default() };
        let mut engine = Engine::new(Fake::new(24, true), settings.clone(), clock());
        let mut ask = |engine: &mut Engine<Fake>, class| {
            let prompt: Vec<u32> = (0..1 + rng.below(150)).map(|_| rng.below(60) as u32).collect();
            let (sink, ear) = sink(None);
            engine.submit(Request { class, ..Request::greedy(prompt, 1 + rng.below(20)) }, sink).map(|_| ear)
        };
        for round in 0..8 {
            let ear = ask(&mut engine, Class::Throughput).unwrap();
            let mut n = 0;
            while ear.lock().unwrap().finish.is_none() {
                while ask(&mut engine, Class::Latency).is_ok() {}
                engine.step();
                engine.audit().unwrap();
                n += 1;
                // Each of its waits ends after n_overtaken_max + those running; a request takes at most 170 steps.
                let n_before = (settings.n_preempted_max as u64 + 1) * (settings.n_overtaken_max + 12);
                assert!(n < n_before * 170, "round {round}: still waiting after {n} steps");
            }
        }
        assert!(engine.stats().completed > 100, "the flood went on meanwhile");
    }
}

#[test]
fn sampled_tokens_do_not_depend_on_load() {
    for seed in 0..20 {
        println!("seed {seed}");
        let ask = |i: usize| {
            let mut rng = Rng(seed * 1_000 + i as u64);
            let sampling = Sampling {
                temperature: 0.2 + rng.below(10) as f32 / 5.0,
                top_p: if rng.chance(50) { 0.8 } else { 1.0 },
                top_k: if rng.chance(30) { 12 } else { 0 },
                min_p: if rng.chance(30) { 0.02 } else { 0.0 },
                presence_penalty: rng.below(3) as f32 / 2.0,
                frequency_penalty: rng.below(3) as f32 / 2.0,
                repetition_penalty: 1.0 + rng.below(3) as f32 / 10.0,
                logit_bias: vec![(rng.below(60) as u32, 3.0)],
                seed: rng.next(),
                n_top_logprobs: Some(rng.below(21)),
            };
            let class = if rng.chance(40) { Class::Latency } else { Class::Throughput };
            let prompt = (0..1 + rng.below(140)).map(|_| rng.below(60) as u32).collect();
            Request { sampling, class, ..Request::greedy(prompt, 40) }
        };
        let run = |which: &[usize], n_blocks, n_running_max| {
            let settings = Settings { n_running_max, reserve_tokens: 1, ..Settings::default() };
            let mut engine = Engine::new(Fake::new(n_blocks, true), settings, clock());
            let mut ears = Vec::new();
            for &i in which {
                let (sink, ear) = sink(None);
                engine.submit(ask(i), sink).unwrap();
                ears.push(ear);
                engine.step();
            }
            while !engine.is_idle() {
                engine.step();
            }
            let heard: Vec<_> = ears.iter().map(|ear| ear.lock().unwrap().tokens.clone()).collect();
            (heard, engine.stats().preemptions)
        };
        let (together, preemptions) = run(&(0..16).collect::<Vec<_>>(), 16, 16);
        assert!(preemptions[0] + preemptions[1] > 0, "memory must be short for this to show anything");
        for (i, heard) in together.iter().enumerate() {
            assert_eq!(&run(&[i], 16, 1).0[0], heard, "request {i}");
        }
    }
}
