//! Prices: what a model's tokens cost, in dollars per million.

use super::shell::{alert, scroll, token_field};
use super::{Broken, Console, Session, html as page, see_other};
use crate::app::App;
use crate::store::{PRICE_DOLLARS_MAX, Price, StoreError};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Form};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

/// Where, and what it is called.
pub(super) const PAGE: (&str, &str) = ("/console/prices", "Prices");
/// What its three prices are called.
const LABELS: [&str; 3] = ["Input", "Cached input", "Output"];
/// Bytes of a model's id.
const MODEL_BYTES_MAX: usize = 200;

/// What the form sends, as typed.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Typed {
    model: String,
    input: String,
    cached: String,
    output: String,
}

/// The page.
pub(super) async fn show(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
) -> Result<Response, Broken> {
    let body = body(&app, &session, &Typed::default(), None).await?;
    Ok(page(console.page(&session, PAGE.0, PAGE.1, &body)))
}

/// Sets a model's prices.
pub(super) async fn set(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
    Form(typed): Form<Typed>,
) -> Result<Response, Broken> {
    match typed.valid() {
        Ok((model, price)) => {
            app.store().set_price(model, price).await?;
            Ok(see_other(PAGE.0))
        }
        Err(message) => {
            let body = body(&app, &session, &typed, Some(message)).await?;
            let shown = console.page(&session, PAGE.0, PAGE.1, &body);
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page(shown)).into_response())
        }
    }
}

/// Takes a model's prices away.
pub(super) async fn remove(State(app): State<App>, Form(typed): Form<Typed>) -> Result<Response, Broken> {
    match app.store().remove_price(&typed.model).await {
        // Whoever took it away before has done what was asked.
        Ok(()) | Err(StoreError::NoSuchPrice { .. }) => Ok(see_other(PAGE.0)),
        Err(error) => Err(error.into()),
    }
}

impl Typed {
    fn valid(&self) -> Result<(&str, Price), &'static str> {
        let model = self.model.trim();
        if model.is_empty() || model.len() > MODEL_BYTES_MAX || model.chars().any(char::is_control) {
            return Err("Name the model by its id, of 1 to 200 bytes, as clients name it.");
        }
        let price = |typed: &str| match typed.trim().parse::<f64>() {
            Ok(dollars) if (0.0..=PRICE_DOLLARS_MAX).contains(&dollars) => Ok(dollars),
            _ => Err("A price is dollars per million tokens, such as 0.15, from 0 to 1,000,000."),
        };
        let input = price(&self.input)?;
        let cached = if self.cached.trim().is_empty() { input } else { price(&self.cached)? };
        Ok((model, Price::per_million(input, cached, price(&self.output)?)))
    }
}

async fn body(app: &App, session: &Session, typed: &Typed, wrong: Option<&str>) -> Result<Markup, Broken> {
    let prices = app.store().prices().await?;
    let free = app.models().keys().filter(|id| !prices.iter().any(|(model, _)| model == *id));
    let free: Vec<&str> = free.map(String::as_str).collect();
    Ok(html! {
        (alert(wrong))
        p.hint {
            "US dollars per million tokens. A change counts for every request that ends after it. The prices of a new "
            "data folder are placeholders: what the vendor's own service asked."
        }
        @if !free.is_empty() { p { "Without a price, and so free of charge: " (free.join(", ")) "." } }
        (table(session, &prices))
        (form(session, typed))
    })
}

fn table(session: &Session, prices: &[(String, Price)]) -> Markup {
    let rows = html! {
        table.cards {
            thead { tr {
                th { "Model" } @for label in LABELS { th.number { (label) } } th { "" }
            } }
            tbody { @for (model, price) in prices { tr {
                th.name scope="row" { (model) }
                @for (label, dollars) in LABELS.iter().zip(price.dollars_per_million()) {
                    td.number data-label=(label) { (format!("{dollars:.3}")) }
                }
                td { (change(session, model, price)) }
            } } }
        }
    };
    scroll("Prices", &rows)
}

fn change(session: &Session, model: &str, price: &Price) -> Markup {
    let values = price.dollars_per_million().map(|dollars| dollars.to_string());
    let names = ["input", "cached", "output"];
    html! {
        details {
            summary aria-label=(format!("Change {model}")) { "Change…" }
            form.stack method="post" action=(PAGE.0) {
                (token_field(session))
                input type="hidden" name="model" value=(model);
                @for ((name, label), value) in names.iter().zip(LABELS).zip(&values) {
                    label { (label) " " input name=(name) value=(value) inputmode="decimal" required; }
                }
                button type="submit" { "Save" }
            }
            form.stack method="post" action=(format!("{}/remove", PAGE.0)) {
                (token_field(session))
                input type="hidden" name="model" value=(model);
                button.danger type="submit" { "Free of charge" }
            }
        }
    }
}

fn form(session: &Session, typed: &Typed) -> Markup {
    let field = |name: &str, label: &str, value: &str, hint: &str| {
        html! { div {
            label for=(name) { (label) }
            input id=(name) name=(name) value=(value) inputmode="decimal" placeholder=(hint);
        } }
    };
    html! {
        section.card {
            h2 { "Set a price" }
            form.stack method="post" action=(PAGE.0) {
                (token_field(session))
                label for="model" { "Model" }
                input #model name="model" value=(typed.model) required maxlength=(MODEL_BYTES_MAX)
                    autocomplete="off" placeholder="its id, as clients name it";
                div.columns {
                    (field("input", "Input", &typed.input, ""))
                    (field("cached", "Cached input", &typed.cached, "as input"))
                    (field("output", "Output", &typed.output, ""))
                }
                button type="submit" { "Set price" }
            }
        }
    }
}
