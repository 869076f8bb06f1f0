//! The verbs of the binary: one file each, listed here once.

mod words;

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
enum Verb {
    /// Turn text on stdin into token ids.
    Tokenize(words::Tokenize),
    /// Turn token ids on stdin into text.
    Detokenize(words::Detokenize),
    /// Show the prompt that the model will see for a chat-completions request.
    Render(words::Render),
    /// Parse the token ids of a reply on stdin into a message.
    Parse(words::Parse),
}

/// Parse the command line, run the verb, print its error as one sentence.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.verb {
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
