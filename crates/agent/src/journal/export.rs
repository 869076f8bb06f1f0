//! A run for others: its events a line each, or its steps as a page of Markdown.

use super::{Entry, Note, Settled, Step, Summary, Trace, TracedCall};
use crate::gate::{Approval, Decision, GateEvent};
use std::fmt::{self, Write};

/// A run as JSON lines: one [`Entry`] each, in order.
///
/// # Errors
/// What `out` says where it does not take them.
pub fn lines(entries: &[Entry], out: &mut dyn std::io::Write) -> std::io::Result<()> {
    entries.iter().try_for_each(|entry| {
        serde_json::to_writer(&mut *out, entry)?;
        out.write_all(b"\n")
    })
}

/// A run as Markdown, a heading a step. What tools and models wrote stands in fences that it cannot close.
#[must_use]
pub fn markdown(entries: &[Entry]) -> String {
    let mut out = String::new();
    write(&mut out, entries).expect("writing to a string cannot fail");
    out
}

fn write(out: &mut String, entries: &[Entry]) -> fmt::Result {
    let (summary, trace) = (Summary::of(entries), Trace::of(entries));
    let opened = &summary.opened;
    writeln!(out, "# Run {}\n", opened.run)?;
    fenced(out, "Task", &opened.task)?;
    writeln!(out, "- model: {}\n- workspace: {}", inline(&opened.model), inline(&opened.workspace))?;
    if let Some(from) = &opened.forked_from {
        writeln!(out, "- forked from: {}", inline(from))?;
    }
    let ledger = &summary.ledger;
    writeln!(out, "- steps: {}, calls: {}", ledger.n_steps, summary.n_calls)?;
    let tokens = &ledger.tokens;
    let (prompt, cached, completion) = (tokens.prompt, tokens.cached, tokens.completion);
    writeln!(out, "- tokens: {prompt} prompt ({cached} cached), {completion} generated")?;
    if let Some(cost) = summary.cost_micros() {
        writeln!(out, "- cost: {:.6}", cost as f64 / 1e6)?;
    }
    for step in &trace.steps {
        write_step(out, step)?;
    }
    match &trace.ended {
        Some((how, text)) => {
            writeln!(out, "\n## End: {}\n", super::Stand::Ended(*how).name())?;
            fenced(out, "", text)
        }
        None => writeln!(out, "\nThe run is not over."),
    }
}

fn write_step(out: &mut String, step: &Step) -> fmt::Result {
    writeln!(out, "\n## Step {}\n", step.number)?;
    for note in &step.notes {
        match note {
            Note::Folded(folds) => writeln!(
                out,
                "Out of the model's sight from here: results of the first {} steps, of these {} folded.\n",
                folds.n_hidden, folds.n_folded
            )?,
            Note::ModelFailed(error, attempt) => {
                fenced(out, &format!("The model did not answer ({attempt})"), error)?;
            }
            Note::Resumed => writeln!(out, "The run was taken up again.\n")?,
            Note::Remark(text) => fenced(out, "Remark to the model", text)?,
        }
    }
    if !step.reasoning.trim().is_empty() {
        fenced(out, "Thinking", &step.reasoning)?;
    }
    if !step.content.trim().is_empty() {
        fenced(out, if step.is_cut { "Words, cut" } else { "Words" }, &step.content)?;
    }
    step.calls.iter().try_for_each(|call| write_call(out, call))
}

fn write_call(out: &mut String, call: &TracedCall) -> fmt::Result {
    writeln!(out, "### Call {}: {}\n", call.number, inline(&call.text.name))?;
    fenced(out, "", &call.text.arguments)?;
    for event in &call.gate {
        writeln!(out, "- {}", inline(&said(event)))?;
    }
    if !call.gate.is_empty() {
        writeln!(out)?;
    }
    if let Some(edited) = call.edited() {
        fenced(out, "Attempted with", &serde_json::Value::Object(edited.clone()).to_string())?;
    }
    match &call.settled {
        Some(Settled::Done { output, took_ms }) => {
            fenced(out, &format!("Result ({took_ms} ms)"), &output.text)
        }
        Some(Settled::Told(text)) => fenced(out, "Not attempted", text),
        None => writeln!(out, "Not settled.\n"),
    }
}

/// What the gate did, in one sentence.
#[must_use]
pub fn said(event: &GateEvent) -> String {
    match event {
        GateEvent::Decided { decision: Decision::Allow { rule } } => format!("allowed by the rule {rule}"),
        GateEvent::Decided { decision: Decision::Ask { rule, reason, .. } } => {
            format!("to be asked by the rule {rule}: {reason}")
        }
        GateEvent::Decided { decision: Decision::Deny { rule, reason } } => {
            format!("denied by the rule {rule}: {reason}")
        }
        GateEvent::Asked { .. } => "a person was asked".to_owned(),
        GateEvent::Answered { approval } => match approval {
            Approval::AllowOnce => "answered: allowed once".to_owned(),
            Approval::AllowForRun => "answered: allowed for this run".to_owned(),
            Approval::AllowAlways => "answered: allowed always".to_owned(),
            Approval::Edited { .. } => "answered: with other arguments".to_owned(),
            Approval::Denied { reason } => format!("answered: denied, {reason}"),
            Approval::Unanswered { reason } => format!("not answered: {reason}"),
        },
    }
}

/// Text between fences longer than any run of backticks in it.
fn fenced(out: &mut String, title: &str, text: &str) -> fmt::Result {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    if !title.is_empty() {
        writeln!(out, "{title}:\n")?;
    }
    writeln!(out, "{fence}text\n{}\n{fence}\n", text.trim_end())
}

/// A code span on one line that its text cannot close.
fn inline(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let ticks = "`".repeat(longest + 1);
    format!("{ticks} {text} {ticks}")
}
