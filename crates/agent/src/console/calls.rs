//! A call, a question on it, and what came of it.

use super::{Pages, brief, files, run_path};
use crate::gate::{Approval, Decision, GateEvent, ProposedCall, Resource};
use crate::journal::{Settled, TracedCall, said};
use crate::tools::{OWN_FOLDER, Output};
use maud::{Markup, html};
use serde_json::{Map, Value};

/// Characters of one text that a page shows; the whole is in the call's file.
const TEXT_CHARS: usize = 4_000;
/// Characters of a text in its fold's line.
pub(super) const LINE_CHARS: usize = 100;

/// A call with its decisions and its result.
pub(super) fn call(pages: &Pages, run: &str, call: &TracedCall) -> Markup {
    html! {
        section.call {
            h3 { "Call " (call.number) ": " code { (call.text.name) } }
            (written(&call.text.arguments))
            @if !call.gate.is_empty() {
                ul.gate { @for event in &call.gate { (gate(event)) } }
            }
            @if let Some(edited) = call.edited() { p.hint { "Attempted with" } (arguments(edited)) }
            (settled(pages, run, call))
        }
    }
}

/// Arguments as the model wrote them.
fn written(text: &str) -> Markup {
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(object) => arguments(&object),
        Err(_) => html! { pre { (cut(text)) } },
    }
}

/// Arguments by name; strings stand as they are, so that a text has its lines.
pub(super) fn arguments(object: &Map<String, Value>) -> Markup {
    html! {
        dl.arguments { @for (name, value) in object { div {
            dt { code { (name) } }
            dd { @match value {
                Value::String(text) => pre { (cut(text)) },
                value => code { (value) },
            } }
        } } }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS) {
        Some((end, _)) => format!("{}\n… ({} bytes in all)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// What the gate did.
fn gate(event: &GateEvent) -> Markup {
    let kind = match event {
        GateEvent::Decided { decision: Decision::Allow { .. } } => "allow",
        GateEvent::Decided { decision: Decision::Deny { .. } } => "deny",
        GateEvent::Answered { approval: Approval::Denied { .. } } => "deny",
        GateEvent::Answered { .. } => "allow",
        GateEvent::Decided { .. } | GateEvent::Asked { .. } => "ask",
    };
    html! { li class=(kind) { (said(event)) } }
}

fn settled(pages: &Pages, run: &str, call: &TracedCall) -> Markup {
    match &call.settled {
        None => html! { p.hint { "no result yet" } },
        Some(Settled::Told(text)) => html! { p.told { "not attempted: " (text) } },
        Some(Settled::Done { output, took_ms }) => html! {
            details.result {
                summary {
                    @if output.is_done { "Result" } @else { span.failed { "Failed" } }
                    " · " (pages.count(*took_ms)) " ms · " span.dim { (brief(&output.text, LINE_CHARS)) }
                }
                pre tabindex="0" { (cut(&output.text)) }
                @if output.text.len() > TEXT_CHARS {
                    p { a href=(format!("{}/file/calls/{}.txt", run_path(run), call.number)) { "The whole result" } }
                }
            }
            (artefacts(run, output))
        },
    }
}

/// Files that a call left for people; pictures are shown.
fn artefacts(run: &str, output: &Output) -> Markup {
    let paths = output.artefacts.iter();
    let paths: Vec<&str> =
        paths.map(|path| path.strip_prefix(OWN_FOLDER).unwrap_or(path).trim_start_matches('/')).collect();
    html! { @if !paths.is_empty() {
        ul.artefacts { @for path in paths { li { (files::shown(run, path)) } } }
    } }
}

/// What a call touches, one thing a line.
pub(super) fn touched(call: &ProposedCall) -> Markup {
    let thing = |resource: &Resource| match resource {
        Resource::Path { access, path } => {
            let access = format!("{access:?}").to_lowercase();
            html! { (access) "s " code { (path) } }
        }
        Resource::Host { host, port } => html! {
            "asks " code { (host) @if let Some(port) = port { ":" (port) } }
        },
        Resource::Command { text } => html! { "runs " code { (cut(text)) } },
    };
    html! { @if !call.resources.is_empty() {
        ul.touched { @for resource in &call.resources { li { (thing(resource)) } } }
    } }
}
