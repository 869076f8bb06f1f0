//! The way in for a person's answers to a run of another process: a file for each question, made once. The first
//! answer counts, wherever it was given; what was given while no process worked on the run waits for the next one.

use super::{Asked, JournalError, Summary, read};
use crate::gate::{Approval, Approver, BoxFuture, Question};
use crate::secrets::Secrets;
use crate::tools::Person;
use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Folder of the answers beneath a run's.
const ANSWERS: &str = "answers";
/// How often a process that waits looks for an answer.
const LOOK_MS: u64 = 200;

/// What a person answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Whether a call may happen.
    Approval(Approval),
    /// Words for the model, to its `ask_user`; `None`: nobody answers.
    Words(Option<String>),
}

impl Answer {
    fn redact(&mut self, secrets: &Secrets) {
        match self {
            Self::Words(Some(text))
            | Self::Approval(Approval::Denied { reason: text } | Approval::Unanswered { reason: text }) => {
                secrets.redact_text(text);
            }
            Self::Approval(Approval::Edited { arguments }) => secrets.redact_map(arguments),
            Self::Words(None)
            | Self::Approval(Approval::AllowOnce | Approval::AllowForRun | Approval::AllowAlways) => {}
        }
    }
}

/// Gives the answer to the question `id` (see [`super::Waiting::id`]) of the run in `folder`; false where one was given
/// before, which then holds. The answer is on the disk when this returns.
///
/// # Errors
/// [`JournalError::Io`]: it cannot be written.
pub fn give(folder: &Path, id: &str, answer: &Answer) -> Result<bool, JournalError> {
    let answers = folder.join(ANSWERS);
    let failed =
        |error: std::io::Error| JournalError::Io { path: answers.clone(), problem: error.to_string() };
    std::fs::create_dir_all(&answers).map_err(failed)?;
    match write(&answers, answer).map_err(failed)?.persist_noclobber(answers.join(id)) {
        Ok(_) => Ok(true),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error.error)),
    }
}

fn write(answers: &Path, answer: &Answer) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new_in(answers)?;
    file.write_all(&serde_json::to_vec(answer)?)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Takes secret values out of the answers that were given on the run in `folder`. Whoever gives one in the console
/// does not know what the run keeps secret, so the run itself does it, when it is taken up and when it takes one.
///
/// # Errors
/// [`JournalError::Io`]: an answer cannot be read or written.
pub fn redact_answers(folder: &Path, secrets: &Secrets) -> Result<(), JournalError> {
    let answers = folder.join(ANSWERS);
    let failed =
        |error: std::io::Error| JournalError::Io { path: answers.clone(), problem: error.to_string() };
    let entries = match std::fs::read_dir(&answers) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        redact(&answers, &entry.map_err(failed)?.path(), secrets).map_err(failed)?;
    }
    Ok(())
}

fn redact(answers: &Path, path: &Path, secrets: &Secrets) -> std::io::Result<()> {
    let text = std::fs::read(path)?;
    let Ok(mut answer) = serde_json::from_slice::<Answer>(&text) else {
        // What a process that died left half written is nobody's answer.
        return if secrets.is_in(&text) { std::fs::remove_file(path) } else { Ok(()) };
    };
    let before = answer.clone();
    answer.redact(secrets);
    if answer == before {
        return Ok(());
    }
    write(answers, &answer)?.persist(path).map(drop).map_err(|error| error.error)
}

/// Whether the question `id` of the run in `folder` was answered by [`give`].
pub(super) fn is_answered(folder: &Path, id: &str) -> bool {
    folder.join(ANSWERS).join(id).exists()
}

/// The answer to the question `id`, where one was given, without secret values: in its file neither from now on.
fn given(folder: &Path, id: &str, secrets: &Secrets) -> Option<Answer> {
    let answers = folder.join(ANSWERS);
    let text = std::fs::read(answers.join(id)).ok()?;
    // Where the file cannot be written, what is taken from it holds none all the same.
    let _ = redact(&answers, &answers.join(id), secrets);
    let unreadable = |error| {
        let reason = format!("the answer to {id} cannot be read: {error}");
        Answer::Approval(Approval::Denied { reason })
    };
    let mut answer = serde_json::from_slice(&text).unwrap_or_else(unreadable);
    answer.redact(secrets);
    Some(answer)
}

/// Waits for answers given by [`give`], and for those of someone at hand; whichever comes first counts.
pub struct Inbox<P: ?Sized> {
    folder: PathBuf,
    at_hand: Arc<P>,
    secrets: Arc<Secrets>,
}

impl<P: ?Sized> Inbox<P> {
    /// The inbox of the run in `folder`, whose answers keep no value of `secrets`; `at_hand` is asked beside it.
    #[must_use]
    pub fn new(folder: &Path, at_hand: Arc<P>, secrets: Arc<Secrets>) -> Self {
        Self { folder: folder.to_owned(), at_hand, secrets }
    }

    /// The id of the question that the journal says is open.
    fn open(&self) -> Option<(String, Asked)> {
        let waiting = Summary::of(&read(&self.folder).ok()?).waiting?;
        Some((waiting.id, waiting.asked))
    }

    async fn wait(&self, id: &str) -> Answer {
        loop {
            if let Some(answer) = given(&self.folder, id, &self.secrets) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
    }

    /// The answer that counts, where `own` was given here.
    fn claim(&self, id: &str, mut own: Answer) -> Answer {
        own.redact(&self.secrets);
        match give(&self.folder, id, &own) {
            Ok(true) => own,
            // Where no file can be written, one may have been before.
            Ok(false) | Err(_) => given(&self.folder, id, &self.secrets).unwrap_or(own),
        }
    }
}

impl<P: Approver + ?Sized> Approver for Inbox<P> {
    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Approval> {
        Box::pin(async move {
            let Some((id, Asked::Approval(_))) = self.open() else {
                return self.at_hand.ask(question).await;
            };
            // What was given before anybody at hand is asked comes first.
            let answer = match select(Box::pin(self.wait(&id)), self.at_hand.ask(question)).await {
                Either::Left((answer, _)) => answer,
                // The question stays open.
                Either::Right((own @ Approval::Unanswered { .. }, _)) => return own,
                Either::Right((own, _)) => self.claim(&id, Answer::Approval(own)),
            };
            match answer {
                Answer::Approval(approval) => approval,
                Answer::Words(_) => Approval::Denied { reason: "the answer was of another kind".to_owned() },
            }
        })
    }
}

impl<P: Person + ?Sized> Person for Inbox<P> {
    fn ask<'a>(&'a self, question: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(async move {
            let Some((id, Asked::Words(_))) = self.open() else {
                return self.at_hand.ask(question).await;
            };
            let answer = match select(Box::pin(self.wait(&id)), self.at_hand.ask(question)).await {
                Either::Left((answer, _)) => answer,
                Either::Right((own, _)) => self.claim(&id, Answer::Words(own)),
            };
            match answer {
                Answer::Words(words) => words,
                Answer::Approval(_) => None,
            }
        })
    }
}
