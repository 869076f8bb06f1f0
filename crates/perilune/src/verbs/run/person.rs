//! Who answers what policy asks, and what the model asks: the person at the terminal where there is one, and the
//! console.

use super::Args;
use crate::terminal::harmless;
use perilune_agent::gate::{Approval, Approver, BoxFuture, Elsewhere, Outside, Question, Timed, Unattended};
use perilune_agent::journal::Inbox;
use perilune_agent::policy::Policy;
use perilune_agent::secrets::Secrets;
use perilune_agent::tools::Person;
use serde_json::{Map, Value};
use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Whom the run may ask, and for how long.
pub(super) struct People {
    asks_in_console: bool,
    wait: Option<Duration>,
    folder: PathBuf,
    secrets: Arc<Secrets>,
}

impl People {
    pub(super) fn new(args: &Args, policy: &Policy, folder: &Path, secrets: &Arc<Secrets>) -> Self {
        let wait = args.budget.approval_timeout(policy.approval_timeout());
        let (folder, secrets) = (folder.to_owned(), Arc::clone(secrets));
        Self { asks_in_console: args.ask_in_console, wait, folder, secrets }
    }

    /// Who answers what policy asks.
    pub(super) fn approver(&self) -> Arc<dyn Approver> {
        let at_hand: Arc<dyn Approver> = match stdin().is_terminal() {
            true => Arc::new(Terminal),
            false if self.asks_in_console => Arc::new(Elsewhere),
            // Never waits, yet what was answered before the run was taken up again counts.
            false => Arc::new(Unattended),
        };
        let timed: Arc<dyn Approver> = match self.wait {
            Some(wait) => Arc::new(Timed::new(at_hand, wait)),
            None => at_hand,
        };
        Arc::new(Inbox::new(&self.folder, timed, Arc::clone(&self.secrets)))
    }

    /// Who answers what the model asks in words.
    pub(super) fn person(&self) -> Arc<dyn Person> {
        let at_hand: Arc<dyn Person> = match stdin().is_terminal() {
            true => Arc::new(Terminal),
            false if self.asks_in_console => Arc::new(Elsewhere),
            false => Arc::new(Unattended),
        };
        let timed: Arc<dyn Person> = match self.wait {
            Some(wait) => Arc::new(Timed::new(at_hand, wait)),
            None => at_hand,
        };
        Arc::new(Inbox::new(&self.folder, timed, Arc::clone(&self.secrets)))
    }
}

/// Standard input and error.
struct Terminal;

/// Lines of standard input. One thread reads for all questions: one that was answered elsewhere must not take the
/// line that is meant for the next.
static LINES: LazyLock<Mutex<UnboundedReceiver<String>>> = LazyLock::new(|| {
    let (lines, receiver) = unbounded_channel();
    std::thread::spawn(move || {
        let read = std::io::stdin().lines().map_while(Result::ok);
        for line in read {
            if lines.send(line.trim().to_owned()).is_err() {
                break;
            }
        }
    });
    Mutex::new(receiver)
});

/// The line that is typed after the prompt; `None` at the end of input.
async fn line(prompt: String) -> Option<String> {
    let mut lines = LINES.lock().await;
    // What was typed before the question is no answer to it.
    while lines.try_recv().is_ok() {}
    eprint!("{prompt}");
    lines.recv().await
}

impl Approver for Terminal {
    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Approval> {
        Box::pin(async move {
            let arguments = serde_json::Value::Object(question.call.arguments.clone()).to_string();
            let (tool, reason) = (harmless(&question.call.tool), harmless(&question.reason));
            let mut prompt =
                format!("  {tool} {}\n  {reason} (rule {})\n", harmless(&arguments), question.rule);
            for Outside { real, .. } in &question.outside {
                prompt.push_str(&format!("  it leads to {}, outside the workspace\n", harmless(real)));
            }
            loop {
                prompt.push_str(
                    "  allow [o]nce, for this [r]un, [a]lways, [e]dit the arguments, or [d]eny with a reason? ",
                );
                let Some(answer) = line(std::mem::take(&mut prompt)).await else {
                    return question.unanswered("nobody is there to answer");
                };
                let (word, rest) = answer.split_once(' ').unwrap_or((&answer, ""));
                match word {
                    "o" | "once" => return Approval::AllowOnce,
                    "r" | "run" => return Approval::AllowForRun,
                    "a" | "always" => return Approval::AllowAlways,
                    "e" | "edit" => match edited(rest).await {
                        Ok(arguments) => return Approval::Edited { arguments },
                        Err(wrong) => prompt = format!("  {wrong}\n"),
                    },
                    "d" | "deny" => {
                        let reason = if rest.trim().is_empty() { "the user said no" } else { rest.trim() };
                        return Approval::Denied { reason: reason.to_owned() };
                    }
                    _ => {}
                }
            }
        })
    }
}

/// Arguments as they stand behind the answer, or in the next line.
async fn edited(rest: &str) -> Result<Map<String, Value>, String> {
    let text = match rest.trim() {
        "" => line("  new arguments as JSON: ".to_owned()).await.unwrap_or_default(),
        text => text.to_owned(),
    };
    let wrong = |why: String| format!("these are no arguments, {why}; write them as {{\"name\": value}}");
    serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
}

impl Person for Terminal {
    fn ask<'a>(&'a self, question: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(line(format!("  the model asks: {}\n  > ", harmless(question))))
    }
}
