//! `logits`: the logits of given ids, in a file that any other engine's can be compared with.

use super::open::{ModelArgs, not_finite, parse_ids};
use anyhow::{Context, bail};
use clap::Args;
use perilune_model::forward::{NoProbe, Phase, Wanted};
use perilune_model::solo::{PREFILL_CHUNK, Solo};
use safetensors::tensor::{Dtype, TensorView};
use std::path::PathBuf;

/// Write the logits of every position of the given ids to a safetensors file (one f32 tensor `logits` [T, V])
#[derive(Args)]
pub(crate) struct LogitsArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids, as 1,2,3
    #[arg(long, value_name = "IDS", value_parser = parse_ids_arg)]
    ids: Ids,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Ids as one argument.
#[derive(Clone)]
pub(crate) struct Ids(pub(crate) Vec<u32>);

pub(crate) fn parse_ids_arg(text: &str) -> Result<Ids, String> {
    parse_ids(text).map(Ids)
}

pub(crate) fn run(args: &LogitsArgs) -> anyhow::Result<()> {
    let ids = &args.ids.0;
    let model = args.model.model()?;
    let vocab_size = model.config().vocab_size;
    let mut solo = Solo::new(&model, ids.len());
    let mut logits: Vec<f32> = Vec::new();
    if ids.is_empty() {
        bail!("there is no token to run: give at least one id");
    }
    let bar = super::progress::bar("running", "tokens");
    bar.set_length(ids.len() as u64);
    for chunk in ids.chunks(PREFILL_CHUNK) {
        logits.extend(solo.advance(chunk, Phase::Prefill, Wanted::All, &mut NoProbe)?);
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    if !logits.iter().all(|v| v.is_finite()) {
        return Err(not_finite(&args.model.dir));
    }
    let bytes: Vec<u8> = logits.iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensor = TensorView::new(Dtype::F32, vec![ids.len(), vocab_size], &bytes)?;
    let partial = args.out.with_added_extension("partial");
    let written = safetensors::serialize_to_file([("logits", tensor)], None, &partial)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(std::fs::rename(&partial, &args.out)?));
    if written.is_err() {
        // What is left of a file that could not be written is of no use to anyone.
        let _ = std::fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", args.out.display()))?;
    println!("wrote logits [{}, {vocab_size}] to {}", ids.len(), args.out.display());
    Ok(())
}
