//! `generate`: continue a prompt, token by token.

use super::interrupt::Interrupted;
use super::logits::{Ids, parse_ids_arg};
use super::open::{ModelArgs, check_context, not_finite};
use crate::terminal::print;
use anyhow::{Context, bail};
use clap::Args;
use perilune_chat::tokenizer::{Detokenizer, SpecialText, Tokenizer};
use perilune_engine::sampler::{Allowed, Sampler, Sampling, Scratch};
use perilune_model::forward::Model;
use perilune_model::solo::{PREFILL_CHUNK, Solo};
use std::time::Instant;

/// The finish reason of a run that was asked to stop.
const INTERRUPTED: &str = "interrupted";

/// Continue a prompt (a low-level tool: the text goes in as it is, without the chat template)
#[derive(Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: Prompt,
    /// Tokens to generate at most
    #[arg(short, long, value_name = "N", default_value_t = 64)]
    n: usize,
    /// Sampling temperature; 0 takes the likeliest token each time
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = parse_temperature)]
    temperature: f32,
    /// Seed of the sampling
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Go on past the end-of-sequence ids
    #[arg(long)]
    ignore_eos: bool,
    /// Print one JSON object at the end instead of streaming
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Prompt {
    /// Prompt as text (needs the checkpoint's tiktoken.model); special-token names in it become special ids
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Prompt as token ids, as 1,2,3
    #[arg(long, value_name = "IDS", value_parser = parse_ids_arg)]
    ids: Option<Ids>,
}

fn parse_temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(t) if (0.0..=100.0).contains(&t) => Ok(t),
        _ => Err("expected a number from 0 to 100".to_owned()),
    }
}

/// What a run produced.
#[derive(serde::Serialize)]
struct Outcome {
    prompt_ids: Vec<u32>,
    ids: Vec<u32>,
    text: Option<String>,
    finish_reason: &'static str,
    prefill_s: f64,
    decode_s: f64,
    kernels: &'static str,
    #[serde(flatten)]
    memory: super::memory::Memory,
}

pub(crate) fn run(args: &GenerateArgs) -> anyhow::Result<()> {
    let tokenizer = tokenizer(args)?;
    let prompt_ids = match (&args.prompt.ids, &args.prompt.prompt, &tokenizer) {
        (Some(ids), _, _) => ids.0.clone(),
        (None, Some(text), Some(tokenizer)) => tokenizer.encode(text, SpecialText::AsTokens),
        _ => bail!("give a prompt by --prompt or --ids"),
    };
    if prompt_ids.is_empty() {
        bail!("the prompt is empty: give at least one token");
    }
    let model = args.model.model()?;
    let mut printer = Printer::new(tokenizer.as_ref(), args.json);
    let outcome = generate(args, &model, prompt_ids, &mut printer).inspect_err(|_| {
        // What was streamed ends its line before the error is told; that error is the one that counts.
        let _ = printer.finish();
    })?;
    printer.finish()?;
    if args.json {
        let text = tokenizer.as_ref().map(|t| t.decode(&outcome.ids));
        let outcome = Outcome { text, ..outcome };
        print(&(serde_json::to_string(&outcome)? + "\n"))?;
        return ended(outcome.finish_reason);
    } else {
        let rate = |n: usize, seconds: f64| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        eprintln!(
            "{} prompt tokens at {:.1} tokens/s, {} generated, after the first at {:.1} tokens/s ({}, {})",
            outcome.prompt_ids.len(),
            rate(outcome.prompt_ids.len(), outcome.prefill_s),
            outcome.ids.len(),
            rate(outcome.ids.len().saturating_sub(1), outcome.decode_s),
            outcome.kernels,
            outcome.finish_reason,
        );
    }
    ended(outcome.finish_reason)
}

/// An interrupted run has shown what it had, and still tells a script that it is not whole.
fn ended(finish_reason: &str) -> anyhow::Result<()> {
    if finish_reason == INTERRUPTED { Err(Interrupted.into()) } else { Ok(()) }
}

/// The checkpoint's tokenizer; needed for a text prompt, a convenience otherwise.
fn tokenizer(args: &GenerateArgs) -> anyhow::Result<Option<Tokenizer>> {
    let file = args.model.dir.join("tiktoken.model");
    match (Tokenizer::from_dir(&args.model.dir), &args.prompt.prompt) {
        (Ok(tokenizer), _) => Ok(Some(tokenizer)),
        (Err(_), None) => Ok(None),
        (Err(error), Some(_)) => Err(error)
            .with_context(|| format!("a text prompt needs the rank file {}; or give --ids", file.display())),
    }
}

fn generate(
    args: &GenerateArgs,
    model: &Model,
    prompt_ids: Vec<u32>,
    printer: &mut Printer<'_>,
) -> anyhow::Result<Outcome> {
    let stopped = super::interrupt::flag();
    let n_context = prompt_ids.len().saturating_add(args.n);
    check_context(model, n_context, 1)?;
    let mut solo = Solo::new(model, n_context);
    let bar = crate::terminal::bar("prefill", "tokens");
    bar.set_length(prompt_ids.len() as u64);
    let start = Instant::now();
    let mut logits = solo.prefill(&prompt_ids, PREFILL_CHUNK, |done| {
        bar.set_position(done as u64);
        !stopped.is_set()
    })?;
    bar.finish_and_clear();
    let prefill_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut ids = Vec::new();
    let sampling = Sampling { temperature: args.temperature, seed: args.seed, ..Sampling::default() };
    let (mut sampler, mut scratch) = (Sampler::new(sampling, &prompt_ids), Scratch::default());
    let finish_reason = loop {
        let Some(row) = logits.as_deref().filter(|_| !stopped.is_set()) else { break INTERRUPTED };
        if ids.len() == args.n {
            break "length";
        }
        let finite = row.iter().all(|logit| logit.is_finite());
        let drawn =
            if finite { sampler.sample(row, ids.len(), Allowed::default(), &mut scratch) } else { None };
        let Some(id) = drawn else { return Err(not_finite(&args.model.dir)) };
        if model.config().eos_token_ids.contains(&id) && !args.ignore_eos {
            break "stop";
        }
        ids.push(id);
        sampler.accept(id);
        printer.token(id)?;
        logits = if ids.len() < args.n { Some(solo.decode(id)?) } else { logits };
    };
    let decode_s = start.elapsed().as_secs_f64();
    let kernels = model.cpu().isa().name();
    let memory = super::memory::Memory::now();
    Ok(Outcome { prompt_ids, ids, text: None, finish_reason, prefill_s, decode_s, kernels, memory })
}

/// Prints tokens as they come: text where there is a tokenizer, ids otherwise.
struct Printer<'a> {
    tokenizer: Option<&'a Tokenizer>,
    detokenizer: Detokenizer,
    quiet: bool,
    n_tokens: usize,
}

impl<'a> Printer<'a> {
    fn new(tokenizer: Option<&'a Tokenizer>, quiet: bool) -> Self {
        Printer { tokenizer, detokenizer: Detokenizer::new(), quiet, n_tokens: 0 }
    }

    fn token(&mut self, id: u32) -> anyhow::Result<()> {
        let separator = if self.n_tokens > 0 { "," } else { "" };
        self.n_tokens += 1;
        let piece = match self.tokenizer {
            Some(tokenizer) => self.detokenizer.push(tokenizer.token_bytes(id).unwrap_or_default()),
            None => format!("{separator}{id}"),
        };
        self.print(&piece)
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        let rest = self.detokenizer.finish();
        self.print(&(rest + "\n"))
    }

    fn print(&self, text: &str) -> anyhow::Result<()> {
        if self.quiet { Ok(()) } else { print(text) }
    }
}
