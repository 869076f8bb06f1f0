//! `POST /v1/chat/completions`.

use super::{event, events, json, random_hex, read, reply};
use crate::answer::{End, Folded, Piece};
use crate::app::{App, MESSAGES_MAX};
use crate::error::{ApiError, Shape};
use crate::job::{Answers, sized};
use crate::store::now_ms;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::{Stream, StreamExt, stream};
use perilune_chat::message::Envelope;
use perilune_chat::wire::{self, openai};

/// Answers a conversation.
pub(crate) async fn create(State(app): State<App>, request: Request) -> Response {
    reply(answer(app, request).await, Shape::OpenAi)
}

async fn answer(app: App, request: Request) -> Result<Response, ApiError> {
    let (ask, body) = read(app, request, "/v1/chat/completions").await?;
    let envelope = sized(body.len(), move || envelope(&body)).await?;
    let Envelope { model, request, n_choices, top_logprobs, stream, include_usage, .. } = envelope;
    let mut answers = ask.chat(model.as_deref(), request, n_choices, top_logprobs).await?;
    let head = Head::new(&answers)?;
    let standing = answers.standing();
    if stream {
        return Ok(events(chunks(head, answers, include_usage), &standing));
    }
    let choices = answers.whole().await?;
    let usage = answers.usage();
    Ok(json(&head.response(choices, usage.into(), top_logprobs.is_some()), &standing))
}

/// Reads and validates a request.
pub(super) fn envelope(body: &[u8]) -> Result<Envelope, ApiError> {
    let sent: openai::ChatRequest = wire::from_json(body)?;
    check_count(sent.messages.len())?;
    Ok(Envelope::try_from(sent)?)
}

/// Dialogues have a written maximum.
pub(super) fn check_count(n_messages: usize) -> Result<(), ApiError> {
    if n_messages <= MESSAGES_MAX {
        return Ok(());
    }
    let message = format!("{n_messages} messages are more than {MESSAGES_MAX}; summarise the older ones");
    Err(ApiError::invalid(Some("messages"), message))
}

/// What every chunk of one answer repeats.
#[derive(Clone)]
struct Head {
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(answers: &Answers) -> Result<Self, ApiError> {
        let created = u64::try_from(now_ms() / 1000).unwrap_or(0);
        Ok(Self { id: format!("chatcmpl-{}", random_hex()?), created, model: answers.model().to_owned() })
    }

    fn response(&self, choices: Vec<Folded>, usage: openai::Usage, logprobs: bool) -> openai::ChatResponse {
        let choice = |(index, folded): (usize, Folded)| openai::Choice {
            index: index as u32,
            message: folded.reply.into(),
            logprobs: logprobs.then_some(openai::ChoiceLogprobs { content: Some(folded.logprobs) }),
            finish_reason: Some(folded.end.finish.into()),
        };
        openai::ChatResponse {
            id: self.id.clone(),
            object: "chat.completion".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices: choices.into_iter().enumerate().map(choice).collect(),
            usage: Some(usage),
            system_fingerprint: None,
        }
    }

    fn chunk(&self, choices: Vec<openai::ChunkChoice>, usage: Option<openai::Usage>) -> Event {
        event(&openai::ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".to_owned(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage,
            system_fingerprint: None,
        })
    }

    /// The chunk that opens a choice.
    fn opening(&self, index: u32) -> Event {
        let delta = openai::ChunkDelta {
            role: Some("assistant".to_owned()),
            content: Some(String::new()),
            ..openai::ChunkDelta::default()
        };
        self.chunk(vec![openai::ChunkChoice { index, delta, ..openai::ChunkChoice::default() }], None)
    }

    fn piece(&self, index: u32, piece: Piece) -> Option<Event> {
        let base = openai::ChunkChoice { index, ..openai::ChunkChoice::default() };
        let choice = match piece {
            Piece::Delta(delta) => openai::ChunkChoice { delta: delta.to_openai()?, ..base },
            Piece::Logprob(logprob) => {
                let logprobs = Some(openai::ChoiceLogprobs { content: Some(vec![logprob]) });
                openai::ChunkChoice { logprobs, ..base }
            }
            Piece::End(End { finish, usage, .. }) => {
                openai::ChunkChoice { finish_reason: Some(finish.into()), usage: Some(usage.into()), ..base }
            }
        };
        Some(self.chunk(vec![choice], None))
    }
}

/// The events of a streamed answer: openings, pieces, the usage chunk, `[DONE]`; or an error and nothing more.
fn chunks(head: Head, answers: Answers, include_usage: bool) -> impl Stream<Item = Event> + Send + 'static {
    let openings: Vec<Event> = (0..answers.n_choices() as u32).map(|index| head.opening(index)).collect();
    let rest = stream::unfold(Some((head, answers)), move |state| async move {
        let (head, mut answers) = state?;
        loop {
            return match answers.next().await {
                Some((index, Ok(piece))) => match head.piece(index, piece) {
                    Some(event) => Some((vec![event], Some((head, answers)))),
                    None => continue,
                },
                Some((_, Err(error))) => Some((vec![event(&error.openai())], None)),
                None => {
                    let mut last = Vec::new();
                    if include_usage {
                        last.push(head.chunk(Vec::new(), Some(answers.usage().into())));
                    }
                    last.push(Event::default().data("[DONE]"));
                    Some((last, None))
                }
            };
        }
    });
    stream::iter(openings).chain(rest.flat_map(stream::iter))
}
