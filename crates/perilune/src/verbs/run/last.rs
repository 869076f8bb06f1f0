//! How a run ended: its last line, and the exit status.

use super::view::show;
use super::{Args, Exit};
use crate::terminal::harmless;
use crate::verbs::interrupt::Interrupted;
use crate::verbs::sentence;
use crate::verbs::upstream::ONE_KEY;
use perilune_agent::gate::GateError;
use perilune_agent::journal::How;
use perilune_agent::run::RunError;
use perilune_chat::model::ModelError;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What came of it, where nothing failed.
pub(super) enum End {
    /// The run is over.
    Over { how: How, text: String, was_denied: bool },
    /// Somebody stopped the process.
    Interrupted,
}

/// Says the last line, whatever happened before it.
#[derive(Default)]
pub(super) struct Last {
    /// Name, and the folder of the journals.
    run: OnceLock<(String, PathBuf)>,
}

impl Last {
    /// From now on there is a run that can be taken up again.
    pub(super) fn opened(&self, name: &str, runs: &Path) {
        // A process has one run.
        let _ = self.run.set((name.to_owned(), runs.to_owned()));
    }

    /// The last line, and the process's end.
    pub(super) fn say(&self, args: &Args, ended: anyhow::Result<End>) -> anyhow::Result<()> {
        let status = status(&ended);
        let resume = self.run.get().filter(|_| !matches!(ended, Ok(End::Over { .. })));
        let resume = resume.map(|(name, runs)| resume_command(args, name, runs));
        let text = match &ended {
            Ok(End::Over { text, .. }) => text.clone(),
            Ok(End::Interrupted) => "interrupted".to_owned(),
            Err(error) => sentence(error),
        };
        if args.json {
            let answer = (status == "done").then_some(&text);
            let how = match &ended {
                Ok(End::Over { how, .. }) => Some(how),
                _ => None,
            };
            let (run, event) = (self.run.get().map(|(name, _)| name), "final");
            let last = json!({"event": event, "status": status, "answer": answer, "how": how, "text": text,
                              "run": run, "resume": resume});
            show(&format!("{last}\n"));
        } else if let Ok(End::Over { how, .. }) = &ended {
            let stopped = if *how == How::Answer { "" } else { "stopped: " };
            show(&format!("\n{stopped}{}\n", harmless(&text)));
        }
        if let Some(resume) = resume {
            eprintln!("go on with: {resume}");
        } else if let ("budget", Some((name, _))) = (status, self.run.get()) {
            eprintln!(
                "with a larger limit it goes on: perilune run --resume {name}, its model and its flags"
            );
        }
        if let (Some(_), Err(error)) = (&args.upstream, &ended)
            && let Some(RunError::Model(ModelError::Unauthorized { .. })) = error.downcast_ref()
        {
            let is_set = std::env::var_os(ONE_KEY).is_some();
            eprintln!("its key is read from {ONE_KEY}, which is {}set", if is_set { "" } else { "not " });
        }
        match (status, ended) {
            ("done", _) => Ok(()),
            ("budget", _) => Err(Exit(3).into()),
            ("denied", _) => Err(Exit(4).into()),
            ("unanswered", _) => {
                eprintln!("error: {text}");
                Err(Exit(5).into())
            }
            ("interrupted", _) => Err(Interrupted.into()),
            (_, Err(error)) => Err(error),
            (_, Ok(_)) => Err(Exit(1).into()),
        }
    }
}

/// One word for scripts.
fn status(ended: &anyhow::Result<End>) -> &'static str {
    match ended {
        Ok(End::Over { how: How::Answer, .. }) => "done",
        Ok(End::Over { how: How::Budget, .. }) => "budget",
        Ok(End::Over { how: How::Stuck, was_denied: true, .. }) => "denied",
        Ok(End::Over { how: How::Stuck, was_denied: false, .. }) => "stuck",
        Ok(End::Interrupted) => "interrupted",
        Err(error) => match error.downcast_ref::<RunError>() {
            Some(RunError::Gate(GateError::Unanswered { .. })) => "unanswered",
            Some(_) => "paused",
            None => "failed",
        },
    }
}

/// The line for a shell that goes on with a run as it was started.
fn resume_command(args: &Args, name: &str, runs: &Path) -> String {
    let path = |flag: &str, path: &Option<PathBuf>| {
        path.iter().flat_map(|path| [flag.to_owned(), path.display().to_string()]).collect::<Vec<_>>()
    };
    let mut words = ["perilune", "run", "--resume", name].map(str::to_owned).to_vec();
    words.extend(path("--model", &args.model));
    words.extend(args.upstream.iter().flat_map(|place| ["--upstream".to_owned(), place.clone()]));
    words.extend(["--context".to_owned(), args.context.to_string()]);
    words.extend(args.temperature.iter().flat_map(|it| ["--temperature".to_owned(), it.to_string()]));
    words.extend(path("--policy", &args.policy));
    words.extend(path("--runs", &Some(runs.to_owned())));
    words.extend(args.data.given());
    words.extend(args.run.given());
    words.extend(args.budget.given());
    words.extend(args.web.given());
    words.extend(args.ask_in_console.then(|| "--ask-in-console".to_owned()));
    words.extend(args.json.then(|| "--json".to_owned()));
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=+,@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_words_back() {
        for word in ["plain-1.2/x", "", "two words", "it's", "a;b $(c) `d` \"e\" #f", "http://a/v1#m", "ä\nö"]
        {
            let line = format!("printf %s {}", quoted(word));
            let output = std::process::Command::new("/bin/sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }
}
