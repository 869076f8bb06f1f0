//! `man`: manual pages.

use crate::terminal::print;
use anyhow::Context;
use std::path::PathBuf;

/// Write a manual page for every verb: perilune.1, perilune-run.1 and so on.
///
/// `man -l DIR/perilune-run.1` shows one; in ~/.local/share/man/man1 or /usr/local/share/man/man1 they are found by
/// name.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Folder to write to; it is made where it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let place = args.out.display();
    std::fs::create_dir_all(&args.out).with_context(|| format!("{place} cannot be made"))?;
    let pages = clap_mangen::generate_to(super::command(), &args.out);
    pages.with_context(|| format!("the pages cannot be written to {place}"))?;
    print(&format!("wrote the manual to {place}; `man -l {place}/perilune.1` shows its first page\n"))
}
