//! House rules that run.

pub mod tidy;
