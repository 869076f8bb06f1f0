//! What stands before every page: security headers, the session, and the proof that a form is our own.

use super::session::{Session, TOKEN_FIELD, TOKEN_HEADER};
use super::{FORM_BYTES_MAX, host, refusal, see_other};
use crate::app::App;
use crate::store::KeyKind;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};

/// Only files of this server, no inline script or style, and no page of elsewhere may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Puts the security headers on a response.
pub(super) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
    response
}

/// Refuses what a page of elsewhere makes its reader's browser send.
pub(super) async fn same_origin(request: Request, next: Next) -> Response {
    if !is_safe(request.method()) && is_foreign(request.headers()) {
        return refuse("this form was sent from another site; open the console and send it there");
    }
    next.run(request).await
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a browser says that another origin's page sent this. What is no browser says nothing.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let is_other_site = text("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let origin = text("origin").map(|origin| origin.split_once("://").map_or("?", |(_, host)| host));
    is_other_site || origin.is_some_and(|origin| host(headers) != Some(origin))
}

/// Lets a request in whose session is that of an admin key in force; what changes something needs its token too.
pub(super) async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let is_get = is_safe(request.method());
    let Some(session) = session(&app, request.headers()).await else {
        let path = request.uri().path();
        return match is_get {
            true => see_other(&format!("/console/login?next={path}")),
            false => refuse("you are not logged in, or not any more; log in and send it again"),
        };
    };
    if is_get {
        return pass(request, session, next).await;
    }
    if is_foreign(request.headers()) {
        return refuse("this form was sent from another site; open the console and send it there");
    }
    match own(request, &session).await {
        Ok(request) => pass(request, session, next).await,
        Err(message) => refuse(message),
    }
}

async fn pass(mut request: Request, session: Session, next: Next) -> Response {
    request.extensions_mut().insert(session);
    next.run(request).await
}

fn refuse(message: &str) -> Response {
    (StatusCode::FORBIDDEN, refusal(message)).into_response()
}

/// The session of the cookie, as long as its key is an admin key in force.
async fn session(app: &App, headers: &HeaderMap) -> Option<Session> {
    let session = app.sessions().of(headers)?;
    let key = app.store().key(session.key_digest).await.ok().flatten()?;
    (key.kind == KeyKind::Admin && key.revoked_ms.is_none()).then_some(session)
}

/// The request with its body read, where it carries the session's token in a header or in its form.
async fn own(request: Request, session: &Session) -> Result<Request, &'static str> {
    let sent = request.headers().get(TOKEN_HEADER).and_then(|token| token.to_str().ok());
    if sent.is_some_and(|token| session.is_token(token)) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, FORM_BYTES_MAX).collect().await;
    let body = body.map_err(|_| "the form is larger than 1 MiB, or broke off; shorten it")?.to_bytes();
    let again = || Request::from_parts(parts.clone(), Body::from(body.clone()));
    let fields = axum::Form::<Vec<(String, String)>>::from_request(again(), &()).await;
    let fields = fields.map(|form| form.0).unwrap_or_default();
    let is_own = fields.iter().any(|(name, value)| name == TOKEN_FIELD && session.is_token(value));
    match is_own {
        true => Ok(again()),
        false => Err("this form is out of date; open the page again and send it once more"),
    }
}
