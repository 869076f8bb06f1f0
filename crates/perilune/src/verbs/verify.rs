//! `verify`: is the checkpoint intact?

use crate::terminal::{Work, bytes, count, default_threads, files, print, print_json};
use anyhow::{Context, bail};
use perilune_model::checkpoint::Checkpoint;
use perilune_model::verify::{
    Finding, Report, compare_sums, parse_sums, small_file_sums, verify, write_sums,
};
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Findings that the short answer shows.
const FINDINGS_SHOWN: usize = 50;

/// Read every byte of a checkpoint once and name what is damaged.
///
/// Finds missing, cut and mislabelled files and tensors, NaN and infinite weights and scales, stored shapes that are
/// not true, and stretches of zeros that an unfinished download leaves. A flipped bit that leaves a plausible number
/// can only be found with sums: `--write` takes them while the files are good, `--against` compares with them, or
/// with a list put together from the SHA-256 that the model's host shows for each file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of the checkpoint
    dir: PathBuf,
    /// Write the SHA-256 of every file to FILE, in the form of sha256sum
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Compare the files with the sums in FILE
    #[arg(long, value_name = "FILE", conflicts_with = "write")]
    against: Option<PathBuf>,
    /// Threads that read [default: the setting `threads`, else one for each processor]
    #[arg(long, value_name = "N", value_parser = super::open::parse_threads)]
    threads: Option<usize>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    intact: bool,
    seconds: f64,
    bytes_per_s: f64,
    n_files: usize,
    #[serde(flatten)]
    report: &'a Report,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    super::open::check_folder(&args.dir)?;
    let list = args.against.as_deref().map(parse_sums).transpose()?;
    let (checkpoint, damage) = Checkpoint::open_damaged(&args.dir)?;
    let n_bytes = checkpoint.shards().iter().map(|shard| shard.file().bytes().len() as u64).sum();
    let with_sums = list.is_some() || args.write.is_some();
    let work = Work::new("verify", n_bytes)?;
    let started = Instant::now();
    let n_threads = args.threads.unwrap_or_else(default_threads);
    let Some(mut report) = verify(&checkpoint, damage, with_sums, n_threads, &work) else {
        bail!("{}: interrupted before everything was read", args.dir.display());
    };
    let seconds = started.elapsed().as_secs_f64();
    work.finish();
    if with_sums {
        report.sums.extend(small_file_sums(&args.dir)?);
    }
    if let Some(list) = &list {
        report.damage.extend(compare_sums(&args.dir, &report.sums, list));
    }
    let answer = Answer {
        intact: report.damage.is_empty(),
        seconds,
        bytes_per_s: report.n_bytes as f64 / seconds,
        n_files: checkpoint.shards().len(),
        report: &report,
    };
    if args.json {
        print_json(&answer)?
    } else {
        print(&shown(&answer)?)?
    }
    if !answer.intact {
        let (n, s) = (report.damage.len(), if report.damage.len() == 1 { "" } else { "s" });
        bail!("{}: {n} thing{s} damaged; download the named files again", args.dir.display());
    }
    if let Some(path) = &args.write {
        std::fs::write(path, write_sums(&report.sums)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn shown(answer: &Answer<'_>) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let report = answer.report;
    writeln!(
        out,
        "read     {} in {:.1} s ({}/s): {} tensors in {}",
        bytes(report.n_bytes),
        answer.seconds,
        bytes(answer.bytes_per_s as u64),
        count(report.n_tensors as u64),
        files(answer.n_files)
    )?;
    write_findings(&mut out, "damaged", &report.damage)?;
    write_findings(&mut out, "odd", &report.odd)?;
    if answer.intact {
        writeln!(out, "intact   nothing damaged was found")?;
    }
    Ok(out)
}

fn write_findings(out: &mut String, label: &str, findings: &[Finding]) -> std::fmt::Result {
    for finding in findings.iter().take(FINDINGS_SHOWN) {
        writeln!(out, "{label:<8} {}", finding.what)?;
    }
    if findings.len() > FINDINGS_SHOWN {
        let more = count((findings.len() - FINDINGS_SHOWN) as u64);
        writeln!(out, "{label:<8} and {more} more, which --json lists")?;
    }
    Ok(())
}
