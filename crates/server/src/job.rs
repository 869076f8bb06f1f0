//! One request at work: let in by its key's limits, opened in the ledger, settled however it ends.

use crate::answer::local::{Prepared, random_seed};
use crate::answer::{Folded, Piece, Pieces, Progress, sum};
use crate::app::{App, Client, Served};
use crate::error::ApiError;
use crate::limits::{Permit, Standing};
use crate::store::{Opened, Outcome, Status, StoreError};
use futures_util::stream::{SelectAll, select_all};
use futures_util::{Stream, StreamExt};
use perilune_chat::message::{Request, ResponseFormat};
use perilune_chat::model::Usage;
use perilune_chat::scanner::Reply;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A request whose body is read: who asks, for what, since when.
pub struct Ask {
    /// What the endpoints share.
    pub app: App,
    /// Who asks.
    pub client: Client,
    /// Id of the request, as `x-request-id` tells it.
    pub request_id: String,
    /// Path of the endpoint.
    pub route: &'static str,
    /// When its last byte had come.
    pub since: Instant,
    /// Bytes of its body.
    pub n_bytes: usize,
}

/// The choices of one request as they come, each piece with its choice's number.
pub struct Answers {
    choices: SelectAll<Numbered>,
    meter: Meter,
    n_unfinished: usize,
    last_piece: Option<Instant>,
}

type Numbered = Pin<Box<dyn Stream<Item = (u32, Result<Piece, ApiError>)> + Send>>;

impl Ask {
    /// Counts of a key that has something left to spend.
    fn check_balance(&self) -> Result<(), ApiError> {
        let balance = self.client.key.as_ref().and_then(|key| key.balance);
        if balance.is_some_and(|balance| balance.nano <= 0) { Err(ApiError::exhausted()) } else { Ok(()) }
    }

    /// Begins a chat request with `n_choices` choices, each token with `top_logprobs` alternatives where they are
    /// asked for; without a `model` the app's first serves it.
    ///
    /// # Errors
    /// A model that is not on offer, a request that it cannot take, a limit or balance that is used up, a server that
    /// stops or fails; then nothing is charged.
    pub async fn chat(
        self,
        model: Option<&str>,
        request: Request,
        n_choices: u32,
        top_logprobs: Option<u32>,
    ) -> Result<Answers, ApiError> {
        let (id, served) = self.app.served(model)?;
        match served.clone() {
            Served::Local(local) => {
                let model = local.model.clone();
                let seed = request.sampling.seed;
                let has_grammar = !request.conversation.tools().is_empty()
                    || request.response_format != ResponseFormat::Text;
                let n_bytes = if has_grammar { usize::MAX } else { self.n_bytes };
                let prepared = sized(n_bytes, move || model.prepare(&request, top_logprobs)).await?;
                self.local(&id, &served, vec![prepared], n_choices, seed).await
            }
            Served::Upstream(upstream) => {
                upstream.check(&request, n_choices, top_logprobs)?;
                let (mut meter, opened) = self.open(&id, &served, 0)?;
                opened.await?;
                meter.prepare = self.since.elapsed();
                let progress = (0..n_choices).map(|_| meter.progress()).collect();
                let pieces = upstream.pieces(request, top_logprobs, progress);
                Ok(meter.numbered([pieces]))
            }
        }
    }

    /// Begins raw completions: every prompt with `n_choices` choices, choice `i` drawn with `seed + i`; without a
    /// seed one is drawn.
    ///
    /// # Errors
    /// A model served elsewhere, a limit or balance that is used up, a full or stopping engine, a database that
    /// fails; then nothing is charged.
    pub async fn local(
        self,
        id: &str,
        served: &Served,
        prepared: Vec<Prepared>,
        n_choices: u32,
        seed: Option<u64>,
    ) -> Result<Answers, ApiError> {
        let Served::Local(local) = served else {
            let message =
                "this model is served by another endpoint: use /v1/chat/completions or /v1/messages";
            return Err(ApiError::invalid(Some("model"), message));
        };
        let seed = seed.map_or_else(random_seed, Ok)?;
        let n_prompt: usize = prepared.iter().map(|one| one.prompt.len()).sum();
        let (mut meter, opened) = self.open(id, served, n_prompt as u64)?;
        let mut choices = Vec::new();
        for one in &prepared {
            let mut first = None;
            for choice in 0..u64::from(n_choices) {
                let progress = meter.progress();
                let started = local.model.start(one, local.class, seed.wrapping_add(choice), first, progress);
                let (request, pieces) = started.inspect_err(|_| meter.status = Status::Failed)?;
                first.get_or_insert(request);
                choices.push(pieces);
            }
        }
        meter.prepare = self.since.elapsed();
        // The line is written while the engine begins; no byte of an answer leaves before it is.
        opened.await.inspect_err(|_| meter.status = Status::Failed)?;
        Ok(meter.answers(choices))
    }

    /// Passes the limits and has the ledger's line written, which the future waits for.
    fn open(
        &self,
        model: &str,
        served: &Served,
        n_prompt: u64,
    ) -> Result<(Meter, impl Future<Output = Result<(), StoreError>> + use<>), ApiError> {
        self.check_balance()?;
        if self.app.is_draining() {
            return Err(ApiError::stopping());
        }
        let enter =
            |key: &crate::store::Key| self.app.limiter().enter(key.id, key.limits, n_prompt, Instant::now());
        let permit = self.client.key.as_ref().map(enter).transpose()?;
        let opened = Opened {
            request_id: self.request_id.clone(),
            key_id: self.client.key.as_ref().map(|key| key.id),
            model: model.to_owned(),
            class: served.class(),
            route: self.route,
        };
        let opened = self.app.store().open_line(opened);
        let meter = Meter {
            app: self.app.clone(),
            request_id: self.request_id.clone(),
            model: model.to_owned(),
            class: served.class(),
            permit,
            n_prompt,
            progress: Vec::new(),
            status: Status::Cancelled,
            since: self.since,
            prepare: Duration::ZERO,
            has_begun: false,
        };
        Ok((meter, opened))
    }
}

/// Bytes of a request up to which its work takes less time than handing it to another thread.
const SMALL_BYTES: usize = 16 << 10;

/// Runs the work of a request of `n_bytes` here up to 16 KiB, else off the async threads.
///
/// # Errors
/// As [`blocking`].
pub async fn sized<T: Send + 'static>(
    n_bytes: usize,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if n_bytes <= SMALL_BYTES { work() } else { blocking(work).await }
}

/// Runs work that takes milliseconds off the async threads.
///
/// # Errors
/// What the work said, or status 500 where it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&error))?
}

/// Settles a request when it is dropped, in whatever state it is then.
struct Meter {
    app: App,
    request_id: String,
    model: String,
    class: &'static str,
    permit: Option<Permit>,
    /// Tokens of the prompt that the permit has taken.
    n_prompt: u64,
    progress: Vec<Arc<Progress>>,
    status: Status,
    since: Instant,
    /// From `since` to the engine's channel.
    prepare: Duration,
    has_begun: bool,
}

impl Meter {
    /// A place for the counts of one more choice.
    fn progress(&mut self) -> Arc<Progress> {
        let progress = Arc::<Progress>::default();
        self.progress.push(Arc::clone(&progress));
        progress
    }

    fn usage(&self) -> Usage {
        sum(self.progress.iter().map(|progress| progress.usage()))
    }

    fn answers(self, choices: Vec<Pieces>) -> Answers {
        let number = |(idx, pieces): (usize, Pieces)| -> Numbered {
            Box::pin(pieces.map(move |piece| (idx as u32, piece)))
        };
        self.numbered(choices.into_iter().enumerate().map(number))
    }

    /// The same where the streams number their choices themselves; there are as many as there are places for counts.
    fn numbered(mut self, streams: impl IntoIterator<Item = Numbered>) -> Answers {
        self.app.metrics().begun();
        self.has_begun = true;
        let n_unfinished = self.progress.len();
        Answers { choices: select_all(streams), meter: self, n_unfinished, last_piece: None }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let usage = self.usage();
        self.app.store().settle_line(self.request_id.clone(), Outcome { status: self.status, usage });
        if let Some(permit) = &self.permit {
            // Prompts of elsewhere are counted there, when the answer has come.
            let uncounted = usage.prompt_tokens.saturating_sub(self.n_prompt);
            permit.take_tokens(usage.completion_tokens + uncounted);
        }
        if self.has_begun {
            self.app.metrics().ended(&self.model, usage);
        }
        tracing::info!(
            request_id = %self.request_id, model = %self.model, status = self.status.name(),
            prompt_tokens = usage.prompt_tokens, cached_tokens = usage.cached_tokens,
            completion_tokens = usage.completion_tokens, elapsed_ms = self.since.elapsed().as_millis() as u64,
            "request settled"
        );
    }
}

impl Answers {
    /// Number of choices, of all prompts together.
    #[must_use]
    pub fn n_choices(&self) -> usize {
        self.meter.progress.len()
    }

    /// Tokens used so far, of all choices together.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.meter.usage()
    }

    /// What was left of the key's limits when the request was let in.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.meter.permit.as_ref().map(|permit| permit.standing).unwrap_or_default()
    }

    /// Id of the served model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.meter.model
    }

    /// Id of the request.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.meter.request_id
    }

    /// All choices in full, by number.
    ///
    /// # Errors
    /// What the first choice that fails says; status 500 where one ends without a last piece.
    pub async fn whole(&mut self) -> Result<Vec<Folded>, ApiError> {
        let mut replies = vec![(Reply::default(), Vec::new(), None); self.n_choices()];
        while let Some((choice, piece)) = self.next().await {
            let (reply, logprobs, end) = &mut replies[choice as usize];
            match piece? {
                Piece::Delta(delta) => reply.add(delta),
                Piece::Logprob(logprob) => logprobs.push(logprob),
                Piece::End(ended) => *end = Some(ended),
            }
        }
        let whole = |(reply, logprobs, end): (Reply, Vec<_>, Option<_>)| {
            let end = end.ok_or_else(|| ApiError::internal(&"an answer broke off without an end"))?;
            Ok(Folded { reply, logprobs, end })
        };
        replies.into_iter().map(whole).collect()
    }

    fn note(&mut self, piece: &Result<Piece, ApiError>) {
        match piece {
            // What was read by then is charged, as where a client goes away.
            Err(error) if error.is_slow_reader() => {}
            Err(_) => self.meter.status = Status::Failed,
            Ok(Piece::End(_)) => {
                self.n_unfinished -= 1;
                if self.n_unfinished == 0 && self.meter.status == Status::Cancelled {
                    self.meter.status = Status::Done;
                }
            }
            Ok(_) => {}
        }
        let now = Instant::now();
        let (metrics, class) = (self.meter.app.metrics(), self.meter.class);
        match self.last_piece.replace(now) {
            None => {
                let Meter { since, prepare, progress, .. } = &self.meter;
                let delivery = progress.iter().filter_map(|progress| progress.since_first_piece()).max();
                metrics.first_piece(class, now - *since, *prepare, delivery);
            }
            Some(last) => metrics.next_piece(class, now - last),
        }
    }
}

impl Stream for Answers {
    type Item = (u32, Result<Piece, ApiError>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.choices.poll_next_unpin(cx);
        if let Poll::Ready(Some((_, piece))) = &next {
            self.note(piece);
        }
        next
    }
}
