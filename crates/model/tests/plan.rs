//! The planner's arithmetic at full size, from the config alone.

#![allow(clippy::unwrap_used)]

use perilune_model::cache::CacheForm;
use perilune_model::config::Config;
use perilune_model::forward::Arithmetic;
use perilune_model::plan::{Plan, Remedy, Request, Verdict, Weights};
use perilune_model::weights::Dense;

const K2: &str = include_str!("data/k2_thinking_config.json");

const RUN: Request = Request {
    context: 32_768,
    batch: 1,
    dense: Dense::AsPublished,
    path: Arithmetic::Fast,
    cache: CacheForm::LatentBf16,
    n_threads: 2,
};

fn plan(request: Request) -> Plan {
    let config = Config::from_json(K2).unwrap();
    Plan::new(&config, Weights::of_config(&config), request).unwrap()
}

/// `found` is within 0.1 % of `expected`.
fn check(what: &str, found: u64, expected: f64) {
    assert!((found as f64 / expected - 1.0).abs() < 1e-3, "{what}: {found}, expected {expected}");
}

#[test]
fn k2_takes_what_is_published() {
    let bf16 = plan(RUN);
    check("weights", bf16.mapped_bytes, 594.2e9);
    check("latent cache of a token", bf16.cache_bytes_per_token, 70_272.0);
    check("latent cache", bf16.cache_bytes, 70_272.0 * 32_768.0);
    // 8 of 384 experts in 60 layers, and 10.55e9 other parameters in BF16.
    check("read for a token", bf16.read_bytes_per_step, 8.0 * 60.0 * 44_040_192.0 * 0.5625 + 2.0 * 10.554e9);
    let int8 = plan(Request { dense: Dense::Int8, ..RUN });
    // A line of 64 bytes lies behind each row of 7,168, 8,192, 18,432 or 2,048 columns.
    check("re-encoded", int8.reencoded_bytes, 10.38e9 * 1.0625 + 92.8e6);
    check(
        "read for a token, 8 bit",
        int8.read_bytes_per_step,
        bf16.read_bytes_per_step as f64 - 10.38e9 * 0.9375,
    );
    assert!(int8.resident_bytes < bf16.resident_bytes);
    let exact = plan(Request { path: Arithmetic::Exact, cache: CacheForm::Expanded, ..RUN });
    check("expanded cache of a token", exact.cache_bytes_per_token, (64.0 * 256.0 + 64.0) * 4.0 * 61.0);
}

#[test]
fn a_batch_reads_more_experts_but_not_all_of_them_twice() {
    let [one, many, full] = [1, 64, 65_536].map(|batch| plan(Request { batch, ..RUN }).read_bytes_per_step);
    assert!(one < many && many < 64 * one && many < full);
    let rows = 65_536 * 7168 * 2;
    check("every expert", full - rows, 594.2e9 - 163_840.0 * 7168.0 * 2.0);
}

#[test]
fn verdicts_and_remedies_follow_the_memory() {
    let config = Config::from_json(K2).unwrap();
    let plan = plan(RUN);
    let needed = plan.resident_bytes;
    assert_eq!(plan.verdict(needed), Verdict::Fits);
    assert_eq!(plan.remedies(&config, needed), []);
    assert_eq!(plan.verdict(needed - 1), Verdict::FromDisk);
    assert_eq!(plan.verdict(plan.anonymous_bytes), Verdict::DoesNotFit);
    assert_eq!(plan.remedies(&config, 24_000_000_000), [Remedy::Ram(needed)]);
    let remedies = plan.remedies(&config, needed - 70_272 * 64);
    let [Remedy::Context(context), Remedy::DenseInt8, Remedy::Ram(_)] = remedies[..] else {
        panic!("{remedies:?}");
    };
    let shorter = Plan::new(&config, plan.weights, Request { context, ..RUN }).unwrap();
    assert_eq!(shorter.verdict(needed - 70_272 * 64), Verdict::Fits);
    assert_eq!(context, 32_768 - 64);
}

#[test]
fn absurd_requests_are_sentences() {
    let config = Config::from_json(K2).unwrap();
    let refused = |request| Plan::new(&config, Weights::of_config(&config), request).unwrap_err().to_string();
    for (context, batch) in [(0, 1), (1, 0), (u64::MAX, 1), (u64::MAX, u64::MAX), (1 << 39, 3), (1, 65_537)] {
        let error = refused(Request { context, batch, ..RUN });
        assert!(error.contains(&context.to_string()) && error.contains("expected"), "{error}");
    }
    assert!(refused(Request { path: Arithmetic::Exact, dense: Dense::Int8, ..RUN }).contains("--dense bf16"));
}
