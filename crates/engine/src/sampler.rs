//! From logits to a token: penalties, bias, mask, then temperature, min-p, top-k and top-p, then one draw.
//!
//! A draw is a function of seed and token index alone (SplitMix64: Steele, Lea and Flood 2014), so a replay is exact.
//! Sums run in a fixed order in `f64`; ties go to the lower id.

use crate::mask::allows;
use crate::nucleus::{Buckets, Candidate, by_weight};
use perilune_kernels::router::LogSoftmax;
use perilune_kernels::router::{arg_max, top_k};
use std::collections::BTreeMap;

/// Most alternatives a token may be asked for.
pub const TOP_LOGPROBS_MAX: usize = 20;
/// Most ids that may carry a bias.
pub const LOGIT_BIAS_MAX: usize = 1_024;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits, from 0 to 100; 0 takes the largest.
    pub temperature: f32,
    /// Smallest head of the distribution with this mass, in (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Likeliest ids kept; 0 keeps all.
    pub top_k: usize,
    /// Least probability kept, as a share of the largest, in [0, 1].
    pub min_p: f32,
    /// Taken once from the logit of an id generated before, in [-2, 2].
    pub presence_penalty: f32,
    /// Taken once for each time an id was generated, in [-2, 2].
    pub frequency_penalty: f32,
    /// Divides positive, multiplies negative logits of ids in prompt or generation (Keskar et al. 2019), above 0 and
    /// at most 100; 1 is none.
    pub repetition_penalty: f32,
    /// Token ids and what is added to their logits, each in [-100, 100]; at most [`LOGIT_BIAS_MAX`].
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the draws.
    pub seed: u64,
    /// `Some(n)` delivers the token's log-probability and `n` alternatives, at most [`TOP_LOGPROBS_MAX`].
    pub n_top_logprobs: Option<usize>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 0,
            n_top_logprobs: None,
        }
    }
}

/// A setting out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}, which is not {range}")]
pub struct SamplingError {
    /// The setting.
    pub name: &'static str,
    /// What was given.
    pub value: f64,
    /// What it may be.
    pub range: &'static str,
}

impl Sampling {
    /// Check every setting; NaN is in no range.
    ///
    /// # Errors
    /// [`SamplingError`] for the first setting out of its range.
    pub fn check(&self) -> Result<(), SamplingError> {
        let penalty = -2.0..=2.0;
        let rules = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "from 0 to 100"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "from 0 to 1"),
            (
                "presence_penalty",
                self.presence_penalty,
                penalty.contains(&self.presence_penalty),
                "from -2 to 2",
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                penalty.contains(&self.frequency_penalty),
                "from -2 to 2",
            ),
            (
                "repetition_penalty",
                self.repetition_penalty,
                self.repetition_penalty > 0.0 && self.repetition_penalty <= 100.0,
                "above 0 and at most 100",
            ),
        ];
        for (name, value, holds, range) in rules {
            if !holds {
                return Err(SamplingError { name, value: value.into(), range });
            }
        }
        self.check_lists()
    }

    fn check_lists(&self) -> Result<(), SamplingError> {
        let n = self.n_top_logprobs.unwrap_or(0);
        if n > TOP_LOGPROBS_MAX {
            return Err(SamplingError { name: "top_logprobs", value: n as f64, range: "from 0 to 20" });
        }
        if self.logit_bias.len() > LOGIT_BIAS_MAX {
            let value = self.logit_bias.len() as f64;
            return Err(SamplingError { name: "the length of logit_bias", value, range: "at most 1024" });
        }
        match self.logit_bias.iter().find(|(_, b)| !(-100.0..=100.0).contains(b)) {
            Some((_, b)) => {
                Err(SamplingError { name: "a logit_bias", value: (*b).into(), range: "from -100 to 100" })
            }
            None => Ok(()),
        }
    }
}

/// An id and its log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Token id.
    pub id: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// What one step rules out beyond the settings.
#[derive(Clone, Copy, Default)]
pub struct Allowed<'a> {
    /// Bits of the token mask, where there is one, as [`crate::mask::TokenMask::fill`] sets them.
    pub mask: Option<&'a [u32]>,
    /// Ids not to be drawn.
    pub banned: &'a [u32],
}

/// The settings of one sequence and what penalties need to know of it.
pub struct Sampler {
    sampling: Sampling,
    counts: BTreeMap<u32, u32>,
    /// Sorted ids of the prompt, kept where `repetition_penalty` wants them.
    prompt_ids: Vec<u32>,
}

impl Sampler {
    /// A sampler for a sequence that starts with `prompt`.
    pub fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let mut prompt_ids = Vec::new();
        if sampling.repetition_penalty != 1.0 {
            prompt_ids.extend_from_slice(prompt);
            prompt_ids.sort_unstable();
            prompt_ids.dedup();
        }
        Sampler { sampling, counts: BTreeMap::new(), prompt_ids }
    }

    /// The settings.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Note a generated token, for the penalties.
    pub fn accept(&mut self, id: u32) {
        *self.counts.entry(id).or_default() += 1;
    }

    /// Draw token `index` of the generation (from 0) from finite `logits` `[V]`; `None` where nothing is allowed.
    ///
    /// `scratch` is overwritten.
    ///
    /// # Panics
    /// If an id of the prompt, of the settings, of `allowed` or noted before is not below V.
    pub fn sample(
        &self,
        logits: &[f32],
        index: usize,
        allowed: Allowed<'_>,
        scratch: &mut Scratch,
    ) -> Option<u32> {
        let adjusted = &mut scratch.logits;
        adjusted.clear();
        adjusted.extend_from_slice(logits);
        self.adjust(adjusted, allowed);
        let best = arg_max(adjusted).filter(|&best| adjusted[best] > f32::NEG_INFINITY)?;
        if self.sampling.temperature == 0.0 {
            return Some(best as u32);
        }
        let max = f64::from(adjusted[best]);
        let temperature = f64::from(self.sampling.temperature);
        let weight = |l: f32| ((f64::from(l) - max) / temperature).exp();
        scratch.candidates.clear();
        let kept = adjusted.iter().enumerate().filter(|(_, l)| **l > f32::NEG_INFINITY);
        scratch.candidates.extend(kept.map(|(i, l)| (i as u32, weight(*l))));
        self.cut(&mut scratch.candidates, &mut scratch.buckets);
        Some(draw(&scratch.candidates, uniform(self.sampling.seed, index as u64)))
    }

    fn adjust(&self, logits: &mut [f32], allowed: Allowed<'_>) {
        let s = &self.sampling;
        if s.repetition_penalty != 1.0 {
            let generated = self.counts.keys().filter(|id| self.prompt_ids.binary_search(id).is_err());
            for &id in self.prompt_ids.iter().chain(generated) {
                let l = &mut logits[id as usize];
                *l = if *l > 0.0 { *l / s.repetition_penalty } else { *l * s.repetition_penalty };
            }
        }
        for (&id, &n) in &self.counts {
            logits[id as usize] -= s.presence_penalty + s.frequency_penalty * n as f32;
        }
        for &(id, bias) in &s.logit_bias {
            logits[id as usize] += bias;
        }
        if let Some(mask) = allowed.mask {
            let out = logits.iter_mut().enumerate().filter(|(i, _)| !allows(mask, *i as u32));
            out.for_each(|(_, l)| *l = f32::NEG_INFINITY);
        }
        allowed.banned.iter().for_each(|&id| logits[id as usize] = f32::NEG_INFINITY);
    }

    /// Keep what min-p, top-k and top-p keep, in that order.
    fn cut(&self, candidates: &mut Vec<Candidate>, buckets: &mut Buckets) {
        let s = &self.sampling;
        if s.min_p > 0.0 {
            candidates.retain(|(_, w)| *w >= f64::from(s.min_p));
        }
        if s.top_k > 0 && s.top_k < candidates.len() {
            candidates.select_nth_unstable_by(s.top_k - 1, by_weight);
            candidates.truncate(s.top_k);
            candidates.sort_unstable_by_key(|(id, _)| *id);
        }
        if s.top_p < 1.0 {
            buckets.keep(candidates, f64::from(s.top_p));
        }
    }
}

/// Buffers of the sampler, kept between steps.
#[derive(Default)]
pub struct Scratch {
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
    buckets: Buckets,
}

/// Natural log-probability of `id` and of the `n` likeliest ids, best first, from finite `logits` `[V]`.
///
/// # Panics
/// If `id` is not below V.
pub fn logprobs(logits: &[f32], id: u32, n: usize) -> (f32, Vec<TokenLogprob>) {
    let log_softmax = LogSoftmax::new(logits);
    let logprob = |i: usize| log_softmax.of(logits[i]);
    let best = if n == 0 { Vec::new() } else { top_k(logits, n) };
    (
        logprob(id as usize),
        best.into_iter().map(|i| TokenLogprob { id: i as u32, logprob: logprob(i) }).collect(),
    )
}

/// The candidate in whose span of the total weight `u` falls.
fn draw(candidates: &[(u32, f64)], u: f64) -> u32 {
    let mut left = candidates.iter().map(|(_, w)| w).sum::<f64>() * u;
    for (id, weight) in candidates {
        left -= weight;
        if left < 0.0 {
            return *id;
        }
    }
    let heavy = candidates.iter().rev().find(|(_, w)| *w > 0.0);
    heavy.expect("the largest logit has weight 1 and no cut removes it").0
}

/// Draw `index` of `seed`, in [0, 1).
fn uniform(seed: u64, index: u64) -> f64 {
    let bits = mix(mix(seed).wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
