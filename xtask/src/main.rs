//! `cargo xtask RULE`: run the rules of the house.

use anyhow::{Context, Result, bail};
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;
use xtask::tidy;

fn main() -> ExitCode {
    match run(std::env::args().nth(1).as_deref()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(rule: Option<&str>) -> Result<ExitCode> {
    let Some("tidy") = rule else {
        bail!("write `cargo xtask tidy`: it checks the rules of the house and lists the longest code")
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask stands in the repository")?;
    let report = tidy::check(&tidy::Tree::read(root)?);
    write!(stdout(), "{report}")?;
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
