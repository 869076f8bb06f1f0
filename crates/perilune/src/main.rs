//! What would you like to do?

mod embedded;
mod machine;
mod settings;
mod signals;
mod table;
mod terminal;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    perilune_agent::sandbox::enter_if_asked();
    verbs::run()
}
