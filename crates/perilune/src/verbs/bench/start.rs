//! `bench --start`: from opening the files to the first token, beside what reading the same pages takes.

use super::{BenchArgs, HANG, NOT_FINITE, dense_name, median, path_name, random_ids};
use crate::table::{Table, figures};
use crate::terminal::{bytes, folded, print, print_json};
use crate::verbs::memory::{self, Memory};
use crate::verbs::open::{check_context, open};
use anyhow::{Context, anyhow, ensure};
use perilune_kernels::ahead::ASK_BYTES;
use perilune_kernels::logits::arg_max;
use perilune_kernels::map::{MappedFile, PAGE_BYTES};
use perilune_kernels::router::Chosen;
use perilune_model::forward::{Arithmetic, Model, Observer, Phase, Wanted};
use perilune_model::solo::Solo;
use perilune_model::touched::{self, FilePages};
use perilune_model::weights::Dense;
use rustix::fs::{Advice, fadvise};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What a start may take, as a multiple of reading alone.
const RATIO_ASKED: f64 = 1.2;
/// Bytes that a reading thread takes at a time.
const PIECE_BYTES: usize = 16 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 1 << 20;

/// Everything measured.
#[derive(Serialize)]
struct Report {
    kernels: &'static str,
    path: Arithmetic,
    dense: Dense,
    threads: usize,
    cold: bool,
    ratio_asked: f64,
    starts: Vec<Start>,
    memory: Memory,
}

/// Medians of the starts with one prompt.
#[derive(Serialize)]
struct Start {
    prompt: usize,
    touched_bytes: u64,
    first_token_s: f64,
    read_s: f64,
    read_gb_per_s: f64,
    ratio: f64,
    decode_tokens_per_s: f64,
    runs: Vec<Run>,
}

/// One start, and reading the same pages after it.
#[derive(Serialize)]
struct Run {
    /// Touched bytes in memory before the start.
    resident_before_start_bytes: u64,
    open_s: f64,
    load_s: f64,
    pass_s: f64,
    first_token_s: f64,
    resident_before_read_bytes: u64,
    read_s: f64,
    ratio: f64,
}

/// When the parts of a start were done, in seconds.
struct Times {
    opened: f64,
    loaded: f64,
    first_token: f64,
}

/// Measure starts, with the files' pages in memory or, `--cold`, without.
pub(super) fn run(args: &BenchArgs, dir: &Path) -> anyhow::Result<()> {
    let run = &args.run;
    ensure!(args.prompts().iter().all(|n| *n > 0), "--prompt is at least 1");
    let mut report = Report {
        kernels: run.cpu_on(1)?.isa().name(),
        path: run.path.arithmetic(),
        dense: run.dense.dense(),
        threads: run.n_threads(),
        cold: args.cold,
        ratio_asked: RATIO_ASKED,
        starts: Vec::new(),
        memory: Memory::default(),
    };
    memory::forget_peak();
    for &prompt in args.prompts() {
        report.starts.push(measure(args, dir, prompt)?);
        report.memory.raise(Memory::now());
    }
    if args.json { print_json(&report) } else { print(&folded(&shown(&report)?, HANG)) }
}

/// The medians of `--runs` starts; one more before them says which pages they touch, and how fast the model decodes.
fn measure(args: &BenchArgs, dir: &Path, prompt: usize) -> anyhow::Result<Start> {
    let (model, _, chosen) = start(args, dir, prompt)?;
    let decode_tokens_per_s = decode(&model, args.decode)?;
    let checkpoint = open(dir)?;
    let touched = touched::by_first_pass(&checkpoint, &random_ids(&model, prompt, 0), &chosen.0);
    let parts: Vec<Part> = touched.iter().map(Part::of).collect();
    // Mapped pages would stay in memory.
    drop((model, checkpoint, touched));
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        let resident_before_start_bytes = prepare(&parts, args.cold)?;
        let (_, times, _) = start(args, dir, prompt)?;
        let resident_before_read_bytes = prepare(&parts, args.cold)?;
        let read_s = read(&parts, args.run.n_threads(), args.cold)?;
        runs.push(Run {
            resident_before_start_bytes,
            open_s: times.opened,
            load_s: times.loaded - times.opened,
            pass_s: times.first_token - times.loaded,
            first_token_s: times.first_token,
            resident_before_read_bytes,
            read_s,
            ratio: times.first_token / read_s,
        });
    }
    let median_of = |of: fn(&Run) -> f64| median(&mut runs.iter().map(of).collect::<Vec<_>>());
    let touched_bytes = parts.iter().map(|part| part.n_bytes).sum();
    let read_s = median_of(|run| run.read_s);
    Ok(Start {
        prompt,
        touched_bytes,
        first_token_s: median_of(|run| run.first_token_s),
        read_s,
        read_gb_per_s: touched_bytes as f64 / read_s / 1e9,
        ratio: median_of(|run| run.ratio),
        decode_tokens_per_s,
        runs,
    })
}

/// Open the checkpoint in `dir`, load it and run a prompt of `prompt` tokens to its first token.
fn start(args: &BenchArgs, dir: &Path, prompt: usize) -> anyhow::Result<(Model, Times, Experts)> {
    let run = &args.run;
    let cpu = run.cpu_on(run.n_threads())?;
    let began = Instant::now();
    let seconds = || began.elapsed().as_secs_f64();
    let checkpoint = open(dir)?;
    let opened = seconds();
    let model = run.model_of(checkpoint, cpu, run.path.arithmetic(), run.dense.dense())?;
    let loaded = seconds();
    check_context(&model, prompt.saturating_add(args.decode), 1)?;
    let ids = random_ids(&model, prompt, 0);
    let mut experts = Experts::default();
    let mut solo = Solo::new(&model, prompt);
    let mut logits = Vec::new();
    for (i, part) in ids.chunks(args.chunk).enumerate() {
        let is_last = i * args.chunk + part.len() == prompt;
        let wanted = if is_last { Wanted::Last } else { Wanted::Nothing };
        logits = solo.advance(part, Phase::Prefill, wanted, &mut experts)?;
    }
    arg_max(&logits).context(NOT_FINITE)?;
    let first_token = seconds();
    drop(solo);
    Ok((model, Times { opened, loaded, first_token }, experts))
}

/// The routed experts that were chosen, by layer and index.
#[derive(Default)]
struct Experts(BTreeSet<(usize, u32)>);

impl Observer for Experts {
    fn router(&mut self, layer_idx: usize, _logits: &[f32], chosen: &[Vec<Chosen>]) {
        self.0.extend(chosen.iter().flatten().map(|choice| (layer_idx, choice.expert_idx)));
    }
}

/// Tokens a second of `n_steps` decode steps after one token, by the median step of a second time, when the experts that
/// these tokens choose are in memory.
fn decode(model: &Model, n_steps: usize) -> anyhow::Result<f64> {
    let mut steps = Vec::new();
    for _ in 0..2 {
        steps.clear();
        let mut solo = Solo::new(model, n_steps + 1);
        let mut logits = solo.decode(random_ids(model, 1, 0)[0])?;
        for _ in 0..n_steps {
            let id = arg_max(&logits).context(NOT_FINITE)?;
            let began = Instant::now();
            logits = solo.decode(id as u32)?;
            steps.push(began.elapsed().as_secs_f64());
        }
    }
    Ok(1.0 / median(&mut steps))
}

/// Byte ranges of one file, whole pages but for the file's end.
struct Part {
    path: PathBuf,
    ranges: Vec<Range<usize>>,
    n_bytes: u64,
}

impl Part {
    fn of(file: &FilePages) -> Self {
        let len = file.file.bytes().len();
        let range = |pages: &Range<usize>| pages.start * PAGE_BYTES..(pages.end * PAGE_BYTES).min(len);
        let ranges = file.pages.iter().map(range).collect();
        Part { path: file.file.path().to_path_buf(), ranges, n_bytes: file.n_bytes() }
    }

    /// Bytes of its pages that are in memory; all of them where the system does not say.
    fn resident_bytes(&self) -> anyhow::Result<u64> {
        let file = MappedFile::open(&self.path).with_context(|| self.path.display().to_string())?;
        let pages = |range: &Range<usize>| file.resident_pages(range.clone());
        let n_pages: Option<usize> = self.ranges.iter().map(pages).sum();
        Ok(n_pages.map_or(self.n_bytes, |n| (n * PAGE_BYTES) as u64))
    }

    /// Let the file's pages go out of memory; those that another process maps or that are not written yet stay.
    fn evict(&self) -> std::io::Result<()> {
        let file = File::open(&self.path)?;
        file.sync_data()?;
        Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
    }
}

/// Send the files out of memory where a start is to be `cold`; the touched bytes that are in memory then.
fn prepare(parts: &[Part], cold: bool) -> anyhow::Result<u64> {
    if cold {
        for part in parts {
            part.evict().with_context(|| part.path.display().to_string())?;
        }
    }
    parts.iter().map(Part::resident_bytes).sum()
}

/// Seconds in which `n_threads` threads read `parts`, by large reads; each asks for its piece first where it is `cold`.
fn read(parts: &[Part], n_threads: usize, cold: bool) -> anyhow::Result<f64> {
    let split = |(part, range): (usize, &Range<usize>)| {
        let end = range.end;
        range.clone().step_by(PIECE_BYTES).map(move |at| (part, at..end.min(at + PIECE_BYTES)))
    };
    let ranges =
        parts.iter().enumerate().flat_map(|(i, part)| part.ranges.iter().map(move |range| (i, range)));
    let pieces: Vec<(usize, Range<usize>)> = ranges.flat_map(split).collect();
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let reader = || read_pieces(parts, &pieces, &next, cold);
        let others: Vec<_> = (1..n_threads).map(|_| scope.spawn(reader)).collect();
        let own = reader();
        let joined = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|_| Err(anyhow!("a reading thread failed"))));
        joined.collect::<anyhow::Result<()>>().and(own)
    })?;
    Ok(began.elapsed().as_secs_f64())
}

fn read_pieces(
    parts: &[Part],
    pieces: &[(usize, Range<usize>)],
    next: &AtomicUsize,
    cold: bool,
) -> anyhow::Result<()> {
    let files = parts.iter().map(|part| File::open(&part.path)).collect::<Result<Vec<File>, _>>()?;
    let mut buffer = vec![0u8; READ_BYTES];
    while let Some((part, range)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
        let file = &files[*part];
        if cold {
            for at in range.clone().step_by(ASK_BYTES) {
                let n = range.end.min(at + ASK_BYTES) - at;
                fadvise(file, at as u64, NonZeroU64::new(n as u64), Advice::WillNeed)?;
            }
        }
        for at in range.clone().step_by(READ_BYTES) {
            let n = range.end.min(at + READ_BYTES) - at;
            file.read_exact_at(&mut buffer[..n], at as u64)?;
        }
    }
    Ok(())
}

fn shown(report: &Report) -> Result<String, std::fmt::Error> {
    let (path, dense) = (path_name(report.path), dense_name(report.dense));
    let state = if report.cold { "out of memory" } else { "in memory" };
    let mut text = format!(
        "kernels {}, path {path}, dense {dense}, {} threads, files {state} before each start\n",
        report.kernels, report.threads
    );
    for start in &report.starts {
        show_start(&mut text, start, report.cold)?;
    }
    let memory = &report.memory;
    writeln!(text, "memory: {} anonymous, {} peak", bytes(memory.anonymous_bytes), bytes(memory.peak_bytes))?;
    Ok(text)
}

fn show_start(text: &mut String, start: &Start, cold: bool) -> std::fmt::Result {
    writeln!(
        text,
        "\nprompt {}: {} touched, in whole pages (reckoned: headers, all that each token reads, the chosen experts)",
        start.prompt,
        bytes(start.touched_bytes)
    )?;
    let heads = ["open ms", "load ms", "first pass ms", "first token ms", "reading alone ms", "times"];
    let mut table = Table::new(heads.map(figures));
    for run in &start.runs {
        let ms = |seconds: f64| format!("{:.1}", seconds * 1e3);
        let [a, b, c, d, e] = [run.open_s, run.load_s, run.pass_s, run.first_token_s, run.read_s].map(ms);
        table.push([a, b, c, d, e, format!("{:.2}", run.ratio)]);
    }
    text.push_str(&table.text());
    writeln!(
        text,
        "first token after {:.3} s, reading alone {:.3} s ({:.2} GB/s): {:.2} times, asked {RATIO_ASKED:.1}; then {:.1} tokens/s",
        start.first_token_s, start.read_s, start.read_gb_per_s, start.ratio, start.decode_tokens_per_s
    )?;
    let before =
        start.runs.iter().flat_map(|run| [run.resident_before_start_bytes, run.resident_before_read_bytes]);
    let (least, most) = before.fold((u64::MAX, 0), |(least, most), n| (least.min(n), most.max(n)));
    match cold {
        true if most > 0 => {
            writeln!(
                text,
                "up to {} stayed in memory: another process maps them, or this user may not write them, whom Linux does not tell",
                bytes(most)
            )
        }
        false if least < start.touched_bytes => {
            writeln!(text, "only {} were in memory before; the rest came from the disk", bytes(least))
        }
        _ => Ok(()),
    }
}
