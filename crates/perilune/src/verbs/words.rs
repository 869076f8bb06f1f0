//! The verbs of words: tokenize, detokenize, render, parse.

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use perilune_chat::message::Envelope;
use perilune_chat::scanner::{self, Ending, Open, Opening, Reply, ScannerOptions, Summary};
use perilune_chat::template::{Template, ToolForm};
use perilune_chat::tokenizer::{SpecialText, Tokenizer};
use perilune_chat::wire::{self, openai};
use serde_json::{Value, json};
use std::io::{Read, Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Text on stdin to token ids on one line.
#[derive(Args)]
pub(crate) struct Tokenize {
    /// Model folder (with tiktoken.model), or a rank file
    model: PathBuf,
    /// Read the names of special tokens in the text as those tokens
    #[arg(long)]
    special: bool,
    /// Write a JSON array instead of ids separated by spaces
    #[arg(long)]
    json: bool,
}

impl Tokenize {
    pub(crate) fn run(&self) -> Result<()> {
        let tokenizer = load(&self.model)?;
        let ids = tokenizer.encode(&text_from_stdin()?, special_text(self.special));
        if self.json { write_out(&format!("{}\n", json!(ids))) } else { write_out(&line_of(&ids)) }
    }
}

/// Token ids on stdin to their text, byte for byte, special tokens by name.
#[derive(Args)]
pub(crate) struct Detokenize {
    /// Model folder (with tiktoken.model), or a rank file
    model: PathBuf,
}

impl Detokenize {
    pub(crate) fn run(&self) -> Result<()> {
        let tokenizer = load(&self.model)?;
        let ids = ids_from_stdin(&tokenizer)?;
        stdout().write_all(&tokenizer.decode_bytes(&ids)).context("cannot write the text to stdout")
    }
}

/// A chat-completions request to the prompt exactly as the model will see it.
#[derive(Args)]
pub(crate) struct Render {
    /// Model folder (with tiktoken.model), or a rank file
    model: PathBuf,
    /// File with the request body as JSON
    #[arg(long, value_name = "FILE.json")]
    messages: PathBuf,
    /// Write token ids on one line instead of text
    #[arg(long)]
    ids: bool,
    /// With --ids: read the names of special tokens in messages as those tokens, as the published tokenizer does
    #[arg(long, requires = "ids")]
    special: bool,
    /// How tools are declared; without it the model folder's config.json decides
    #[arg(long, value_enum)]
    tool_form: Option<ToolFormArg>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ToolFormArg {
    Json,
    Typescript,
}

impl Render {
    pub(crate) fn run(&self) -> Result<()> {
        let tokenizer = load(&self.model)?;
        let request = open_request(&self.messages)?.request;
        let mut template = template_of(&self.model)?;
        match self.tool_form {
            None => {}
            Some(ToolFormArg::Json) => template.tool_form = ToolForm::Json,
            Some(ToolFormArg::Typescript) => template.tool_form = ToolForm::TypeScript,
        }
        let rendered = template.render(&request.conversation, request.thinking);
        if self.ids {
            return write_out(&line_of(&rendered.ids(&tokenizer, special_text(self.special))));
        }
        write_out(&rendered.text())
    }
}

/// Token ids of a reply on stdin to the parsed message as JSON.
#[derive(Args)]
pub(crate) struct Parse {
    /// Model folder (with tiktoken.model), or a rank file
    model: PathBuf,
    /// The request that was answered: its tools settle odd call ids, its end tells where the reply starts
    #[arg(long, value_name = "FILE.json")]
    messages: Option<PathBuf>,
    /// The ids stop at a token limit, not at the end of the reply
    #[arg(long)]
    cut: bool,
}

impl Parse {
    pub(crate) fn run(&self) -> Result<()> {
        let tokenizer = Arc::new(load(&self.model)?);
        let ids = ids_from_stdin(&tokenizer)?;
        let (opening, tool_names) = match &self.messages {
            None => (Opening::Unknown, Vec::new()),
            Some(path) => expectations(&template_of(&self.model)?, path)?,
        };
        let options = ScannerOptions { opening, tool_names, ..ScannerOptions::default() };
        let ending = if self.cut { Ending::Cut } else { Ending::Complete };
        let (reply, summary) = scanner::scan(&tokenizer, &ids, options, ending);
        let choice = serde_json::to_string_pretty(&choice_json(reply, summary))?;
        write_out(&format!("{choice}\n"))
    }
}

/// Where the reply to this request starts, and the tools that it may name.
fn expectations(template: &Template, path: &Path) -> Result<(Opening, Vec<String>)> {
    let request = open_request(path)?.request;
    let names = request.conversation.tools().iter().map(|tool| tool.name().to_owned()).collect();
    Ok((template.render(&request.conversation, request.thinking).opening(), names))
}

/// The reply as a choice of a chat completion, with what was damaged beside it.
fn choice_json(reply: Reply, summary: Summary) -> Value {
    let message = openai::ResponseMessage::from(reply);
    let finish_reason = openai::FinishReason::from(summary.finish);
    let mut choice = json!({ "message": message, "finish_reason": finish_reason });
    if let Some(open) = summary.left_open {
        choice["left_open"] = json!(match open {
            Open::Thinking => "thinking",
            Open::Section => "tool section",
            Open::CallId => "id of a tool call",
            Open::CallArguments => "arguments of a tool call",
        });
    }
    if summary.n_dropped_calls > 0 {
        choice["calls_without_name"] = json!(summary.n_dropped_calls);
    }
    choice
}

// ---- in and out ----

fn load(path: &Path) -> Result<Tokenizer> {
    let tokenizer = if path.is_dir() { Tokenizer::from_dir(path) } else { Tokenizer::from_rank_file(path) };
    Ok(tokenizer?)
}

/// The template that the model folder's config.json asks for; K2 Thinking's without one.
fn template_of(model: &Path) -> Result<Template> {
    let path = model.join("config.json");
    if !path.is_file() {
        return Ok(Template::default());
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(Template::of_model_type(config["model_type"].as_str().unwrap_or_default()))
}

fn special_text(special: bool) -> SpecialText {
    if special { SpecialText::AsTokens } else { SpecialText::AsText }
}

fn open_request(path: &Path) -> Result<Envelope> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let sent: openai::ChatRequest = wire::from_json(&bytes).with_context(|| path.display().to_string())?;
    Envelope::try_from(sent).with_context(|| path.display().to_string())
}

fn text_from_stdin() -> Result<String> {
    let mut bytes = Vec::new();
    stdin().read_to_end(&mut bytes).context("cannot read stdin")?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("stdin is not UTF-8 at byte {at}; convert the text to UTF-8 first")
    })
}

/// Ids separated by spaces, commas or line breaks, with or without brackets around them.
fn ids_from_stdin(tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let text = text_from_stdin()?;
    let is_separator = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']');
    let mut ids = Vec::new();
    for word in text.split(is_separator).filter(|word| !word.is_empty()) {
        let position = ids.len();
        let Ok(id) = word.parse::<u32>() else {
            bail!(
                "{word:?} at position {position} is not a token id; send numbers separated by spaces or commas"
            );
        };
        let n_vocab = tokenizer.n_vocab();
        let last = n_vocab - 1;
        ensure!(
            (id as usize) < n_vocab,
            "token id {id} at position {position} is not in the vocabulary; its last id is {last}"
        );
        ids.push(id);
    }
    Ok(ids)
}

fn line_of(ids: &[u32]) -> String {
    let words: Vec<String> = ids.iter().map(u32::to_string).collect();
    words.join(" ") + "\n"
}

fn write_out(text: &str) -> Result<()> {
    stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}
