//! `logits`: the logits of given ids, in a file that any other engine's can be compared with.

use super::interrupt::Interrupted;
use super::open::{ModelArgs, check_context, not_finite, parse_ids};
use crate::terminal::print;
use anyhow::{Context, bail};
use clap::Args;
use perilune_model::forward::{Model, Phase, Unobserved, Wanted};
use perilune_model::solo::{PREFILL_CHUNK, Solo};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

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
    if ids.is_empty() {
        bail!("there is no token to run: give at least one id");
    }
    let model = args.model.model()?;
    check_context(&model, ids.len(), 1)?;
    let partial = args.out.with_added_extension("partial");
    let written = write(&model, ids, args, &partial);
    if written.is_err() {
        // What is left of a file that could not be written is of no use to anyone.
        let _ = std::fs::remove_file(&partial);
    }
    written?;
    let vocab_size = model.config().vocab_size;
    print(&format!("wrote logits [{}, {vocab_size}] to {}\n", ids.len(), args.out.display()))
}

/// Run the ids chunk by chunk and write each chunk's rows as they come.
fn write(model: &Model, ids: &[u32], args: &LogitsArgs, partial: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", args.out.display());
    let mut file = BufWriter::new(File::create(partial).with_context(cannot)?);
    file.write_all(&header(ids.len(), model.config().vocab_size)).with_context(cannot)?;
    let mut solo = Solo::new(model, ids.len());
    let (stopped, bar) = (super::interrupt::flag(), crate::terminal::bar("running", "tokens"));
    bar.set_length(ids.len() as u64);
    for chunk in ids.chunks(PREFILL_CHUNK) {
        if stopped.is_set() {
            return Err(Interrupted.into());
        }
        let logits = solo.advance(chunk, Phase::Prefill, Wanted::All, &mut Unobserved)?;
        if !logits.iter().all(|v| v.is_finite()) {
            return Err(not_finite(&args.model.dir));
        }
        for value in &logits {
            file.write_all(&value.to_le_bytes()).with_context(cannot)?;
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    file.flush().with_context(cannot)?;
    std::fs::rename(partial, &args.out).with_context(cannot)
}

/// A safetensors header: its length, then JSON filled up with spaces to a multiple of eight bytes.
fn header(n_rows: usize, n_cols: usize) -> Vec<u8> {
    let end = n_rows * n_cols * size_of::<f32>();
    let tensor = serde_json::json!({ "dtype": "F32", "shape": [n_rows, n_cols], "data_offsets": [0, end] });
    let mut json = serde_json::json!({ "logits": tensor }).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}
