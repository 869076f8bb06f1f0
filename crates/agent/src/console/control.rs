//! Stopping a run that a process works on, and taking up one that none works on, from its page.

use super::start::folder_in;
use super::{Pages, Problem, Starter, run_path, see_other};
use crate::journal::{How, Stand, Summary, ask_to_stop};
use axum::Form;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{Extensions, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// How long a page waits for a process to end that was asked to.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks.
const LOOK_MS: u64 = 50;

/// The forms that fit where the run stands; nothing where no run is started from here, or none in its workspace.
pub(super) fn control(
    pages: &Pages,
    request: &Extensions,
    run: &str,
    summary: &Summary,
    stand: Stand,
) -> Markup {
    let starter = pages.starter.as_deref().filter(|starter| has_workspace_of(*starter, summary));
    let Some(starter) = starter else {
        return html! {};
    };
    let pending = starter.pending().into_iter().find(|it| it.run == run);
    html! {
        @if let Some(why) = pending.as_ref().and_then(|it| it.failure.as_ref()) {
            p.alert role="alert" { "It did not go on: " (why) }
        }
        @match stand {
            Stand::Running | Stand::Waiting => {
                form.row method="post" action=(format!("{}/stop", run_path(run))) {
                    (pages.form_fields(request))
                    button.danger type="submit" { "Stop" }
                    p.hint { "It can be resumed." }
                }
            },
            Stand::Paused | Stand::Ended(How::Budget) if pending.as_ref().is_some_and(|it| it.failure.is_none()) => {
                p.note { "It is being taken up again." }
            },
            Stand::Paused => { (resume_form(pages, request, run, starter, None)) },
            Stand::Ended(How::Budget) => {
                (resume_form(pages, request, run, starter, Some(summary.ledger.n_steps)))
            },
            Stand::Ended(How::Answer | How::Stuck) => {},
        }
    }
}

/// Whether the run's workspace is one that runs are started in from here.
fn has_workspace_of(starter: &dyn Starter, summary: &Summary) -> bool {
    folder_in(starter.root(), &summary.opened.workspace).is_ok()
}

/// `n_steps`: those that a run has used which a limit stopped.
fn resume_form(
    pages: &Pages,
    request: &Extensions,
    run: &str,
    starter: &dyn Starter,
    n_steps: Option<u64>,
) -> Markup {
    let known = starter.profile_of(run);
    html! {
        form.row method="post" action=(format!("{}/resume", run_path(run))) {
            (pages.form_fields(request))
            div {
                label for="profile" { "Profile" }
                select #profile name="profile" {
                    @for name in starter.profiles() {
                        option value=(name) selected[known.as_ref() == Some(&name)] { (name) }
                    }
                }
            }
            @if let Some(n_steps) = n_steps {
                div {
                    label for="steps" { "Steps at most" }
                    input #steps name="steps" type="number" min="1" value=(2 * n_steps.max(1)) required;
                }
            }
            button type="submit" { "Resume" }
        }
    }
}

/// Asks the process to end, and shows the run once it has, or after a while.
pub(super) async fn stop(
    State(pages): State<Pages>,
    Path(run): Path<String>,
    request: Extensions,
) -> Response {
    pages
        .answer(request, move |pages, _| {
            let (_, stand) = allowed(pages, &run)?;
            if !matches!(stand, Stand::Running | Stand::Waiting) {
                return Err(conflict("no process works on this run, so there is none to stop"));
            }
            ask_to_stop(&pages.runs.folder(&run)?)?;
            let since = Instant::now();
            while matches!(pages.runs.summary(&run)?.1, Stand::Running | Stand::Waiting)
                && since.elapsed() < PATIENCE
            {
                std::thread::sleep(Duration::from_millis(LOOK_MS));
            }
            Ok(see_other(&run_path(&run)))
        })
        .await
}

/// What the form sends.
#[derive(Deserialize)]
pub(super) struct Sent {
    profile: String,
    steps: Option<u64>,
}

/// Takes the run up again.
pub(super) async fn resume(
    State(pages): State<Pages>,
    Path(run): Path<String>,
    request: Extensions,
    Form(sent): Form<Sent>,
) -> Response {
    pages
        .answer(request, move |pages, _| {
            let wrong = |why: String| Problem(StatusCode::UNPROCESSABLE_ENTITY, why);
            let (starter, stand) = allowed(pages, &run)?;
            if !matches!(stand, Stand::Paused | Stand::Ended(How::Budget)) {
                return Err(conflict("a process works on this run, or it is over"));
            }
            if !starter.profiles().contains(&sent.profile) {
                return Err(wrong(format!("there is no profile {:?}", sent.profile)));
            }
            if sent.steps == Some(0) {
                return Err(wrong("a run has at least 1 step".to_owned()));
            }
            starter.resume(&run, &sent.profile, sent.steps).map_err(wrong)?;
            Ok(see_other(&run_path(&run)))
        })
        .await
}

/// Who starts runs, and where this one stands, where it may be stopped and resumed from here.
fn allowed<'a>(pages: &'a Pages, run: &str) -> Result<(&'a dyn Starter, Stand), Problem> {
    let (summary, stand) = pages.runs.summary(run)?;
    let starter = pages.starter.as_deref().filter(|starter| has_workspace_of(*starter, &summary));
    let nobody = || {
        let message =
            "this run is not stopped or resumed from here: its workspace lies in no folder for runs";
        Problem(StatusCode::FORBIDDEN, message.to_owned())
    };
    Ok((starter.ok_or_else(nobody)?, stand))
}

fn conflict(message: &str) -> Problem {
    Problem(StatusCode::CONFLICT, message.to_owned())
}
