//! Pages on the runs of a folder, for people: the list, one run's trace as it grows, questions that wait for an
//! answer, files, cost. All is read from the journals; an answer goes to the run as a file, see
//! [`crate::journal::give`]. Where the binary hands in a [`Starter`], runs can be started from the list,
//! stopped and resumed.
//!
//! The pages know no login and no layout: whoever mounts [`routes`] stands before them and hands in a [`Frame`].
//! Every page works without a script; the script makes the trace grow, and searches it.

mod calls;
mod control;
mod cost;
mod files;
mod inbox;
mod list;
mod run;
mod start;
mod steps;
#[cfg(test)]
mod tests;

pub use start::{Pending, Starter};

use crate::journal::{JournalError, Runs};
use axum::Router;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use http::{Extensions, HeaderValue, StatusCode, header};
use maud::{Markup, PreEscaped, html};
use std::path::Path as FilePath;
use std::sync::Arc;

/// Path that the pages are mounted at.
pub const ROOT: &str = "/console/runs";
/// Characters of a task in a list.
const TASK_CHARS: usize = 160;
/// Name, media type, content.
const ASSETS: &[(&str, &str, &str)] = &[
    ("runs.css", "text/css; charset=utf-8", include_str!("../../assets/runs.css")),
    ("runs.js", "text/javascript; charset=utf-8", include_str!("../../assets/runs.js")),
];

/// The console that the pages stand in. `request` are the extensions of the request that is answered.
pub trait Frame: Send + Sync {
    /// A whole document with this title around `body`, which is HTML.
    fn page(&self, request: &Extensions, title: &str, body: &str) -> String;

    /// HTML of the hidden fields that every form must carry, so that the console takes it.
    fn form_fields(&self, request: &Extensions) -> String;

    /// A Unix time in milliseconds, as the console writes it.
    fn time(&self, ms: u64) -> String;

    /// A number as the console writes it.
    fn count(&self, n: u64) -> String;

    /// A size in bytes, as the console writes it.
    fn bytes(&self, n: u64) -> String;
}

/// What the pages are made from; clones are the same.
#[derive(Clone)]
pub struct Pages {
    runs: Arc<Runs>,
    frame: Arc<dyn Frame>,
    starter: Option<Arc<dyn Starter>>,
}

/// Why there is no page: status and one sentence.
struct Problem(StatusCode, String);

impl From<JournalError> for Problem {
    fn from(error: JournalError) -> Self {
        let status = match error {
            JournalError::Missing { .. } | JournalError::BadName { .. } => StatusCode::NOT_FOUND,
            JournalError::NoSuchStep { .. } | JournalError::StepIsDamaged { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

/// The pages, beneath [`ROOT`]; without a login of their own, which the mounting router must add.
pub fn routes<S: Clone + Send + Sync + 'static>(pages: Pages) -> Router<S> {
    Router::new()
        .route(ROOT, get(list::show))
        .route("/console/runs/static/{name}", get(asset))
        .route(start::PATH, post(start::start))
        .route("/console/runs/inbox", get(inbox::show))
        .route("/console/runs/cost", get(cost::show))
        .route("/console/runs/run/{run}", get(run::show))
        .route("/console/runs/run/{run}/later", get(run::later))
        .route("/console/runs/run/{run}/answer", post(inbox::answer))
        .route("/console/runs/run/{run}/stop", post(control::stop))
        .route("/console/runs/run/{run}/resume", post(control::resume))
        .route("/console/runs/run/{run}/fork", post(run::fork))
        .route("/console/runs/run/{run}/export/{format}", get(run::export))
        .route("/console/runs/run/{run}/files", get(files::show))
        .route("/console/runs/run/{run}/file/{*path}", get(files::file))
        .with_state(pages)
}

async fn asset(Path(name): Path<String>) -> Response {
    let Some((_, kind, content)) = ASSETS.iter().find(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-cache")], *content).into_response()
}

impl Pages {
    /// Pages on the runs in the folder `runs`, a folder each; it need not be there yet.
    #[must_use]
    pub fn new(runs: &FilePath, frame: Arc<dyn Frame>) -> Self {
        Self { runs: Arc::new(Runs::new(runs)), frame, starter: None }
    }

    /// The same pages with a form that starts runs.
    #[must_use]
    pub fn with_starter(self, starter: Arc<dyn Starter>) -> Self {
        Self { starter: Some(starter), ..self }
    }

    /// An answer made where reading may block; a problem becomes a page.
    async fn answer(
        self,
        request: Extensions,
        work: impl FnOnce(&Self, &Extensions) -> Result<Response, Problem> + Send + 'static,
    ) -> Response {
        let this = self.clone();
        let asked = request.clone();
        let made = tokio::task::spawn_blocking(move || work(&this, &asked)).await;
        let Problem(status, message) = match made {
            Ok(Ok(response)) => return response,
            Ok(Err(problem)) => problem,
            Err(error) => Problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        let body = html! { p.alert role="alert" { (message) } p { a href=(ROOT) { "To the list of runs" } } };
        (status, self.page(&request, "This did not work", &body)).into_response()
    }

    fn page(&self, request: &Extensions, title: &str, body: &Markup) -> Response {
        let body = html! {
            link rel="stylesheet" href="/console/runs/static/runs.css";
            (body)
            script type="module" src="/console/runs/static/runs.js" {}
        };
        Html(self.frame.page(request, title, &body.into_string())).into_response()
    }

    fn form_fields(&self, request: &Extensions) -> Markup {
        PreEscaped(self.frame.form_fields(request))
    }

    fn time(&self, ms: u64) -> Markup {
        html! { span.time { (self.frame.time(ms)) } }
    }

    fn count(&self, n: u64) -> String {
        self.frame.count(n)
    }
}

/// The pages on all runs.
fn tabs(here: &str, n_waiting: usize) -> Markup {
    let tab = |path: &str, name: &str| {
        html! { a href=(path) aria-current=[(path == here).then_some("page")] { (name) } }
    };
    let inbox = if n_waiting == 0 { "Inbox".to_owned() } else { format!("Inbox ({n_waiting})") };
    html! {
        nav.tabs aria-label="Pages on runs" {
            (tab(ROOT, "All runs")) (tab(inbox::PATH, &inbox)) (tab(cost::PATH, "Cost"))
        }
    }
}

fn run_path(run: &str) -> String {
    format!("{ROOT}/run/{run}")
}

/// A link to a run by its task.
fn task_link(run: &str, task: &str) -> Markup {
    html! {
        a href=(run_path(run)) { (brief(task, TASK_CHARS)) }
        br;
        code.dim { (run) }
    }
}

/// The beginning of a text, on one line.
fn brief(text: &str, n_chars: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(n_chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "(nothing)".to_owned(),
        None => line,
    }
}

/// Money in millionths, where it is known.
fn money(micros: Option<u64>) -> String {
    micros.map_or_else(|| "–".to_owned(), |micros| format!("{:.4}", micros as f64 / 1e6))
}

fn see_other(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static(ROOT));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}
