//! The verbs of the binary: one file each, listed here once.

mod bench;
mod card;
mod chat;
mod completions;
mod config;
mod data;
mod doctor;
mod eval;
mod generate;
mod inspect;
pub(crate) mod interrupt;
mod keys;
mod logits;
mod man;
mod memory;
pub(crate) mod open;
mod pages;
mod plan;
mod policy;
mod prices;
mod random;
#[cfg(test)]
mod reference;
mod resident;
mod run;
mod runs;
mod serve;
mod starter;
mod train;
mod upstream;
mod usage;
mod verify;
mod words;

use crate::settings::{self, Colour};
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// Run Kimi K2 Thinking and models of its architecture from their published weights.
#[derive(Parser)]
#[command(
    name = "perilune",
    version,
    propagate_version = true,
    after_help = "Begin with `perilune doctor`, then `perilune run \"TASK\" --workspace FOLDER`."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Inspect(inspect::Args),
    Plan(plan::Args),
    Verify(verify::Args),
    Random(random::Args),
    Logits(logits::LogitsArgs),
    Generate(generate::GenerateArgs),
    Serve(serve::Args),
    Chat(chat::Args),
    Keys(keys::Args),
    Prices(prices::Args),
    Usage(usage::Args),
    Eval(eval::Args),
    Train(train::Args),
    Policy(policy::Args),
    Run(Box<run::Args>),
    Runs(runs::Args),
    Bench(bench::BenchArgs),
    Tokenize(words::Tokenize),
    Detokenize(words::Detokenize),
    Render(words::Render),
    Parse(words::Parse),
    Doctor(doctor::Args),
    Config(config::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Verb {
    /// Whether it works, and helps, where the settings cannot be read.
    fn needs_no_settings(&self) -> bool {
        matches!(self, Verb::Doctor(_) | Verb::Completions(_) | Verb::Man(_))
    }
}

/// Parse the command line, run the verb, print its error as one sentence.
pub(crate) fn run() -> ExitCode {
    let read = settings::load();
    let colour = read.as_ref().map_or(Colour::Auto, |settings| settings.colour.value);
    let matches = command().color(choice(colour)).get_matches();
    let verb = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).verb;
    match read {
        Ok(settings) => settings::keep(settings),
        Err(error) if !verb.needs_no_settings() => return fail(&error),
        Err(_) => {}
    }
    end(perform(verb))
}

/// The command line, as help, completions and pages are made from it.
fn command() -> clap::Command {
    Cli::command()
}

fn choice(colour: Colour) -> ColorChoice {
    match colour {
        Colour::Auto => ColorChoice::Auto,
        Colour::Always => ColorChoice::Always,
        Colour::Never => ColorChoice::Never,
    }
}

fn perform(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Random(args) => random::run(&args),
        Verb::Logits(args) => logits::run(&args),
        Verb::Generate(args) => generate::run(&args),
        Verb::Serve(args) => serve::run(&args),
        Verb::Chat(args) => chat::run(&args),
        Verb::Keys(args) => keys::run(&args),
        Verb::Prices(args) => prices::run(&args),
        Verb::Usage(args) => usage::run(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Train(args) => train::run(&args),
        Verb::Policy(args) => policy::run(&args),
        Verb::Run(args) => run::run(&args),
        Verb::Runs(args) => runs::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Tokenize(verb) => verb.run(),
        Verb::Detokenize(verb) => verb.run(),
        Verb::Render(verb) => verb.run(),
        Verb::Parse(verb) => verb.run(),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Config(args) => config::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}

fn end(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => ExitCode::from(interrupt::EXIT_CODE),
        // Whoever read the answer has read enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<run::Exit>() {
            Some(exit) => ExitCode::from(exit.0),
            None => fail(&error),
        },
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", sentence(error));
    ExitCode::FAILURE
}

/// The error and its causes as one sentence; a cause that the text before it already tells is not told again.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_pipe = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    error.root_cause().downcast_ref::<std::io::Error>().is_some_and(is_pipe)
}
