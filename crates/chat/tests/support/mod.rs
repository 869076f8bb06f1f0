//! What the test programs of this crate share.
#![allow(dead_code, unreachable_pub)]

pub mod document;
pub mod random;
pub mod trace;
pub mod twin;

use perilune_chat::tokenizer::Tokenizer;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Folder of this crate's tests.
pub fn tests_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The committed small vocabulary with the K2 special names after its ranks.
pub fn small_tokenizer() -> Arc<Tokenizer> {
    let path = tests_dir().join("data/small.tiktoken");
    Arc::new(Tokenizer::from_rank_file(&path).unwrap())
}

/// The published vocabulary, where `PERILUNE_K2_RANKS` names its rank file.
pub fn k2_tokenizer(test: &str) -> Option<Tokenizer> {
    match std::env::var_os("PERILUNE_K2_RANKS") {
        Some(path) => Some(Tokenizer::from_rank_file(&PathBuf::from(path)).unwrap()),
        None => {
            // Written past the test harness, which hides what passing tests print.
            let hint = "set PERILUNE_K2_RANKS to the path of the model's tiktoken.model";
            std::io::stderr().write_all(format!("SKIPPED {test}: {hint}\n").as_bytes()).unwrap();
            None
        }
    }
}
