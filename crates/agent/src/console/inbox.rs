//! Questions that wait for a person, and the answers.

use super::calls::{arguments, touched};
use super::list::all;
use super::{Pages, Problem, ROOT, run_path, see_other, tabs, task_link};
use crate::gate::{Approval, Question};
use crate::journal::{Answer, Asked, Waiting, give};
use axum::Form;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{Extensions, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;

/// Where.
pub(super) const PATH: &str = "/console/runs/inbox";

/// The page.
pub(super) async fn show(State(pages): State<Pages>, request: Extensions) -> Response {
    pages
        .answer(request, |pages, request| {
            let (listed, n_waiting) = all(pages)?;
            let body = html! { div #live data-every="2000" {
                (tabs(PATH, n_waiting))
                @if n_waiting == 0 { p { "No run waits for an answer." } }
                @for it in &listed {
                    @if let Ok((run, _)) = &it.state {
                        @if let Some(waiting) = &run.waiting {
                            h2 { (task_link(&it.name, &run.opened.task)) }
                            (question(pages, request, &it.name, waiting, "inbox"))
                        }
                    }
                }
            } };
            Ok(pages.page(request, "Inbox", &body))
        })
        .await
}

/// A question with its answers; `back` is the page that follows.
pub(super) fn question(
    pages: &Pages,
    request: &Extensions,
    run: &str,
    waiting: &Waiting,
    back: &str,
) -> Markup {
    let form = |id: &str, inside: Markup| {
        html! {
            form.stack method="post" action=(format!("{}/answer", run_path(run))) id=(format!("{id}-{run}")) {
                (pages.form_fields(request))
                input type="hidden" name="id" value=(waiting.id);
                input type="hidden" name="back" value=(back);
                (inside)
            }
        }
    };
    html! {
        section.card.question aria-label="A question to you" {
            p.hint { "waits since " (pages.time(waiting.at_ms)) ", call " (waiting.call) }
            @match &waiting.asked {
                Asked::Approval(question) => { (approval(run, question, form)) }
                Asked::Words(words) => {
                    p.lead { "The model asks: " (words) }
                    (form("say", html! {
                        label for=(format!("words-{run}")) { "Your answer" }
                        textarea id=(format!("words-{run}")) name="words" rows="3" required {}
                        button type="submit" name="answer" value="say" { "Answer" }
                    }))
                }
            }
        }
    }
}

/// Three forms, so that the enter key in a field of one gives its own answer and no other.
fn approval(run: &str, question: &Question, form: impl Fn(&str, Markup) -> Markup) -> Markup {
    let call = &question.call;
    let pretty = serde_json::to_string_pretty(&call.arguments).unwrap_or_default();
    let answer = |value: &str, name: &str| {
        html! { button type="submit" name="answer" value=(value) { (name) } }
    };
    html! {
        p.lead { code { (call.tool) } ": " (question.reason) }
        p.hint { "rule " code { (question.rule) } ", effect " (format!("{:?}", call.effect).to_lowercase()) }
        (touched(call))
        @for outside in &question.outside {
            p.hint { "it leads to " code { (outside.real) } ", outside the workspace" }
        }
        (arguments(&call.arguments))
        (form("allow", html! { div.actions {
            (answer("once", "Allow once")) (answer("run", "Allow for this run")) (answer("always", "Allow always"))
        } }))
        details {
            summary { "Deny…" }
            (form("deny", html! {
                label for=(format!("reason-{run}")) { "Reason, told to the model" }
                input id=(format!("reason-{run}")) name="reason" autocomplete="off";
                button.danger type="submit" name="answer" value="deny" { "Deny" }
            }))
        }
        details {
            summary { "Edit the arguments…" }
            (form("edit", html! {
                label for=(format!("arguments-{run}")) { "Arguments, a JSON object; policy decides on them anew" }
                textarea id=(format!("arguments-{run}")) name="arguments" rows="8" spellcheck="false" { "\n" (pretty) }
                button type="submit" name="answer" value="edit" { "Use these" }
            }))
        }
    }
}

/// What a form of [`question`] sends.
#[derive(Deserialize)]
pub(super) struct Sent {
    id: String,
    answer: String,
    #[serde(default)]
    back: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    arguments: String,
    #[serde(default)]
    words: String,
}

impl Sent {
    fn answer(self) -> Result<Answer, String> {
        let approval = match self.answer.as_str() {
            "say" => return Ok(Answer::Words(Some(self.words))),
            "once" => Approval::AllowOnce,
            "run" => Approval::AllowForRun,
            "always" => Approval::AllowAlways,
            "deny" => {
                let reason = self.reason.trim();
                let reason = if reason.is_empty() { "the user said no" } else { reason };
                Approval::Denied { reason: reason.to_owned() }
            }
            "edit" => match serde_json::from_str(&self.arguments) {
                Ok(arguments) => Approval::Edited { arguments },
                Err(error) => return Err(format!("the arguments are no JSON object: {error}")),
            },
            other => return Err(format!("{other:?} is no answer")),
        };
        Ok(Answer::Approval(approval))
    }
}

/// Takes an answer, where its question still waits.
pub(super) async fn answer(
    State(pages): State<Pages>,
    Path(run): Path<String>,
    request: Extensions,
    Form(sent): Form<Sent>,
) -> Response {
    pages
        .answer(request, move |pages, _| {
            let folder = pages.runs.folder(&run)?;
            let (summary, _) = pages.runs.summary(&run)?;
            let waiting = summary.waiting.filter(|waiting| waiting.id == sent.id);
            let back = if sent.back == "inbox" { PATH.to_owned() } else { run_path(&run) };
            let answer = sent.answer();
            let answer = answer.map_err(|why| Problem(StatusCode::UNPROCESSABLE_ENTITY, why))?;
            let Some(waiting) = waiting else { return Err(too_late()) };
            let is_fitting = matches!(waiting.asked, Asked::Words(_)) == matches!(answer, Answer::Words(_));
            if !is_fitting {
                let message = "this question takes another kind of answer".to_owned();
                return Err(Problem(StatusCode::UNPROCESSABLE_ENTITY, message));
            }
            match give(&folder, &waiting.id, &answer)? {
                true => Ok(see_other(&back)),
                false => Err(too_late()),
            }
        })
        .await
}

fn too_late() -> Problem {
    let message = format!("this question was answered before, and the first answer counts; see {ROOT}");
    Problem(StatusCode::CONFLICT, message)
}
