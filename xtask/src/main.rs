//! `cargo xtask tidy` runs the rules of the house, `cargo xtask record` makes the pictures of README.

use anyhow::{Context, Result, bail};
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use xtask::{record, tidy};

fn main() -> ExitCode {
    match run(std::env::args().nth(1).as_deref()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Option<&str>) -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the repository")?;
    match verb {
        Some("tidy") => {
            let report = tidy::check(&tidy::Tree::read(root)?);
            write!(stdout(), "{report}")?;
            Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some("record") => record::pictures(root).map(|()| ExitCode::SUCCESS),
        _ => bail!(
            "write `cargo xtask tidy`, which checks the rules of the house and lists the longest code, or \
             `cargo xtask record`, which makes the pictures of README anew"
        ),
    }
}
