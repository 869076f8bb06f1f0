//! A model in memory with its engine running: what `serve` and `chat` share.

use super::open::ModelArgs;
use anyhow::{Context, anyhow};
use perilune_chat::template::Template;
use perilune_chat::tokenizer::Tokenizer;
use perilune_engine::forward::Served;
use perilune_engine::{Engine, EngineThread, Settings};
use perilune_kernels::BLOCK_TOKENS;
use perilune_server::answer::local::{LocalModel, Parts};
use perilune_server::console::ModelCard;
use std::sync::Arc;
use std::time::Instant;

/// A running engine and the model that speaks through it.
pub(crate) struct Resident {
    pub(crate) model: LocalModel,
    pub(crate) engine: EngineThread,
    /// What the console says of it.
    pub(crate) card: ModelCard,
}

impl Resident {
    /// Loads the model and starts its engine with a cache of `cache_tokens` tokens, rounded up to whole blocks.
    pub(crate) fn start(args: &ModelArgs, cache_tokens: usize, settings: Settings) -> anyhow::Result<Self> {
        let tokenizer = Tokenizer::from_dir(&args.dir)
            .with_context(|| format!("{} needs a tiktoken.model to speak", args.dir.display()))?;
        let model = Arc::new(args.model()?);
        let card = super::card::of(&model, &args.dir, cache_tokens, args.run.dense.dense());
        let config = model.config();
        let template = Template::of_model_type(config.family.model_type());
        let eos_ids = config.eos_token_ids.clone();
        let n_blocks = cache_tokens.div_ceil(BLOCK_TOKENS);
        let since = Instant::now();
        let engine = Engine::new(Served::new(model, n_blocks), settings, Box::new(move || since.elapsed()));
        let engine = EngineThread::start(engine).context("the engine cannot be started")?;
        let parts = Parts { engine: engine.handle(), tokenizer: Arc::new(tokenizer), template, eos_ids };
        let model = LocalModel::new(parts).map_err(|message| anyhow!(message))?;
        Ok(Self { model, engine, card })
    }
}
