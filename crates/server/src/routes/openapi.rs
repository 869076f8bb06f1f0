//! `GET /openapi.json`: OpenAPI 3.1, its schemas made from the types that are read and written.

use super::house::Health;
use super::vendor::Balance;
use axum::Json;
use perilune_chat::wire::{anthropic, openai};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// The document.
pub(crate) async fn serve() -> Json<Value> {
    Json(document())
}

/// One operation as it is declared below.
struct Operation {
    summary: &'static str,
    body: Option<Value>,
    answer: Value,
    /// Media types of a good answer.
    media: &'static [&'static str],
    error: Value,
    statuses: &'static [&'static str],
}

const JSON: &[&str] = &["application/json"];
const JSON_OR_EVENTS: &[&str] = &["application/json", "text/event-stream"];
/// Statuses that an endpoint with a body may fail with.
const BODY_ERRORS: &[&str] = &["400", "401", "403", "404", "408", "413", "415", "429", "500", "502", "503"];
/// Statuses that an endpoint without one may fail with.
const PLAIN_ERRORS: &[&str] = &["401", "403", "500"];

/// The document: OpenAPI 3.1.0, schemas in JSON Schema draft 2020-12. The console's pages are not in it.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let paths = paths(&mut schemas);
    let mut components: Map<String, Value> = schemas.take_definitions(true);
    components.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Perilune",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Kimi K2 Thinking behind the OpenAI- and Anthropic-shaped APIs.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "key": [] }, {}],
    })
}

fn schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

fn paths(s: &mut SchemaGenerator) -> Value {
    let (openai_error, anthropic_error) = (schema::<openai::ErrorBody>(s), schema::<anthropic::ErrorBody>(s));
    let post = |summary, body, answer, media| Operation {
        summary,
        body: Some(body),
        answer,
        media,
        error: openai_error.clone(),
        statuses: BODY_ERRORS,
    };
    let get = |summary, answer| Operation {
        summary,
        body: None,
        answer,
        media: JSON,
        error: openai_error.clone(),
        statuses: PLAIN_ERRORS,
    };
    let anthropic = |operation: Operation| Operation { error: anthropic_error.clone(), ..operation };
    let (chat, completion) = (schema::<openai::ChatRequest>(s), schema::<openai::CompletionRequest>(s));
    let messages = schema::<anthropic::MessagesRequest>(s);
    let health = schema::<Health>(s);
    let mut model = get("One model", schema::<openai::Model>(s)).value();
    model["responses"]["404"] = model["responses"]["500"].clone();
    model["parameters"] =
        json!([{ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } }]);
    let chat_answer = schema::<openai::ChatResponse>(s);
    let completion_answer = schema::<openai::CompletionResponse>(s);
    let messages_answer = schema::<anthropic::MessagesResponse>(s);
    let count = schema::<anthropic::CountTokensResponse>(s);
    let estimate = schema::<openai::TokenCountResponse>(s);
    let mut ready = get("Are new requests taken?", health.clone()).value();
    ready["responses"]["503"] = ready["responses"]["200"].clone();
    let mut metrics = get("Figures for Prometheus", json!({ "type": "string" })).value();
    metrics["responses"]["200"]["content"] = json!({ "text/plain": { "schema": { "type": "string" } } });
    json!({
        "/v1/chat/completions": { "post": post("Answer a conversation", chat.clone(), chat_answer, JSON_OR_EVENTS).value() },
        "/v1/completions": { "post": post("Continue raw text or token ids", completion, completion_answer, JSON_OR_EVENTS).value() },
        "/v1/messages": { "post": anthropic(post("Answer a conversation", messages.clone(), messages_answer, JSON_OR_EVENTS)).value() },
        "/v1/messages/count_tokens": { "post": anthropic(post("Count a conversation's tokens", messages, count, JSON)).value() },
        "/v1/models": { "get": get("The models on offer", schema::<openai::ModelList>(s)).value() },
        "/v1/models/{id}": { "get": model },
        "/v1/tokenizers/estimate-token-count": { "post": post("Count a conversation's tokens", chat, estimate, JSON).value() },
        "/v1/users/me/balance": { "get": get("What the key may still spend", schema::<Balance>(s)).value() },
        "/health": { "get": get("Does the process answer?", health).value() },
        "/ready": { "get": ready },
        "/metrics": { "get": metrics },
    })
}

impl Operation {
    fn value(self) -> Value {
        let mut responses = Map::new();
        let content: Map<String, Value> = self
            .media
            .iter()
            .map(|media| {
                let schema = if *media == "application/json" {
                    self.answer.clone()
                } else {
                    json!({ "type": "string" })
                };
                ((*media).to_owned(), json!({ "schema": schema }))
            })
            .collect();
        responses.insert("200".to_owned(), json!({ "description": "The answer.", "content": content }));
        for status in self.statuses {
            let content = json!({ "application/json": { "schema": self.error } });
            responses
                .insert((*status).to_owned(), json!({ "description": "The error.", "content": content }));
        }
        let mut operation = json!({ "summary": self.summary, "responses": responses });
        if let Some(body) = self.body {
            operation["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": body } } });
        }
        operation
    }
}
