//! The verbs of the binary: one file each, listed here once.

mod bench;
mod card;
mod chat;
mod data;
mod generate;
mod inspect;
pub(crate) mod interrupt;
mod keys;
mod logits;
mod memory;
mod open;
mod plan;
mod random;
mod resident;
mod serve;
mod usage;
mod verify;
mod words;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Run Kimi K2 Thinking and models of its architecture from their published weights.
#[derive(Parser)]
#[command(name = "perilune", version, propagate_version = true)]
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
    Usage(usage::Args),
    Bench(bench::BenchArgs),
    Tokenize(words::Tokenize),
    Detokenize(words::Detokenize),
    Render(words::Render),
    Parse(words::Parse),
}

/// Parse the command line, run the verb, print its error as one sentence.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.verb {
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Plan(args) => plan::run(&args),
        Verb::Verify(args) => verify::run(&args),
        Verb::Random(args) => random::run(&args),
        Verb::Logits(args) => logits::run(&args),
        Verb::Generate(args) => generate::run(&args),
        Verb::Serve(args) => serve::run(&args),
        Verb::Chat(args) => chat::run(&args),
        Verb::Keys(args) => keys::run(&args),
        Verb::Usage(args) => usage::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Tokenize(verb) => verb.run(),
        Verb::Detokenize(verb) => verb.run(),
        Verb::Render(verb) => verb.run(),
        Verb::Parse(verb) => verb.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => ExitCode::from(interrupt::EXIT_CODE),
        // Whoever read the answer has read enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
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
