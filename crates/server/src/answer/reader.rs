//! The engine's events to pieces: scanner, stop strings, log-probabilities, counts.

use super::stop::StopStrings;
use super::{End, Piece, Progress};
use crate::error::ApiError;
use futures_util::Stream;
use perilune_chat::model::Usage;
use perilune_chat::scanner::{Delta, Ending, Finish, Open, Scanner, ScannerOptions};
use perilune_chat::tokenizer::{Detokenizer, Tokenizer};
use perilune_chat::wire::openai::TokenLogprob;
use perilune_engine::Ticket;
use perilune_engine::request as engine;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::mpsc::{self, Receiver, error::TrySendError};

/// Events that may wait for their reader; a request whose reader is further behind is cancelled. About 70 bytes each,
/// without log-probabilities.
pub const UNREAD_EVENTS_MAX: usize = 8_192;

/// The engine's events on their way to a reader.
pub(super) struct Events {
    /// Each with the moment at which the engine gave it.
    receiver: Receiver<(Instant, engine::Event)>,
    is_overrun: Arc<AtomicBool>,
}

/// A sink for the engine, and where its events come out.
pub(super) fn channel() -> (engine::EventSink, Events) {
    let (sender, receiver) = mpsc::channel(UNREAD_EVENTS_MAX);
    let is_overrun = Arc::new(AtomicBool::new(false));
    let overrun = Arc::clone(&is_overrun);
    let sink = move |event| match sender.try_send((Instant::now(), event)) {
        Ok(()) => engine::Delivery::Taken,
        Err(error) => {
            overrun.fetch_or(matches!(error, TrySendError::Full(_)), Ordering::Relaxed);
            engine::Delivery::Gone
        }
    };
    (Box::new(sink), Events { receiver, is_overrun })
}

impl Events {
    /// Why they ended without a last one.
    fn broke_off(&self) -> ApiError {
        if self.is_overrun.load(Ordering::Relaxed) {
            ApiError::slow_reader(UNREAD_EVENTS_MAX)
        } else {
            ApiError::internal(&"the engine has stopped")
        }
    }
}

/// One choice on its way; dropping it cancels the engine's work.
pub(super) struct Answer {
    pub(super) events: Events,
    pub(super) ticket: Option<Ticket>,
    pub(super) reader: Reader,
}

impl Stream for Answer {
    type Item = Result<Piece, ApiError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(piece) = self.reader.ready.pop_front() {
                return Poll::Ready(Some(piece));
            }
            if self.reader.is_over {
                self.ticket = None;
                return Poll::Ready(None);
            }
            match self.events.receiver.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some((at, event))) => self.reader.take(at, event),
                Poll::Ready(None) => {
                    let error = self.events.broke_off();
                    self.reader.fail(error);
                }
            }
        }
    }
}

/// What token ids mean.
enum Voice {
    /// Thought, answer and calls.
    Chat(Box<Scanner>),
    /// Text and nothing else.
    Raw(Detokenizer),
}

impl Voice {
    fn push(&mut self, id: u32, tokenizer: &Tokenizer, deltas: &mut Vec<Delta>) {
        match self {
            Self::Chat(scanner) => scanner.push(id, deltas),
            Self::Raw(_) if tokenizer.is_hidden(id) => {}
            Self::Raw(text) => {
                deltas.push(Delta::Content(
                    text.push(tokenizer.token_bytes(id).unwrap_or("\u{fffd}".as_bytes())),
                ));
            }
        }
    }

    fn n_reasoning_tokens(&self) -> usize {
        match self {
            Self::Chat(scanner) => scanner.n_reasoning_tokens(),
            Self::Raw(_) => 0,
        }
    }

    fn finish(self, ending: Ending, deltas: &mut Vec<Delta>) -> (Finish, Option<Open>) {
        match self {
            Self::Chat(scanner) => {
                let summary = scanner.finish(ending, deltas);
                (summary.finish, summary.left_open)
            }
            Self::Raw(mut text) => {
                deltas.push(Delta::Content(text.finish()));
                (if ending == Ending::Cut { Finish::Length } else { Finish::Stop }, None)
            }
        }
    }
}

/// Turns the engine's events into pieces.
pub(super) struct Reader {
    voice: Voice,
    stops: StopStrings,
    tokenizer: Arc<Tokenizer>,
    ready: VecDeque<Result<Piece, ApiError>>,
    progress: Arc<Progress>,
    is_over: bool,
}

impl Reader {
    /// Reads a chat answer by `options`, or raw text where there are none.
    pub(super) fn new(
        tokenizer: &Arc<Tokenizer>,
        options: Option<ScannerOptions>,
        stops: &[String],
        progress: Arc<Progress>,
    ) -> Self {
        let chat = |options| Voice::Chat(Box::new(Scanner::new(Arc::clone(tokenizer), options)));
        Self {
            voice: options.map_or_else(|| Voice::Raw(Detokenizer::new()), chat),
            stops: StopStrings::new(stops),
            tokenizer: Arc::clone(tokenizer),
            ready: VecDeque::new(),
            progress,
            is_over: false,
        }
    }

    fn take(&mut self, at: Instant, event: engine::Event) {
        match event {
            engine::Event::Started { n_cached } => {
                let usage = self.progress.usage();
                let cached_tokens = usage.prompt_tokens.min(n_cached as u64);
                self.progress.set(Usage { cached_tokens, ..usage });
            }
            engine::Event::Token(token) => self.token(&token),
            engine::Event::Finished { finish, .. } => self.finished(finish),
        }
        if !self.ready.is_empty() {
            self.progress.piece_came(at);
        }
    }

    fn token(&mut self, token: &engine::TokenEvent) {
        let mut deltas = Vec::new();
        self.voice.push(token.id, &self.tokenizer, &mut deltas);
        let mut usage = self.progress.usage();
        usage.completion_tokens += 1;
        usage.reasoning_tokens = self.voice.n_reasoning_tokens() as u64;
        self.progress.set(usage);
        if token.logprob.is_some() {
            self.ready.push_back(Ok(Piece::Logprob(self.logprob(token))));
        }
        self.deltas(deltas);
    }

    fn logprob(&self, token: &engine::TokenEvent) -> TokenLogprob {
        let entry = |id: u32, logprob: f32, top: Vec<TokenLogprob>| {
            let bytes = self.tokenizer.token_bytes(id).unwrap_or_default();
            TokenLogprob {
                token: String::from_utf8_lossy(bytes).into_owned(),
                logprob: f64::from(logprob),
                bytes: Some(bytes.to_vec()),
                top_logprobs: top,
            }
        };
        let top = token.top_logprobs.iter().map(|rival| entry(rival.id, rival.logprob, Vec::new())).collect();
        entry(token.id, token.logprob.unwrap_or(f32::NEG_INFINITY), top)
    }

    /// Hands deltas on; answer text passes the stop strings first.
    fn deltas(&mut self, deltas: Vec<Delta>) {
        for delta in deltas {
            if self.is_over {
                return;
            }
            let Delta::Content(text) = delta else {
                self.flush();
                self.ready.push_back(Ok(Piece::Delta(delta)));
                continue;
            };
            let (certain, stop) = self.stops.push(&text);
            self.content(certain);
            if let Some(stop) = stop {
                self.end(Finish::Stop, Some(stop), None);
            }
        }
    }

    fn content(&mut self, text: String) {
        if !text.is_empty() {
            self.ready.push_back(Ok(Piece::Delta(Delta::Content(text))));
        }
    }

    fn flush(&mut self) {
        let held = self.stops.flush();
        self.content(held);
    }

    fn finished(&mut self, finish: engine::Finish) {
        let ending = match finish {
            engine::Finish::Stop { .. } | engine::Finish::MaskComplete => Ending::Complete,
            engine::Finish::Length => Ending::Cut,
            engine::Finish::Cancelled => return self.fail(ApiError::stopping()),
            engine::Finish::Failed(failure) => return self.fail(failure.into()),
        };
        let mut deltas = Vec::new();
        let voice = std::mem::replace(&mut self.voice, Voice::Raw(Detokenizer::new()));
        let (finish, left_open) = voice.finish(ending, &mut deltas);
        self.deltas(deltas);
        if !self.is_over {
            self.flush();
            self.end(finish, None, left_open);
        }
    }

    fn end(&mut self, finish: Finish, stop_string: Option<String>, left_open: Option<Open>) {
        self.is_over = true;
        let usage = self.progress.usage();
        self.ready.push_back(Ok(Piece::End(End { finish, stop_string, left_open, usage })));
    }

    fn fail(&mut self, error: ApiError) {
        self.is_over = true;
        self.ready.push_back(Err(error));
    }
}
