//! The verbs of the binary: one file each, listed here once.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Run Kimi K2 Thinking and models of its architecture from their published weights.
#[derive(Parser)]
#[command(name = "perilune", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {}

/// Parse the command line, run the verb, print its error as one sentence.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome: anyhow::Result<()> = match cli.verb {};
    #[allow(unreachable_code)]
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
