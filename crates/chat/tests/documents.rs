//! Runs `tests/documents/**/*.md`; with `PERILUNE_UPDATE=1` it rewrites their expectations.
//!
//! A case has one source and any of its expectations:
//! - `request` (chat completions body) or `anthropic` (messages body), with `options` for the template:
//!   `prompt` (the rendered text) or `error` (the refusal);
//! - `completion` (text, markers by name) or `tokens` (a trace), with `options` for the scanner:
//!   `tokens`, `deltas` (token by token, every boundary shown), `reply` (the sum).
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

mod support;

use perilune_chat::message::{Envelope, Invalid};
use perilune_chat::scanner::{
    Closing, Delta, Ending, Finish, Open, Opening, Reply, Scanner, ScannerOptions, Summary,
};
use perilune_chat::template::{PartialForm, Template, ThinkPrefill, ToolForm};
use perilune_chat::tokenizer::{SpecialText, Tokenizer};
use perilune_chat::wire;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;
use support::document::{self, Case};
use support::{trace, twin};

#[test]
fn documents() {
    let update = std::env::var_os("PERILUNE_UPDATE").is_some();
    let tokenizer = support::small_tokenizer();
    let (mut n_cases, mut failures) = (0, Vec::new());
    for mut document in document::all(&support::tests_dir().join("documents")) {
        for case in &mut document.cases {
            let Some(found) = run(case, &tokenizer) else { continue };
            n_cases += 1;
            for (kind, found) in found {
                let Some(expected) = case.get(kind) else { continue };
                if equal(kind, expected, &found) {
                    continue;
                }
                if update {
                    case.set(kind, &found);
                } else {
                    let path = document.path.display();
                    let title = &case.title;
                    failures.push(format!(
                        "{path}: {title}: {kind}\n  expected: {expected}\n  found:    {found}"
                    ));
                }
            }
        }
        if update {
            document.write();
        }
    }
    assert!(failures.is_empty(), "{} of {n_cases} cases differ\n{}", failures.len(), failures.join("\n\n"));
    println!("{n_cases} cases");
    assert!(n_cases >= 40, "only {n_cases} cases were found");
}

fn equal(kind: &str, expected: &str, found: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    expected == found || (kind == "reply" && value(expected).is_some() && value(expected) == value(found))
}

/// What the case gives, by kind of fence; `None` for prose alone.
fn run(case: &Case, tokenizer: &Arc<Tokenizer>) -> Option<Vec<(&'static str, String)>> {
    let options: Value = case.get("options").map_or(json!({}), |text| serde_json::from_str(text).unwrap());
    if let Some(body) = case.get("request") {
        return Some(prompt(open::<wire::openai::ChatRequest>(body), &options));
    }
    if let Some(body) = case.get("anthropic") {
        return Some(prompt(open::<wire::anthropic::MessagesRequest>(body), &options));
    }
    let ids = match case.get("completion") {
        Some(text) => tokenizer.encode(text, SpecialText::AsTokens),
        None => trace::read(tokenizer, case.get("tokens")?),
    };
    Some(scan(tokenizer, &ids, &options))
}

// ---- through the door to the prompt ----

fn open<T: serde::de::DeserializeOwned>(body: &str) -> Result<Envelope, String>
where
    Envelope: TryFrom<T, Error = Invalid>,
{
    let sent: T = wire::from_json(body.as_bytes()).map_err(|error| error.to_string())?;
    Envelope::try_from(sent).map_err(|error| error.to_string())
}

fn prompt(opened: Result<Envelope, String>, options: &Value) -> Vec<(&'static str, String)> {
    match opened {
        Err(error) => vec![("error", error.clone()), ("prompt", format!("refused: {error}"))],
        Ok(envelope) => {
            let request = envelope.request;
            let rendered = template(options).render(&request.conversation, request.thinking);
            vec![("prompt", rendered.text()), ("error", "accepted".to_owned())]
        }
    }
}

fn template(options: &Value) -> Template {
    let mut template = Template::default();
    for (key, value) in options.as_object().unwrap() {
        match (key.as_str(), value) {
            ("tool_form", Value::String(form)) if form == "typescript" => {
                template.tool_form = ToolForm::TypeScript
            }
            ("generation_prompt", Value::Bool(on)) => template.generation_prompt = *on,
            ("think_prefill", Value::Bool(true)) => template.think_prefill = ThinkPrefill::On,
            ("partial_form", Value::String(form)) if form == "bare" => {
                template.partial_form = PartialForm::Bare
            }
            ("default_system", Value::Null) => template.default_system = None,
            other => panic!("unknown template option {other:?}"),
        }
    }
    template
}

// ---- through the scanner ----

fn scanner_options(options: &Value) -> (ScannerOptions, Ending) {
    let mut scanner = ScannerOptions::default();
    let mut ending = Ending::Complete;
    for (key, value) in options.as_object().unwrap() {
        match (key.as_str(), value) {
            ("opening", Value::String(word)) if word == "thinking" => scanner.opening = Opening::Thinking,
            ("opening", Value::String(word)) if word == "answer" => scanner.opening = Opening::Answer,
            ("tools", Value::Array(names)) => {
                scanner.tool_names = names.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            }
            ("cut", Value::Bool(true)) => ending = Ending::Cut,
            ("undecided_tokens_max", Value::Number(n)) => {
                scanner.undecided_tokens_max = n.as_u64().unwrap() as usize
            }
            other => panic!("unknown scanner option {other:?}"),
        }
    }
    (scanner, ending)
}

fn scan(tokenizer: &Arc<Tokenizer>, ids: &[u32], options: &Value) -> Vec<(&'static str, String)> {
    let (options, ending) = scanner_options(options);
    let mut deltas = Vec::new();
    let mut scanner = Scanner::new(Arc::clone(tokenizer), options.clone());
    scanner.push_all(ids, &mut deltas);
    let summary = scanner.finish(ending, &mut deltas);
    let written = deltas_text(&deltas, &summary);
    let reply: Reply = deltas.into_iter().collect();
    if options.undecided_tokens_max > ids.len() {
        assert_eq!(
            (reply.clone(), summary),
            twin::parse(tokenizer, ids, &options, ending),
            "the twin disagrees"
        );
    }
    let reply = serde_json::to_string_pretty(&reply_json(&reply, &summary)).unwrap();
    vec![("tokens", trace::write(tokenizer, ids)), ("deltas", written), ("reply", reply)]
}

/// One line per run of deltas of one kind, with a boundary between deltas.
fn deltas_text(deltas: &[Delta], summary: &Summary) -> String {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for delta in deltas {
        let (head, text) = match delta {
            Delta::Reasoning(text) => ("reasoning".to_owned(), text.clone()),
            Delta::Content(text) => ("content".to_owned(), text.clone()),
            Delta::ToolCallBegin { index, id, name } => {
                (format!("call {index}"), format!("{id} calls {name}"))
            }
            Delta::ToolCallArguments { index, text } => (format!("arguments {index}"), text.clone()),
            Delta::ToolCallEnd { index, closing } => {
                (format!("end {index}"), closing_word(*closing).to_owned())
            }
        };
        match lines.last_mut() {
            Some((last, texts)) if *last == head => texts.push(text),
            _ => lines.push((head, vec![text])),
        }
    }
    let mut written = String::new();
    for (head, texts) in lines {
        let texts: Vec<_> = texts.iter().map(|text| trace::escape(text)).collect();
        writeln!(written, "{head:11} │{}", texts.join(&trace::BOUNDARY.to_string())).unwrap();
    }
    write!(written, "{:11} │{}", "finish", finish_word(summary.finish)).unwrap();
    if let Some(open) = summary.left_open {
        write!(written, ", {} left open", open_word(open)).unwrap();
    }
    written
}

fn reply_json(reply: &Reply, summary: &Summary) -> Value {
    let mut json = json!({});
    if !reply.reasoning.is_empty() {
        json["reasoning"] = json!(reply.reasoning);
    }
    if !reply.content.is_empty() {
        json["content"] = json!(reply.content);
    }
    if !reply.tool_calls.is_empty() {
        let call = |call: &perilune_chat::scanner::Call| {
            json!([call.id, call.name, call.arguments, call.closing.map(closing_word)])
        };
        json["calls"] = reply.tool_calls.iter().map(call).collect();
    }
    json["finish"] = json!(finish_word(summary.finish));
    if let Some(open) = summary.left_open {
        json["left_open"] = json!(open_word(open));
    }
    if summary.n_dropped_calls > 0 {
        json["dropped_calls"] = json!(summary.n_dropped_calls);
    }
    json
}

fn closing_word(closing: Closing) -> &'static str {
    match closing {
        Closing::Marker => "marker",
        Closing::Implied => "implied",
        Closing::Cut => "cut",
    }
}

fn finish_word(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::ToolCalls => "tool_calls",
        Finish::Length => "length",
    }
}

fn open_word(open: Open) -> &'static str {
    match open {
        Open::Thinking => "thinking",
        Open::Section => "section",
        Open::CallId => "call_id",
        Open::CallArguments => "call_arguments",
    }
}
