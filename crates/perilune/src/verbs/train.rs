//! `train`: make a model by a recipe, and what comes of a run.

use super::interrupt::{self, Interrupt, Interrupted};
use crate::terminal::{bytes, count, default_threads, folded, print, print_json, short_count};
use anyhow::{Context, bail};
use perilune_train::export;
use perilune_train::log::Record;
use perilune_train::plan::Plan;
use perilune_train::recipe::Recipe;
use perilune_train::report;
use perilune_train::run::{self, Ended, Leg, Watcher};
use perilune_train::view::{self, View};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Steps between two lines where standard error is no terminal.
const LINE_EVERY: u64 = 10;
/// Columns before the words of a plan.
const WORDS_COLUMN: usize = 12;
/// Longest leg, minutes.
const MINUTES_MAX: u64 = 1 << 20;

/// Train a model by a recipe: stage after stage, with checkpoints that a later call goes on from to the bit.
///
/// Ctrl-C finishes the step and saves; a second one ends the process. A stage's end, every `checkpoint_every` steps and
/// the end of a leg save too. The run's folder holds the recipe, the log (log.jsonl) and the last two checkpoints.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The recipe, such as recipes/smoke.toml
    #[arg(value_name = "RECIPE", required = true)]
    recipe: Option<PathBuf>,
    /// Folder of the run [default: runs/ and the recipe's name]
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    /// Go on from the folder's last checkpoint; its stage may belong to another recipe if it is complete
    #[arg(long)]
    resume: bool,
    /// Stop and save after so many minutes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX))]
    minutes: Option<u64>,
    /// Print what it would do and cost, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// The plan of --dry-run in JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Threads to compute on; no result depends on it [default: the setting `threads`, else all
    /// processors]
    #[arg(long, value_name = "N", value_parser = super::open::parse_threads)]
    threads: Option<usize>,
}

#[derive(clap::Subcommand)]
enum Verb {
    Export(ExportArgs),
    Report(ReportArgs),
}

/// Write a run's last checkpoint as a model that every other verb opens, in the published layout
///
/// Routed experts as INT4 (compressed-tensors pack-quantized), the rest BF16, the selection bias F32: what a stage with
/// `quant = "int4"` trained for. The tokenizer's files go beside the weights where the run has them.
#[derive(clap::Args)]
struct ExportArgs {
    /// Folder of the run
    run: PathBuf,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write every tensor as F32 instead
    #[arg(long)]
    f32: bool,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

/// Write one HTML page about one or several runs: curves, clips, expert load, evaluations, optimizers compared
///
/// The exactness of calls comes from the JSON of `eval tools` that lies in a run's folder.
#[derive(clap::Args)]
struct ReportArgs {
    /// Folders of runs, or of sweeps
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write [default: report.html in the first folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match (&args.verb, &args.recipe) {
        (Some(Verb::Export(args)), _) => export(args),
        (Some(Verb::Report(args)), _) => report(args),
        (None, Some(recipe)) => train(args, recipe),
        (None, None) => bail!("give a recipe, such as recipes/smoke.toml"),
    }
}

fn train(args: &Args, path: &Path) -> anyhow::Result<()> {
    let recipe = Recipe::from_file(path)?;
    let n_threads = args.threads.unwrap_or_else(default_threads);
    if args.dry_run {
        let plan = Plan::new(&recipe, n_threads)?;
        return if args.json {
            print_json(&plan)
        } else {
            print(&folded(&shown(&recipe, &plan)?, WORDS_COLUMN))
        };
    }
    let default = || Path::new("runs").join(path.file_stem().unwrap_or_default());
    let out = args.out.clone().unwrap_or_else(default);
    let limit = args.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let leg = Leg { out: out.clone(), resume: args.resume, limit, n_threads };
    let mut screen = Screen::new();
    let ended = run::run_all(&recipe, &leg, &mut screen)?;
    let out = out.display();
    match ended {
        Ended::Complete => print(&format!("complete: {out} holds the run\n")),
        Ended::TimeOver => print(&format!("the leg is over and saved in {out}: go on with --resume\n")),
        Ended::Stopped => {
            eprintln!("stopped and saved in {out}: go on with --resume");
            Err(Interrupted.into())
        }
    }
}

fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let exported = export::export(&args.run, &args.out, !args.f32)?;
    if args.json {
        return print_json(&exported);
    }
    let form = if exported.is_int4 { "INT4 experts" } else { "F32" };
    let (out, from) = (args.out.display(), exported.checkpoint.display());
    print(&format!("wrote {out} ({form}) from {from}, step {}\n", exported.total_step))
}

fn report(args: &ReportArgs) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for folder in &args.runs {
        runs.extend(report::read(folder)?);
    }
    let out = args.out.clone().unwrap_or_else(|| args.runs[0].join("report.html"));
    std::fs::write(&out, report::html(&runs)).with_context(|| out.display().to_string())?;
    print(&format!("wrote {}\n", out.display()))
}

fn shown(recipe: &Recipe, plan: &Plan) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let (all, active) = (short_count(plan.n_parameters), short_count(plan.n_active));
    writeln!(text, "model       {all} parameters, {active} of them multiply a token")?;
    writeln!(text, "optimizer   {}, seed {}", recipe.optimizer.name(), recipe.seed)?;
    if let Some(from) = &recipe.from {
        writeln!(text, "begins      with the weights of {}", from.display())?;
    }
    for stage in &plan.stages {
        let (tokens, steps) = (short_count(stage.tokens), count(stage.steps));
        writeln!(
            text,
            "stage       {}: {tokens} tokens in {steps} steps, {:.2e} FLOP",
            stage.name, stage.flops
        )?;
    }
    if plan.n_runs > 1 {
        let (tokens, steps) = (short_count(plan.tokens), count(plan.steps));
        writeln!(text, "sweep       {} runs: {tokens} tokens in {steps} steps in all", plan.n_runs)?;
    }
    let source = if plan.is_measured { "measured just now" } else { "the recipe's figure" };
    let time = view::duration(plan.seconds);
    writeln!(text, "time        about {time} at {:.0} tokens/s ({source})", plan.tokens_per_s)?;
    writeln!(text, "disk        {} a checkpoint, the last two of a run kept", bytes(plan.checkpoint_bytes))?;
    Ok(text)
}

/// Draws a run on standard error.
struct Screen {
    view: View,
    stopped: Interrupt,
    is_terminal: bool,
    n_lines: usize,
}

impl Screen {
    fn new() -> Screen {
        let is_terminal = std::io::stderr().is_terminal();
        Screen { view: View::default(), stopped: interrupt::flag(), is_terminal, n_lines: 0 }
    }
}

impl Watcher for Screen {
    fn step(&mut self, record: &Record) {
        let block = self.view.block(record);
        if self.is_terminal {
            // Up over the last block, and clear from there on.
            let up = if self.n_lines > 0 { format!("\x1b[{}A\x1b[J", self.n_lines) } else { String::new() };
            eprint!("{up}{block}");
            self.n_lines = block.lines().count();
        } else if record.step.is_multiple_of(LINE_EVERY)
            || record.step == record.n_steps
            || record.total_step == 1
        {
            eprintln!("{}", view::line(record));
        }
    }

    fn note(&mut self, text: &str) {
        eprintln!("{text}");
        self.n_lines = 0;
    }

    fn stopped(&self) -> bool {
        self.stopped.is_set()
    }
}
