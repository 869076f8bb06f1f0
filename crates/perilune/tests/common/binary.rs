//! The binary with its arguments, and what it must say.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

pub(crate) fn perilune(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_perilune")).args(args).output().unwrap()
}

/// Standard output of a run that succeeds.
pub(crate) fn ok(args: &[&str]) -> String {
    let output = perilune(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a run that fails with an error of its own.
pub(crate) fn error(args: &[&str]) -> String {
    let output = perilune(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error: ") && !text.contains("panicked"), "{text}");
    text
}
