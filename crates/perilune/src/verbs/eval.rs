//! `eval`: what a model can do, judged by what it leaves.

use super::data::wait;
use super::open::{Chosen, RunArgs};
use super::resident::Resident;
use crate::terminal;
use anyhow::{Context, ensure};
use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use perilune_agent::context::Profile;
use perilune_engine::Settings;
use perilune_engine::request::Class;
use perilune_server::answer::local::LocalModel;
use perilune_server::answer::served::ServedModel;
use perilune_train::data::Family;
use perilune_train::data::session::{Counter, SharedCounter};
use perilune_train::eval::closed_loop::{Question, Report, Tally, evaluate};
use std::path::PathBuf;
use std::sync::Arc;

/// Episodes under way at once share the cache.
const CACHE_TOKENS: usize = 16_384;
/// How far in a folded line goes on.
const HANG: usize = 6;

/// Measure what a model can do.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Tools(ToolsArgs),
}

/// Let a model do tasks with real tools on real files, and judge the files.
///
/// Greedy, in the agent's own context, on worlds that training never sees; once with the grammar of tool calls and
/// once without it. Sentences of forms held out from training are counted apart.
#[derive(clap::Args)]
struct ToolsArgs {
    /// Folder of a checkpoint: config.json, tiktoken.model and safetensors [default: the setting
    /// `model`, else the embedded model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// The skill
    #[arg(long, value_enum)]
    family: FamilyChoice,
    /// Episodes with sentences of known form; a fifth as many, at least ten, have others
    #[arg(long, value_name = "EPISODES", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    n: u32,
    /// Numbers to add, or files of the trail; other skills have their own length [default: a random one each]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    calls: Option<u32>,
    /// Seed of the worlds
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// `--family`.
#[derive(Clone, Copy, ValueEnum)]
enum FamilyChoice {
    Sum,
    Trail,
    Compare,
    Edit,
    Choose,
    Recover,
}

impl FamilyChoice {
    fn family(self) -> Family {
        match self {
            Self::Sum => Family::Sum,
            Self::Trail => Family::Trail,
            Self::Compare => Family::Compare,
            Self::Edit => Family::Edit,
            Self::Choose => Family::Choose,
            Self::Recover => Family::Recover,
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Tools(args) => tools(args),
    }
}

fn tools(args: &ToolsArgs) -> anyhow::Result<()> {
    let chosen = Chosen::new(args.model.as_deref(), &args.run)?;
    let resident = Resident::start(&chosen.args, CACHE_TOKENS, Settings::default())?;
    let policy = Profile::embedded().policy;
    let needed = policy.budget_tokens + policy.reply_tokens_max;
    let found = resident.model.context_tokens_max();
    ensure!(
        found >= needed,
        "the model holds {found} tokens, these tasks need {needed}; train it at that length"
    );
    let question = Question {
        family: args.family.family(),
        n_episodes: args.n as usize,
        n_calls: args.calls.map(|calls| calls as usize),
        seed: args.seed,
    };
    let with = measure(&chosen.name, question, resident.model.clone(), "with grammar")?;
    let without = measure(&chosen.name, question, resident.model.without_grammar(), "without grammar")?;
    resident.engine.stop();
    let (family, seed, n_calls) = (question.family.name(), question.seed, question.n_calls);
    let both = Both { family, seed, n_calls, with, without_grammar: without };
    if args.json {
        terminal::print_json(&both)
    } else {
        terminal::print(&terminal::folded(&shown(question, &both), HANG))
    }
}

fn measure(name: &str, question: Question, model: LocalModel, how: &str) -> anyhow::Result<Report> {
    let counter: SharedCounter = Arc::new(Counter::new(Arc::clone(model.tokenizer())));
    let served = ServedModel { name: name.to_owned(), model, class: Class::Throughput };
    let bar = ProgressBar::new(0).with_message(how.to_owned());
    let style = ProgressStyle::with_template("{msg}: {pos} of {len} episodes, {elapsed} {wide_bar}");
    bar.set_style(style.context("the bar's template is wrong")?);
    let watch = &mut |n_over: usize, n_all: usize| {
        bar.set_length(n_all as u64);
        bar.set_position(n_over as u64);
    };
    let report = wait(evaluate(&served, question, &counter, watch))?;
    bar.finish_and_clear();
    Ok(report?)
}

/// The report with grammar, and the other one inside it.
#[derive(serde::Serialize)]
struct Both {
    family: &'static str,
    seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    n_calls: Option<usize>,
    #[serde(flatten)]
    with: Report,
    without_grammar: Report,
}

fn shown(question: Question, both: &Both) -> String {
    let mut text = format!("{}, seed {}\n", question.family.name(), question.seed);
    for (name, report) in [("with grammar", &both.with), ("without grammar", &both.without_grammar)] {
        text += &format!("  {name}\n");
        text += &line("known forms", &report.known);
        text += &line("held-out forms", &report.held_out);
    }
    for failure in both.with.known.failures.iter().chain(&both.with.held_out.failures) {
        text += &format!("  not solved: {failure}\n");
    }
    text
}

fn line(name: &str, tally: &Tally) -> String {
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    format!(
        "    {name:<15} {} of {} episodes solved ({:.1} %), {} of {} calls exact ({:.2} %)\n",
        tally.solved,
        tally.episodes,
        percent(tally.solved, tally.episodes),
        tally.exact_calls,
        tally.calls,
        percent(tally.exact_calls, tally.calls),
    )
}
