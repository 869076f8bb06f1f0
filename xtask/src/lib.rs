//! House rules that run, and pictures that the program makes of itself.

pub mod record;
pub mod tidy;
