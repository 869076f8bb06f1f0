//! What would you like to do?

mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    verbs::run()
}
