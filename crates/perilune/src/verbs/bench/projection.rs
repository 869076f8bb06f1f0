//! From a slice of a model to all of it: what each part took, times how often the whole model has it.

use super::parts::{Cached, Part};
use super::{Limits, Measurement};
use anyhow::ensure;
use perilune_model::forward::Model;
use perilune_model::layout::Kind;
use serde::Serialize;

/// Layers of Kimi K2 Thinking.
pub(super) const K2_LAYERS: usize = 61;
/// Its vocabulary.
const K2_VOCAB: usize = 163_840;

/// The model to project to.
pub(super) struct Target {
    /// Number of layers.
    pub(super) layers: usize,
    /// V; without it K2's for 61 layers, else the slice's.
    pub(super) vocab: Option<usize>,
    /// Cached tokens; without it as measured.
    pub(super) context: Option<usize>,
    /// Bytes that another machine reads in a second.
    pub(super) bandwidth: Option<u64>,
}

/// A decode step of the whole model.
#[derive(Serialize)]
pub(super) struct Projection {
    /// Number of layers.
    pub(super) layers: usize,
    /// V.
    pub(super) vocab: usize,
    /// Sequences decoded together.
    pub(super) batch: usize,
    /// Cached tokens of each.
    pub(super) context: usize,
    /// Bytes that a step reads.
    pub(super) bytes_per_step: u64,
    /// This machine, then the one that was asked for.
    pub(super) machines: Vec<Machine>,
}

/// A decode step on one machine.
#[derive(Serialize)]
pub(super) struct Machine {
    /// 10^9 bytes that its memory gives in a second.
    pub(super) read_gb_per_s: f64,
    /// Milliseconds of a step.
    pub(super) step_ms: f64,
    /// Tokens a second of all sequences together.
    pub(super) decode_tokens_per_s: f64,
    pub(super) parts: Vec<PartTime>,
}

/// Milliseconds of one part of the model in a step.
#[derive(Serialize)]
pub(super) struct PartTime {
    pub(super) part: Kind,
    pub(super) ms: f64,
}

/// Project from one measurement: on this machine, and on one of a given bandwidth that keeps this one's share of it
/// and its operations for each byte read.
///
/// # Errors
/// The slice lacks a sort of layer that the whole model has.
pub(super) fn project(
    model: &Model,
    limits: &Limits,
    run: &Measurement,
    target: &Target,
) -> anyhow::Result<Projection> {
    let config = model.config();
    let dense = config.first_k_dense_replace.min(config.num_hidden_layers);
    let counts = |layers: usize| {
        let dense = config.first_k_dense_replace.min(layers);
        (layers as f64, dense as f64, (layers - dense) as f64)
    };
    ensure!(
        target.layers >= dense && (config.num_hidden_layers > dense || target.layers == dense),
        "a projection needs a slice with every sort of layer: one with experts beside the {dense} dense"
    );
    let vocab = target.vocab.unwrap_or(if target.layers == K2_LAYERS { K2_VOCAB } else { config.vocab_size });
    let (here, there) = (counts(config.num_hidden_layers), counts(target.layers));
    let ratio = |here: f64, there: f64| if here > 0.0 { there / here } else { 0.0 };
    let factor = |part: Kind| match part {
        Kind::Attention => ratio(here.0, there.0),
        Kind::DenseMlp => ratio(here.1, there.1),
        Kind::Head => vocab as f64 / config.vocab_size as f64,
        _ => ratio(here.2, there.2),
    };
    let measured = run.cached + run.prompt + run.decode / 2;
    let context = target.context.unwrap_or(measured);
    let cached = |before: usize| Cached { n_sequences: run.batch, n_rows: 1, before, absorbed: true };
    let (more, less) = (cached(context), cached(measured));
    let bytes = more.bytes(model) as f64 - less.bytes(model) as f64;
    let operations = more.operations(model) - less.operations(model);
    // What is added or taken away costs the larger of its bytes and its operations at this machine's limits.
    let seconds = bytes / (limits.read_gb_per_s * 1e9);
    let by_operations = operations / (limits.f32_gflop_per_s * 1e9);
    let added = if seconds.abs() > by_operations.abs() { seconds } else { by_operations };
    let of_part = |part: &Part| {
        let (ms, bytes) = match part.part {
            Kind::Attention => (part.ms + added * 1e3, part.bytes as f64 + bytes),
            _ => (part.ms, part.bytes as f64),
        };
        (part.part, ms.max(0.0) * factor(part.part), bytes * factor(part.part))
    };
    let parts: Vec<(Kind, f64, f64)> = run.decode_parts.iter().map(of_part).collect();
    let machine = |read_gb_per_s: f64| {
        let speed = read_gb_per_s / limits.read_gb_per_s;
        let parts: Vec<PartTime> =
            parts.iter().map(|(part, ms, _)| PartTime { part: *part, ms: ms / speed }).collect();
        let step_ms = parts.iter().map(|part| part.ms).sum::<f64>();
        Machine { read_gb_per_s, step_ms, decode_tokens_per_s: run.batch as f64 / step_ms * 1e3, parts }
    };
    let given = target.bandwidth.map(|bytes| bytes as f64 / 1e9);
    Ok(Projection {
        layers: target.layers,
        vocab,
        batch: run.batch,
        context,
        bytes_per_step: parts.iter().map(|(_, _, bytes)| *bytes).sum::<f64>() as u64,
        machines: std::iter::once(limits.read_gb_per_s).chain(given).map(machine).collect(),
    })
}
