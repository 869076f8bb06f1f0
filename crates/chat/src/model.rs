//! How does an agent reach a model? Through [`ChatModel`], and nothing else.
//!
//! Implemented by the engine in-process, by an HTTP client of any vendor, and by a script in a test. All
//! keep the same promises:
//! - [`ChatModel::answer`] returns at once; the work happens as the stream is polled.
//! - Events come in this order: deltas as they arise (within a field, in order), at most one
//!   [`Event::Usage`], then exactly one [`Event::Finish`]; after it, or after an error, the stream ends.
//! - Dropping the stream cancels the work.
//! - Tool calls arrive parsed: begin (id and name), argument text, end. Text fields never hold markers.
//! - A stream that ends with neither `Finish` nor an error was broken off: treat it as [`ModelError::Transport`].

use crate::message::{Conversation, Request};
use crate::scanner::{Delta, Finish, Open};
use crate::wire::{anthropic, openai};
use futures_core::Stream;
use std::pin::Pin;

/// The answer as it comes: events, or the one error that ends it.
pub type EventStream = Pin<Box<dyn Stream<Item = Result<Event, ModelError>> + Send + 'static>>;

/// Something that can continue a conversation. Object-safe: hold it as `Arc<dyn ChatModel>`.
pub trait ChatModel: Send + Sync {
    /// Name for traces, for example the model id.
    fn name(&self) -> &str;

    /// Longest prompt plus reply in tokens, where it is known.
    fn context_tokens_max(&self) -> Option<usize> {
        None
    }

    /// Tokens that the prompt of this conversation takes, where they can be counted without asking anyone.
    fn count_tokens(&self, conversation: &Conversation) -> Option<usize> {
        let _ = conversation;
        None
    }

    /// Starts one answer.
    fn answer(&self, request: Request) -> EventStream;
}

/// One event of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Thinking, answer text or a piece of a call.
    Delta(Delta),
    /// Token counts of this answer.
    Usage(Usage),
    /// The end.
    Finish {
        /// How it ended.
        finish: Finish,
        /// What was still open, where the implementation can tell.
        left_open: Option<Open>,
    },
}

/// Token counts of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Of these, read from a prefix cache.
    pub cached_tokens: u64,
    /// Tokens generated, reasoning included.
    pub completion_tokens: u64,
    /// Of these, reasoning.
    pub reasoning_tokens: u64,
}

impl From<Usage> for openai::Usage {
    fn from(usage: Usage) -> Self {
        Self::new(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.reasoning_tokens)
    }
}

impl From<openai::Usage> for Usage {
    fn from(usage: openai::Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached(),
            completion_tokens: usage.completion_tokens,
            reasoning_tokens: usage.completion_tokens_details.map_or(0, |detail| detail.reasoning_tokens),
        }
    }
}

impl From<Usage> for anthropic::Usage {
    /// That format counts cached prompt tokens apart.
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
            output_tokens: usage.completion_tokens,
            cache_read_input_tokens: Some(usage.cached_tokens),
            cache_creation_input_tokens: None,
        }
    }
}

/// Why there is no (further) answer. The variants differ in what the caller should do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The request itself is wrong: change it.
    #[error("the model refused the request: {message}")]
    Refused {
        /// HTTP status where there was one.
        status: Option<u16>,
        /// The provider's sentence.
        message: String,
    },
    /// Prompt and reply do not fit: shorten the conversation.
    #[error(
        "the prompt has {prompt_tokens} tokens, the model's context holds {context_tokens_max}; shorten the conversation"
    )]
    ContextTooLong {
        /// Tokens of the prompt.
        prompt_tokens: u64,
        /// Tokens that the model's context holds.
        context_tokens_max: u64,
    },
    /// Not allowed: check the key.
    #[error("the model did not accept the credentials: {message}")]
    Unauthorized {
        /// The provider's sentence.
        message: String,
    },
    /// Too much at the moment: wait and ask again.
    #[error("the model is busy: {message}")]
    Busy {
        /// How long the provider asks to wait, milliseconds.
        retry_after_ms: Option<u64>,
        /// The provider's sentence.
        message: String,
    },
    /// The connection or the engine failed: asking again may help.
    #[error("the connection to the model failed: {message}")]
    Transport {
        /// What failed.
        message: String,
    },
    /// The provider broke its own format: report it.
    #[error("the model's answer could not be read: {message}")]
    Protocol {
        /// What was wrong.
        message: String,
    },
    /// The caller cancelled.
    #[error("the answer was cancelled")]
    Cancelled,
}
