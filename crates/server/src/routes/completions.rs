//! `POST /v1/completions`: raw text or token ids in, text out.

use super::{event, events, json, random_hex, read, reply};
use crate::answer::local::{LocalModel, Prepared};
use crate::answer::{Folded, Piece};
use crate::app::{App, Served};
use crate::error::{ApiError, Shape};
use crate::job::{Answers, blocking};
use crate::store::now_ms;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::{Stream, StreamExt, stream};
use perilune_chat::message::{Completion, Prompt};
use perilune_chat::scanner::Delta;
use perilune_chat::tokenizer::SpecialText;
use perilune_chat::wire::{self, openai};
use std::collections::BTreeMap;

/// Most prompts in one request.
const PROMPTS_MAX: usize = 64;

/// Continues raw prompts.
pub(crate) async fn create(State(app): State<App>, request: Request) -> Response {
    reply(answer(app, request).await, Shape::OpenAi)
}

async fn answer(app: App, request: Request) -> Result<Response, ApiError> {
    let (ask, body) = read(app, request, "/v1/completions").await?;
    let sent: openai::CompletionRequest = wire::from_json(&body)?;
    let asked = Completion::try_from(sent)?;
    if asked.prompts.len() > PROMPTS_MAX {
        let message =
            format!("{} prompts are more than {PROMPTS_MAX}; send several requests", asked.prompts.len());
        return Err(ApiError::invalid(Some("prompt"), message));
    }
    let (id, served) = ask.app.served(asked.model.as_deref())?;
    let (n, seed, with_usage) = (asked.n_choices, asked.sampling.seed, asked.include_usage);
    let (is_stream, has_logprobs) = (asked.stream, asked.top_logprobs.is_some());
    let model = match &served {
        Served::Local(served) => Some(served.model.clone()),
        Served::Upstream(_) => None,
    };
    let (prepared, echoes) = blocking(move || prepare(model.as_ref(), asked)).await?;
    let mut answers = ask.local(&id, &served, prepared, n, seed).await?;
    let standing = answers.standing();
    let head = Head { id: format!("cmpl-{}", random_hex()?), created: now_ms() / 1000, model: id, echoes, n };
    if is_stream {
        return Ok(events(chunks(head, answers, with_usage), &standing));
    }
    let folded = answers.whole().await?;
    let choice = |(index, folded)| head.whole(index, folded, has_logprobs);
    let choices = folded.into_iter().enumerate().map(choice).collect();
    Ok(json(&head.response(choices, Some(answers.usage().into())), &standing))
}

/// Token ids of every prompt, and what each choice repeats of it.
fn prepare(model: Option<&LocalModel>, asked: Completion) -> Result<(Vec<Prepared>, Vec<String>), ApiError> {
    let Some(model) = model else { return Ok((Vec::new(), Vec::new())) };
    let special = if asked.special_text { SpecialText::AsTokens } else { SpecialText::AsText };
    let mut prepared = Vec::new();
    let mut echoes = Vec::new();
    for prompt in asked.prompts {
        let ids = match prompt {
            Prompt::Text(text) => model.tokenizer().encode(&text, special),
            Prompt::Ids(ids) => ids,
        };
        echoes.push(if asked.echo { model.tokenizer().decode(&ids) } else { String::new() });
        prepared.push(model.prepare_raw(
            ids,
            asked.sampling.clone(),
            asked.max_tokens,
            asked.top_logprobs,
        )?);
    }
    Ok((prepared, echoes))
}

struct Head {
    id: String,
    created: i64,
    model: String,
    /// What each prompt's choices begin with.
    echoes: Vec<String>,
    /// Choices per prompt.
    n: u32,
}

impl Head {
    fn response(
        &self,
        choices: Vec<openai::CompletionChoice>,
        usage: Option<openai::Usage>,
    ) -> openai::CompletionResponse {
        openai::CompletionResponse {
            id: self.id.clone(),
            object: "text_completion".to_owned(),
            created: u64::try_from(self.created).unwrap_or(0),
            model: self.model.clone(),
            choices,
            usage,
        }
    }

    fn echo(&self, index: usize) -> &str {
        self.echoes.get(index / (self.n.max(1) as usize)).map_or("", String::as_str)
    }

    fn whole(&self, index: usize, folded: Folded, has_logprobs: bool) -> openai::CompletionChoice {
        let echo = self.echo(index);
        let start = echo.chars().count() as u32;
        openai::CompletionChoice {
            index: index as u32,
            text: format!("{echo}{}", folded.reply.content),
            logprobs: has_logprobs.then(|| columns(&folded.logprobs, start)),
            finish_reason: Some(folded.end.finish.into()),
        }
    }

    fn chunk(&self, choice: openai::CompletionChoice) -> Event {
        event(&self.response(vec![choice], None))
    }

    fn piece(&self, index: u32, piece: Piece) -> Option<Event> {
        let empty =
            openai::CompletionChoice { index, text: String::new(), logprobs: None, finish_reason: None };
        let choice = match piece {
            Piece::Delta(Delta::Content(text)) => openai::CompletionChoice { text, ..empty },
            Piece::Delta(_) => return None,
            Piece::Logprob(logprob) => {
                openai::CompletionChoice { logprobs: Some(columns(&[logprob], 0)), ..empty }
            }
            Piece::End(end) => openai::CompletionChoice { finish_reason: Some(end.finish.into()), ..empty },
        };
        Some(self.chunk(choice))
    }
}

/// Log-probabilities in the older, columnar form.
fn columns(logprobs: &[openai::TokenLogprob], start: u32) -> openai::CompletionLogprobs {
    let mut columns = openai::CompletionLogprobs::default();
    let mut offset = start;
    let mut tops = Vec::new();
    for one in logprobs {
        columns.text_offset.push(offset);
        offset += one.token.chars().count() as u32;
        columns.tokens.push(one.token.clone());
        columns.token_logprobs.push(Some(one.logprob));
        let rivals = one.top_logprobs.iter().map(|rival| (rival.token.clone(), rival.logprob));
        tops.push(Some(rivals.collect::<BTreeMap<_, _>>()));
    }
    columns.top_logprobs = Some(tops);
    columns
}

fn chunks(head: Head, answers: Answers, with_usage: bool) -> impl Stream<Item = Event> + Send + 'static {
    let echo = |index: usize| {
        let text = head.echo(index).to_owned();
        let choice =
            openai::CompletionChoice { index: index as u32, text, logprobs: None, finish_reason: None };
        (!choice.text.is_empty()).then(|| head.chunk(choice))
    };
    let echoes: Vec<Event> = (0..answers.n_choices()).filter_map(echo).collect();
    let rest = stream::unfold(Some((head, answers)), move |state| async move {
        let (head, mut answers) = state?;
        match answers.next().await {
            Some((index, Ok(piece))) => {
                let out: Vec<Event> = head.piece(index, piece).into_iter().collect();
                Some((out, Some((head, answers))))
            }
            Some((_, Err(error))) => Some((vec![event(&error.openai())], None)),
            None => {
                let mut last = Vec::new();
                if with_usage {
                    last.push(event(&head.response(Vec::new(), Some(answers.usage().into()))));
                }
                last.push(Event::default().data("[DONE]"));
                Some((last, None))
            }
        }
    });
    stream::iter(echoes).chain(rest.flat_map(stream::iter))
}
