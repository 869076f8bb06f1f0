//! `random`: a synthetic checkpoint.

use crate::machine;
use crate::terminal::{Work, bytes, count, default_threads, files, parse_size, print, print_json};
use anyhow::{Context, bail};
use perilune_model::synth::{Blueprint, Options, SHARD_BYTES};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Write a checkpoint of random weights in the published layout, at any size.
///
/// For trying a machine before the real weights are there, and for tests. Activations stay finite and of ordinary
/// size; the text is noise. The same seed gives the same bytes on every machine. Files appear under their names only
/// when all of them are complete.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The config.json whose sizes and packing to take
    #[arg(long, value_name = "CONFIG.json")]
    config: PathBuf,
    /// Number of layers, instead of the config's
    #[arg(long, value_name = "N")]
    layers: usize,
    /// Folder to write: new, or empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seed of every value
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Rank file to copy beside the weights, as tiktoken.model
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Vocabulary size, instead of the config's
    #[arg(long, value_name = "N")]
    vocab: Option<usize>,
    /// Size of a file at most, such as 5GB [default: 9.6GB]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    shard_size: Option<u64>,
    /// Threads that fill and write [default: the setting `threads`, else one for each processor]
    #[arg(long, value_name = "N", value_parser = super::open::parse_threads)]
    threads: Option<usize>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer {
    out: PathBuf,
    seed: u64,
    n_files: usize,
    n_tensors: usize,
    bytes: u64,
    seconds: f64,
    bytes_per_s: f64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let place = || args.config.display().to_string();
    let text = std::fs::read_to_string(&args.config).with_context(|| format!("cannot read {}", place()))?;
    let options = Options {
        n_layers: args.layers,
        vocab_size: args.vocab,
        seed: args.seed,
        shard_bytes: args.shard_size.unwrap_or(SHARD_BYTES),
        tokenizer: args.tokenizer.clone(),
        n_threads: args.threads.unwrap_or_else(default_threads),
    };
    let blueprint = Blueprint::new(&text, options).with_context(place)?;
    check_space(args, blueprint.n_bytes())?;
    let work = Work::new("random", blueprint.n_bytes())?;
    let started = Instant::now();
    blueprint.write(&args.out, &work)?;
    let seconds = started.elapsed().as_secs_f64();
    work.finish();
    let answer = Answer {
        out: args.out.clone(),
        seed: args.seed,
        n_files: blueprint.n_shards(),
        n_tensors: blueprint.n_tensors(),
        bytes: blueprint.n_bytes(),
        seconds,
        bytes_per_s: blueprint.n_bytes() as f64 / seconds,
    };
    if args.json { print_json(&answer) } else { print(&shown(&answer)) }
}

/// Refuse what cannot fit before minutes are spent on it.
fn check_space(args: &Args, needed: u64) -> anyhow::Result<()> {
    match machine::free_bytes(&args.out) {
        Some(free) if free < needed => bail!(
            "{}: needs {}, but the disk has {} free; free some, or take fewer --layers or a smaller --vocab",
            args.out.display(),
            bytes(needed),
            bytes(free)
        ),
        _ => Ok(()),
    }
}

fn shown(answer: &Answer) -> String {
    let (n_tensors, n_files, speed) =
        (count(answer.n_tensors as u64), files(answer.n_files), bytes(answer.bytes_per_s as u64));
    let (out, size, seed, seconds) = (answer.out.display(), bytes(answer.bytes), answer.seed, answer.seconds);
    format!(
        "wrote {size} to {out} in {seconds:.1} s ({speed}/s): {n_tensors} tensors in {n_files}, seed {seed}\n"
    )
}
