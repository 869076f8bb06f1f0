//! `plan`: what a run takes, and whether it fits.

use super::open::{CacheChoice, DenseChoice, PathChoice};
use crate::machine;
use crate::terminal::{bytes, count, default_threads, folded, parse_size, print, print_json, short_count};
use anyhow::bail;
use perilune_model::cache::CacheForm;
use perilune_model::checkpoint::{CONFIG_FILE, Checkpoint, INDEX_FILE, SINGLE_FILE};
use perilune_model::config::Config;
use perilune_model::forward::Arithmetic;
use perilune_model::layout::{self, Parameters};
use perilune_model::plan::{Plan, Remedy, Request, Verdict, Weights};
use perilune_model::weights::Dense;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Say what a run takes before it is run: weights, cache, scratch, and whether that fits.
///
/// A config alone is enough. Mapped weights are the files themselves: they need no memory of their own, but a run is
/// only fast while they stay in memory. Anonymous memory is what the run allocates and cannot give back.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of a checkpoint, or a config.json alone
    model: PathBuf,
    /// Tokens of one sequence, prompt and answer together
    #[arg(long, value_name = "N")]
    context: u64,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 1)]
    batch: u64,
    /// Memory to fit into, such as 64GB or 64GiB; this machine's where not given
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    ram: Option<u64>,
    /// How attention, shared experts, dense layers and head are held: as published, or re-encoded to 8 bits at load
    #[arg(long, value_enum, default_value_t = DenseChoice::Bf16)]
    dense: DenseChoice,
    /// Arithmetic: `exact` is f32 throughout, `fast` takes 8-bit activations for quantised weights
    #[arg(long, value_enum, default_value_t = PathChoice::Fast)]
    path: PathChoice,
    /// What is kept of a token on the fast path: its latent in BF16, or in 8 bits with a scale a group of 32
    #[arg(long, value_enum, default_value_t = CacheChoice::Bf16)]
    cache: CacheChoice,
    /// Threads that will compute [default: the setting `threads`, else one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    parameters: Parameters,
    #[serde(flatten)]
    plan: Plan,
    ram_bytes: u64,
    verdict: Verdict,
    would_fit: Vec<Remedy>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (answer, config) = answer(args)?;
    if args.json { print_json(&answer) } else { print(&shown(&answer, &config, args.ram.is_none())?) }
}

/// Columns before the words of a line, and before a row's note.
const WORDS_COLUMN: usize = 9;
const NOTE_COLUMN: usize = 40;

/// The plan of `model` as `serve` runs it, for people to read.
pub(crate) fn summary(model: &super::open::ModelArgs, cache_tokens: u64) -> anyhow::Result<String> {
    let longest = read_model(&model.dir)?.0.max_position_embeddings as u64;
    let args = Args {
        model: model.dir.clone(),
        context: cache_tokens.min(longest),
        batch: cache_tokens.div_ceil(longest).max(1),
        ram: None,
        dense: model.run.dense,
        path: model.run.path,
        cache: model.run.cache,
        threads: model.run.threads.map(|n| u16::try_from(n).unwrap_or(u16::MAX)),
        json: false,
    };
    let (answer, config) = answer(&args)?;
    Ok(shown(&answer, &config, true)?)
}

fn answer(args: &Args) -> anyhow::Result<(Answer, Config)> {
    let (config, weights) = read_model(&args.model)?;
    let longest = config.max_position_embeddings as u64;
    if args.context > longest {
        bail!("--context {} is longer than the model's {longest} positions", args.context);
    }
    let request = Request {
        context: args.context,
        batch: args.batch,
        dense: args.dense.dense(),
        path: args.path.arithmetic(),
        cache: args.cache.form(args.path.arithmetic()),
        n_threads: args.threads.map_or_else(default_threads, usize::from),
    };
    let plan = Plan::new(&config, weights, request)?;
    let ram_bytes = args.ram.map_or_else(machine::ram_bytes, Ok)?;
    let answer = Answer {
        parameters: layout::parameters(&config),
        verdict: plan.verdict(ram_bytes),
        would_fit: plan.remedies(&config, ram_bytes),
        plan,
        ram_bytes,
    };
    Ok((answer, config))
}

/// The config, and the weights' sizes: from the files where there are any, else as the config announces.
fn read_model(path: &Path) -> anyhow::Result<(Config, Weights)> {
    if !path.exists() {
        bail!(
            "{} cannot be read: it is not there; give the folder of a checkpoint, or a config.json alone",
            path.display()
        );
    }
    if [SINGLE_FILE, INDEX_FILE].iter().any(|name| path.join(name).exists()) {
        let checkpoint = Checkpoint::open(path)?;
        let weights = Weights::of_checkpoint(&checkpoint);
        return Ok((checkpoint.config, weights));
    }
    let config = Config::from_file(&if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_path_buf() })?;
    let weights = Weights::of_config(&config);
    Ok((config, weights))
}

fn shown(answer: &Answer, config: &Config, is_this_machine: bool) -> Result<String, std::fmt::Error> {
    let Answer { parameters, plan, .. } = answer;
    let mut out = String::new();
    let [total, active] = [parameters.total, parameters.active].map(|n| short_count(n as u64));
    let (model_type, n_layers) = (config.family.model_type(), config.num_hidden_layers);
    let model =
        format!("model    {model_type}, {n_layers} layers, {total} parameters ({active} active for a token)");
    let run = format!("run      {}", shown_request(&plan.request));
    writeln!(out, "{}{}", folded(&model, WORDS_COLUMN), folded(&run, WORDS_COLUMN))?;
    write_rows(&mut out, plan)?;
    let whose = if is_this_machine { "this machine's memory" } else { "the memory given" };
    let verdict = shown_verdict(answer.verdict, answer.ram_bytes, whose);
    write!(out, "\n{}", folded(&format!("verdict  {verdict}"), WORDS_COLUMN))?;
    for (i, remedy) in answer.would_fit.iter().enumerate() {
        let label = if i == 0 { "fits with" } else { "or with" };
        writeln!(out, "         {label} {}", shown_remedy(remedy))?;
    }
    Ok(out)
}

/// Whether a run fits `ram_bytes`, and `whose` they are, in words.
pub(crate) fn shown_verdict(verdict: Verdict, ram_bytes: u64, whose: &str) -> String {
    let ram = bytes(ram_bytes);
    match verdict {
        Verdict::Fits => format!("fits {ram} ({whose})"),
        Verdict::FromDisk => format!(
            "runs, but slowly: its weights do not fit {ram} ({whose}) and are read from the disk again and again"
        ),
        Verdict::DoesNotFit => format!("does not fit {ram} ({whose})"),
    }
}

fn shown_request(request: &Request) -> String {
    let dense = match request.dense {
        Dense::AsPublished => "dense matrices as published",
        Dense::Int8 => "dense matrices re-encoded to 8 bit",
    };
    let path = match request.path {
        Arithmetic::Fast => "fast path",
        Arithmetic::Exact => "exact path",
    };
    let cache = if request.cache == CacheForm::LatentInt8 { ", 8-bit cache" } else { "" };
    let sequences = if request.batch == 1 { "sequence" } else { "sequences" };
    format!(
        "{} {sequences} of {} tokens, {path}, {dense}{cache}",
        count(request.batch),
        count(request.context)
    )
}

fn write_rows(out: &mut String, plan: &Plan) -> std::fmt::Result {
    let weights = &plan.weights;
    let cache = match plan.request.path {
        Arithmetic::Fast => "latent cache",
        Arithmetic::Exact => "key and value cache",
    };
    let dense_note = if plan.reencoded_bytes > 0 { "dropped once re-encoded" } else { "" };
    let cache_note = format!("{} B a token", count(plan.cache_bytes_per_token));
    let step =
        if plan.request.batch == 1 { "for each decoded token" } else { "for each decode step of the batch" };
    let rows = [
        ("weights, mapped from files", plan.mapped_bytes, ""),
        ("  routed experts", weights.experts, ""),
        ("  dense matrices", weights.dense, dense_note),
        ("  embedding", weights.embedding, "one row a token"),
        ("  norms and routers", weights.rest, ""),
        ("dense matrices re-encoded", plan.reencoded_bytes, ""),
        (cache, plan.cache_bytes, &cache_note),
        ("scratch", plan.scratch_bytes, ""),
        ("anonymous memory, peak", plan.anonymous_bytes, "re-encoded, cache, scratch, the process"),
        ("resident memory, peak", plan.resident_bytes, "with every expert that the tokens touch"),
        ("weights read", plan.read_bytes_per_step, step),
    ];
    for (label, n, note) in rows.iter().filter(|(label, n, _)| *n > 0 || !label.starts_with("dense")) {
        let row = format!("{label:<28}{:>10}  {note}", bytes(*n));
        out.push_str(&folded(row.trim_end(), NOTE_COLUMN));
    }
    Ok(())
}

fn shown_remedy(remedy: &Remedy) -> String {
    match remedy {
        Remedy::Context(n) => format!("--context {n}"),
        Remedy::Batch(n) => format!("--batch {n}"),
        Remedy::FastPath => "--path fast".into(),
        Remedy::DenseInt8 => "--dense int8 on the fast path".into(),
        Remedy::Ram(n) => format!("{} of memory", bytes(*n)),
    }
}
