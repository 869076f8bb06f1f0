//! `chat`: a conversation in the terminal.

use super::data::wait;
use super::open::{Chosen, RunArgs};
use super::resident::Resident;
use crate::terminal::{harmless, has_colour};
use anyhow::Context;
use futures_util::StreamExt;
use perilune_chat::message::{Conversation, Message, Request};
use perilune_chat::model::{ChatModel, Event, Usage};
use perilune_chat::scanner::{Delta, Reply};
use perilune_engine::Settings;
use perilune_engine::request::Class;
use perilune_server::answer::served::ServedModel;
use perilune_server::app::TURBO_ID;
use std::io::{BufRead, IsTerminal, Write, stdin, stdout};
use std::path::PathBuf;
use std::time::Instant;

/// Talk with a model in the terminal. An empty line or end of input ends it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of a checkpoint: config.json, safetensors and tiktoken.model [default: the setting
    /// `model`, else the embedded model]
    model: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Instructions to begin with
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Tokens of an answer at most, thinking included
    #[arg(long, value_name = "N")]
    max_tokens: Option<u64>,
    /// Tokens of thinking at most
    #[arg(long, value_name = "N")]
    thinking_tokens: Option<u64>,
    /// Sampling temperature
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Seed of the sampling
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Tokens that the cache holds
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = clap::value_parser!(u32).range(64..))]
    cache_tokens: u32,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let chosen = Chosen::new(args.model.as_deref(), &args.run)?;
    let resident = Resident::start(&chosen.args, args.cache_tokens as usize, Settings::default())?;
    let model =
        ServedModel { name: TURBO_ID.to_owned(), model: resident.model.clone(), class: Class::Latency };
    let talked = wait(talk(args, &model))?;
    resident.engine.stop();
    talked
}

async fn talk(args: &Args, model: &dyn ChatModel) -> anyhow::Result<()> {
    let mut messages = Vec::new();
    messages.extend(args.system.clone().map(|text| Message::System { name: None, text }));
    let (mut screen, is_asked) = (Screen::new(), stdin().is_terminal());
    loop {
        if is_asked {
            screen.write("> ")?;
        }
        let mut line = String::new();
        let n_read = stdin().lock().read_line(&mut line).context("cannot read what you typed")?;
        if n_read == 0 || line.trim().is_empty() {
            return Ok(());
        }
        messages.push(Message::User { name: None, text: line.trim_end().to_owned() });
        let reply = answer(args, model, &messages, &mut screen).await?;
        messages.push(Message::Assistant(reply.into()));
    }
}

async fn answer(
    args: &Args,
    model: &dyn ChatModel,
    messages: &[Message],
    screen: &mut Screen,
) -> anyhow::Result<Reply> {
    let mut request = Request::new(Conversation::new(messages.to_vec(), Vec::new())?);
    request.max_tokens = args.max_tokens;
    request.thinking.budget_tokens = args.thinking_tokens;
    request.sampling.temperature = args.temperature;
    request.sampling.seed = args.seed;
    let (since, mut reply, mut usage) = (Instant::now(), Reply::default(), Usage::default());
    let mut events = model.answer(request);
    while let Some(event) = events.next().await {
        match event? {
            Event::Delta(delta) => {
                screen.delta(&delta)?;
                reply.add(delta);
            }
            Event::Usage(counted) => usage = counted,
            Event::Finish { .. } => {}
        }
    }
    screen.end(&usage, since)?;
    Ok(reply)
}

/// The terminal: thinking is dimmed where colours are.
struct Screen {
    has_colour: bool,
    is_dim: bool,
}

impl Screen {
    fn new() -> Self {
        Self { has_colour: has_colour(&stdout()), is_dim: false }
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        let mut out = stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    fn dim(&mut self, is_dim: bool) -> anyhow::Result<()> {
        if self.is_dim == is_dim {
            return Ok(());
        }
        self.is_dim = is_dim;
        match (self.has_colour, is_dim) {
            (true, true) => self.write("\x1b[2m"),
            (true, false) => self.write("\x1b[0m\n\n"),
            (false, true) => self.write("[thinking] "),
            (false, false) => self.write("\n[answer] "),
        }
    }

    fn delta(&mut self, delta: &Delta) -> anyhow::Result<()> {
        self.dim(matches!(delta, Delta::Reasoning(_)))?;
        match delta {
            Delta::Reasoning(text) | Delta::Content(text) => self.write(&harmless(text)),
            Delta::ToolCallBegin { name, .. } => self.write(&format!("\n[call] {} ", harmless(name))),
            Delta::ToolCallArguments { text, .. } => self.write(&harmless(text)),
            Delta::ToolCallEnd { .. } => self.write("\n"),
        }
    }

    fn end(&mut self, usage: &Usage, since: Instant) -> anyhow::Result<()> {
        if self.is_dim {
            self.is_dim = false;
            self.write(if self.has_colour { "\x1b[0m" } else { "" })?;
        }
        self.write("\n")?;
        let seconds = since.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 { usage.completion_tokens as f64 / seconds } else { 0.0 };
        eprintln!(
            "{} prompt tokens ({} cached), {} generated, {rate:.1} tokens/s",
            usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens
        );
        Ok(())
    }
}
