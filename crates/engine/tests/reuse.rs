//! Prefix reuse: what is computed, counted from outside.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{BLOCK, Fake, Heard, POISON, Rng, clock, sink};
use perilune_engine::request::{Class, Failure, Finish, Request};
use perilune_engine::{Engine, Settings};

fn engine(n_blocks: usize) -> Engine<Fake> {
    Engine::new(Fake::new(n_blocks, true), Settings::default(), clock())
}

/// Run one request to its end; what it gave and the rows the model computed for it.
fn ask(engine: &mut Engine<Fake>, prompt: &[u32], n_new_max: usize) -> (Heard, u64) {
    let before = engine.model().n_rows;
    let (sink, ear) = sink(None);
    engine.submit(Request::greedy(prompt.to_vec(), n_new_max), sink).unwrap();
    while !engine.is_idle() {
        engine.step();
        engine.audit().unwrap();
    }
    let heard = ear.lock().unwrap().clone();
    (heard, engine.model().n_rows - before)
}

fn random(rng: &mut Rng, n: usize) -> Vec<u32> {
    (0..n).map(|_| rng.below(60) as u32).collect()
}

#[test]
fn an_open_tool_loop_of_300_calls_prefills_each_result_once() {
    let mut rng = Rng(7);
    let mut engine = engine(1_200);
    let mut context = random(&mut rng, 500);
    let (mut n_prefill, mut n_new) = (0, 0);
    let mut n_known = 0;
    for call in 0..300 {
        let (heard, rows) = ask(&mut engine, &context, 1 + call % 40);
        let n_generated = heard.tokens.len();
        let prefill = rows as usize - (n_generated - 1);
        assert_eq!(prefill, context.len() - heard.n_cached.unwrap(), "call {call}");
        assert!(prefill <= context.len() - n_known + 63, "call {call}: {prefill} tokens for {n_known} known");
        n_prefill += prefill;
        n_new += context.len() - n_known;
        // The last token generated was never run, so its row is not known.
        n_known = context.len() + n_generated - 1;
        context.extend(heard.ids());
        let n_result = 1 + rng.below(150);
        context.extend(random(&mut rng, n_result));
    }
    println!("{n_prefill} tokens prefilled for {n_new} new ones in a context of {}", context.len());
    assert!(n_prefill <= n_new + 300 * 63);
    let stats = engine.stats();
    assert_eq!(stats.prefill_tokens as usize, n_prefill, "the books say the same");
}

#[test]
fn after_the_template_strips_reasoning_only_what_follows_the_strip_is_prefilled() {
    let mut rng = Rng(8);
    let mut engine = engine(200);
    let history = random(&mut rng, 700);
    let (heard, _) = ask(&mut engine, &history, 150);
    // The next request drops the first 100 generated tokens (the reasoning) and asks something new.
    let mut next = history.clone();
    next.extend(&heard.ids()[100..]);
    next.extend(random(&mut rng, 30));
    let (heard, _) = ask(&mut engine, &next, 1);
    let prefill = next.len() - heard.n_cached.unwrap();
    assert!(prefill <= next.len() - history.len() + 63, "{prefill}");
    assert!(heard.n_cached.unwrap() >= history.len() - 63);
}

#[test]
fn a_prompt_known_whole_computes_one_token() {
    for n in [BLOCK, 2 * BLOCK, 5 * BLOCK] {
        let mut engine = engine(50);
        let prompt = random(&mut Rng(n as u64), n);
        let (first, _) = ask(&mut engine, &prompt, 5);
        let (second, _) = ask(&mut engine, &prompt, 5);
        assert_eq!((first.n_cached, second.n_cached), (Some(0), Some(n - 1)));
        assert_eq!(first.tokens, second.tokens);
    }
}

#[test]
fn choices_share_the_blocks_of_their_prompt() {
    let mut engine = engine(60);
    let prompt = random(&mut Rng(3), 1_000);
    let mut ears = Vec::new();
    let mut leader = None;
    for _ in 0..5 {
        let (sink, ear) = sink(None);
        let request = Request { share_prompt_with: leader, ..Request::greedy(prompt.clone(), 100) };
        let id = engine.submit(request, sink).unwrap();
        leader = leader.or(Some(id));
        ears.push(ear);
    }
    let mut most = 0;
    while !engine.is_idle() {
        engine.step();
        engine.audit().unwrap();
        most = most.max(engine.stats().blocks_used);
    }
    // 15 full blocks of the prompt once, and for each choice the block it shares with nobody and those it fills.
    assert!(most <= 15 + 5 * 4, "{most} blocks for five choices");
    let heard: Vec<Heard> = ears.iter().map(|ear| ear.lock().unwrap().clone()).collect();
    assert!(heard.iter().all(|h| h.tokens == heard[0].tokens && h.tokens.len() == 100));
    assert!(heard[1..].iter().all(|h| h.n_cached == Some(15 * BLOCK)));
}

#[test]
fn a_request_that_gives_nan_fails_alone_and_its_blocks_are_dropped() {
    let mut engine = engine(60);
    let good = random(&mut Rng(4), 300);
    ask(&mut engine, &good, 3);
    assert_eq!(engine.stats().blocks_cached, 4);
    let mut bad = good[..260].to_vec();
    bad.push(POISON);
    bad.extend(random(&mut Rng(5), 300));
    let (bad_sink, bad_ear) = sink(None);
    let (good_sink, good_ear) = sink(None);
    engine.submit(Request::greedy(bad.clone(), 5), bad_sink).unwrap();
    engine.submit(Request::greedy(good.clone(), 50), good_sink).unwrap();
    while !engine.is_idle() {
        engine.step();
        engine.audit().unwrap();
    }
    let finish = bad_ear.lock().unwrap().finish.clone().unwrap().0;
    assert_eq!(finish, Finish::Failed(Failure::NonFinite { position: 560 }));
    let untouched = good_ear.lock().unwrap().clone();
    let (alone, _) = ask(&mut self::engine(60), &good, 50);
    assert_eq!(untouched.tokens, alone.tokens);
    let (again, _) = ask(&mut engine, &bad, 5);
    assert_eq!(again.n_cached, Some(0), "what a failed request touched is found no more");
    assert_eq!(engine.stats().failed, 2);
}

#[test]
fn the_least_recently_used_blocks_go_first() {
    let mut engine = engine(12);
    let (a, b, c) = (random(&mut Rng(1), 257), random(&mut Rng(2), 257), random(&mut Rng(3), 257));
    ask(&mut engine, &a, 1);
    ask(&mut engine, &b, 1);
    ask(&mut engine, &a, 1);
    ask(&mut engine, &c, 1);
    assert_eq!(engine.stats().evictions, 1, "of b's blocks the last had to go");
    assert_eq!(ask(&mut engine, &a, 1).0.n_cached, Some(256));
    assert_eq!(ask(&mut engine, &b, 1).0.n_cached, Some(192));
}

#[test]
fn a_preempted_sequence_recomputes_reused_blocks_in_the_phase_they_were_written_in() {
    let mut rng = Rng(11);
    let first = random(&mut rng, 130);
    let rest = random(&mut rng, 40);
    let run = |n_blocks: usize, is_disturbed: bool| {
        let settings = Settings { n_running_max: 1, ..Settings::default() };
        let mut engine = Engine::new(Fake::new(n_blocks, true), settings, clock());
        let (answer, _) = ask(&mut engine, &first, 130);
        let next: Vec<u32> = first.iter().copied().chain(answer.ids()).chain(rest.clone()).collect();
        let (sink, ear) = sink(None);
        engine.submit(Request::greedy(next, 100), sink).unwrap();
        (0..30).for_each(|_| {
            engine.step();
        });
        assert_eq!(ear.lock().unwrap().n_cached, Some(256), "its prefix was written by decode");
        if is_disturbed {
            // Takes every block, so that nothing of the preempted sequence is left.
            let (sink, _) = common::sink(None);
            let prompt = vec![1; (n_blocks - 1) * BLOCK];
            let request = Request { class: Class::Latency, ..Request::greedy(prompt, BLOCK) };
            engine.submit(request, sink).unwrap();
        }
        while !engine.is_idle() {
            engine.step();
            engine.audit().unwrap();
        }
        assert_eq!(engine.stats().preemptions[1], u64::from(is_disturbed));
        assert_eq!(engine.stats().recomputed_tokens > 256, is_disturbed);
        ear.lock().unwrap().tokens.clone()
    };
    assert_eq!(run(12, true), run(12, false));
}

#[test]
fn a_prompt_of_a_whole_context_is_found_on_a_small_stack() {
    let work = || {
        let mut engine = engine(2_000);
        let prompt = random(&mut Rng(12), 90_000);
        ask(&mut engine, &prompt, 1);
        assert_eq!(ask(&mut engine, &prompt, 1).0.n_cached, Some(90_000 - 90_000 % BLOCK));
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(work).unwrap().join().unwrap();
}
