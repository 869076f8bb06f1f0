//! Keys: make one (it is shown once), see all, end one. What changes of one is in `key`.

use super::shell::{alert, scroll, token_field};
use super::text::{count, dollars, limit, time};
use super::{Broken, Console, Session, html as page, see_other};
use crate::app::App;
use crate::store::{Key, KeyKind, KeyLimits, Usd};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Form};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

/// Where, and what it is called.
pub(super) const PAGE: (&str, &str) = ("/console/keys", "Keys");
/// Characters of a key's name.
const NAME_CHARS_MAX: usize = 100;

/// What the form sends, as typed.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Typed {
    name: String,
    kind: String,
    requests_per_min: String,
    tokens_per_min: String,
    concurrency: String,
    balance: String,
}

/// The page.
pub(super) async fn show(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
) -> Result<Response, Broken> {
    let fresh = app.sessions().take_fresh_key(&session);
    let keys = app.store().keys().await?;
    let body = body(&session, &keys, fresh.as_deref(), &Typed::default(), None);
    Ok(page(console.page(&session, PAGE.0, PAGE.1, &body)))
}

/// Makes a key; the page that follows shows it, once.
pub(super) async fn add(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
    Form(typed): Form<Typed>,
) -> Result<Response, Broken> {
    match typed.valid() {
        Ok((name, kind, limits, balance)) => {
            let new = app.store().create_key(&name, kind, limits, balance).await?;
            app.sessions().put_fresh_key(&session, new.secret);
            Ok(see_other(PAGE.0))
        }
        Err(message) => {
            let body = body(&session, &app.store().keys().await?, None, &typed, Some(message));
            let shown = console.page(&session, PAGE.0, PAGE.1, &body);
            Ok((StatusCode::UNPROCESSABLE_ENTITY, page(shown)).into_response())
        }
    }
}

/// Ends a key, but not the last that opens this console.
pub(super) async fn revoke(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
    Path(id): Path<i64>,
) -> Result<Response, Broken> {
    let keys = app.store().keys().await?;
    let is_admin = |key: &&Key| key.kind == KeyKind::Admin && key.revoked_ms.is_none();
    let mut admins = keys.iter().filter(is_admin);
    let message = match keys.iter().find(|key| key.id == id) {
        None => "There is no such key.",
        Some(key) if is_admin(&key) && admins.all(|admin| admin.id == id) => {
            "This is the last admin key: without it nobody could log in here. Make another first."
        }
        Some(_) => {
            app.store().revoke_key(&id.to_string()).await?;
            return Ok(see_other(PAGE.0));
        }
    };
    let body = body(&session, &keys, None, &Typed::default(), Some(message));
    Ok((StatusCode::CONFLICT, page(console.page(&session, PAGE.0, PAGE.1, &body))).into_response())
}

impl Typed {
    fn valid(&self) -> Result<(String, KeyKind, KeyLimits, Option<Usd>), &'static str> {
        let name = self.name.trim();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
            return Err("Give the token a name of 1 to 100 characters on one line, to know it by.");
        }
        let kind = match self.kind.as_str() {
            "" | "api" => KeyKind::Api,
            "admin" => KeyKind::Admin,
            _ => return Err("A token opens the APIs, or the console too: choose one of the two."),
        };
        let limits = KeyLimits {
            requests_per_min: limit(&self.requests_per_min)?,
            tokens_per_min: limit(&self.tokens_per_min)?,
            concurrency: limit(&self.concurrency)?,
        };
        Ok((name.to_owned(), kind, limits, dollars(&self.balance, 0.0)?.map(Usd::from_dollars)))
    }
}

fn body(session: &Session, keys: &[Key], fresh: Option<&str>, typed: &Typed, wrong: Option<&str>) -> Markup {
    html! {
        (alert(wrong))
        @if let Some(secret) = fresh {
            section.fresh role="status" {
                h2 { "Your new token" }
                p { "Copy it now: it is shown this once and kept nowhere." }
                pre data-copy tabindex="0" { (secret) }
            }
        }
        (table(session, keys))
        (form(session, typed))
    }
}

fn table(session: &Session, keys: &[Key]) -> Markup {
    let or_none = |limit: Option<u32>| limit.map_or("–".to_owned(), |n| count(n.into()));
    let rows = html! {
        table {
            thead { tr {
                th { "Name" } th { "Token" } th { "Opens" } th.number { "Requests / min" }
                th.number { "Tokens / min" } th.number { "At once" } th.number { "Balance, $" }
                th { "Made (UTC)" } th { "State" }
            } }
            tbody { @for key in keys {
                tr.ended[key.revoked_ms.is_some()] {
                    th.name scope="row" { (key.name) }
                    td { code { (key.prefix) "…" } }
                    td { @match key.kind { KeyKind::Api => "APIs", KeyKind::Admin => "console and APIs" } }
                    td.number { (or_none(key.limits.requests_per_min)) }
                    td.number { (or_none(key.limits.tokens_per_min)) }
                    td.number { (or_none(key.limits.concurrency)) }
                    td.number { @match key.balance { Some(usd) => (format!("{:.2}", usd.dollars())), None => "–" } }
                    td.time { (time(key.created_ms)) }
                    td { (state(session, key)) }
                }
            } }
        }
    };
    scroll("Tokens", &rows)
}

fn state(session: &Session, key: &Key) -> Markup {
    html! {
        @if let Some(ms) = key.revoked_ms {
            "revoked " span.time { (time(ms)) }
        } @else {
            a href=(format!("{}/{}", PAGE.0, key.id)) aria-label=(format!("Change {}", key.name)) { "Change…" }
            details.confirm {
                summary aria-label=(format!("Revoke {}", key.name)) { "Revoke…" }
                form method="post" action=(format!("/console/keys/{}/revoke", key.id)) {
                    (token_field(session))
                    button.danger type="submit" { "Revoke for good" }
                }
            }
        }
    }
}

fn form(session: &Session, typed: &Typed) -> Markup {
    let number = |name: &str, label: &str, value: &str| {
        html! { div {
            label for=(name) { (label) }
            input id=(name) name=(name) value=(value) inputmode="numeric" placeholder="no limit";
        } }
    };
    html! {
        section.card {
            h2 { "Add a token" }
            form.stack method="post" action=(PAGE.0) {
                (token_field(session))
                label for="name" { "Name" }
                input #name name="name" value=(typed.name) required maxlength=(NAME_CHARS_MAX)
                    autocomplete="off" placeholder="who or what will use it";
                label for="kind" { "Opens" }
                select #kind name="kind" {
                    option value="api" { "the APIs" }
                    option value="admin" selected[typed.kind == "admin"] { "this console, and the APIs" }
                }
                div.columns {
                    (number("requests_per_min", "Requests a minute", &typed.requests_per_min))
                    (number("tokens_per_min", "Tokens a minute", &typed.tokens_per_min))
                    (number("concurrency", "Requests at once", &typed.concurrency))
                    div {
                        label for="balance" { "Balance, dollars" }
                        input #balance name="balance" value=(typed.balance) inputmode="decimal" placeholder="no limit";
                    }
                }
                button type="submit" { "Add token" }
            }
        }
    }
}
