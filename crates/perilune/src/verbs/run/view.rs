//! What a person, or a program, sees of a run.

use crate::terminal::{harmless, has_colour, print};
use perilune_agent::gate::GateEvent;
use perilune_agent::journal::{Entry, Event, said};
use perilune_agent::run::Listener;
use std::fmt::Write;
use std::io::stdout;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Characters of a thought or result that the terminal shows.
const SHOWN_CHARS: usize = 600;

/// Events on standard output.
pub(in crate::verbs) struct View {
    as_json: bool,
    has_colour: bool,
    is_denied: AtomicBool,
    n_steps: AtomicU64,
}

impl View {
    pub(in crate::verbs) fn new(as_json: bool) -> Self {
        let has_colour = has_colour(&stdout());
        Self { as_json, has_colour, is_denied: AtomicBool::new(false), n_steps: AtomicU64::new(0) }
    }

    /// Shows what the run starts from, and takes in what happened before it was taken up again.
    pub(super) fn begin(&self, name: &str, entries: &[Entry]) {
        for entry in entries {
            self.count(&entry.event);
        }
        match entries.first() {
            Some(entry) if self.as_json && entries.len() == 1 => self.event(entry),
            _ if self.as_json => {}
            _ => show(&format!("run {name}\n")),
        }
    }

    /// Whether the last call that was settled was denied.
    pub(super) fn was_denied(&self) -> bool {
        self.is_denied.load(Ordering::Relaxed)
    }

    fn count(&self, event: &Event) {
        match event {
            Event::Answered { .. } => {
                self.n_steps.fetch_add(1, Ordering::Relaxed);
            }
            Event::Told { text, .. } => {
                self.is_denied.store(text.starts_with("denied: "), Ordering::Relaxed);
            }
            Event::Outcome { .. } => self.is_denied.store(false, Ordering::Relaxed),
            _ => {}
        }
    }

    /// What starts strong, faint and cyan, and what ends each; nothing where there is no colour.
    fn inks(&self) -> [&'static str; 4] {
        if self.has_colour { ["\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[0m"] } else { [""; 4] }
    }

    fn text(&self, event: &Event) -> String {
        let mut text = String::new();
        let written = match event {
            Event::Answered { reasoning, calls, tokens, .. } => {
                let n_steps = self.n_steps.load(Ordering::Relaxed);
                let [bold, dim, cyan, plain] = self.inks();
                let (prompt, completion) = (tokens.prompt, tokens.completion);
                let head = writeln!(
                    text,
                    "\n{bold}step {n_steps}{plain} ({prompt} prompt tokens, {completion} generated)"
                );
                let thought = match reasoning.trim() {
                    "" => Ok(()),
                    thought => writeln!(text, "{dim}  {}{plain}", brief(thought)),
                };
                let calls = calls.iter().try_for_each(|call| {
                    let (name, arguments) = (harmless(&call.name), brief(&call.arguments));
                    writeln!(text, "  call {cyan}{name}{plain} {arguments}")
                });
                head.and(thought).and(calls)
            }
            Event::Gate { gate: GateEvent::Asked { .. }, .. } => Ok(()),
            Event::Gate { gate, .. } => writeln!(text, "  {}", harmless(&said(gate))),
            Event::Outcome { shown, took_ms, .. } => {
                writeln!(text, "  result ({took_ms} ms)\n  {}", brief(shown))
            }
            Event::Told { text: told, .. } => writeln!(text, "  {}", brief(told)),
            Event::ModelFailed { error, .. } => writeln!(text, "  {}; asked again", brief(error)),
            Event::Folded { folds } => {
                let (n_hidden, n_folded) = (folds.n_hidden, folds.n_folded);
                writeln!(text, "  out of sight: results of {n_hidden} steps, {n_folded} of them folded")
            }
            Event::TurnEnded { remark: Some(remark) } => writeln!(text, "  note: {}", brief(remark)),
            _ => Ok(()),
        };
        written.map_or_else(|_| String::new(), |()| text)
    }
}

impl Listener for View {
    fn event(&self, entry: &Entry) {
        self.count(&entry.event);
        if self.as_json {
            show(&(serde_json::to_string(entry).unwrap_or_default() + "\n"));
        } else {
            show(&self.text(&entry.event));
        }
    }
}

/// The journal holds everything, so a reader that went away stops nothing.
pub(super) fn show(text: &str) {
    let _ = print(text);
}

fn brief(text: &str) -> String {
    let text = harmless(text).replace('\n', "\n  ");
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text,
    }
}
