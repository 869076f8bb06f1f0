//! `completions`: verbs and flags that a shell completes.

use crate::terminal::print;
use anyhow::Context;
use clap::ValueEnum;

/// Print a script that lets a shell complete verbs and flags.
///
/// bash: put it in ~/.local/share/bash-completion/completions/perilune. zsh: in a folder of $fpath, as _perilune. fish:
/// in ~/.config/fish/completions/perilune.fish.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut super::command(), "perilune", &mut script);
    print(&String::from_utf8(script).context("a completion script is text")?)
}
