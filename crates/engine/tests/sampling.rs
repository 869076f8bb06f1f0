//! The sampler against a slow definition of its own, and each setting's refusal.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Rng, scramble};
use perilune_engine::sampler::{Allowed, Sampler, Sampling, Scratch, logprobs};

fn row(seed: u64, n: usize) -> Vec<f32> {
    (0..n).map(|i| (scramble(seed ^ i as u64) >> 40) as f32 / 2.0f32.powi(24) * 8.0 - 4.0).collect()
}

fn draws(sampling: &Sampling, logits: &[f32], n: usize) -> Vec<f64> {
    let sampler = Sampler::new(sampling.clone(), &[]);
    let mut scratch = Scratch::default();
    let mut counts = vec![0.0; logits.len()];
    for index in 0..n {
        let id = sampler.sample(logits, index, Allowed::default(), &mut scratch).unwrap();
        counts[id as usize] += 1.0 / n as f64;
    }
    counts
}

/// Probabilities by the book: sort, keep, normalise.
fn expected(sampling: &Sampling, logits: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap().then(a.cmp(&b)));
    let weight = |i: usize| (f64::from(logits[i] - logits[order[0]]) / f64::from(sampling.temperature)).exp();
    let mut kept: Vec<usize> =
        order.iter().copied().filter(|&i| weight(i) >= f64::from(sampling.min_p)).collect();
    if sampling.top_k > 0 {
        kept.truncate(sampling.top_k);
    }
    let total: f64 = kept.iter().map(|&i| weight(i)).sum();
    let mut mass = 0.0;
    let n = kept.iter().position(|&i| {
        mass += weight(i) / total;
        mass >= f64::from(sampling.top_p)
    });
    kept.truncate(n.map_or(kept.len(), |n| n + 1));
    let total: f64 = kept.iter().map(|&i| weight(i)).sum();
    let mut p = vec![0.0; logits.len()];
    kept.iter().for_each(|&i| p[i] = weight(i) / total);
    p
}

#[test]
fn frequencies_follow_the_definition() {
    let base = Sampling { temperature: 1.0, seed: 5, ..Sampling::default() };
    let cases = [
        base.clone(),
        Sampling { temperature: 0.5, ..base.clone() },
        Sampling { top_p: 0.7, ..base.clone() },
        Sampling { top_k: 5, ..base.clone() },
        Sampling { min_p: 0.2, ..base.clone() },
        Sampling { temperature: 1.5, top_p: 0.8, top_k: 20, min_p: 0.05, ..base },
    ];
    for (i, case) in cases.iter().enumerate() {
        let logits = row(i as u64 + 1, 600);
        let logits = if i == 2 { &logits[..] } else { &logits[..40] };
        let (got, expect) = (draws(case, logits, 20_000), expected(case, logits));
        for (id, (got, expect)) in got.iter().zip(&expect).enumerate() {
            let slack = 5.0 * (expect * (1.0 - expect) / 20_000.0).sqrt() + 1e-9;
            assert!((got - expect).abs() <= slack, "case {i}, id {id}: {got} for {expect}");
        }
    }
}

#[test]
fn penalties_bias_and_bans_change_the_best() {
    let logits = [3.0, 2.9, 2.0, -1.0];
    let best = |sampling: Sampling, prompt: &[u32], generated: &[u32], banned: &[u32]| {
        let mut sampler = Sampler::new(sampling, prompt);
        generated.iter().for_each(|id| sampler.accept(*id));
        sampler.sample(&logits, 0, Allowed { mask: None, banned }, &mut Scratch::default())
    };
    let s = Sampling::default;
    assert_eq!(best(s(), &[], &[], &[]), Some(0));
    assert_eq!(best(Sampling { presence_penalty: 0.2, ..s() }, &[], &[0, 0], &[]), Some(1));
    assert_eq!(best(Sampling { presence_penalty: 0.05, ..s() }, &[], &[0, 0], &[]), Some(0));
    assert_eq!(best(Sampling { frequency_penalty: 0.06, ..s() }, &[], &[0, 0], &[]), Some(1));
    assert_eq!(
        best(Sampling { presence_penalty: 2.0, ..s() }, &[0], &[], &[]),
        Some(0),
        "prompts are not counted"
    );
    assert_eq!(best(Sampling { repetition_penalty: 1.1, ..s() }, &[0], &[], &[]), Some(1));
    assert_eq!(best(Sampling { repetition_penalty: 1.1, ..s() }, &[0], &[0, 1], &[]), Some(0), "once each");
    assert_eq!(best(Sampling { logit_bias: vec![(3, 5.0)], ..s() }, &[], &[], &[]), Some(3));
    assert_eq!(best(s(), &[], &[], &[0, 1, 2]), Some(3));
    assert_eq!(best(s(), &[], &[], &[0, 1, 2, 3]), None);
    let mask = [0b1000];
    let masked = Allowed { mask: Some(&mask), banned: &[] };
    assert_eq!(Sampler::new(s(), &[]).sample(&logits, 0, masked, &mut Scratch::default()), Some(3));
    let ties = [1.0, 2.0, 2.0];
    let tied = Sampler::new(s(), &[]).sample(&ties, 0, Allowed::default(), &mut Scratch::default());
    assert_eq!(tied, Some(1));
}

#[test]
fn log_probabilities_sum_to_one_and_come_best_first() {
    let logits = row(9, 50);
    let (_, top) = logprobs(&logits, 0, 50);
    let sum: f64 = top.iter().map(|t| f64::from(t.logprob).exp()).sum();
    assert!((sum - 1.0).abs() < 1e-6);
    assert!(top.windows(2).all(|w| w[0].logprob >= w[1].logprob));
    assert_eq!(logprobs(&logits, top[7].id, 3).0, top[7].logprob);
    assert_eq!(logprobs(&logits, 0, 3).1, top[..3]);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let s = Sampling::default;
    let mut rng = Rng(1);
    let over = 2.01 + rng.below(50) as f32;
    let cases = [
        ("temperature", Sampling { temperature: f32::NAN, ..s() }),
        ("temperature", Sampling { temperature: -0.1, ..s() }),
        ("temperature", Sampling { temperature: f32::INFINITY, ..s() }),
        ("top_p", Sampling { top_p: 0.0, ..s() }),
        ("top_p", Sampling { top_p: f32::NAN, ..s() }),
        ("min_p", Sampling { min_p: 1.5, ..s() }),
        ("presence_penalty", Sampling { presence_penalty: over, ..s() }),
        ("frequency_penalty", Sampling { frequency_penalty: -over, ..s() }),
        ("repetition_penalty", Sampling { repetition_penalty: 0.0, ..s() }),
        ("top_logprobs", Sampling { n_top_logprobs: Some(21), ..s() }),
        ("a logit_bias", Sampling { logit_bias: vec![(0, f32::NAN)], ..s() }),
        ("the length of logit_bias", Sampling { logit_bias: vec![(0, 0.0); 1_025], ..s() }),
    ];
    assert_eq!(s().check(), Ok(()));
    for (name, case) in cases {
        assert_eq!(case.check().unwrap_err().name, name);
    }
}
