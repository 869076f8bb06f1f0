//! `inspect`: what a checkpoint holds.

use crate::terminal::{bytes, count, files, folded, print, print_json, short_count};
use perilune_model::checkpoint::Checkpoint;
use perilune_model::config::Config;
use perilune_model::layout::{self, Kind, Parameters};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Files beside the weights that turn text into tokens and messages into text.
const WORD_FILES: [&str; 3] = ["tiktoken.model", "tokenizer_config.json", "chat_template.jinja"];

/// Columns before the words of a line.
const WORDS_COLUMN: usize = 14;

/// Names of unused tensors that the short answer shows.
const UNUSED_SHOWN: usize = 5;

/// Show what a checkpoint holds: architecture, parameters, bytes by part and dtype, files, unused tensors.
///
/// Opens the checkpoint as every other verb does, so a checkpoint that is incomplete or has a tensor of the wrong
/// dtype or shape is refused here with the reason. Reads headers only.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder with config.json and the safetensors files
    dir: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    dir: &'a Path,
    architecture: Option<&'a str>,
    model_type: &'a str,
    n_layers: usize,
    n_moe_layers: usize,
    n_routed_experts: usize,
    num_experts_per_tok: usize,
    n_shared_experts: usize,
    vocab_size: usize,
    hidden_size: usize,
    max_position_embeddings: usize,
    parameters: Parameters,
    bytes: u64,
    parts: Vec<Part>,
    unused: Unused<'a>,
    shards: Vec<File>,
    word_files: Vec<File>,
}

#[derive(Serialize)]
struct Part {
    kind: Kind,
    n_tensors: usize,
    n_parameters: u64,
    bytes_by_dtype: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Unused<'a> {
    n_tensors: usize,
    bytes: u64,
    names: &'a [String],
}

#[derive(Serialize)]
struct File {
    file: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_tensors: Option<usize>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    super::open::check_folder(&args.dir)?;
    let checkpoint = Checkpoint::open(&args.dir)?;
    let answer = Answer::new(&args.dir, &checkpoint);
    if args.json {
        print_json(&answer)
    } else {
        print(&folded(&shown(&answer, &checkpoint.config)?, WORDS_COLUMN))
    }
}

impl<'a> Answer<'a> {
    fn new(dir: &'a Path, checkpoint: &'a Checkpoint) -> Answer<'a> {
        let config = &checkpoint.config;
        let n_moe_layers = (0..config.num_hidden_layers).filter(|&i| config.is_moe_layer(i)).count();
        let parts = parts(checkpoint);
        Answer {
            dir,
            architecture: config.architecture.as_deref(),
            model_type: config.family.model_type(),
            n_layers: config.num_hidden_layers,
            n_moe_layers,
            n_routed_experts: config.n_routed_experts,
            num_experts_per_tok: config.num_experts_per_tok,
            n_shared_experts: config.n_shared_experts,
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            max_position_embeddings: config.max_position_embeddings,
            parameters: layout::parameters(config),
            bytes: parts.iter().flat_map(|part| part.bytes_by_dtype.values()).sum(),
            parts,
            unused: unused(checkpoint),
            shards: checkpoint.shards().iter().map(shard_file).collect(),
            word_files: WORD_FILES.iter().filter_map(|name| word_file(dir, name)).collect(),
        }
    }
}

fn parts(checkpoint: &Checkpoint) -> Vec<Part> {
    let new = |kind| Part { kind, n_tensors: 0, n_parameters: 0, bytes_by_dtype: BTreeMap::new() };
    let mut parts = Kind::ALL.map(new);
    for spec in layout::expected(&checkpoint.config) {
        let Some(tensor) = checkpoint.tensor(&spec.name) else { continue };
        let Some(part) = parts.iter_mut().find(|part| part.kind == spec.kind) else { continue };
        part.n_tensors += 1;
        part.n_parameters += spec.n_parameters();
        *part.bytes_by_dtype.entry(tensor.dtype.to_string()).or_default() += tensor.bytes().len() as u64;
    }
    parts.into_iter().filter(|part| part.n_tensors > 0).collect()
}

fn unused(checkpoint: &Checkpoint) -> Unused<'_> {
    let names = checkpoint.unused();
    let tensors = names.iter().filter_map(|name| checkpoint.tensor(name));
    Unused { n_tensors: names.len(), bytes: tensors.map(|tensor| tensor.bytes().len() as u64).sum(), names }
}

fn shard_file(shard: &perilune_model::checkpoint::Shard) -> File {
    File {
        file: shard.path().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: shard.file().bytes().len() as u64,
        n_tensors: Some(shard.n_tensors()),
    }
}

fn word_file(dir: &Path, name: &str) -> Option<File> {
    let metadata = std::fs::metadata(dir.join(name)).ok().filter(std::fs::Metadata::is_file)?;
    Some(File { file: name.to_owned(), bytes: metadata.len(), n_tensors: None })
}

fn shown(answer: &Answer<'_>, config: &Config) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let n_dense = answer.n_layers - answer.n_moe_layers;
    let name = answer.architecture.unwrap_or("unnamed architecture");
    writeln!(out, "architecture  {name} ({})", answer.model_type)?;
    write!(out, "layers        {}: {n_dense} dense, {} with experts", answer.n_layers, answer.n_moe_layers)?;
    writeln!(
        out,
        " ({} routed, {} chosen, {} shared)",
        answer.n_routed_experts, answer.num_experts_per_tok, answer.n_shared_experts
    )?;
    let (vocab, width) = (count(answer.vocab_size as u64), count(answer.hidden_size as u64));
    writeln!(out, "widths        hidden {width}, vocabulary {vocab}")?;
    writeln!(out, "context       {}", shown_context(config))?;
    write_parameters(&mut out, &answer.parameters)?;
    writeln!(out, "\n{:<16}{:>10}{:>14}{:>12}  dtypes", "part", "tensors", "parameters", "bytes")?;
    for part in &answer.parts {
        let total = part.bytes_by_dtype.values().sum();
        let dtypes: Vec<String> =
            part.bytes_by_dtype.iter().map(|(dtype, n)| format!("{dtype} {}", bytes(*n))).collect();
        write_row(&mut out, part.kind.label(), part.n_tensors, part.n_parameters, total, &dtypes.join(", "))?;
    }
    let n_tensors = answer.parts.iter().map(|part| part.n_tensors).sum();
    write_row(&mut out, "all", n_tensors, answer.parameters.total as u64, answer.bytes, "")?;
    write_files(&mut out, answer)?;
    Ok(out)
}

fn shown_context(config: &Config) -> String {
    let longest = count(config.max_position_embeddings as u64);
    match config.rope.yarn {
        Some(yarn) => {
            let original = count(yarn.original_max_position_embeddings as u64);
            format!("{longest} tokens (YaRN, factor {} over {original})", yarn.factor)
        }
        None => format!("{longest} tokens"),
    }
}

fn write_parameters(out: &mut String, parameters: &Parameters) -> std::fmt::Result {
    let [total, active, without] =
        [parameters.total, parameters.active, parameters.active - parameters.embedding]
            .map(|n| short_count(n as u64));
    writeln!(
        out,
        "parameters    {total}; active for a token {active}, or {without} without the embedding matrix"
    )?;
    writeln!(out, "              (active: all but the routed experts that a token does not choose)")
}

fn write_row(
    out: &mut String,
    label: &str,
    n_tensors: usize,
    n_parameters: u64,
    n_bytes: u64,
    dtypes: &str,
) -> std::fmt::Result {
    let (tensors, parameters) = (count(n_tensors as u64), short_count(n_parameters));
    let row = format!("{label:<16}{tensors:>10}{parameters:>14}{:>12}  {dtypes}", bytes(n_bytes));
    writeln!(out, "{}", row.trim_end())
}

fn write_files(out: &mut String, answer: &Answer<'_>) -> std::fmt::Result {
    let total = answer.shards.iter().map(|shard| shard.bytes).sum();
    writeln!(out, "\nweights       {} with {} in all", files(answer.shards.len()), bytes(total))?;
    let unused = &answer.unused;
    if unused.n_tensors > 0 {
        let first: Vec<&str> = unused.names.iter().take(UNUSED_SHOWN).map(String::as_str).collect();
        let more = if unused.n_tensors > UNUSED_SHOWN { ", ..." } else { "" };
        let (n, size) = (count(unused.n_tensors as u64), bytes(unused.bytes));
        writeln!(out, "unused        {n} tensors, {size}: {}{more}", first.join(", "))?;
    }
    let words: Vec<String> =
        answer.word_files.iter().map(|file| format!("{} ({})", file.file, bytes(file.bytes))).collect();
    let words = if words.is_empty() { "none in the folder".to_owned() } else { words.join(", ") };
    writeln!(out, "tokenizer     {words}")
}
