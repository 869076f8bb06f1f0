//! For the operator: health, readiness, figures; and what is not here.

use super::reply;
use crate::app::App;
use crate::error::{ApiError, Shape};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use schemars::JsonSchema;
use serde::Serialize;

/// Reply of `/health` and `/ready`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Health {
    /// `ok`, or `draining`.
    status: &'static str,
}

/// The process answers.
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// New requests are taken.
pub(crate) async fn ready(State(app): State<App>) -> Response {
    match app.is_draining() {
        false => Json(Health { status: "ok" }).into_response(),
        true => (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "draining" })).into_response(),
    }
}

/// Figures for Prometheus; they name no client, but say how much is used, so they ask for a key where there are any.
pub(crate) async fn metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let text = app.client(&headers).await.and_then(|_| {
        let engine = app.local().map(|model| model.engine().clone());
        app.metrics().text(engine.as_ref()).map_err(|error| ApiError::internal(&error))
    });
    let content = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    reply(text.map(|text| ([content], text).into_response()), Shape::OpenAi)
}

fn shape(uri: &Uri) -> Shape {
    if uri.path().starts_with("/v1/messages") { Shape::Anthropic } else { Shape::OpenAi }
}

/// No such path.
pub(crate) async fn not_found(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(200).collect();
    let message = format!("nothing is served at {path}; /openapi.json lists what is");
    ApiError::new(StatusCode::NOT_FOUND, "resource_not_found_error", message).response(shape(&uri))
}

/// The path, but not by this method.
pub(crate) async fn wrong_method(method: Method, uri: Uri) -> Response {
    let message = format!("{} does not take {method}; /openapi.json lists what it takes", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message).response(shape(&uri))
}
