//! Chat: the one page that needs a script, which asks `/v1/chat/completions` like any client.

use super::{Console, Session, html as page};
use crate::app::App;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};

/// Where, and what it is called.
pub(super) const PAGE: (&str, &str) = ("/console/chat", "Chat");

/// The page.
pub(super) async fn show(
    State(app): State<App>,
    Extension(console): Extension<Console>,
    Extension(session): Extension<Session>,
) -> Response {
    let body = html! {
        noscript { p.alert { "The chat needs JavaScript. " a href="/console/api" { "The API page" }
            " has a form that sends a request without it." } }
        div #dialogue role="log" aria-label="Dialogue" aria-live="off" {
            p.hint #empty { "Ask something. The model's thinking, its tool calls and its speed are shown as they come." }
        }
        p #announce.hidden role="status" {}
        form #ask.stack.composer {
            label.hidden for="question" { "Message" }
            textarea #question rows="3" placeholder="Message" required {}
            div.actions {
                button #send type="submit" { "Send" }
                button #stop.quiet type="button" hidden { "Stop" }
                button #clear.quiet type="button" { "New chat" }
                span.hint { kbd { "Enter" } " sends, " kbd { "Shift" } "+" kbd { "Enter" } " breaks the line" }
            }
            (settings(&app))
        }
        script type="module" src="/console/static/chat.js" {}
    };
    page(console.page(&session, PAGE.0, PAGE.1, &body))
}

fn settings(app: &App) -> Markup {
    html! {
        details {
            summary { "Settings" }
            div.stack {
                label for="model" { "Model" }
                select #model { @for id in app.models().keys() { option value=(id) { (id) } } }
                label for="system" { "System message" }
                textarea #system rows="2" placeholder="none" {}
                div.columns {
                    div { label for="temperature" { "Temperature" }
                        input #temperature type="number" min="0" max="2" step="0.1" value="1" required; }
                    div { label for="max_tokens" { "Tokens at most" }
                        input #max_tokens type="number" min="1" step="1" value="16000" required; }
                }
                label.check { input #thinking type="checkbox" checked; " Think before answering" }
                label for="tools" { "Tools, a JSON list as the API takes it" }
                textarea #tools rows="3" spellcheck="false" placeholder="none" {}
                p.hint { "Nothing is run here: when the model calls a tool, you write its result." }
            }
        }
    }
}
