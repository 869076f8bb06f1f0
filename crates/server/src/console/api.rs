//! The API: lines to copy for this very server, and a form that sends a request to it.

use super::session::TOKEN_HEADER;
use super::shell::{alert, token_field};
use super::{Broken, Console, Session, host, html as page};
use crate::app::App;
use crate::routes;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::{Extension, Form, Router};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tower::ServiceExt;

/// Where, and what it is called.
pub(super) const PAGE: (&str, &str) = ("/console/api", "API");
/// Time that a tried request may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of its answer that are shown.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Method, path, and what for.
const ENDPOINTS: [(Method, &str, &str); 7] = [
    (Method::POST, "/v1/chat/completions", "answer a conversation"),
    (Method::POST, "/v1/messages", "the same, in Anthropic's shape"),
    (Method::POST, "/v1/completions", "continue raw text"),
    (Method::POST, "/v1/tokenizers/estimate-token-count", "count a conversation's tokens"),
    (Method::POST, "/v1/messages/count_tokens", "the same, in Anthropic's shape"),
    (Method::GET, "/v1/models", "the models on offer"),
    (Method::GET, "/v1/users/me/balance", "what a token may still spend"),
];

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct Attempt {
    path: String,
    #[serde(default)]
    body: String,
}

/// What came of it.
struct Outcome {
    status: StatusCode,
    request_id: String,
    elapsed: Duration,
    text: String,
}

/// The page.
pub(super) async fn show(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
    headers: HeaderMap,
) -> Response {
    let id = model_id(&app);
    let sent = Attempt { path: ENDPOINTS[0].1.to_owned(), body: pretty(&sample(&id)) };
    let body = body(&console, &session, &headers, &id, &sent, None);
    page(console.page(&session, PAGE.0, PAGE.1, &body))
}

/// Sends the form's request through the endpoints as any client's, with the session in place of a token.
pub(super) async fn attempt(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
    headers: HeaderMap,
    Form(mut sent): Form<Attempt>,
) -> Result<Response, Broken> {
    sent.body = sent.body.replace("\r\n", "\n");
    let known = ENDPOINTS.iter().find(|(_, path, _)| *path == sent.path);
    let outcome = match known {
        Some((method, path, _)) => ask(&app, &session, &headers, method, path, &sent.body).await?,
        None => Err("Choose one of the endpoints in the list."),
    };
    let body = body(&console, &session, &headers, &model_id(&app), &sent, Some(outcome));
    Ok(page(console.page(&session, PAGE.0, PAGE.1, &body)))
}

async fn ask(
    app: &App,
    session: &Session,
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    body: &str,
) -> Result<Result<Outcome, &'static str>, Broken> {
    let mut request = Request::builder().method(method).uri(path).header(TOKEN_HEADER, &session.token);
    for name in [header::COOKIE, header::HOST] {
        for value in headers.get_all(&name) {
            request = request.header(&name, value);
        }
    }
    let body = if *method == Method::POST { Body::from(body.to_owned()) } else { Body::empty() };
    let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
    let request = request.map_err(|error| Broken::new(&error))?;
    let since = Instant::now();
    let answered = async {
        let response = routes::router(app.clone(), Router::new()).oneshot(request).await;
        let (parts, body) = response.unwrap_or_else(|never| match never {}).into_parts();
        Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|body| (parts, body.to_bytes()))
    };
    let Ok(answered) = tokio::time::timeout(ATTEMPT_TIMEOUT, answered).await else {
        return Ok(Err("No answer within five minutes; ask for fewer tokens with max_tokens."));
    };
    let Ok((parts, bytes)) = answered else {
        return Ok(Err("The answer broke off, or is larger than 1 MiB; ask for fewer tokens."));
    };
    let request_id = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let text = match serde_json::from_slice::<Value>(&bytes) {
        Ok(value) => pretty(&value),
        Err(_) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    let request_id = request_id.unwrap_or_default().to_owned();
    Ok(Ok(Outcome { status: parts.status, request_id, elapsed: since.elapsed(), text }))
}

fn model_id(app: &App) -> String {
    app.served(None).map_or_else(|_| "MODEL".to_owned(), |(id, _)| id)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

fn sample(id: &str) -> Value {
    json!({ "model": id, "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 200 })
}

/// The server's address as the reader's browser reached it.
fn address(console: &Console, headers: &HeaderMap) -> String {
    let scheme = if console.is_tls() { "https" } else { "http" };
    format!("{scheme}://{}", host(headers).unwrap_or("127.0.0.1:8080"))
}

/// A text in quotes that no shell looks into.
fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A text as a literal of Python and JavaScript.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn curl(address: &str, id: &str) -> String {
    let (url, body) = (shell_quoted(&format!("{address}/v1/chat/completions")), sample(id).to_string());
    format!(
        "curl {url} \\\n  -H \"Authorization: Bearer $PERILUNE_KEY\" \\\n  -H 'Content-Type: application/json' \\\n  \
         -d {}",
        shell_quoted(&body)
    )
}

fn python(address: &str, id: &str) -> String {
    let (base, id) = (quoted(&format!("{address}/v1")), quoted(id));
    format!(
        "# pip install openai\nimport os\nfrom openai import OpenAI\n\nclient = OpenAI(base_url={base}, \
         api_key=os.environ[\"PERILUNE_KEY\"])\nstream = client.chat.completions.create(\n    model={id},\n    \
         messages=[{{\"role\": \"user\", \"content\": \"Hello\"}}],\n    stream=True,\n)\nfor chunk in stream:\n    \
         if chunk.choices:\n        print(chunk.choices[0].delta.content or \"\", end=\"\", flush=True)"
    )
}

fn javascript(address: &str, id: &str) -> String {
    let (base, id) = (quoted(&format!("{address}/v1")), quoted(id));
    format!(
        "// npm install openai\nimport OpenAI from \"openai\";\n\nconst client = new OpenAI({{ baseURL: {base}, \
         apiKey: process.env.PERILUNE_KEY }});\nconst stream = await client.chat.completions.create({{\n  model: \
         {id},\n  messages: [{{ role: \"user\", content: \"Hello\" }}],\n  stream: true,\n}});\nfor await (const chunk \
         of stream) {{\n  process.stdout.write(chunk.choices[0]?.delta?.content ?? \"\");\n}}"
    )
}

fn body(
    console: &Console,
    session: &Session,
    headers: &HeaderMap,
    id: &str,
    sent: &Attempt,
    outcome: Option<Result<Outcome, &'static str>>,
) -> Markup {
    let address = address(console, headers);
    let (attempted, outcome) = (outcome.is_some(), outcome.transpose());
    html! {
        (alert(outcome.as_ref().err().copied()))
        @if let Ok(Some(outcome)) = &outcome { (answer(outcome)) }
        @if attempted { (form(session, sent)) (lines(&address, id)) }
        @else { (lines(&address, id)) (form(session, sent)) }
        section {
            h2 { "Endpoints" }
            ul.plain { @for (method, path, what) in &ENDPOINTS {
                li { code { (method) " " (path) } " " (what) }
            } }
            p { "All of it, with every field: " a href="/openapi.json" { "openapi.json" } "." }
        }
    }
}

fn lines(address: &str, id: &str) -> Markup {
    let pieces = [
        ("curl", curl(address, id)),
        ("Python", python(address, id)),
        ("JavaScript", javascript(address, id)),
    ];
    html! {
        section {
            h2 { "Ask this server" }
            p { "Its address is " code { (address) } ". Clients made for OpenAI take " code { (address) "/v1" }
                " as base URL, clients made for Anthropic take " code { (address) } ". Put a token from "
                a href="/console/keys" { "Keys" } " in the variable " code { "PERILUNE_KEY" } "." }
            @for (name, text) in pieces {
                h3 { (name) }
                pre data-copy tabindex="0" aria-label=(format!("{name} lines")) { (text) }
            }
        }
    }
}

fn form(session: &Session, sent: &Attempt) -> Markup {
    html! {
        section.card {
            h2 { "Try a request" }
            form.stack method="post" action=(PAGE.0) {
                (token_field(session))
                label for="path" { "Endpoint" }
                select #path name="path" { @for (method, path, _) in &ENDPOINTS {
                    option value=(path) selected[*path == sent.path] { (method) " " (path) }
                } }
                label for="body" { "Body, JSON (not sent with GET)" }
                // The line break after the tag is dropped by browsers; without one, a body that begins with a
                // line break would lose it.
                textarea #body name="body" rows="10" spellcheck="false" { "\n" (sent.body) }
                button type="submit" { "Send" }
                p.hint { "It is sent as your session, and counts in the ledger like any request." }
            }
        }
    }
}

fn answer(outcome: &Outcome) -> Markup {
    html! {
        section.card role="status" {
            h2 { "Answer: " (outcome.status) }
            p.hint { (format!("{:.2} s", outcome.elapsed.as_secs_f64())) " · " code { (outcome.request_id) } }
            pre.answer data-copy tabindex="0" { (outcome.text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_quote_what_they_are_given() {
        assert!(curl("http://h", "it's").contains(r#"{"model":"it'\''s","#), "{}", curl("http://h", "it's"));
        assert!(python("http://h", "a\"b").contains(r#"model="a\"b""#));
        assert!(javascript("http://h", "a\nb").contains(r#"model: "a\nb""#));
    }
}
