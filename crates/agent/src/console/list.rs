//! All runs.

use super::{Pages, Problem, ROOT, money, start, tabs, task_link};
use crate::journal::{Listed, Stand};
use axum::extract::State;
use axum::response::Response;
use http::Extensions;
use maud::{Markup, html};

/// Most runs that the page shows.
const N_RUNS_MAX: usize = 500;

/// The page.
pub(super) async fn show(State(pages): State<Pages>, request: Extensions) -> Response {
    pages
        .answer(request, |pages, request| {
            let listed = pages.runs.list()?;
            // The form stands apart from what the script replaces.
            let body = html! { (body(pages, &listed)) (start::form(pages, request)) };
            Ok(pages.page(request, "Runs", &body))
        })
        .await
}

/// How many questions wait.
pub(super) fn n_waiting(listed: &[Listed]) -> usize {
    let is_waiting = |it: &&Listed| it.state.as_ref().is_ok_and(|(run, _)| run.waiting.is_some());
    listed.iter().filter(is_waiting).count()
}

/// All runs with how many questions wait, for the pages that need both.
pub(super) fn all(pages: &Pages) -> Result<(Vec<Listed>, usize), Problem> {
    let listed = pages.runs.list()?;
    let n_waiting = n_waiting(&listed);
    Ok((listed, n_waiting))
}

fn body(pages: &Pages, listed: &[Listed]) -> Markup {
    html! {
        div #live data-every="3000" {
            (tabs(ROOT, n_waiting(listed)))
            (start::pending(pages))
            @if listed.is_empty() {
                p { "No run yet. One begins with" }
                pre data-copy { "perilune run \"TASK\" --workspace DIR" }
            } @else { (table(pages, listed)) }
            @if listed.len() > N_RUNS_MAX {
                p.hint { "The newest " (N_RUNS_MAX) " of " (pages.count(listed.len() as u64)) "; "
                    code { "perilune runs list" } " shows all." }
            }
        }
    }
}

fn table(pages: &Pages, listed: &[Listed]) -> Markup {
    html! {
        div.scroll role="region" aria-label="Runs" tabindex="0" { table {
            thead { tr {
                th { "State" } th { "Task" } th.number { "Steps" } th.number { "Tokens" } th.number { "Cost, $" }
                th { "Begun (UTC)" } th { "Model" }
            } }
            tbody { @for it in listed.iter().take(N_RUNS_MAX) { (row(pages, it)) } }
        } }
    }
}

fn row(pages: &Pages, listed: &Listed) -> Markup {
    match &listed.state {
        Err(error) => html! { tr {
            td { span.stand.unreadable { "unreadable" } }
            td.name colspan="6" { code { (listed.name) } br; (error) }
        } },
        Ok((run, stand)) => html! { tr {
            td { (stand_mark(*stand)) }
            td.name { (task_link(&listed.name, &run.opened.task)) }
            td.number { (pages.count(run.ledger.n_steps)) }
            td.number { (pages.count(run.ledger.tokens.prompt + run.ledger.tokens.completion)) }
            td.number { (money(run.cost_micros())) }
            td { (pages.time(run.opened_at_ms)) }
            td { (run.opened.model) }
        } },
    }
}

/// Where a run stands, as a coloured word.
pub(super) fn stand_mark(stand: Stand) -> Markup {
    html! { span class=(format!("stand {}", stand.name())) { (stand.name()) } }
}
