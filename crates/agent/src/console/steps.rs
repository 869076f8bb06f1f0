//! The steps of a run.

use super::calls::{LINE_CHARS, call};
use super::{Pages, brief};
use crate::journal::{Note, Step};
use maud::{Markup, html};

/// Steps in order; each is an element of its own, which the script replaces when the step has grown.
pub(super) fn steps(pages: &Pages, run: &str, steps: &[Step]) -> Markup {
    html! { @for step in steps { (one(pages, run, step)) } }
}

fn one(pages: &Pages, run: &str, step: &Step) -> Markup {
    html! {
        article.turn.step id=(format!("step-{}", step.number)) tabindex="-1"
            data-number=(step.number) data-call=(step.first_call) data-seq=(step.from_seq) {
            h2.who { a href=(format!("#step-{}", step.number)) { "Step " (step.number) } " · " (head(pages, step)) }
            @for note in &step.notes { (remark(note)) }
            @if !step.reasoning.trim().is_empty() {
                details.thinking {
                    summary { "Thinking · " span.dim { (brief(&step.reasoning, LINE_CHARS)) } }
                    div.text { (step.reasoning.trim()) }
                }
            }
            @if !step.content.trim().is_empty() { div.text { (step.content.trim()) } }
            @if step.is_cut { p.told { "The answer ended at its length limit." } }
            @for it in &step.calls { (call(pages, run, it)) }
        }
    }
}

fn head(pages: &Pages, step: &Step) -> Markup {
    let tokens = &step.tokens;
    html! {
        (pages.time(step.at_ms))
        @if step.is_answered {
            " · " (pages.count(tokens.prompt)) " prompt tokens"
            @if tokens.cached > 0 { " (" (pages.count(tokens.cached)) " cached)" }
            ", " (pages.count(tokens.completion)) " generated"
        } @else { " · the model is asked" }
    }
}

fn remark(note: &Note) -> Markup {
    html! { p.note { @match note {
        Note::Folded(folds) => {
            "Out of the model's sight from here: the results of the first " (folds.n_hidden) " steps"
            @if folds.n_folded > 0 { "; of these, " (folds.n_folded) " are folded into one line" }
            "."
        }
        Note::ModelFailed(error, attempt) => { "The model did not answer (" (attempt) "): " (error) }
        Note::Resumed => { "The run was taken up again." }
        Note::Remark(text) => { "Remark to the model: " (text) }
    } } }
}
