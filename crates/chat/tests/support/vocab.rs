//! A small vocabulary for tests, and the published one where it is at hand.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use perilune_chat::grammar::GrammarFactory;
use perilune_chat::tokenizer::Tokenizer;
use perilune_chat::tokenizer::train::{TrainOptions, train_ranks};

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

/// 2,048 ids trained on texts of this crate.
pub(crate) fn small() -> &'static Vocab {
    static SMALL: OnceLock<Vocab> = OnceLock::new();
    SMALL.get_or_init(|| {
        let texts = [
            include_str!("../data/json-schema-cases.json"),
            include_str!("forced.rs"),
            include_str!("../../src/grammar/schema.rs"),
            include_str!("../../src/grammar/constraint.rs"),
        ];
        let options = TrainOptions { vocab_size: 2_048, ..TrainOptions::default() };
        let ranks = train_ranks(texts.into_iter(), &options).expect("the texts give 2,048 ids");
        Vocab::new(Tokenizer::from_ranks(&ranks, None).expect("trained ranks are well formed"))
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
