//! One answer of the model: the bounded view goes out, thinking, words and calls come back.

use super::{Run, RunError};
use crate::context;
use crate::journal::{CallText, Event, TokenUse};
use crate::mutant::{Mutant, is};
use crate::secrets::Secrets;
use futures_util::StreamExt;
use perilune_chat::message::{Request, Thinking};
use perilune_chat::model::{self, ModelError, Usage};
use perilune_chat::scanner::{self, Delta, Finish, Opening, Reply, ScannerOptions};

/// Share of an answer that is kept free of thinking.
const WORDS_SHARE: u64 = 8;
/// First wait after a failure, doubled with each further one.
const RETRY_MS: u64 = 500;
/// Longest wait that the agent chooses itself.
const RETRY_MS_MAX: u64 = 60_000;
/// Longest wait that a provider may ask for.
const RETRY_AFTER_MS_MAX: u64 = 600_000;
/// What a call looks like that leaked into the thinking.
const CALL_MARKS: [&str; 3] =
    ["<|tool_call_begin|>", "<|tool_calls_section_begin|>", "<|tool_call_section_begin|>"];

/// A whole answer.
struct Answer {
    reply: Reply,
    usage: Usage,
    is_cut: bool,
}

impl Run {
    /// Asks until there is an answer, within the budget of retries.
    pub(super) async fn ask(&mut self) -> Result<(), RunError> {
        let mut folds = self.book.state.folds.clone();
        let transcript = &self.book.state.transcript;
        let view = context::fit(&self.hands.profile, transcript, &mut folds, self.hands.counter.as_ref())?;
        if view.is_new_stretch {
            self.book.keep(Event::Folded { folds }, false)?;
        }
        let (request, n_prompt) = (self.request(view.conversation), view.n_tokens as u64);
        loop {
            match self.answer(request.clone()).await {
                Ok(answer) => return self.keep_answer(answer, n_prompt),
                Err(error) => self.wait_after(error).await?,
            }
        }
    }

    fn request(&self, conversation: perilune_chat::message::Conversation) -> Request {
        let policy = &self.hands.profile.policy;
        let reply = policy.reply_tokens_max as u64;
        // Thinking that may fill the whole answer leaves no room for its call, and some providers refuse it.
        let reasoning = self.hands.budget.step_reasoning_tokens_max.min(reply - reply / WORDS_SHARE);
        Request {
            max_tokens: Some(reply),
            thinking: Thinking { enabled: None, preserve: true, budget_tokens: Some(reasoning) },
            sampling: self.hands.sampling.clone(),
            prompt_cache_key: Some(self.book.state.opened.run.clone()),
            ..Request::new(conversation)
        }
    }

    async fn answer(&self, request: Request) -> Result<Answer, ModelError> {
        let mut stream = self.hands.model.answer(request);
        let (mut reply, mut usage) = (Reply::default(), Usage::default());
        let is_live = self.hands.scope.secrets.is_empty();
        while let Some(event) = stream.next().await {
            match event? {
                model::Event::Delta(delta) => {
                    if is_live {
                        self.hands.listener.delta(&delta);
                    }
                    reply.add(delta);
                }
                model::Event::Usage(counted) => usage = counted,
                model::Event::Finish { finish, .. } => {
                    if !is_live {
                        self.show_whole(&reply);
                    }
                    return Ok(Answer { reply, usage, is_cut: finish == Finish::Length });
                }
            }
        }
        Err(ModelError::Transport { message: "the answer broke off".to_owned() })
    }

    /// Thinking and words at once, without secret values.
    fn show_whole(&self, reply: &Reply) {
        let clean = |text: &str| self.hands.scope.secrets.redact(text).into_owned();
        for delta in [Delta::Reasoning(clean(&reply.reasoning)), Delta::Content(clean(&reply.content))] {
            self.hands.listener.delta(&delta);
        }
    }

    /// Journals a failure and waits, or gives up where asking again does not help.
    async fn wait_after(&mut self, mut error: ModelError) -> Result<(), RunError> {
        redact(&mut error, &self.hands.scope.secrets);
        let asked_for = match &error {
            ModelError::Busy { retry_after_ms, .. } => *retry_after_ms,
            ModelError::Transport { .. } | ModelError::Protocol { .. } => None,
            _ => return Err(error.into()),
        };
        let attempt = self.book.state.ledger.n_model_failures + 1;
        self.book.keep(Event::ModelFailed { error: error.to_string(), attempt }, false)?;
        if attempt > self.hands.budget.n_model_retries_max {
            return Err(error.into());
        }
        let own = RETRY_MS.saturating_mul(1 << (attempt - 1).min(16)).min(RETRY_MS_MAX);
        let wait_ms = asked_for.map_or(own, |ms| ms.min(RETRY_AFTER_MS_MAX));
        self.hands.clock.sleep_ms(wait_ms).await;
        Ok(())
    }

    /// `n_prompt`: tokens of the prompt by the agent's own count.
    fn keep_answer(&mut self, answer: Answer, n_prompt: u64) -> Result<(), RunError> {
        let Answer { mut reply, usage, is_cut } = answer;
        // An endpoint that counts nothing would make a limit of tokens endless.
        let is_counted = usage.prompt_tokens + usage.completion_tokens > 0;
        let usage = if is_counted { usage } else { self.estimate(&reply, n_prompt) };
        // An open call at the length limit has half its arguments: it was not made.
        reply.tool_calls.retain(|call| !is_cut || call.closing == Some(scanner::Closing::Marker));
        if reply.tool_calls.is_empty() {
            self.take_leaked(&mut reply);
        }
        let calls = reply.tool_calls.into_iter();
        let calls = calls.map(|call| CallText { name: call.name, arguments: call.arguments }).collect();
        let tokens = TokenUse {
            prompt: usage.prompt_tokens,
            cached: usage.cached_tokens,
            completion: usage.completion_tokens,
            reasoning: usage.reasoning_tokens,
        };
        let reasoning = if is(Mutant::DropReasoning) { String::new() } else { reply.reasoning };
        self.book.keep(Event::Answered { reasoning, content: reply.content, calls, tokens, is_cut }, false)
    }

    /// What an answer took, by the agent's own count.
    fn estimate(&self, reply: &Reply, n_prompt: u64) -> Usage {
        let count = |text: &str| self.hands.counter.text(text) as u64;
        let calls: u64 = reply.tool_calls.iter().map(|call| count(&call.name) + count(&call.arguments)).sum();
        let reasoning_tokens = count(&reply.reasoning);
        let completion_tokens = reasoning_tokens + count(&reply.content) + calls;
        Usage { prompt_tokens: n_prompt, completion_tokens, reasoning_tokens, ..Usage::default() }
    }

    /// Calls that leaked into the thinking are made as if they stood in their place.
    fn take_leaked(&self, reply: &mut Reply) {
        let Some(tokenizer) = &self.hands.tokenizer else { return };
        if is(Mutant::LoseLeakedCalls) || !CALL_MARKS.iter().any(|mark| reply.reasoning.contains(mark)) {
            return;
        }
        let tool_names = self.hands.profile.tools.names().into_iter().map(str::to_owned).collect();
        let options = ScannerOptions { opening: Opening::Thinking, tool_names, ..ScannerOptions::default() };
        let (found, _) = scanner::recover(tokenizer, &reply.reasoning, options);
        if !found.tool_calls.is_empty() {
            reply.reasoning = found.reasoning;
            reply.content.push_str(&found.content);
            reply.tool_calls = found.tool_calls;
        }
    }
}

/// A provider may say a key again that it did not accept.
fn redact(error: &mut ModelError, secrets: &Secrets) {
    match error {
        ModelError::Refused { message, .. }
        | ModelError::Unauthorized { message }
        | ModelError::Busy { message, .. }
        | ModelError::Transport { message }
        | ModelError::Protocol { message } => drop(secrets.redact_text(message)),
        ModelError::ContextTooLong { .. } | ModelError::Cancelled => {}
    }
}
