//! The batched engine against the plain loop, on the goldens of `model`, on both paths.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{Rng, clock, sink};
use perilune_engine::forward::Served;
use perilune_engine::plain::run_alone;
use perilune_engine::request::{Class, Finish, Request, TokenEvent};
use perilune_engine::sampler::Sampling;
use perilune_engine::{Engine, Settings};
use perilune_kernels::cpu::Cpu;
use perilune_model::checkpoint::Checkpoint;
use perilune_model::forward::{Arithmetic, Model, Phase, Unobserved, Wanted};
use perilune_model::solo::Solo;
use perilune_model::weights::{Dense, Weights};
use std::path::Path;
use std::sync::Arc;

fn model(golden: &str, arithmetic: Arithmetic) -> Arc<Model> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/goldens").join(golden);
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let cpu = Cpu::new(1);
    let weights = Weights::load(&checkpoint, Dense::AsPublished, &cpu, |_, _| {}).unwrap();
    Arc::new(Model::new(checkpoint.config, weights, cpu, arithmetic).unwrap())
}

const BOTH: [Arithmetic; 2] = [Arithmetic::Exact, Arithmetic::Fast];

/// Request `i` of a seeded set: lengths around the edges of blocks, half of them sampled.
fn request(i: usize, vocab_size: usize) -> Request {
    let mut rng = Rng(1_000 + i as u64);
    let n_prompt = [1, 62, 63, 64, 126, 127, 130, 190][i % 8] - i / 8 % 2 * (i % 8).min(1);
    let sampling = Sampling {
        temperature: if i.is_multiple_of(2) { 0.0 } else { 1.0 },
        top_p: if i.is_multiple_of(3) { 0.9 } else { 1.0 },
        seed: i as u64,
        n_top_logprobs: Some(5),
        ..Sampling::default()
    };
    let class = if i % 5 == 4 { Class::Latency } else { Class::Throughput };
    let prompt = (0..n_prompt).map(|_| rng.below(vocab_size) as u32).collect();
    Request { sampling, class, ..Request::greedy(prompt, 40) }
}

struct Ran {
    tokens: Vec<Vec<TokenEvent>>,
    preemptions: u64,
}

fn run(model: &Arc<Model>, requests: Vec<Request>, n_blocks: usize, settings: Settings) -> Ran {
    let mut engine = Engine::new(Served::new(Arc::clone(model), n_blocks), settings, clock());
    let mut ears = Vec::new();
    for request in requests {
        let (sink, ear) = sink(None);
        engine.submit(request, sink).unwrap();
        ears.push(ear);
    }
    while !engine.is_idle() {
        engine.step();
    }
    engine.audit().unwrap();
    let heard: Vec<_> = ears.iter().map(|ear| ear.lock().unwrap().clone()).collect();
    let preemptions = engine.stats().preemptions.iter().sum();
    assert!(engine.stats().weight_bytes > 0);
    Ran { preemptions, tokens: heard.into_iter().map(|h| h.tokens).collect() }
}

#[test]
fn a_batch_of_16_equals_the_plain_loop_to_the_bit_even_when_preempted() {
    for golden in ["c/int4", "d/int4", "e/int4"] {
        for arithmetic in BOTH {
            let model = model(golden, arithmetic);
            let vocab_size = model.config().vocab_size;
            let requests = || (0..16).map(|i| request(i, vocab_size)).collect::<Vec<_>>();
            let alone: Vec<_> = requests().into_iter().map(|r| run_alone(&model, r).unwrap()).collect();
            assert!(alone.iter().all(|(tokens, finish)| *finish == Finish::Length && tokens.len() == 40));
            let roomy = run(&model, requests(), 100, Settings::default());
            let tight = Settings { reserve_tokens: 1, chunk_tokens: 64, ..Settings::default() };
            let tight = run(&model, requests(), 30, tight);
            assert_eq!(roomy.preemptions, 0);
            assert!(tight.preemptions > 0, "memory must be short for this to show anything");
            for (i, (tokens, _)) in alone.iter().enumerate() {
                assert_eq!(&roomy.tokens[i], tokens, "{golden} {arithmetic:?} request {i}");
                assert_eq!(&tight.tokens[i], tokens, "{golden} {arithmetic:?} request {i}, preempted");
            }
        }
    }
}

#[test]
fn long_prompts_beside_a_latency_stream_give_the_bits_they_give_alone() {
    for arithmetic in BOTH {
        let model = model("d/int4", arithmetic);
        let request = |i: usize| {
            let mut rng = Rng(2_000 + i as u64);
            let n_prompt = [40, 700, 1_000, 513][i];
            let prompt = (0..n_prompt).map(|_| rng.below(model.config().vocab_size) as u32).collect();
            let sampling = Sampling { n_top_logprobs: Some(5), ..Sampling::default() };
            let class = if i == 0 { Class::Latency } else { Class::Throughput };
            let n_new_max = if i == 0 { 150 } else { 8 };
            Request { sampling, class, ..Request::greedy(prompt, n_new_max) }
        };
        let requests = || (0..4).map(request).collect::<Vec<_>>();
        let busy = Settings { throughput_every: 4, ..Settings::default() };
        let mixed = run(&model, requests(), 100, busy);
        for (i, (mixed, request)) in mixed.tokens.iter().zip(requests()).enumerate() {
            let alone = run_alone(&model, request).unwrap().0;
            assert_eq!(mixed, &alone, "{arithmetic:?} request {i}");
        }
    }
}

#[test]
fn generated_tokens_recomputed_in_one_pass_give_the_same_bits() {
    for arithmetic in BOTH {
        let model = model("d/int4", arithmetic);
        let ids: Vec<u32> = (0..150).map(|i| i * 7 % 200).collect();
        let start = || {
            let mut solo = Solo::new(&model, 150);
            solo.prefill(&ids[..40], 512, |_| true).unwrap();
            solo
        };
        let (mut one, mut many) = (start(), start());
        let one: Vec<f32> = ids[40..].iter().flat_map(|&id| one.decode(id).unwrap()).collect();
        let many = many.advance(&ids[40..], Phase::Decode, Wanted::All, &mut Unobserved).unwrap();
        assert!(one.iter().zip(&many).all(|(a, b)| a.to_bits() == b.to_bits()), "{arithmetic:?}");
    }
}

/// Answers of a tool loop, each prompt the one before with its answer and a result, and the tokens found cached.
///
/// With a `script` the loop goes on with the script's answers, whatever was answered.
fn tool_loop(
    model: &Arc<Model>,
    prefix_cache: bool,
    seed: u64,
    script: Option<&[Vec<TokenEvent>]>,
) -> (Vec<Vec<TokenEvent>>, usize) {
    let mut rng = Rng(seed);
    let vocab_size = model.config().vocab_size;
    let settings = Settings { prefix_cache, ..Settings::default() };
    let mut engine = Engine::new(Served::new(Arc::clone(model), 64), settings, clock());
    let mut context: Vec<u32> = (0..100).map(|_| rng.below(vocab_size) as u32).collect();
    let (mut answers, mut n_cached) = (Vec::new(), 0);
    for turn in 0..6 {
        let (sink, ear) = sink(None);
        let sampling = Sampling { n_top_logprobs: Some(3), ..Sampling::default() };
        engine.submit(Request { sampling, ..Request::greedy(context.clone(), 70) }, sink).unwrap();
        while !engine.is_idle() {
            engine.step();
        }
        let heard = ear.lock().unwrap().clone();
        n_cached += heard.n_cached.unwrap();
        context.extend(script.map_or(&heard.tokens, |script| &script[turn]).iter().map(|t| t.id));
        context.extend((0..20).map(|_| rng.below(vocab_size) as u32));
        answers.push(heard.tokens);
    }
    (answers, n_cached)
}

#[test]
fn the_prefix_cache_changes_no_bit_on_the_exact_path() {
    for golden in ["c/fp32", "c/int4", "d/int4", "e/int4"] {
        let model = model(golden, Arithmetic::Exact);
        let (off, n_cached_off) = tool_loop(&model, false, 1, None);
        let (on, n_cached_on) = tool_loop(&model, true, 1, None);
        assert_eq!(n_cached_off, 0);
        assert!(n_cached_on > 1_000, "{n_cached_on} cached tokens show little");
        assert_eq!(on, off, "{golden}");
    }
}

#[test]
fn on_the_fast_path_the_cache_moves_last_bits_only() {
    let (mut n_same, mut n_all, mut largest) = (0, 0, 0.0f32);
    for golden in ["c/int4", "d/int4", "e/int4"] {
        let model = model(golden, Arithmetic::Fast);
        let (off, _) = tool_loop(&model, false, 0, None);
        let (on, n_cached) = tool_loop(&model, true, 0, Some(&off));
        assert!(n_cached > 1_000, "{golden}: {n_cached}");
        for (on, off) in on.iter().zip(&off) {
            let n = on.iter().zip(off).take_while(|(a, b)| a.id == b.id).count();
            let off_by = |(a, b): (&TokenEvent, &TokenEvent)| (a.logprob.unwrap() - b.logprob.unwrap()).abs();
            largest = on[..n].iter().zip(&off[..n]).map(off_by).fold(largest, f32::max);
            n_same += n;
            n_all += off.len();
        }
    }
    println!(
        "fast path, cache on or off: {n_same} of {n_all} greedy tokens agree before an answer first differs;"
    );
    println!("while they agree log-probabilities differ by {largest:.1e} at most");
    // Random weights: a wrong cache would give log-probabilities that have nothing in common.
    assert!(n_same * 10 > n_all * 9 && largest < 0.1, "{n_same} of {n_all}, {largest}");
}
