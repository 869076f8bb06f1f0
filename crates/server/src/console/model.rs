//! The model: what it is made of, what it takes, how fast it reads.

use super::chart::parts;
use super::shell::scroll;
use super::text::{bytes, count};
use super::{Broken, Console, Session, html as page};
use crate::app::{App, Served};
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use perilune_engine::stats::Stats;

/// Where, and what it is called.
pub(super) const PAGE: (&str, &str) = ("/console/model", "Model");

/// What the binary knows of the model of this process. This crate knows no tensors: it shows these words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelCard {
    /// What it is called, such as its folder's name.
    pub name: String,
    /// Whether its weights are Kimi K2's, whose licence asks for the line "Kimi K2".
    pub is_kimi_k2: bool,
    /// Architecture: rows of what, and how much.
    pub architecture: Vec<(String, String)>,
    /// The parts of the memory plan, in its order.
    pub memory: Vec<Memory>,
    /// The plan's sentence: whether it fits this machine.
    pub verdict: Option<String>,
    /// Kernels in use: rows of for what, and which.
    pub kernels: Vec<(String, String)>,
    /// Read bandwidth measured on this machine's memory, GB/s (10^9 bytes); `None` where it was not measured.
    pub possible_gb_per_s: Option<f64>,
}

/// A part of the memory plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// What for.
    pub name: String,
    /// Bytes that it takes.
    pub bytes: u64,
    /// What to know of it; may be empty.
    pub note: String,
}

/// The page.
pub(super) async fn show(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
) -> Result<Response, Broken> {
    let stats = app.local().map(|model| model.engine().stats());
    let body = html! {
        (served(&app))
        @if let Some(card) = console.card() { (described(card)) }
        @if let Some(stats) = &stats {
            (speed(console.card().and_then(|card| card.possible_gb_per_s), stats))
            (books(stats))
        } @else {
            p.hint { "No model runs in this process: what is served is forwarded to other endpoints." }
        }
    };
    Ok(page(console.page(&session, PAGE.0, PAGE.1, &body)))
}

fn served(app: &App) -> Markup {
    let table = html! {
        table {
            thead { tr { th { "Id" } th { "Class" } th { "Served by" } th.number { "Context, tokens" } } }
            tbody { @for (id, served) in app.models() { tr {
                th scope="row" { code { (id) } }
                td { (served.class()) }
                td { @match served { Served::Local(_) => "this process", Served::Upstream(_) => "another endpoint" } }
                td.number { @if let Some(n) = served.context_tokens_max() { (count(n)) } @else { "not known" } }
            } } }
        }
    };
    html! { section { h2 { "On offer" } (scroll("Models on offer", &table)) } }
}

fn rows(rows: &[(String, String)]) -> Markup {
    html! { dl { @for (name, value) in rows { div { dt { (name) } dd { (value) } } } } }
}

fn described(card: &ModelCard) -> Markup {
    let shares: Vec<(&str, u64)> = card.memory.iter().map(|part| (part.name.as_str(), part.bytes)).collect();
    html! {
        section { h2 { "Architecture" } p.lead { (card.name) } (rows(&card.architecture)) }
        section {
            h2 { "Memory plan" }
            (parts("Memory plan", &shares, bytes))
            dl { @for part in &card.memory { @if !part.note.is_empty() {
                div { dt { (part.name) } dd { (part.note) } }
            } } }
            @if let Some(verdict) = &card.verdict { p { (verdict) } }
        }
        section { h2 { "Kernels in use" } (rows(&card.kernels)) }
    }
}

/// Achieved against possible: bytes of weights read for every second of forward passes since the start.
fn speed(possible: Option<f64>, stats: &Stats) -> Markup {
    let achieved = (stats.forward_s > 0.0).then(|| stats.weight_bytes as f64 / 1e9 / stats.forward_s);
    let shown = |value: Option<f64>| value.map_or("not measured yet".to_owned(), |v| format!("{v:.2} GB/s"));
    let share = achieved.zip(possible).filter(|(_, possible)| *possible > 0.0).map(|(a, p)| a / p);
    html! {
        section {
            h2 { "Reading speed" }
            dl {
                div { dt { "Achieved, weights read in forward passes" } dd { (shown(achieved)) } }
                div { dt { "Possible, this machine's memory" } dd { (shown(possible)) } }
                @if let Some(share) = share {
                    div { dt { "Share" } dd {
                        meter min="0" max="1" value=(format!("{:.3}", share.min(1.0))) {} " "
                        (format!("{:.1} %", share * 100.0))
                    } }
                }
            }
            @if possible.is_none() { p.hint { code { "perilune serve --measure-memory" } " measures what is possible before it serves." } }
        }
    }
}

fn books(stats: &Stats) -> Markup {
    let share = |part: u64, whole: u64| match whole {
        0 => "no prompt yet".to_owned(),
        _ => format!("{:.1} %", part as f64 / whole as f64 * 100.0),
    };
    let [latency, throughput] =
        [0, 1].map(|class| format!("{} / {}", stats.running[class], stats.waiting[class]));
    let table: [(&str, String); 8] = [
        ("Running / waiting, latency class", latency),
        ("Running / waiting, throughput class", throughput),
        ("Prompt tokens", count(stats.prompt_tokens)),
        ("Of these found in the prefix cache", share(stats.cached_tokens, stats.prompt_tokens)),
        ("Tokens generated", count(stats.generated_tokens)),
        ("Steps", count(stats.steps)),
        (
            "Cache blocks in use / kept / in all",
            format!(
                "{} / {} / {}",
                count(stats.blocks_used as u64),
                count(stats.blocks_cached as u64),
                count(stats.blocks as u64)
            ),
        ),
        ("Preemptions", count(stats.preemptions.iter().sum())),
    ];
    let table = table.map(|(name, value)| (name.to_owned(), value));
    html! { section { h2 { "The engine since its start" } (rows(&table)) } }
}
