//! The verbs of the binary: one file each, listed here once.

mod bench;
mod generate;
mod interrupt;
mod logits;
mod memory;
mod open;
mod progress;
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
    Logits(logits::LogitsArgs),
    Generate(generate::GenerateArgs),
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
        Verb::Logits(args) => logits::run(&args),
        Verb::Generate(args) => generate::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Tokenize(verb) => verb.run(),
        Verb::Detokenize(verb) => verb.run(),
        Verb::Render(verb) => verb.run(),
        Verb::Parse(verb) => verb.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
