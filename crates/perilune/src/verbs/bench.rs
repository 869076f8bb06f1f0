//! `bench`: how fast this machine runs a model, beside what the machine itself can do.

mod parts;
mod projection;
mod start;

use super::memory::Memory;
use super::open::{RunArgs, check_context, parse_threads};
use crate::table::{Table, figures, words};
use crate::terminal::{folded, parse_size, print, print_json};
use anyhow::{bail, ensure};
use clap::Args;
use parts::{Cached, Clock, Part};
use perilune_kernels::cpu::{Cpu, Isa};
use perilune_kernels::logits::arg_max;
use perilune_kernels::probe;
use perilune_model::cache::Cache;
use perilune_model::forward::{Arithmetic, Model, Phase, Segment, Unobserved, Wanted, Workspace};
use perilune_model::solo::{PREFILL_CHUNK, Solo};
use perilune_model::weights::Dense;
use projection::{Projection, Target};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Bytes the bandwidth probe reads, where the machine has four times as many.
const PROBE_BYTES: usize = 4 << 30;
/// How far in a folded line goes on.
const HANG: usize = 4;
/// What a measurement of garbage ends with.
const NOT_FINITE: &str =
    "the model gave logits that are not finite; `perilune verify` finds a damaged tensor";
/// Runs of a probe, the best of which counts.
const PROBE_RUNS: usize = 3;
/// Tokens of a prompt where nobody says it, and of one that is started with.
const PROMPTS: [usize; 1] = [512];
const START_PROMPTS: [usize; 1] = [4];

/// Measure prefill and decode speed beside this machine's own limits
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Folder of the checkpoint: config.json and safetensors, as published
    #[arg(required_unless_present = "kernels")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Measure the start instead: from opening the files to the first token of a prompt, beside reading the same pages
    #[arg(long, conflicts_with_all = ["kernels", "batch", "cached", "thread_counts", "accuracy", "project"])]
    start: bool,
    /// Send the files out of the page cache before each start (needs no rights)
    #[arg(long, requires = "start")]
    cold: bool,
    /// Prompt lengths to measure, in tokens [default: 512, of a start 4]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    prompt: Vec<usize>,
    /// Tokens of a prompt that pass together
    #[arg(long, value_name = "N", default_value_t = PREFILL_CHUNK)]
    chunk: usize,
    /// Tokens to decode in each measurement
    #[arg(long, value_name = "N", default_value_t = 32)]
    decode: usize,
    /// Sequences decoded together
    #[arg(long, value_name = "B,..", value_delimiter = ',', default_values_t = [1])]
    batch: Vec<usize>,
    /// Tokens cached before each prompt, noise that is not computed: what a long context costs
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [0])]
    cached: Vec<usize>,
    /// Thread counts to measure instead of --threads
    #[arg(long, value_name = "T,..", value_delimiter = ',', value_parser = parse_threads)]
    thread_counts: Vec<usize>,
    /// Runs of each measurement, after the longest prompt once to warm up; the median is shown
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Tokens on which the fast path is compared with the exact one; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 32)]
    accuracy: usize,
    /// Say how fast a model of this many layers would decode, from the time of each part here [default: the 61 of Kimi
    /// K2 Thinking]
    #[arg(long, value_name = "LAYERS", num_args = 0..=1, default_missing_value = "61")]
    project: Option<usize>,
    /// Its vocabulary [default: K2's 163840 for 61 layers, else this checkpoint's]
    #[arg(long, value_name = "V", requires = "project")]
    project_vocab: Option<usize>,
    /// Its cached tokens [default: as measured]
    #[arg(long, value_name = "N", requires = "project")]
    project_context: Option<usize>,
    /// Project on a machine that reads this much, too, such as 400GB/s
    #[arg(long, value_name = "SPEED", requires = "project", value_parser = parse_bandwidth)]
    bandwidth: Option<u64>,
    /// List the kernels of this build, what this machine runs and what was verified, and stop
    #[arg(long)]
    kernels: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl BenchArgs {
    fn prompts(&self) -> &[usize] {
        match &self.prompt[..] {
            [] if self.start => &START_PROMPTS,
            [] => &PROMPTS,
            given => given,
        }
    }
}

/// Everything measured.
#[derive(Serialize)]
struct Report {
    kernels: &'static str,
    path: Arithmetic,
    dense: Dense,
    limits: Vec<Limits>,
    runs: Vec<Measurement>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    projections: Vec<Projection>,
    accuracy: Option<Accuracy>,
    memory: Memory,
}

/// What the machine itself can do.
#[derive(Serialize)]
struct Limits {
    threads: usize,
    read_gb_per_s: f64,
    f32_gflop_per_s: f64,
    int8_gop_per_s: f64,
}

#[derive(Serialize)]
struct Measurement {
    threads: usize,
    cached: usize,
    prompt: usize,
    chunk: usize,
    decode: usize,
    batch: usize,
    prefill_tokens_per_s: f64,
    prefill_gop_per_s: f64,
    decode_tokens_per_s: f64,
    decode_gb_per_s: f64,
    decode_share_of_read_limit: f64,
    bytes_per_step: u64,
    prefill_parts: Vec<Part>,
    decode_parts: Vec<Part>,
}

/// The fast path against the exact one.
#[derive(Serialize)]
struct Accuracy {
    n_tokens: usize,
    mean_kl_nats: f64,
    max_kl_nats: f64,
    arg_max_agreement: f64,
}

/// One line of `--kernels`.
#[derive(Serialize)]
struct KernelSet {
    name: &'static str,
    present: bool,
    verified: bool,
    default: bool,
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    let run = &args.run;
    if args.kernels {
        return list_kernels(args.json);
    }
    let Some(dir) = &args.dir else { bail!("give the folder of a checkpoint, or --kernels") };
    ensure!(
        args.runs > 0 && args.decode > 0 && args.chunk > 0,
        "--runs, --decode and --chunk are at least 1"
    );
    if args.start {
        return start::run(args, dir);
    }
    let counts = match &args.thread_counts[..] {
        [] => vec![run.n_threads()],
        counts => counts.to_vec(),
    };
    let (path, dense) = (run.path.arithmetic(), run.dense.dense());
    let mut report = Report {
        kernels: run.cpu_on(1)?.isa().name(),
        path,
        dense,
        limits: Vec::new(),
        runs: Vec::new(),
        projections: Vec::new(),
        accuracy: None,
        memory: Memory::default(),
    };
    for n_threads in counts {
        let model = run.model_on(dir, run.cpu_on(n_threads)?, path, dense)?;
        check_requests(args, &model)?;
        report.limits.push(limits(model.cpu()));
        super::memory::forget_peak();
        measure_all(args, &model, &mut report)?;
        if report.accuracy.is_none() && args.accuracy > 0 && path == Arithmetic::Fast {
            let exact = run.model_on(dir, run.cpu_on(n_threads)?, Arithmetic::Exact, Dense::AsPublished)?;
            report.accuracy = Some(accuracy(&exact, &model, args.accuracy)?);
        }
    }
    show(&report, args.json)
}

/// Whether everything asked for can be measured, before any of it is.
fn check_requests(args: &BenchArgs, model: &Model) -> anyhow::Result<()> {
    for &prompt in args.prompts() {
        for (&batch, &cached) in args.batch.iter().flat_map(|b| args.cached.iter().map(move |c| (b, c))) {
            ensure!(prompt > 0 && batch > 0, "--prompt and --batch are at least 1");
            check_context(model, prompt.saturating_add(args.decode).saturating_add(cached), batch)?;
        }
    }
    check_context(model, args.accuracy, 1)
}

fn list_kernels(json: bool) -> anyhow::Result<()> {
    let set = |isa: Isa| KernelSet {
        name: isa.name(),
        present: isa.is_present(),
        verified: isa.is_verified(),
        default: isa == Isa::best(),
    };
    let sets: Vec<KernelSet> = Isa::ALL.into_iter().map(set).collect();
    if json {
        return print_json(&sets);
    }
    let mut text = String::new();
    for set in sets {
        let state = match (set.present, set.verified) {
            (true, true) => "runs here, agrees with the scalar reference",
            (true, false) => "runs here, unverified: chosen only by --isa",
            (false, _) => "this processor lacks it",
        };
        writeln!(text, "{:<12} {state}{}", set.name, if set.default { " (default)" } else { "" })?;
    }
    print(&folded(&text, 13))
}

fn limits(cpu: &Cpu) -> Limits {
    let bytes = PROBE_BYTES.min(crate::machine::ram_bytes().unwrap_or(0) as usize / 4).max(256 << 20);
    Limits {
        threads: cpu.pool().n_threads(),
        read_gb_per_s: probe::read_bandwidth(cpu, bytes, PROBE_RUNS) / 1e9,
        f32_gflop_per_s: probe::multiply_add_peak(cpu, PROBE_RUNS) / 1e9,
        int8_gop_per_s: probe::integer_peak(cpu, PROBE_RUNS) / 1e9,
    }
}

fn measure_all(args: &BenchArgs, model: &Model, report: &mut Report) -> anyhow::Result<()> {
    warm_up(args, model)?;
    for &prompt in args.prompts() {
        for &batch in &args.batch {
            for &cached in &args.cached {
                let shape = Shape { cached, prompt, batch, decode: args.decode, chunk: args.chunk };
                let run = measure_runs(args, model, shape, report)?;
                if let (Some(layers), Some(limits)) = (args.project, report.limits.last()) {
                    let (vocab, context) = (args.project_vocab, args.project_context);
                    let target = Target { layers, vocab, context, bandwidth: args.bandwidth };
                    report.projections.push(projection::project(model, limits, &run, &target)?);
                }
                report.runs.push(run);
            }
        }
    }
    Ok(())
}

/// The longest prompt as the first run has it, and a step, not counted: what is mapped from a file costs a fault where it is
/// touched first.
fn warm_up(args: &BenchArgs, model: &Model) -> anyhow::Result<()> {
    let prompt = args.prompts().iter().copied().max().unwrap_or(1);
    let shape = Shape { cached: 0, prompt, batch: 1, decode: 1, chunk: args.chunk };
    let (mut prefill, mut decode) = (Clock::new(model), Clock::new(model));
    measure(model, shape, 0, &mut prefill, &mut decode)?;
    Ok(())
}

/// What a measurement runs.
#[derive(Clone, Copy)]
struct Shape {
    cached: usize,
    prompt: usize,
    batch: usize,
    decode: usize,
    chunk: usize,
}

/// Medians of a measurement's runs.
fn measure_runs(
    args: &BenchArgs,
    model: &Model,
    shape: Shape,
    report: &mut Report,
) -> anyhow::Result<Measurement> {
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    let (mut prefill_clock, mut decode_clock) = (Clock::new(model), Clock::new(model));
    for run_idx in 0..args.runs {
        let run = measure(model, shape, run_idx as u64, &mut prefill_clock, &mut decode_clock)?;
        prefill.push(run.prefill_s);
        decode.push(run.step_s);
        report.memory.raise(run.memory);
    }
    let (prefill_s, step_s) = (median(&mut prefill), median(&mut decode));
    let bytes = decode_clock.bytes() / (args.runs * shape.decode) as u64;
    let prefill_parts = prefill_clock.parts();
    let prefill_gop: f64 = prefill_parts.iter().map(|part| part.gop).sum();
    let limit = report.limits.last().map_or(f64::NAN, |limits| limits.read_gb_per_s);
    let decode_gb_per_s = bytes as f64 / step_s / 1e9;
    Ok(Measurement {
        threads: model.cpu().pool().n_threads(),
        cached: shape.cached,
        prompt: shape.prompt,
        chunk: shape.chunk,
        decode: shape.decode,
        batch: shape.batch,
        prefill_tokens_per_s: shape.prompt as f64 / prefill_s,
        prefill_gop_per_s: prefill_gop / prefill_s,
        decode_tokens_per_s: shape.batch as f64 / step_s,
        decode_gb_per_s,
        decode_share_of_read_limit: decode_gb_per_s / limit,
        bytes_per_step: bytes,
        prefill_parts,
        decode_parts: decode_clock.parts(),
    })
}

struct Run {
    prefill_s: f64,
    step_s: f64,
    memory: Memory,
}

/// Prefill prompts of seeded random tokens, a step of `prefill` each, then decode tokens of each sequence together.
fn measure(
    model: &Model,
    shape: Shape,
    seed: u64,
    prefill: &mut Clock<'_>,
    decode: &mut Clock<'_>,
) -> anyhow::Result<Run> {
    let Shape { cached, prompt, batch, .. } = shape;
    let n_blocks = Cache::blocks_for(cached + prompt + shape.decode);
    let mut cache = Cache::new(model.config(), model.cache_form(), n_blocks * batch);
    let blocks: Vec<u32> = (0..(n_blocks * batch) as u32).collect();
    let mut workspace = Workspace::default();
    let mut last = Vec::new();
    for blocks in blocks.chunks(n_blocks) {
        cache.fill_with_noise(blocks, cached, seed);
    }
    let start = Instant::now();
    for blocks in blocks.chunks(n_blocks) {
        let ids = random_ids(model, prompt, seed + u64::from(blocks[0]));
        for (i, ids) in ids.chunks(shape.chunk).enumerate() {
            let done = i * shape.chunk;
            let is_last = done + ids.len() == prompt;
            let wanted = if is_last { Wanted::Last } else { Wanted::Nothing };
            let first_position = cached + done;
            let segment = Segment { ids, first_position, blocks, phase: Phase::Prefill, wanted };
            let seen = Cached { n_sequences: 1, n_rows: ids.len(), before: first_position, absorbed: false };
            prefill.start(ids.len(), usize::from(is_last), &seen);
            last = model.forward(&mut cache, &[segment], &mut workspace, prefill)?;
        }
        prefill.end();
    }
    let prefill_s = start.elapsed().as_secs_f64() / batch as f64;
    ensure!(last.iter().all(|v| v.is_finite()), NOT_FINITE);
    let step_s = decode_steps(model, shape, seed, &mut cache, &mut workspace, decode)?;
    Ok(Run { prefill_s, step_s, memory: Memory::now() })
}

/// Median seconds of a decode step of all sequences.
fn decode_steps(
    model: &Model,
    shape: Shape,
    seed: u64,
    cache: &mut Cache,
    workspace: &mut Workspace,
    clock: &mut Clock<'_>,
) -> anyhow::Result<f64> {
    let batch = shape.batch;
    let blocks: Vec<u32> = (0..cache.n_blocks() as u32).collect();
    let n_blocks = blocks.len() / batch;
    let mut steps = Vec::new();
    let mut ids = random_ids(model, batch, !seed);
    for step in 0..shape.decode {
        let first_position = shape.cached + shape.prompt + step;
        let segment = |i: usize| Segment {
            ids: &ids[i..i + 1],
            first_position,
            blocks: &blocks[i * n_blocks..(i + 1) * n_blocks],
            phase: Phase::Decode,
            wanted: Wanted::Last,
        };
        let segments: Vec<Segment<'_>> = (0..batch).map(segment).collect();
        let seen = Cached { n_sequences: batch, n_rows: 1, before: first_position, absorbed: true };
        let start = Instant::now();
        clock.start(batch, batch, &seen);
        let logits = model.forward(cache, &segments, workspace, clock)?;
        clock.end();
        steps.push(start.elapsed().as_secs_f64());
        let next = logits.chunks_exact(model.config().vocab_size).filter_map(arg_max).map(|id| id as u32);
        ids = next.collect();
        ensure!(ids.len() == batch, NOT_FINITE);
    }
    Ok(median(&mut steps))
}

/// Logits of the same random tokens on both paths.
fn accuracy(exact: &Model, fast: &Model, n_tokens: usize) -> anyhow::Result<Accuracy> {
    let ids = random_ids(exact, n_tokens, 1);
    let all = |model: &Model| {
        Solo::new(model, n_tokens).advance(&ids, Phase::Prefill, Wanted::All, &mut Unobserved)
    };
    let (exact_logits, fast_logits) = (all(exact)?, all(fast)?);
    let vocab_size = exact.config().vocab_size;
    let rows = exact_logits.chunks(vocab_size).zip(fast_logits.chunks(vocab_size));
    let (mut kls, mut same) = (Vec::new(), 0);
    for (exact, fast) in rows {
        same += usize::from(arg_max(exact) == arg_max(fast));
        let (p, q) = (log_softmax(exact), log_softmax(fast));
        kls.push(p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>());
    }
    Ok(Accuracy {
        n_tokens,
        mean_kl_nats: kls.iter().sum::<f64>() / kls.len() as f64,
        max_kl_nats: kls.iter().copied().fold(0.0, f64::max),
        arg_max_agreement: same as f64 / n_tokens as f64,
    })
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|l| f64::from(l - max).exp()).sum();
    row.iter().map(|l| f64::from(l - max) - sum.ln()).collect()
}

/// Seeded ids below the vocabulary (a multiplicative hash of the index: spread, not secret).
fn random_ids(model: &Model, n: usize, seed: u64) -> Vec<u32> {
    let vocab_size = model.config().vocab_size as u64;
    let id = |i: u64| {
        ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seed.wrapping_mul(0xd134_2543_de82_ef95))
            >> 20)
            % vocab_size
    };
    (0..n as u64).map(|i| id(i) as u32).collect()
}

/// Bytes a second from `400GB/s`.
fn parse_bandwidth(text: &str) -> Result<u64, String> {
    parse_size(text.strip_suffix("/s").unwrap_or(text))
        .map_err(|_| format!("`{text}` is not a bandwidth; write one like 400GB/s"))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn show(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(report);
    }
    let mut text = String::new();
    writeln!(
        text,
        "kernels {}, path {}, dense {}",
        report.kernels,
        path_name(report.path),
        dense_name(report.dense)
    )?;
    for limits in &report.limits {
        writeln!(
            text,
            "machine with {} threads: reads {:.1} GB/s, multiplies and adds {:.0} GFLOP/s in f32, {:.0} GOP/s in int8",
            limits.threads, limits.read_gb_per_s, limits.f32_gflop_per_s, limits.int8_gop_per_s
        )?;
    }
    text += &table_of(&report.runs);
    report.runs.iter().try_for_each(|run| show_parts(&mut text, run))?;
    report.projections.iter().try_for_each(|projection| show_projection(&mut text, projection))?;
    if let Some(a) = &report.accuracy {
        writeln!(
            text,
            "fast against exact on {} random tokens: mean KL {:.2e} nats, max {:.2e}, arg-max agrees {:.0} %",
            a.n_tokens,
            a.mean_kl_nats,
            a.max_kl_nats,
            100.0 * a.arg_max_agreement
        )?;
    }
    let gb = |bytes: u64| bytes as f64 / 1e9;
    writeln!(
        text,
        "memory: {:.2} GB anonymous, {:.2} GB mapped, {:.2} GB peak",
        gb(report.memory.anonymous_bytes),
        gb(report.memory.mapped_bytes),
        gb(report.memory.peak_bytes)
    )?;
    print(&folded(&text, HANG))
}

fn table_of(runs: &[Measurement]) -> String {
    let heads = [
        "threads",
        "cached",
        "prompt",
        "batch",
        "prefill tok/s",
        "GOP/s",
        "decode tok/s",
        "GB/s",
        "of limit",
    ];
    let mut table = Table::new(heads.map(figures));
    for run in runs {
        table.push([
            run.threads.to_string(),
            run.cached.to_string(),
            run.prompt.to_string(),
            run.batch.to_string(),
            format!("{:.1}", run.prefill_tokens_per_s),
            format!("{:.0}", run.prefill_gop_per_s),
            format!("{:.1}", run.decode_tokens_per_s),
            format!("{:.1}", run.decode_gb_per_s),
            format!("{:.0}%", 100.0 * run.decode_share_of_read_limit),
        ]);
    }
    table.text()
}

/// A measurement's parts, prefill beside decode.
fn show_parts(text: &mut String, run: &Measurement) -> std::fmt::Result {
    writeln!(text, "\nwhere it goes: {} cached, prompt {}, batch {}", run.cached, run.prompt, run.batch)?;
    let [gb, gop] = ["GB/s", "GOP/s"].map(figures);
    let mut table =
        Table::new([words("part"), figures("decode ms"), gb, gop, figures("prefill ms"), gb, gop]);
    for (decode, prefill) in run.decode_parts.iter().zip(&run.prefill_parts) {
        let cells = |part: &Part| {
            [format!("{:.3}", part.ms), format!("{:.1}", part.gb_per_s), format!("{:.0}", part.gop_per_s)]
        };
        let ([a, b, c], [d, e, f]) = (cells(decode), cells(prefill));
        table.push([decode.part.label().to_owned(), a, b, c, d, e, f]);
    }
    text.push_str(&table.text());
    Ok(())
}

fn show_projection(text: &mut String, p: &Projection) -> std::fmt::Result {
    writeln!(
        text,
        "\nprojected: {} layers, vocabulary {}, {} cached, batch {}: {:.2} GB a step",
        p.layers,
        p.vocab,
        p.context,
        p.batch,
        p.bytes_per_step as f64 / 1e9
    )?;
    for machine in &p.machines {
        let parts: Vec<String> =
            machine.parts.iter().map(|part| format!("{} {:.1}", part.part.label(), part.ms)).collect();
        writeln!(
            text,
            "  at {:.1} GB/s: {:.2} tokens/s, {:.1} ms a step ({})",
            machine.read_gb_per_s,
            machine.decode_tokens_per_s,
            machine.step_ms,
            parts.join(", ")
        )?;
    }
    Ok(())
}

fn path_name(path: Arithmetic) -> &'static str {
    match path {
        Arithmetic::Exact => "exact",
        Arithmetic::Fast => "fast",
    }
}

fn dense_name(dense: Dense) -> &'static str {
    match dense {
        Dense::AsPublished => "as published",
        Dense::Int8 => "int8",
    }
}
