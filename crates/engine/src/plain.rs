//! The definition: one request, alone, one token after another. What the engine gives is held to this.

use crate::request::{Event, Failure, Finish, Request, TokenEvent};
use crate::sequence::{Draw, Generation};
use perilune_model::forward::{ForwardError, Model, NoProbe, Phase, Wanted};
use perilune_model::solo::Solo;

/// What a request gives when it has the model to itself and nothing is cached: its tokens and how it ended.
///
/// # Errors
/// [`ForwardError`], as [`Model::forward`].
pub fn run_alone(model: &Model, request: Request) -> Result<(Vec<TokenEvent>, Finish), ForwardError> {
    let mut solo = Solo::new(model, request.prompt.len() + request.n_new_max);
    let mut logits = Vec::new();
    for &id in &request.prompt {
        logits = solo.advance(&[id], Phase::Prefill, Wanted::Last, &mut NoProbe)?;
    }
    let (mut generation, mut draw, mut tokens) = (Generation::new(request), Draw::default(), Vec::new());
    loop {
        if logits.iter().any(|l| !l.is_finite()) {
            let position = solo.n_tokens() - 1;
            return Ok((tokens, Finish::Failed(Failure::NonFinite { position })));
        }
        match generation.next(&logits, &mut draw) {
            Err(failure) => return Ok((tokens, Finish::Failed(failure))),
            Ok((token, finish)) => {
                let id = token.id;
                tokens.push(token);
                if let Some(finish) = finish {
                    return Ok((tokens, finish));
                }
                logits = solo.decode(id)?;
            }
        }
    }
}

/// The events of a request gathered: its tokens and how it ended, once it has.
#[derive(Default)]
pub struct Gathered {
    /// Tokens in order.
    pub tokens: Vec<TokenEvent>,
    /// How it ended.
    pub finish: Option<Finish>,
    /// Prompt tokens found cached.
    pub n_cached: usize,
}

impl Gathered {
    /// Take one event.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Started { n_cached } => self.n_cached = n_cached,
            Event::Token(token) => self.tokens.push(token),
            Event::Finished { finish, .. } => self.finish = Some(finish),
        }
    }
}
