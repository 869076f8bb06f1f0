//! One key: its limits, and what it may still spend.

use super::keys::PAGE;
use super::shell::{alert, token_field};
use super::text::{dollars, limit};
use super::{Broken, Console, Session, html as page, refusal, see_other};
use crate::app::App;
use crate::store::{BalanceChange, Key, KeyChange, StoreError, Usd};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Form};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

/// What the form of limits sends, as typed.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Typed {
    requests_per_min: String,
    tokens_per_min: String,
    concurrency: String,
}

/// What the form of the balance sends, as typed.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Money {
    /// `add`, `set` or `none`.
    what: String,
    amount: String,
}

/// The page.
pub(super) async fn show(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
    Path(id): Path<i64>,
) -> Result<Response, Broken> {
    answer(&app, &console, &session, id, None).await
}

/// Changes the limits.
pub(super) async fn limits(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
    Path(id): Path<i64>,
    Form(typed): Form<Typed>,
) -> Result<Response, Broken> {
    apply(&app, &console, &session, id, typed.change()).await
}

/// Changes the balance.
pub(super) async fn balance(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
    Path(id): Path<i64>,
    Form(typed): Form<Money>,
) -> Result<Response, Broken> {
    apply(&app, &console, &session, id, typed.change()).await
}

impl Typed {
    fn change(&self) -> Result<KeyChange, &'static str> {
        Ok(KeyChange {
            requests_per_min: Some(limit(&self.requests_per_min)?),
            tokens_per_min: Some(limit(&self.tokens_per_min)?),
            concurrency: Some(limit(&self.concurrency)?),
            balance: None,
        })
    }
}

impl Money {
    fn change(&self) -> Result<KeyChange, &'static str> {
        let amount = |least| match dollars(&self.amount, least) {
            Ok(Some(dollars)) => Ok(Usd::from_dollars(dollars)),
            Ok(None) => Err("Type an amount in dollars, such as 25 or 0.5."),
            Err(message) => Err(message),
        };
        let balance = match self.what.as_str() {
            "add" => BalanceChange::Add(amount(-1e9)?),
            "set" => BalanceChange::Set(Some(amount(0.0)?)),
            "none" => BalanceChange::Set(None),
            _ => return Err("Choose what to do with the balance."),
        };
        Ok(KeyChange { balance: Some(balance), ..KeyChange::default() })
    }
}

async fn apply(
    app: &App,
    console: &Console,
    session: &Session,
    id: i64,
    change: Result<KeyChange, &'static str>,
) -> Result<Response, Broken> {
    let change = match change {
        Ok(change) => change,
        Err(message) => {
            return answer(app, console, session, id, Some((StatusCode::UNPROCESSABLE_ENTITY, message)))
                .await;
        }
    };
    match app.store().change_key(&id.to_string(), change).await {
        Ok(_) => Ok(see_other(&format!("{}/{id}", PAGE.0))),
        Err(StoreError::NoBalance { .. }) => {
            let message = "This token has no balance to add to: it may spend without end. Set one instead.";
            answer(app, console, session, id, Some((StatusCode::CONFLICT, message))).await
        }
        Err(StoreError::NoSuchKey { .. } | StoreError::Revoked { .. }) => Ok(gone()),
        Err(error) => Err(error.into()),
    }
}

fn gone() -> Response {
    (StatusCode::NOT_FOUND, refusal("There is no such token in force.")).into_response()
}

async fn answer(
    app: &App,
    console: &Console,
    session: &Session,
    id: i64,
    wrong: Option<(StatusCode, &'static str)>,
) -> Result<Response, Broken> {
    let keys = app.store().keys().await?;
    let Some(key) = keys.iter().find(|key| key.id == id && key.revoked_ms.is_none()) else {
        return Ok(gone());
    };
    let shown =
        console.page(session, PAGE.0, "Change a token", &body(session, key, wrong.map(|(_, text)| text)));
    let status = wrong.map_or(StatusCode::OK, |(status, _)| status);
    Ok((status, page(shown)).into_response())
}

fn body(session: &Session, key: &Key, wrong: Option<&str>) -> Markup {
    let number = |name: &str, label: &str, value: Option<u32>| {
        let value = value.map_or(String::new(), |n| n.to_string());
        html! { div {
            label for=(name) { (label) }
            input id=(name) name=(name) value=(value) inputmode="numeric" placeholder="no limit";
        } }
    };
    let path = format!("{}/{}", PAGE.0, key.id);
    html! {
        (alert(wrong))
        p.lead { (key.name) " " code { (key.prefix) "…" } }
        section.card {
            h2 { "Limits" }
            form.stack method="post" action=(path) {
                (token_field(session))
                div.columns {
                    (number("requests_per_min", "Requests a minute", key.limits.requests_per_min))
                    (number("tokens_per_min", "Tokens a minute", key.limits.tokens_per_min))
                    (number("concurrency", "Requests at once", key.limits.concurrency))
                }
                button type="submit" { "Save limits" }
            }
        }
        (money(session, key, &path))
        p { a href=(PAGE.0) { "All tokens" } }
    }
}

fn money(session: &Session, key: &Key, path: &str) -> Markup {
    html! {
        section.card {
            h2 { "Balance" }
            p.balance { @match key.balance {
                Some(usd) => { (format!("{:.6}", usd.dollars())) " dollars may still be spent." }
                None => "It may spend without end.",
            } }
            form.stack method="post" action=(format!("{path}/balance")) {
                (token_field(session))
                div.columns {
                    div {
                        label for="what" { "Do what" }
                        select #what name="what" {
                            @if key.balance.is_some() { option value="add" { "add to it" } }
                            option value="set" { "set it to" }
                            option value="none" { "without end" }
                        }
                    }
                    div {
                        label for="amount" { "Dollars" }
                        input #amount name="amount" inputmode="decimal" autocomplete="off";
                    }
                }
                button type="submit" { "Change balance" }
            }
        }
    }
}
