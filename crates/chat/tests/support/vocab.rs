//! A small vocabulary for tests, and the published one where it is at hand.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use perilune_chat::grammar::GrammarFactory;
use perilune_chat::tokenizer::Tokenizer;

/// A tokenizer and its factory.
pub(crate) struct Vocab {
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) factory: GrammarFactory,
}

impl Vocab {
    fn new(tokenizer: Tokenizer) -> Self {
        let tokenizer = Arc::new(tokenizer);
        let factory = GrammarFactory::new(Arc::clone(&tokenizer)).expect("the vocabulary carries a grammar");
        Self { tokenizer, factory }
    }
}

/// The committed vocabulary of a few thousand ids.
pub(crate) fn small() -> &'static Vocab {
    static SMALL: OnceLock<Vocab> = OnceLock::new();
    SMALL.get_or_init(|| {
        let ranks = include_bytes!("../data/small.tiktoken");
        Vocab::new(Tokenizer::from_ranks(ranks, None).expect("the committed ranks are well formed"))
    })
}

/// The published vocabulary, if PERILUNE_K2_RANKS names its rank file; says so where it does not.
pub(crate) fn published(test: &str) -> Option<Vocab> {
    let Some(path) = std::env::var_os("PERILUNE_K2_RANKS") else {
        eprintln!("skipped {test}: set PERILUNE_K2_RANKS to the path of a K2 tiktoken.model to run it");
        return None;
    };
    Some(Vocab::new(
        Tokenizer::from_rank_file(&PathBuf::from(path)).expect("PERILUNE_K2_RANKS names a rank file"),
    ))
}
