//! A run started from the console: its form, and what was started and has no journal yet.

use super::{Pages, Problem, ROOT, brief, run_path, see_other};
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use http::{Extensions, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Where the form is sent.
pub(super) const PATH: &str = "/console/runs/start";
/// Longest task, bytes: the system passes no more to a process in one piece.
const TASK_BYTES_MAX: usize = 64 << 10;

/// Starts runs. Implemented by the binary, which alone starts processes.
pub trait Starter: Send + Sync {
    /// Names of the ways to do a run: which model, which limits. The first is the usual one; never empty.
    fn profiles(&self) -> Vec<String>;

    /// The folder that every workspace lies in.
    fn root(&self) -> &Path;

    /// Starts a run that asks its questions in the inbox; returns its name. `workspace` is a folder in
    /// [`Starter::root`], without links, and `profile` one of [`Starter::profiles`].
    ///
    /// # Errors
    /// One sentence for the person.
    fn start(&self, task: &str, workspace: &Path, profile: &str) -> Result<String, String>;

    /// Takes a run up again by one of [`Starter::profiles`]; `n_steps_max` is its new limit, counted from the run's
    /// first step.
    ///
    /// # Errors
    /// One sentence for the person.
    fn resume(&self, run: &str, profile: &str, n_steps_max: Option<u64>) -> Result<(), String>;

    /// The profile that a run was started by, where that is known.
    fn profile_of(&self, run: &str) -> Option<String>;

    /// Runs whose process is starting or has failed, oldest first.
    fn pending(&self) -> Vec<Pending>;
}

/// A run of whose process the journal says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its name.
    pub run: String,
    /// Its task.
    pub task: String,
    /// Why it did not begin or go on; `None` while its model is being loaded.
    pub failure: Option<String>,
}

/// The form; nothing where no run can be started from here.
pub(super) fn form(pages: &Pages, request: &Extensions) -> Markup {
    let Some(starter) = &pages.starter else { return html! {} };
    html! {
        details.card #start {
            summary { "Start a run…" }
            form.stack method="post" action=(PATH) {
                (pages.form_fields(request))
                label for="task" { "Task" }
                textarea #task name="task" rows="4" required {}
                label for="workspace" { "Workspace, a folder in " code { (starter.root().display()) } }
                input #workspace name="workspace" value="." required autocomplete="off" spellcheck="false";
                label for="profile" { "Profile" }
                select #profile name="profile" {
                    @for name in starter.profiles() { option value=(name) { (name) } }
                }
                p.hint { "What its policy asks waits in the inbox." }
                button type="submit" { "Start" }
            }
        }
    }
}

/// What was started and is in no list yet, and what failed.
pub(super) fn pending(pages: &Pages) -> Markup {
    let all = pages.starter.as_ref().map(|starter| starter.pending()).unwrap_or_default();
    html! { @for it in &all {
        @match &it.failure {
            None => { p.note { code { (it.run) } " is being started: " (brief(&it.task, super::TASK_CHARS)) } },
            Some(why) => {
                @let how = if pages.runs.summary(&it.run).is_ok() { " did not go on, " } else { " did not begin, " };
                p.alert role="alert" { code { (it.run) } (how) (brief(&it.task, super::TASK_CHARS)) ": " (why) }
            },
        }
    } }
}

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct Sent {
    task: String,
    workspace: String,
    profile: String,
}

/// Starts a run, and shows it, or the list as long as it has no journal.
pub(super) async fn start(
    State(pages): State<Pages>,
    request: Extensions,
    Form(sent): Form<Sent>,
) -> Response {
    pages
        .answer(request, move |pages, _| {
            let wrong = |why: String| Problem(StatusCode::UNPROCESSABLE_ENTITY, why);
            let Some(starter) = &pages.starter else {
                let message = "no run is started from here: the server was started without a folder for them";
                return Err(Problem(StatusCode::NOT_FOUND, message.to_owned()));
            };
            let task = sent.task.trim();
            if task.is_empty() || task.len() > TASK_BYTES_MAX || task.contains('\0') {
                return Err(wrong(format!("a task has 1 to {TASK_BYTES_MAX} bytes of text")));
            }
            if !starter.profiles().contains(&sent.profile) {
                return Err(wrong(format!("there is no profile {:?}", sent.profile)));
            }
            let workspace = folder_in(starter.root(), &sent.workspace).map_err(wrong)?;
            let run = starter.start(task, &workspace, &sent.profile).map_err(wrong)?;
            let has_journal = pages.runs.summary(&run).is_ok();
            let page = if has_journal { run_path(&run) } else { ROOT.to_owned() };
            Ok(see_other(&page))
        })
        .await
}

/// The folder that a path leads to, which lies in `root` whatever links are on the way.
pub(super) fn folder_in(root: &Path, path: &str) -> Result<PathBuf, String> {
    let told = |why: String| format!("the workspace {path:?} cannot be used: {why}");
    let root = root.canonicalize().map_err(|error| told(format!("{}: {error}", root.display())))?;
    let folder = root.join(path.trim()).canonicalize().map_err(|error| told(error.to_string()))?;
    match () {
        () if !folder.starts_with(&root) => Err(told(format!("it lies outside {}", root.display()))),
        () if !folder.is_dir() => Err(told("it is no folder".to_owned())),
        () => Ok(folder),
    }
}
