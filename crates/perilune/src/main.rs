//! What would you like to do?

mod machine;
mod terminal;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    verbs::run()
}
