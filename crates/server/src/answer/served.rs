//! The engine in this process as a `ChatModel`: what the binary hands to an agent.

use super::local::{LocalModel, random_seed};
use super::{Piece, Pieces};
use crate::error::ApiError;
use futures_util::{StreamExt, stream};
use perilune_chat::message::{Conversation, Request};
use perilune_chat::model::{ChatModel, Event, EventStream, ModelError};
use perilune_engine::request::Class;
use std::sync::Arc;

/// A model of this process as a [`ChatModel`], with its id and service class.
#[derive(Clone)]
pub struct ServedModel {
    /// Id that requests name it by.
    pub name: String,
    /// The model.
    pub model: LocalModel,
    /// Service class that its requests wait in.
    pub class: Class,
}

impl ChatModel for ServedModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn context_tokens_max(&self) -> Option<usize> {
        Some(self.model.context_tokens_max())
    }

    fn count_tokens(&self, conversation: &Conversation) -> Option<usize> {
        Some(self.model.prompt(&Request::new(conversation.clone())).0.len())
    }

    fn answer(&self, request: Request) -> EventStream {
        let this = self.clone();
        let begin = async move {
            match this.begin(&request) {
                Ok(pieces) => pieces.flat_map(|piece| stream::iter(events(piece))).left_stream(),
                Err(error) => stream::iter([Err(model_error(error))]).right_stream(),
            }
        };
        Box::pin(stream::once(begin).flatten())
    }
}

impl ServedModel {
    fn begin(&self, request: &Request) -> Result<Pieces, ApiError> {
        let prepared = self.model.prepare(request, None)?;
        let seed = request.sampling.seed.map_or_else(random_seed, Ok)?;
        Ok(self.model.start(&prepared, self.class, seed, None, Arc::default())?.1)
    }
}

fn events(piece: Result<Piece, ApiError>) -> Vec<Result<Event, ModelError>> {
    match piece {
        Ok(Piece::Delta(delta)) => vec![Ok(Event::Delta(delta))],
        Ok(Piece::Logprob(_)) => Vec::new(),
        Ok(Piece::End(end)) => {
            let finish = Event::Finish { finish: end.finish, left_open: end.left_open };
            vec![Ok(Event::Usage(end.usage)), Ok(finish)]
        }
        Err(error) => vec![Err(model_error(error))],
    }
}

fn model_error(error: ApiError) -> ModelError {
    let ApiError { status, message, .. } = error;
    match status.as_u16() {
        429 | 503 => {
            let wait = error.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            ModelError::Busy { retry_after_ms: wait, message }
        }
        400..=499 => ModelError::Refused { status: Some(status.as_u16()), message },
        _ => ModelError::Transport { message },
    }
}
