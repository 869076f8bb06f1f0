//! The engine in this process as a model: messages to token ids. What comes back is read in `reader`.

use super::mask::GrammarMask;
use super::reader::{Answer, Reader, channel};
use super::{Pieces, Progress};
use crate::error::ApiError;
use perilune_chat::grammar::{self, Constraint, ConstraintSpec, GrammarFactory, StartsIn, ToolSpec, Tools};
use perilune_chat::message::{Request, ResponseFormat, Sampling, ToolChoice};
use perilune_chat::model::Usage;
use perilune_chat::scanner::{Opening, ScannerOptions};
use perilune_chat::template::Template;
use perilune_chat::tokenizer::{SpecialText, Tokenizer};
use perilune_engine::request::{self as engine, Class, ForcedAfter, RequestId};
use perilune_engine::{EngineHandle, sampler};
use serde_json::Value;
use std::sync::Arc;

/// Tokens generated at most where a request names no limit; the vendor's guide asks for 16,000 or more.
pub const NEW_TOKENS_DEFAULT: u64 = 32_768;

/// What a served model is made of.
pub struct Parts {
    /// The engine's thread, spoken to over channels.
    pub engine: EngineHandle,
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The chat template that its prompts are written by.
    pub template: Template,
    /// Ids that end a sequence, by the model's config; the tokenizer's message ends are added.
    pub eos_ids: Vec<u32>,
}

/// A model served by the engine of this process.
#[derive(Clone)]
pub struct LocalModel {
    shared: Arc<Shared>,
    has_grammar: bool,
}

struct Shared {
    parts: Parts,
    grammar: GrammarFactory,
    stop_ids: Vec<u32>,
}

/// A request ready for the engine.
pub struct Prepared {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    constraint: Option<Constraint>,
    opening: Opening,
    tool_names: Vec<String>,
    sampling: Sampling,
    n_new_max: usize,
    thinking_tokens_max: Option<usize>,
    top_logprobs: Option<u32>,
    is_chat: bool,
}

impl LocalModel {
    /// Prepares the grammar's vocabulary, which takes about half a second.
    ///
    /// # Errors
    /// When the tokenizer has more tokens than the model has logits, or no grammar can be built on it.
    pub fn new(parts: Parts) -> Result<Self, String> {
        let (n_tokens, vocab_size) = (parts.tokenizer.n_vocab(), parts.engine.limits().vocab_size);
        if n_tokens > vocab_size {
            return Err(format!(
                "the tokenizer has {n_tokens} tokens, the model {vocab_size}: take the tokenizer that belongs to it"
            ));
        }
        let grammar = GrammarFactory::new(Arc::clone(&parts.tokenizer)).map_err(|error| error.to_string())?;
        let markers = parts.tokenizer.markers();
        let mut stop_ids = vec![markers.im_end, markers.eos, markers.eot];
        // An id that is ordinary text would end an answer, or a call, in the middle of a word.
        stop_ids.extend(parts.eos_ids.iter().filter(|id| parts.tokenizer.is_special(**id)));
        stop_ids.sort_unstable();
        stop_ids.dedup();
        Ok(Self { shared: Arc::new(Shared { parts, grammar, stop_ids }), has_grammar: true })
    }

    /// The same model with nothing between it and its words: to measure what it writes by itself.
    #[must_use]
    pub fn without_grammar(&self) -> Self {
        Self { has_grammar: false, ..self.clone() }
    }

    /// Tokens of prompt and answer together.
    #[must_use]
    pub fn context_tokens_max(&self) -> usize {
        self.shared.parts.engine.limits().context_max
    }

    /// The engine behind it.
    #[must_use]
    pub fn engine(&self) -> &EngineHandle {
        &self.shared.parts.engine
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.shared.parts.tokenizer
    }

    /// Token ids of a request's prompt, and where its answer starts.
    #[must_use]
    pub fn prompt(&self, request: &Request) -> (Vec<u32>, Opening) {
        let rendered = self.shared.parts.template.render(&request.conversation, request.thinking);
        (rendered.ids(self.tokenizer(), SpecialText::AsText), rendered.opening())
    }

    /// Renders, encodes and compiles a chat request. Takes milliseconds for long ones: not for an async thread.
    /// `top_logprobs` is the number of alternatives told with each token; `None` tells no log-probabilities.
    ///
    /// # Errors
    /// Status 400: a schema that the grammar refuses, or a prompt that, with the tokens asked for, is longer than
    /// [`Self::context_tokens_max`].
    pub fn prepare(&self, request: &Request, top_logprobs: Option<u32>) -> Result<Prepared, ApiError> {
        let (prompt, opening) = self.prompt(request);
        let constraint = constraint_spec(request, opening)?.filter(|_| self.has_grammar);
        let constraint = constraint.map(|spec| self.shared.grammar.constraint(&spec)).transpose()?;
        let budget = request.thinking.budget_tokens.filter(|_| opening != Opening::Answer);
        Ok(Prepared {
            n_new_max: self.n_new_max(prompt.len(), request.max_tokens)?,
            prompt,
            constraint,
            opening,
            tool_names: request.conversation.tools().iter().map(|tool| tool.name().to_owned()).collect(),
            sampling: request.sampling.clone(),
            thinking_tokens_max: budget.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            top_logprobs,
            is_chat: true,
        })
    }

    /// The same for the token ids of a raw prompt, without template, grammar or tools.
    ///
    /// # Errors
    /// Status 400: a prompt that is empty or, with `max_tokens`, longer than [`Self::context_tokens_max`].
    pub fn prepare_raw(
        &self,
        prompt: Vec<u32>,
        sampling: Sampling,
        max_tokens: Option<u64>,
        top_logprobs: Option<u32>,
    ) -> Result<Prepared, ApiError> {
        if prompt.is_empty() {
            return Err(ApiError::invalid(Some("prompt"), "the prompt is empty; send at least one token"));
        }
        Ok(Prepared {
            n_new_max: self.n_new_max(prompt.len(), max_tokens)?,
            prompt,
            constraint: None,
            opening: Opening::Answer,
            tool_names: Vec::new(),
            sampling,
            thinking_tokens_max: None,
            top_logprobs,
            is_chat: false,
        })
    }

    /// Tokens that may be generated: what was asked for must fit, a default is cut to what fits.
    fn n_new_max(&self, n_prompt: usize, asked: Option<u64>) -> Result<usize, ApiError> {
        let context = self.context_tokens_max();
        let too_long = |message: String| {
            let code = Some("context_length_exceeded");
            ApiError { code, ..ApiError::invalid(Some("messages"), message) }
        };
        let room = context.saturating_sub(n_prompt);
        if room == 0 {
            return Err(too_long(format!(
                "the prompt has {n_prompt} tokens, this model's context holds {context}; shorten the conversation"
            )));
        }
        let asked_usize = asked.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        match asked_usize {
            Some(n) if n > room => Err(too_long(format!(
                "the prompt has {n_prompt} tokens and {n} more were asked for, this model's context holds {context}; \
                 lower max_tokens to {room} or shorten the conversation"
            ))),
            Some(n) => Ok(n.max(1)),
            None => Ok(room.min(NEW_TOKENS_DEFAULT as usize)),
        }
    }

    /// Sends one choice of a prepared request to the engine. Choices after the first name it as `first`, whose prompt
    /// they share and do not count again in `progress`; each wants a seed of its own.
    ///
    /// # Errors
    /// A full queue (status 429), an engine that stops (503), or settings that it refuses (400).
    pub fn start(
        &self,
        prepared: &Prepared,
        class: Class,
        seed: u64,
        first: Option<RequestId>,
        progress: Arc<Progress>,
    ) -> Result<(RequestId, Pieces), ApiError> {
        let (sink, events) = channel();
        let request = self.engine_request(prepared, class, seed, first);
        let ticket = self.engine().submit(request, sink)?;
        let n_prompt = if first.is_none() { prepared.prompt.len() as u64 } else { 0 };
        progress.set(Usage { prompt_tokens: n_prompt, ..Usage::default() });
        let options = ScannerOptions {
            opening: prepared.opening,
            tool_names: prepared.tool_names.clone(),
            ..ScannerOptions::default()
        };
        let options = prepared.is_chat.then_some(options);
        let reader = Reader::new(self.tokenizer(), options, &prepared.sampling.stop, progress);
        let id = ticket.id();
        Ok((id, Box::pin(Answer { events, ticket: Some(ticket), reader })))
    }

    fn engine_request(
        &self,
        prepared: &Prepared,
        class: Class,
        seed: u64,
        first: Option<RequestId>,
    ) -> engine::Request {
        let mask = prepared.constraint.clone().map(|constraint| Box::new(GrammarMask(constraint)) as Box<_>);
        let markers = self.tokenizer().markers();
        let forced = prepared.thinking_tokens_max.map(|n_tokens| ForcedAfter {
            n_tokens,
            id: markers.think_end,
            unless_seen: vec![markers.section_begin, markers.im_end],
        });
        engine::Request {
            class,
            stop_ids: self.shared.stop_ids.clone(),
            sampling: engine_sampling(&prepared.sampling, seed, prepared.top_logprobs),
            mask,
            forced,
            share_prompt_with: first,
            ..engine::Request::greedy(prepared.prompt.clone(), prepared.n_new_max)
        }
    }
}

fn engine_sampling(asked: &Sampling, seed: u64, top_logprobs: Option<u32>) -> sampler::Sampling {
    let or = |value: Option<f64>, default: f32| value.map_or(default, |value| value as f32);
    sampler::Sampling {
        temperature: or(asked.temperature, 1.0),
        top_p: or(asked.top_p, 1.0),
        top_k: asked.top_k.map_or(0, |k| k as usize),
        min_p: or(asked.min_p, 0.0),
        presence_penalty: or(asked.presence_penalty, 0.0),
        frequency_penalty: or(asked.frequency_penalty, 0.0),
        repetition_penalty: or(asked.repetition_penalty, 1.0),
        logit_bias: asked.logit_bias.iter().map(|(id, bias)| (*id, *bias as f32)).collect(),
        seed,
        n_top_logprobs: top_logprobs.map(|n| n as usize),
    }
}

/// What a request's grammar must hold; `None` where everything is free.
fn constraint_spec(request: &Request, opening: Opening) -> Result<Option<ConstraintSpec>, ApiError> {
    let tools = request.conversation.tools();
    if tools.is_empty() && request.response_format == ResponseFormat::Text {
        return Ok(None);
    }
    let spec = |tool: &perilune_chat::message::Tool| ToolSpec {
        name: tool.name().to_owned(),
        parameters: tool.parameters().cloned().map(Value::Object),
        strict: is_strict(tool),
    };
    let next_call_idx = u32::try_from(request.conversation.n_calls())
        .map_err(|_| ApiError::invalid(Some("messages"), "the dialogue holds too many calls; shorten it"))?;
    let choice = match &request.tool_choice {
        ToolChoice::Auto => grammar::ToolChoice::Auto,
        ToolChoice::None => grammar::ToolChoice::None,
        ToolChoice::Required => grammar::ToolChoice::Required,
        ToolChoice::Named(name) => grammar::ToolChoice::Named(name.clone()),
    };
    let response_format = match &request.response_format {
        ResponseFormat::Text => grammar::ResponseFormat::Text,
        ResponseFormat::JsonObject => grammar::ResponseFormat::JsonObject,
        ResponseFormat::JsonSchema { schema, strict, .. } => {
            grammar::ResponseFormat::JsonSchema { schema: Value::Object(schema.clone()), strict: *strict }
        }
    };
    let tools = Tools {
        specs: tools.iter().map(spec).collect(),
        choice,
        parallel: !request.single_tool_call,
        next_call_idx,
    };
    let starts_in = match opening {
        Opening::Unknown => StartsIn::Turn,
        Opening::Thinking => StartsIn::Thinking,
        Opening::Answer => StartsIn::Answer,
    };
    Ok(Some(ConstraintSpec { tools, response_format, starts_in }))
}

/// Whether the caller demands that all of a tool's schema is enforced.
fn is_strict(tool: &perilune_chat::message::Tool) -> bool {
    let strict = tool.declaration().get("function").and_then(|function| function.get("strict"));
    strict.and_then(Value::as_bool).unwrap_or(false)
}

/// A seed for a request that names none.
///
/// # Errors
/// Status 500: the system gives no random bytes.
pub fn random_seed() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|error| ApiError::internal(&error))
}
