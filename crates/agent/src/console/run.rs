//! One run: its head, and its steps as they come.

use super::control::control;
use super::cost::duration;
use super::list::stand_mark;
use super::steps::steps;
use super::{Pages, Problem, ROOT, inbox, money, run_path, see_other};
use crate::journal::{self, Entry, How, Stand, Step, Summary, Trace, fresh_name, read_after};
use crate::run::{Clock, SystemClock};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Form, Json};
use http::{Extensions, StatusCode, header};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;

/// How often the script asks for more, ms.
const EVERY_MS: u64 = 1_000;

/// What to look for.
#[derive(Deserialize)]
pub(super) struct Search {
    #[serde(default)]
    q: String,
}

/// The page.
pub(super) async fn show(
    State(pages): State<Pages>,
    Path(run): Path<String>,
    Query(Search { q }): Query<Search>,
    request: Extensions,
) -> Response {
    pages
        .answer(request, move |pages, request| {
            let entries = pages.runs.entries(&run)?;
            let (summary, stand) = pages.runs.summary(&run)?;
            let body = body(pages, request, &run, &entries, (&summary, stand), &q);
            Ok(pages.page(request, &format!("Run {run}"), &body))
        })
        .await
}

fn body(
    pages: &Pages,
    request: &Extensions,
    run: &str,
    entries: &[Entry],
    (summary, stand): (&Summary, Stand),
    q: &str,
) -> Markup {
    let trace = Trace::of(entries);
    let found: Vec<Step> = trace.steps.into_iter().filter(|step| holds(pages, run, step, q)).collect();
    // What the script adds later is searched by it.
    let seen = entries.last().map_or(0, |entry| entry.seq);
    html! {
        p { a href=(ROOT) { "All runs" } }
        // The script replaces the head, and the question and what controls the run where these are others now; it
        // leaves alone what is typed into a form.
        div #head { (head(pages, run, summary, stand)) }
        div #question { (question(pages, request, run, summary)) }
        div #control { (control(pages, request, run, summary, stand)) }
        (fork_form(pages, request, run, summary.ledger.n_steps))
        form.row.search role="search" method="get" action=(run_path(run)) {
            div.grow {
                label for="q" { "Search in the steps" }
                input #q type="search" name="q" value=(q) autocomplete="off" spellcheck="false";
            }
            button type="submit" { "Search" }
            button.quiet #unfold type="button" hidden { "Unfold all" }
            button.quiet #fold type="button" hidden { "Fold all" }
            label.check #following hidden { input #follow type="checkbox"; " Follow" }
        }
        p.hint #found role="status" { @if !q.is_empty() {
            (found.len()) @if found.len() == 1 { " step holds “" } @else { " steps hold “" } (q) "”."
        } }
        div #trace data-every=(EVERY_MS) data-seen=(seen) data-stand=(stand.name())
            data-later=(format!("{}/later", run_path(run))) {
            (steps(pages, run, &found))
        }
        div #end { (end(summary)) }
    }
}

fn holds(pages: &Pages, run: &str, step: &Step, q: &str) -> bool {
    let q = q.trim().to_lowercase();
    if q.is_empty() {
        return true;
    }
    let markup = steps(pages, run, std::slice::from_ref(step)).into_string().to_lowercase();
    let escaped = html! { (q) }.into_string();
    markup.split('<').any(|piece| piece.split_once('>').is_some_and(|(_, text)| text.contains(&escaped)))
}

/// The question that waits, with its id: another id is another question.
fn question(pages: &Pages, request: &Extensions, run: &str, summary: &Summary) -> Markup {
    html! { @if let Some(waiting) = &summary.waiting {
        div data-id=(waiting.id) { (inbox::question(pages, request, run, waiting, "run")) }
    } }
}

fn head(pages: &Pages, run: &str, summary: &Summary, stand: Stand) -> Markup {
    let (opened, ledger) = (&summary.opened, &summary.ledger);
    html! {
        section.card {
            p { (stand_mark(stand)) }
            div.text.task { (opened.task) }
            dl {
                div { dt { "Steps, calls" } dd { (pages.count(ledger.n_steps)) ", " (pages.count(summary.n_calls)) } }
                div { dt { "Tokens" } dd {
                    (pages.count(ledger.tokens.prompt)) " prompt (" (pages.count(ledger.tokens.cached)) " cached), "
                    (pages.count(ledger.tokens.completion)) " generated ("
                    (pages.count(ledger.tokens.reasoning)) " thinking)"
                } }
                div { dt { "Cost, $" } dd { (money(summary.cost_micros())) } }
                div { dt { "Begun, worked" } dd { (pages.time(summary.opened_at_ms)) ", " (duration(ledger.wall_ms)) } }
                div { dt { "Model" } dd { (opened.model) } }
                div { dt { "Workspace" } dd { code { (opened.workspace) } } }
                @if let Some(from) = &opened.forked_from {
                    div { dt { "Forked from" } dd { a href=(run_path(from)) { (from) } } }
                }
            }
            p.links {
                a href=(format!("{}/files", run_path(run))) { "Files" }
                a href=(format!("{}/export/jsonl", run_path(run))) { "Events (JSON lines)" }
                a href=(format!("{}/export/markdown", run_path(run))) { "Markdown" }
            }
            @if stand == Stand::Paused {
                p { "No process works on it. It goes on with its model and flags, and" }
                pre data-copy { "perilune run --resume " (run) }
            }
            @if stand == Stand::Ended(How::Budget) {
                p { "A limit stopped it. It goes on with its model and flags, and a larger limit, for instance" }
                pre data-copy { "perilune run --resume " (run) " --steps " (2 * ledger.n_steps.max(1)) }
            }
        }
    }
}

fn fork_form(pages: &Pages, request: &Extensions, run: &str, n_steps: u64) -> Markup {
    html! {
        details.card #fork {
            summary { "Fork: a new run that starts with the first steps of this one" }
            form.row method="post" action=(format!("{}/fork", run_path(run))) {
                (pages.form_fields(request))
                div {
                    label for="step" { "Steps to keep" }
                    input #step name="step" type="number" min="0" max=(n_steps) value=(n_steps.saturating_sub(1)) required;
                }
                button type="submit" { "Fork" }
            }
            p.hint { "Effects on the workspace are not taken back." }
        }
    }
}

fn end(summary: &Summary) -> Markup {
    html! { @if let Some((how, text)) = &summary.ended {
        article.turn {
            h2.who { "End · " (Stand::Ended(*how).name()) }
            div.text { (text) }
        }
    } }
}

/// What the script has.
#[derive(Deserialize)]
pub(super) struct Seen {
    /// Number of the last event.
    seen: u64,
    /// Where the run stood.
    stand: String,
    /// Where the last step begins: its first event, its number, its first call.
    seq: u64,
    step: u64,
    call: u64,
}

/// What happened since, as pieces of the page; nothing where nothing did.
pub(super) async fn later(
    State(pages): State<Pages>,
    Path(run): Path<String>,
    Query(had): Query<Seen>,
    request: Extensions,
) -> Response {
    pages
        .answer(request, move |pages, request| {
            let (summary, stand) = pages.runs.summary(&run)?;
            if summary.n_events == had.seen && stand.name() == had.stand {
                return Ok(StatusCode::NO_CONTENT.into_response());
            }
            if had.seq > summary.n_events {
                let message =
                    format!("the run has {} events, and none of number {}", summary.n_events, had.seq);
                return Err(Problem(StatusCode::UNPROCESSABLE_ENTITY, message));
            }
            let before = had.seq.saturating_sub(1);
            let tail = read_after(&pages.runs.folder(&run)?, before)?;
            let trace = Trace::from(&tail.entries, had.step, had.call);
            Ok(Json(json!({
                "seen": before + tail.entries.len() as u64,
                "stand": stand.name(),
                "is_over": summary.ended.is_some(),
                "head": head(pages, &run, &summary, stand).into_string(),
                "question": question(pages, request, &run, &summary).into_string(),
                "control": control(pages, request, &run, &summary, stand).into_string(),
                "n_steps": summary.ledger.n_steps,
                "steps": steps(pages, &run, &trace.steps).into_string(),
                "end": end(&summary).into_string(),
            }))
            .into_response())
        })
        .await
}

/// The run as a file.
pub(super) async fn export(
    State(pages): State<Pages>,
    Path((run, format)): Path<(String, String)>,
    request: Extensions,
) -> Response {
    pages
        .answer(request, move |pages, _| {
            let entries = pages.runs.entries(&run)?;
            let (kind, ending, text) = match format.as_str() {
                "jsonl" => {
                    let mut text = Vec::new();
                    let failed =
                        |error: std::io::Error| Problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
                    journal::lines(&entries, &mut text).map_err(failed)?;
                    ("application/jsonl; charset=utf-8", "jsonl", text)
                }
                "markdown" => {
                    ("text/markdown; charset=utf-8", "md", journal::markdown(&entries).into_bytes())
                }
                _ => {
                    let message = "a run is exported as jsonl or markdown".to_owned();
                    return Err(Problem(StatusCode::NOT_FOUND, message));
                }
            };
            let name = format!("attachment; filename=\"{run}.{ending}\"");
            let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, name)];
            Ok((headers, text).into_response())
        })
        .await
}

/// Where to fork.
#[derive(Deserialize)]
pub(super) struct At {
    step: u64,
}

/// Makes a fork, and shows it.
pub(super) async fn fork(
    State(pages): State<Pages>,
    Path(run): Path<String>,
    request: Extensions,
    Form(At { step }): Form<At>,
) -> Response {
    pages
        .answer(request, move |pages, _| {
            let name = fresh_name(SystemClock.now_ms());
            journal::fork(&pages.runs.folder(&run)?, &pages.runs.folder(&name)?, &name, step)?;
            Ok(see_other(&run_path(&name)))
        })
        .await
}
