//! What the console says of the model of this process.

use super::plan::shown_verdict;
use crate::machine;
use crate::terminal::{bytes, count, short_count};
use perilune_kernels::cpu::Cpu;
use perilune_kernels::probe;
use perilune_model::config::{Config, Family};
use perilune_model::forward::{Arithmetic, Model};
use perilune_model::layout;
use perilune_model::plan::{Plan, Request, Weights};
use perilune_model::weights::Dense;
use perilune_server::console::{Memory, ModelCard};
use std::path::Path;

/// Bytes read to measure the memory: more than caches hold.
const PROBE_BYTES: usize = 256 << 20;
/// Times they are read; the best counts.
const PROBE_RUNS: usize = 3;

/// The card of `model`, opened from `dir`, with a cache of `cache_tokens` for all requests together.
pub(crate) fn of(model: &Model, dir: &Path, cache_tokens: usize, dense: Dense) -> ModelCard {
    let config = model.config();
    let folder =
        dir.canonicalize().ok().and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
    let plan = plan(model, cache_tokens, dense);
    let verdict = plan.as_ref().zip(machine::ram_bytes().ok());
    ModelCard {
        name: folder.unwrap_or_else(|| config.family.model_type().to_owned()),
        is_kimi_k2: is_kimi_k2(config),
        architecture: named(architecture(config)),
        memory: plan.as_ref().map(memory).unwrap_or_default(),
        verdict: verdict.map(|(plan, ram)| {
            let verdict = shown_verdict(plan.verdict(ram), ram, "this machine's memory");
            let read = bytes(plan.read_bytes_per_step);
            format!("At its peak this {verdict}. A decode step of all sequences reads {read} of weights.")
        }),
        kernels: named(kernels(model, dense)),
        possible_gb_per_s: None,
    }
}

/// Read bandwidth of this machine's memory, measured now, GB/s (10^9 bytes).
pub(crate) fn read_gb_per_s(cpu: &Cpu) -> f64 {
    probe::read_bandwidth(cpu, PROBE_BYTES, PROBE_RUNS) / 1e9
}

/// Whether the weights are of Kimi K2's own size, not of a small model of its family.
fn is_kimi_k2(config: &Config) -> bool {
    let shape = (config.num_hidden_layers, config.hidden_size, config.n_routed_experts);
    matches!(config.family, Family::KimiK2 | Family::KimiK25 | Family::DeepseekV3) && shape == (61, 7168, 384)
}

fn named(rows: Vec<(&str, String)>) -> Vec<(String, String)> {
    rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn architecture(config: &Config) -> Vec<(&'static str, String)> {
    let parameters = layout::parameters(config);
    let [total, active] = [parameters.total, parameters.active].map(|n| short_count(n as u64));
    let n_dense = config.first_k_dense_replace.min(config.num_hidden_layers);
    let n_moe = config.num_hidden_layers - n_dense;
    let packing = config.quantization.map_or("as published, not packed".to_owned(), |q| {
        format!("{}-bit codes, a scale for every {}", q.num_bits, q.group_size)
    });
    vec![
        ("Type", config.family.model_type().to_owned()),
        ("Parameters", format!("{total}, {active} of them active for a token")),
        ("Layers", format!("{}: {n_dense} dense, {n_moe} with experts", config.num_hidden_layers)),
        ("Width", count(config.hidden_size as u64)),
        (
            "Attention",
            format!(
                "MLA, {} heads, latent ranks {} (query) and {} (key and value)",
                config.num_attention_heads, config.q_lora_rank, config.kv_lora_rank
            ),
        ),
        (
            "Experts",
            format!(
                "{} of {} routed, and {} shared",
                config.num_experts_per_tok, config.n_routed_experts, config.n_shared_experts
            ),
        ),
        ("Routed experts' weights", packing),
        ("Vocabulary", format!("{} tokens", count(config.vocab_size as u64))),
        ("Longest context", format!("{} tokens", count(config.max_position_embeddings as u64))),
    ]
}

/// The plan of as many full sequences as the cache holds, the last perhaps in part.
fn plan(model: &Model, cache_tokens: usize, dense: Dense) -> Option<Plan> {
    let config = model.config();
    let context = cache_tokens.min(config.max_position_embeddings);
    let request = Request {
        context: context as u64,
        batch: cache_tokens.div_ceil(context) as u64,
        dense,
        path: model.arithmetic(),
        cache: model.cache_form(),
        n_threads: model.cpu().pool().n_threads(),
    };
    Plan::new(config, Weights::of_config(config), request).ok()
}

fn memory(plan: &Plan) -> Vec<Memory> {
    let re_encoded = plan.reencoded_bytes > 0;
    let dense = if re_encoded { plan.reencoded_bytes } else { plan.weights.dense };
    let how = if re_encoded { "re-encoded to 8 bit at load" } else { "mapped from the files, as published" };
    let mapped = "mapped from the files";
    let cache = format!("{} B a token", count(plan.cache_bytes_per_token));
    let parts: [(&str, u64, &str); 6] = [
        ("Routed experts", plan.weights.experts, mapped),
        ("Dense matrices", dense, how),
        ("Embedding", plan.weights.embedding, "mapped from the files; a token reads one row"),
        ("Norms and routers", plan.weights.rest, mapped),
        ("Cache", plan.cache_bytes, &cache),
        ("Scratch", plan.scratch_bytes, "taken while it runs"),
    ];
    let part = |(name, bytes, note): (&str, u64, &str)| Memory {
        name: name.to_owned(),
        bytes,
        note: note.to_owned(),
    };
    parts.map(part).into()
}

fn kernels(model: &Model, dense: Dense) -> Vec<(&'static str, String)> {
    let (arithmetic, cache) = match model.arithmetic() {
        Arithmetic::Fast => ("fast: 8-bit activations for quantised weights", "latent, absorbed in decode"),
        Arithmetic::Exact => ("exact: f32 throughout", "keys and values, expanded"),
    };
    let dense = match dense {
        Dense::AsPublished => "as published",
        Dense::Int8 => "8 bit, a scale for every 32 weights",
    };
    vec![
        ("Instruction set", model.cpu().isa().name().to_owned()),
        ("Threads", model.cpu().pool().n_threads().to_string()),
        ("Arithmetic", arithmetic.to_owned()),
        ("Dense matrices", dense.to_owned()),
        ("Attention's cache", cache.to_owned()),
    ]
}
