//! The vendor's smaller endpoints: models, token counts, balance.

use super::messages::count_prompt;
use super::{chat, client, json, read, reply};
use crate::app::{App, Served};
use crate::error::{ApiError, Shape};
use crate::job::blocking;
use crate::limits::Standing;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::HeaderMap;
use perilune_chat::wire::openai;
use schemars::JsonSchema;
use serde::Serialize;

/// Reply of `GET /v1/users/me/balance`.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Balance {
    /// 0.
    code: u32,
    /// The amounts.
    data: Amounts,
    /// `0x0`.
    scode: &'static str,
    /// Whether the balance could be read.
    status: bool,
}

/// US dollars; a key without an end has none to name, and gets null.
#[derive(Serialize, JsonSchema)]
struct Amounts {
    /// What may still be spent.
    available_balance: Option<f64>,
    /// Of this, given.
    voucher_balance: f64,
    /// Of this, paid.
    cash_balance: Option<f64>,
}

/// The ids on offer.
pub(crate) async fn models(State(app): State<App>, headers: HeaderMap) -> Response {
    let listed = client(&app, &headers).await.map(|_| {
        let data = app.models().iter().map(|(id, served)| entry(&app, id, served)).collect();
        json(&openai::ModelList { object: "list".to_owned(), data }, &Standing::default())
    });
    reply(listed, Shape::OpenAi)
}

/// One of them; an id that is not UTF-8 is none of them.
pub(crate) async fn model(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let id = id.map_or_else(|_| char::REPLACEMENT_CHARACTER.to_string(), |Path(id)| id);
    let found = client(&app, &headers).await.and_then(|_| app.served(Some(&id)));
    reply(found.map(|(id, served)| json(&entry(&app, &id, &served), &Standing::default())), Shape::OpenAi)
}

fn entry(app: &App, id: &str, served: &Served) -> openai::Model {
    openai::Model {
        id: id.to_owned(),
        object: "model".to_owned(),
        created: app.started_s(),
        owned_by: "perilune".to_owned(),
        context_length: served.context_tokens_max(),
        supports_image_in: Some(false),
        supports_video_in: Some(false),
        supports_reasoning: Some(true),
    }
}

/// Counts a conversation's tokens.
pub(crate) async fn estimate(State(app): State<App>, request: Request) -> Response {
    reply(estimated(app, request).await, Shape::OpenAi)
}

async fn estimated(app: App, request: Request) -> Result<Response, ApiError> {
    let (ask, body) = read(app, request, "/v1/tokenizers/estimate-token-count").await?;
    let total_tokens = blocking(move || count_prompt(&ask.app, &chat::envelope(&body)?)).await?;
    Ok(json(&openai::TokenCountResponse { data: openai::TokenCount { total_tokens } }, &Standing::default()))
}

/// What the key may still spend.
pub(crate) async fn balance(State(app): State<App>, headers: HeaderMap) -> Response {
    let read = client(&app, &headers).await.map(|client| {
        let left = client.key.and_then(|key| key.balance).map(|balance| balance.dollars());
        let data = Amounts { available_balance: left, voucher_balance: 0.0, cash_balance: left };
        json(&Balance { code: 0, data, scode: "0x0", status: true }, &Standing::default())
    });
    reply(read, Shape::OpenAi)
}
