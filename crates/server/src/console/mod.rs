//! Pages for the people who run the server: chat, keys, prices, usage, the API, the model.
//!
//! A request's walk: `guard` puts the security headers on, finds the session of the cookie or sends the reader to
//! the login, and refuses whatever would change something without the session's token; then one file a page. Every
//! page but the chat works without a script. Other crates' pages are mounted by the binary with
//! [`Console::with_guests`] and framed by [`Console::guest_page`].

mod api;
mod assets;
mod chart;
mod chat;
mod guard;
mod key;
mod keys;
mod login;
mod model;
mod prices;
mod session;
mod shell;
mod text;
mod usage;

pub use model::{Memory, ModelCard};
pub use session::{COOKIE, SESSION_TIME, SESSIONS_MAX, Session, Sessions, TOKEN_FIELD, TOKEN_HEADER};
pub use shell::{Entry, token_field};
pub use text::{bytes, count, time};

use crate::app::App;
use crate::error::ApiError;
use crate::store::{KeyKind, KeyLimits, NewKey, Store, StoreError};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::{HeaderValue, StatusCode, header};
use std::sync::Arc;

/// Largest form, bytes (1 MiB).
pub const FORM_BYTES_MAX: usize = 1 << 20;
/// Name of the admin key that is made at the first start.
pub const FIRST_KEY_NAME: &str = "first admin key";

/// The console; clones are the same.
#[derive(Clone)]
pub struct Console {
    inner: Arc<Inner>,
}

struct Inner {
    card: Option<ModelCard>,
    is_tls: bool,
    entries: Vec<Entry>,
    guests: Router<App>,
}

impl Console {
    /// A console that describes the model of this process by `card`; `is_tls` says that browsers reach it by HTTPS.
    #[must_use]
    pub fn new(card: Option<ModelCard>, is_tls: bool) -> Self {
        let entry = |(path, name): (&str, &str)| Entry { path: path.to_owned(), name: name.to_owned() };
        let entries =
            [chat::PAGE, keys::PAGE, prices::PAGE, usage::PAGE, api::PAGE, model::PAGE].map(entry).to_vec();
        Self { inner: Arc::new(Inner { card, is_tls, entries, guests: Router::new() }) }
    }

    /// Mounts another crate's pages behind the same login and in the same navigation.
    ///
    /// # Panics
    /// When a page's path is taken already; where it is one of the console's own, [`Self::routes`] panics instead.
    #[must_use]
    pub fn with_guests(self, entries: Vec<Entry>, guests: Router<App>) -> Self {
        let inner = &self.inner;
        let entries = inner.entries.iter().cloned().chain(entries).collect();
        let guests = inner.guests.clone().merge(guests);
        Self { inner: Arc::new(Inner { card: inner.card.clone(), is_tls: inner.is_tls, entries, guests }) }
    }

    /// All pages, to be mounted beside the endpoints of `app`.
    pub fn routes(&self, app: &App) -> Router<App> {
        let inside = Router::new()
            .route("/console/logout", post(login::leave))
            .route(chat::PAGE.0, get(chat::show))
            .route(keys::PAGE.0, get(keys::show).post(keys::add))
            .route("/console/keys/{id}/revoke", post(keys::revoke))
            .route("/console/keys/{id}", get(key::show).post(key::limits))
            .route("/console/keys/{id}/balance", post(key::balance))
            .route(prices::PAGE.0, get(prices::show).post(prices::set))
            .route("/console/prices/remove", post(prices::remove))
            .route(usage::PAGE.0, get(usage::show))
            .route(api::PAGE.0, get(api::show).post(api::attempt))
            .route(model::PAGE.0, get(model::show))
            .merge(self.inner.guests.clone())
            .layer(from_fn_with_state(app.clone(), guard::admit));
        Router::new()
            .route("/", get(async || see_other(chat::PAGE.0)))
            .route("/console", get(async || see_other(chat::PAGE.0)))
            .route("/console/", get(async || see_other(chat::PAGE.0)))
            .route("/console/login", get(login::show).post(login::enter).layer(from_fn(guard::same_origin)))
            .route("/console/static/{name}", get(assets::serve))
            .merge(inside)
            .layer(axum::extract::DefaultBodyLimit::max(FORM_BYTES_MAX))
            .layer(from_fn(guard::headers))
            .layer(Extension(self.clone()))
    }

    /// The pages of the navigation, in its order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.inner.entries
    }

    fn card(&self) -> Option<&ModelCard> {
        self.inner.card.as_ref()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls
    }

    fn is_kimi_k2(&self) -> bool {
        self.card().is_some_and(|card| card.is_kimi_k2)
    }
}

/// Makes the first admin key where there never was one, for the binary to print; `None` where there was.
///
/// # Errors
/// When the database fails, or the system gives no random bytes.
pub async fn first_admin_key(store: &Store) -> Result<Option<NewKey>, StoreError> {
    if store.keys().await?.iter().any(|key| key.kind == KeyKind::Admin) {
        return Ok(None);
    }
    store.create_key(FIRST_KEY_NAME, KeyKind::Admin, KeyLimits::default(), None).await.map(Some)
}

/// To another page, by GET.
fn see_other(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/console/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

/// What the server itself failed at; the cause is in the log.
struct Broken(ApiError);

impl Broken {
    fn new(cause: &dyn std::fmt::Display) -> Self {
        Self(ApiError::internal(cause))
    }
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self(error.into())
    }
}

impl From<ApiError> for Broken {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Broken {
    fn into_response(self) -> Response {
        (self.0.status, refusal(&self.0.message)).into_response()
    }
}

/// A page of one sentence.
fn refusal(message: &str) -> Html<String> {
    let page = maud::html! {
        (maud::DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Perilune" }
                link rel="stylesheet" href="/console/static/console.css";
            }
            body { main { div.narrow {
                h1 { "This did not work" }
                p.alert role="alert" { (message) }
                p { a href="/console/" { "Back to the console" } }
            } } }
        }
    };
    Html(page.into_string())
}

/// A result as a response.
fn html(markup: maud::Markup) -> Response {
    Html(markup.into_string()).into_response()
}

/// The request's own host, as its address bar shows it.
fn host(request: &http::HeaderMap) -> Option<&str> {
    request.get(header::HOST).and_then(|host| host.to_str().ok())
}
