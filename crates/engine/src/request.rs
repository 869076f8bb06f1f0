//! What goes into the engine and what comes out.

use crate::mask::TokenMask;
use crate::sampler::{Sampling, SamplingError, TokenLogprob};

/// Most ids that may end a request.
pub const STOP_IDS_MAX: usize = 64;

/// Names a request for as long as it lives; later requests have larger ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Service class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Admitted first, steps when it can, may preempt.
    Latency,
    /// Takes what is left, with a share of the steps that is its own.
    Throughput,
}

impl Class {
    /// Index into figures kept by class: latency 0, throughput 1.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// `id` comes as token `n_tokens` of the generation at the latest, unless one of `unless_seen` came before.
///
/// With a token mask it waits for the first place where the mask allows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedAfter {
    /// Tokens generated freely before it.
    pub n_tokens: usize,
    /// What then comes.
    pub id: u32,
    /// What makes it unnecessary; `id` itself always does.
    pub unless_seen: Vec<u32>,
}

/// One sequence to go on with.
pub struct Request {
    /// Token ids `[T]`, at least one.
    pub prompt: Vec<u32>,
    /// Service class.
    pub class: Class,
    /// Most tokens to generate, at least one.
    pub n_new_max: usize,
    /// Tokens of the generation before which no stop id is drawn.
    pub n_new_min: usize,
    /// Ids that end the request, at most [`STOP_IDS_MAX`]; the one drawn is delivered and counted.
    pub stop_ids: Vec<u32>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Which tokens may come; `None` allows all.
    pub mask: Option<Box<dyn TokenMask>>,
    /// A budget for thinking.
    pub forced: Option<ForcedAfter>,
    /// Wait until that request's prompt is cached, if it lives: how `n` choices share one prompt's blocks.
    pub share_prompt_with: Option<RequestId>,
}

impl Request {
    /// A request of the throughput class that takes the likeliest token of each step, `n_new_max` of them.
    pub fn greedy(prompt: Vec<u32>, n_new_max: usize) -> Self {
        Request {
            prompt,
            class: Class::Throughput,
            n_new_max,
            n_new_min: 0,
            stop_ids: Vec::new(),
            sampling: Sampling::default(),
            mask: None,
            forced: None,
            share_prompt_with: None,
        }
    }
}

/// Why a request was not taken; nothing was done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// No prompt.
    #[error("the prompt is empty: send at least one token")]
    EmptyPrompt,
    /// No token asked for.
    #[error("no token may be generated: ask for at least one")]
    NothingWanted,
    /// An id of the prompt or of a setting that the model has no row for.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    OutsideVocabulary {
        /// The id.
        id: u32,
        /// V.
        vocab_size: usize,
    },
    /// Prompt and generation can never fit.
    #[error(
        "{needed} tokens (prompt and the most to generate) exceed the context of {limit}: shorten the prompt or lower the most to generate"
    )]
    ContextTooLong {
        /// Tokens asked for.
        needed: usize,
        /// Tokens that fit.
        limit: usize,
    },
    /// Too many stop ids.
    #[error("{given} stop ids are more than {STOP_IDS_MAX}: send fewer")]
    TooManyStopIds {
        /// Number sent.
        given: usize,
    },
    /// A sampling setting out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// The class's queue is full.
    #[error("{queued} requests are waiting already: try again later")]
    QueueFull {
        /// Requests waiting.
        queued: usize,
    },
    /// The engine takes no more requests.
    #[error("the engine is stopping: send the request to another server or later")]
    Stopping,
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The model gave NaN or infinity.
    #[error(
        "the model gave a value that is no finite number at position {position}; this request's cache was dropped"
    )]
    NonFinite {
        /// Position of the row in the sequence.
        position: usize,
    },
    /// The token mask gave up: its text.
    #[error("the grammar cannot go on: {0}")]
    Mask(String),
    /// Every token is ruled out.
    #[error(
        "mask and settings together allow no token: loosen the grammar, the bias or the least number of tokens"
    )]
    NothingAllowed,
    /// The forward pass did not run: why.
    #[error("the forward pass failed: {0}")]
    Forward(String),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop id was drawn; it was the last token delivered.
    Stop {
        /// The id.
        id: u32,
    },
    /// The mask says nothing may follow.
    MaskComplete,
    /// As many tokens as asked for.
    Length,
    /// Its owner or the engine's owner ended it.
    Cancelled,
    /// It could not go on.
    Failed(Failure),
}

/// What a request used, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens.
    pub n_prompt: usize,
    /// Of these, found cached at admission.
    pub n_cached: usize,
    /// Tokens generated, a stop id counted.
    pub n_generated: usize,
}

/// What a request's sink is told, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It was admitted for the first time.
    Started {
        /// Prompt tokens found cached.
        n_cached: usize,
    },
    /// One token.
    Token(TokenEvent),
    /// The last event.
    Finished {
        /// How it ended.
        finish: Finish,
        /// What it used.
        usage: Usage,
    },
}

/// One generated token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenEvent {
    /// Index in the generation, from 0.
    pub index: usize,
    /// Token id.
    pub id: u32,
    /// Natural log-probability under the model's own distribution (no temperature, penalty or mask), where asked for.
    pub logprob: Option<f32>,
    /// The likeliest ids, best first, where asked for.
    pub top_logprobs: Vec<TokenLogprob>,
}

/// Whether a sink still listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Taken.
    Taken,
    /// Nobody listens: the request is cancelled.
    Gone,
}

/// Where a request's events go. Called on the engine's thread, so it must not block.
pub type EventSink = Box<dyn FnMut(Event) -> Delivery + Send>;
