//! Usage: what the ledger says, in charts, sums and lines.

use super::chart::{Scale, Series, bars};
use super::shell::scroll;
use super::text::{DAY_MS, count, day, time};
use super::{Broken, Console, Session, html as page};
use crate::app::App;
use crate::store::{Key, Line, Period, Totals, Usd, now_ms};
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use maud::{Markup, html};
use perilune_chat::model::Usage;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Where, and what it is called.
pub(super) const PAGE: (&str, &str) = ("/console/usage", "Usage");
/// Periods to choose from, days.
const DAYS: [i64; 4] = [1, 7, 30, 90];
/// Days shown where none are chosen.
const DAYS_DEFAULT: i64 = 30;
/// Latest requests shown.
const LINES_MAX: u32 = 50;

/// What to show; what cannot be read is as if not given.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Chosen {
    days: String,
    key: String,
}

/// The page.
pub(super) async fn show(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
    Query(chosen): Query<Chosen>,
) -> Result<Response, Broken> {
    let n_days = chosen.days.parse().ok().filter(|days| DAYS.contains(days)).unwrap_or(DAYS_DEFAULT);
    let key_id = chosen.key.parse::<i64>().ok();
    let last_day = now_ms().div_euclid(DAY_MS);
    let from_ms = Some((last_day - n_days + 1) * DAY_MS);
    let period = || Period { from_ms, until_ms: None, key_id };
    let (keys, totals) = (app.store().keys().await?, app.store().totals(period()).await?);
    let lines = app.store().lines(period(), LINES_MAX).await?;
    let days: Vec<String> = (last_day - n_days + 1..=last_day).map(day).collect();
    let body = html! {
        (choice(&keys, n_days, key_id))
        div.charts { (charts(&days, &totals)) }
        (sums("By model", "Model", &totals, |line| line.model.clone()))
        (sums("By token", "Token", &totals, |line| name(&keys, line.key_id)))
        (sums("By day", "Day (UTC)", &totals, |line| line.day.clone()))
        (latest(&keys, &lines))
    };
    Ok(page(console.page(&session, PAGE.0, PAGE.1, &body)))
}

fn name(keys: &[Key], id: Option<i64>) -> String {
    match keys.iter().find(|key| Some(key.id) == id) {
        Some(key) => format!("{} ({}…)", key.name, key.prefix),
        None => "without a token".to_owned(),
    }
}

fn choice(keys: &[Key], n_days: i64, key_id: Option<i64>) -> Markup {
    html! {
        form.row method="get" action=(PAGE.0) {
            div {
                label for="days" { "Period" }
                select #days name="days" { @for days in DAYS {
                    option value=(days) selected[days == n_days] {
                        @if days == 1 { "today" } @else { "last " (days) " days" }
                    }
                } }
            }
            div {
                label for="key" { "Token" }
                select #key name="key" {
                    option value="" { "all" }
                    @for key in keys {
                        option value=(key.id) selected[key_id == Some(key.id)] { (key.name) " (" (key.prefix) "…)" }
                    }
                }
            }
            button type="submit" { "Show" }
        }
    }
}

fn short(value: f64) -> String {
    let scaled = |unit: f64, name| {
        let value = value / unit;
        let places = usize::from(value < 99.95 && (value - value.round()).abs() > 0.05);
        format!("{value:.places$}{name}")
    };
    match value {
        v if v >= 999_950_000.0 => scaled(1e9, " G"),
        v if v >= 999_950.0 => scaled(1e6, " M"),
        v if v >= 9_999.5 => scaled(1e3, " k"),
        _ => count(value.round() as u64),
    }
}

fn dollars(value: f64) -> String {
    // An empty sum is -0.0.
    let value = value + 0.0;
    if value != 0.0 && value < 0.1 { format!("${value:.4}") } else { format!("${value:.2}") }
}

fn charts(days: &[String], totals: &[Totals]) -> Markup {
    let series = |name, value: fn(&Totals) -> f64| Series {
        name,
        values: days
            .iter()
            .map(|day| totals.iter().filter(|line| line.day == *day).map(value).sum())
            .collect(),
    };
    let tokens = [
        series("prompt", |line| line.usage.prompt_tokens.saturating_sub(line.usage.cached_tokens) as f64),
        series("prompt, cached", |line| line.usage.cached_tokens as f64),
        series("thinking", |line| line.usage.reasoning_tokens as f64),
        series("answer", |line| {
            line.usage.completion_tokens.saturating_sub(line.usage.reasoning_tokens) as f64
        }),
    ];
    let counted = Scale { shown: short, tick_min: 1.0 };
    let paid = Scale { shown: dollars, tick_min: 0.0 };
    html! {
        (bars("Tokens", days, &tokens, counted))
        (bars("Requests", days, &[series("requests", |line| line.n_requests as f64)], counted))
        (bars("Cost", days, &[series("", |line| line.cost.dollars())], paid))
    }
}

/// Requests, tokens and cost of several lines.
#[derive(Default)]
struct Sum {
    n_requests: u64,
    usage: Usage,
    cost: Usd,
}

impl Sum {
    fn add(&mut self, line: &Totals) {
        self.n_requests += line.n_requests;
        self.usage.prompt_tokens += line.usage.prompt_tokens;
        self.usage.cached_tokens += line.usage.cached_tokens;
        self.usage.completion_tokens += line.usage.completion_tokens;
        self.usage.reasoning_tokens += line.usage.reasoning_tokens;
        self.cost = Usd { nano: self.cost.nano.saturating_add(line.cost.nano) };
    }
}

fn sums(title: &str, head: &str, totals: &[Totals], group: impl Fn(&Totals) -> String) -> Markup {
    let (mut groups, mut all) = (BTreeMap::<String, Sum>::new(), Sum::default());
    for line in totals {
        groups.entry(group(line)).or_default().add(line);
        all.add(line);
    }
    let table = html! {
        table {
            thead { tr { th { (head) } th.number { "Requests" } (token_heads()) th.number { "Cost, $" } } }
            tbody { @for (name, sum) in &groups { tr {
                th.name scope="row" { (name) } td.number { (count(sum.n_requests)) }
                (token_cells(&sum.usage)) td.number { (sum.cost) }
            } } }
            tfoot { tr {
                th scope="row" { "All" } td.number { (count(all.n_requests)) }
                (token_cells(&all.usage)) td.number { (all.cost) }
            } }
        }
    };
    html! { section { h2 { (title) } (scroll(title, &table)) } }
}

fn token_heads() -> Markup {
    html! {
        th.number { "Prompt" } th.number { "of it cached" } th.number { "Completion" } th.number { "of it thinking" }
    }
}

fn token_cells(usage: &Usage) -> Markup {
    html! {
        td.number { (count(usage.prompt_tokens)) } td.number { (count(usage.cached_tokens)) }
        td.number { (count(usage.completion_tokens)) } td.number { (count(usage.reasoning_tokens)) }
    }
}

fn latest(keys: &[Key], lines: &[Line]) -> Markup {
    let table = html! {
        table {
            thead { tr {
                th { "Begun (UTC)" } th { "Token" } th { "Model" } th { "Endpoint" } th { "State" }
                (token_heads()) th.number { "Seconds" } th.number { "Cost, $" } th { "Request id" }
            } }
            tbody { @for line in lines { tr {
                td.time { (time(line.opened_ms)) }
                td.name { (name(keys, line.key_id)) } td { (line.model) } td { (line.route) }
                td { (line.status.name()) } (token_cells(&line.usage))
                td.number { @if let Some(ms) = line.settled_ms { (format!("{:.2}", (ms - line.opened_ms) as f64 / 1e3)) } }
                td.number { (line.cost) } td { code { (line.request_id) } }
            } } }
        }
    };
    html! {
        section {
            h2 { "Latest requests" }
            @if lines.is_empty() { p.hint { "None in this period." } } @else { (scroll("Latest requests", &table)) }
        }
    }
}
