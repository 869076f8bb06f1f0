//! What would you like to do?

// The one crate that writes to the terminal.
#![allow(clippy::print_stdout)]

mod machine;
mod terminal;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    verbs::run()
}
