//! In and out, by an admin key.

use super::session::{COOKIE, SESSION_TIME, Session};
use super::shell::alert;
use super::{Broken, Console, Entry, html as page, see_other};
use crate::app::App;
use crate::store::{KeyKind, digest};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Form};
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};
use serde::Deserialize;

/// Where to go after the login.
#[derive(Deserialize, Default)]
pub(super) struct Next {
    #[serde(default)]
    next: String,
}

/// What the login form sends.
#[derive(Deserialize)]
pub(super) struct Login {
    #[serde(default)]
    key: String,
    #[serde(default)]
    next: String,
}

/// The login form.
pub(super) async fn show(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Query(Next { next }): Query<Next>,
) -> Result<Response, Broken> {
    Ok(page(form(&console, &app, &next, None).await?))
}

async fn form(console: &Console, app: &App, next: &str, wrong: Option<&str>) -> Result<Markup, Broken> {
    let has_admin = app.store().has_key(KeyKind::Admin).await?;
    let body = html! {
        (alert(wrong))
        @if !has_admin {
            p { "There is no admin key yet. On the server's machine, make one with" }
            pre data-copy { "perilune keys create console --kind admin" }
        }
        form.stack method="post" action="/console/login" {
            input type="hidden" name="next" value=(next);
            label for="key" { "Admin key" }
            input #key type="password" name="key" required autocomplete="current-password"
                spellcheck="false" autofocus;
            button type="submit" { "Log in" }
        }
        p.hint { "The first admin key was printed when the server first started. Another is made with "
            code { "perilune keys create NAME --kind admin" } "." }
    };
    Ok(console.bare_page("Log in", &body))
}

/// Checks the key. It is compared by its SHA-256 digest, so the time it takes tells nothing of kept keys.
pub(super) async fn enter(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Form(Login { key, next }): Form<Login>,
) -> Result<Response, Broken> {
    let key_digest = digest(key.trim());
    let found = app.store().key(key_digest).await?;
    let is_admin = found.is_some_and(|key| key.kind == KeyKind::Admin && key.revoked_ms.is_none());
    if !is_admin {
        tracing::warn!("a login to the console was refused");
        let wrong = "This is not an admin key in force. Check that it was copied whole.";
        let shown = form(&console, &app, &next, Some(wrong)).await?;
        return Ok((StatusCode::UNAUTHORIZED, page(shown)).into_response());
    }
    let cookie = app.sessions().begin(key_digest)?;
    let to = console.leads_to(&next).then_some(next.as_str());
    let cookie = console.cookie(&cookie, SESSION_TIME.as_secs())?;
    Ok(([(header::SET_COOKIE, cookie)], see_other(to.unwrap_or("/console/"))).into_response())
}

/// Ends the session.
pub(super) async fn leave(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
) -> Result<Response, Broken> {
    app.sessions().end(&session);
    let cookie = console.cookie("", 0)?;
    Ok(([(header::SET_COOKIE, cookie)], see_other("/console/login")).into_response())
}

impl Console {
    /// Whether a path is a page of the navigation or lies beneath one.
    fn leads_to(&self, path: &str) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
        let beneath = |entry: &Entry| {
            path.strip_prefix(&entry.path)
                .map(|rest| rest.chars().all(is_plain) && (rest.is_empty() || rest.starts_with('/')))
        };
        self.entries().iter().filter_map(beneath).any(|is_page| is_page)
    }

    /// The cookie's line: sent back to this host only, by its own pages only, never shown to a script.
    fn cookie(&self, value: &str, max_age_s: u64) -> Result<HeaderValue, Broken> {
        let secure = if self.is_tls() { "; Secure" } else { "" };
        let line =
            format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}{secure}");
        HeaderValue::from_str(&line).map_err(|error| Broken::new(&error))
    }
}
