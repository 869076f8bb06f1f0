//! What runs cost: tokens, time and money.

use super::list::all;
use super::{Pages, ROOT, money, tabs, task_link};
use crate::journal::Summary;
use axum::extract::State;
use axum::response::Response;
use http::Extensions;
use maud::{Markup, html};

/// Where.
pub(super) const PATH: &str = "/console/runs/cost";

/// Its name, and its figure.
type Column = (&'static str, fn(&Summary) -> u64);

/// The page.
pub(super) async fn show(State(pages): State<Pages>, request: Extensions) -> Response {
    pages
        .answer(request, |pages, request| {
            let (listed, n_waiting) = all(pages)?;
            let runs: Vec<(&str, &Summary)> =
                listed.iter().filter_map(|it| Some((it.name.as_str(), &it.state.as_ref().ok()?.0))).collect();
            let body = html! {
                (tabs(PATH, n_waiting))
                @if runs.is_empty() { p { "No run yet: see " a href=(ROOT) { "all runs" } "." } }
                @else { (table(pages, &runs)) }
            };
            Ok(pages.page(request, "Cost of runs", &body))
        })
        .await
}

fn table(pages: &Pages, runs: &[(&str, &Summary)]) -> Markup {
    let sum = |of: fn(&Summary) -> u64| runs.iter().map(|(_, run)| of(run)).sum::<u64>();
    let columns: [Column; 5] = [
        ("Steps", |run| run.ledger.n_steps),
        ("Prompt", |run| run.ledger.tokens.prompt),
        ("of it cached", |run| run.ledger.tokens.cached),
        ("Generated", |run| run.ledger.tokens.completion),
        ("of it thinking", |run| run.ledger.tokens.reasoning),
    ];
    let paid: u64 = runs.iter().filter_map(|(_, run)| run.cost_micros()).sum();
    let is_priced = runs.iter().any(|(_, run)| run.opened.price.is_some());
    let is_unpriced = runs.iter().any(|(_, run)| run.opened.price.is_none());
    html! {
        div.scroll role="region" aria-label="Cost by run" tabindex="0" { table {
            thead { tr {
                th { "Run" } th { "Model" } @for (name, _) in columns { th.number { (name) } }
                th.number { "Worked" } th.number { "Cost, $" }
            } }
            tbody { @for (name, run) in runs { tr {
                td.name { (task_link(name, &run.opened.task)) } td { (run.opened.model) }
                @for (_, of) in columns { td.number { (pages.count(of(run))) } }
                td.number { (duration(run.ledger.wall_ms)) } td.number { (money(run.cost_micros())) }
            } } }
            tfoot { tr {
                th scope="row" colspan="2" { "All" }
                @for (_, of) in columns { td.number { (pages.count(sum(of))) } }
                td.number { (duration(sum(|run| run.ledger.wall_ms))) }
                td.number { (money(is_priced.then_some(paid))) }
            } }
        } }
        @if is_unpriced {
            p.hint { "– : the run's journal names no price for its model's tokens." }
        }
    }
}

/// Milliseconds in the units of a clock.
pub(super) fn duration(ms: u64) -> String {
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{:.1} s", ms as f64 / 1e3),
        (0, _) => format!("{minutes} min {seconds} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}
