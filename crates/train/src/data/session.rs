//! One episode under way: a real folder, the agent's own tools and context, and what has happened so far.
//!
//! The generator and the evaluation both drive it; only who answers differs.

use super::episode::{Episode, Files};
use perilune_agent::context::{
    self, Call, ContextError, Folds, Profile, TokenCounter, Transcript, Turn, View, words,
};
use perilune_agent::tools::{Arguments, Output, RegistryError, Scope, Workspace};
use perilune_chat::message::Conversation;
use perilune_chat::message::Thinking;
use perilune_chat::template::{Segment, Template};
use perilune_chat::tokenizer::Tokenizer;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// Where memory serves as a disk on Linux.
const MEMORY_FOLDER: &str = "/dev/shm";
/// Texts whose token counts are kept at most.
const N_COUNTS_MAX: usize = 20_000;

/// Why an episode cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The folder of the world cannot be used.
    #[error("the episode's folder cannot be used: {0}; make room in the folder for temporary files")]
    Folder(#[from] std::io::Error),
    /// The episode's tools do not stand together.
    #[error(transparent)]
    Tools(#[from] RegistryError),
    /// The conversation does not fit its budget.
    #[error(transparent)]
    Context(#[from] ContextError),
}

/// A call to be made, as its writer put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Name of the tool as the model sees it.
    pub name: String,
    /// The arguments as JSON text, valid or not.
    pub arguments: String,
}

/// Who counts tokens for a session.
pub type SharedCounter = Arc<dyn TokenCounter + Send + Sync>;

/// An episode under way.
pub struct Session {
    profile: Profile,
    scope: Scope,
    before: Files,
    transcript: Transcript,
    folds: Folds,
    counter: SharedCounter,
    // Dropped last, and the files with it.
    folder: tempfile::TempDir,
}

impl Session {
    /// Lays the world out in a temporary folder of its own, which goes with the session.
    ///
    /// # Errors
    /// [`SessionError::Folder`] or [`SessionError::Tools`].
    pub fn open(episode: &Episode, agent: &Profile, counter: &SharedCounter) -> Result<Self, SessionError> {
        let folder = fresh_folder()?;
        for (path, text) in &episode.files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
            std::fs::write(path, text)?;
        }
        let profile = Profile { tools: episode.tools.registry(&agent.tools)?, ..agent.clone() };
        let scope = Scope::new(Workspace::open(folder.path())?, profile.limits);
        Ok(Self {
            profile,
            scope,
            before: episode.files.clone(),
            transcript: Transcript::new(&episode.sentence),
            folds: Folds::default(),
            counter: Arc::clone(counter),
            folder,
        })
    }

    /// What the model is shown now.
    ///
    /// # Errors
    /// [`SessionError::Context`]: it cannot be made short enough.
    pub fn view(&mut self) -> Result<View, SessionError> {
        Ok(context::fit(&self.profile, &self.transcript, &mut self.folds, self.counter.as_ref())?)
    }

    /// Turns that were over when the newest stretch began: what came later was written in sight of all before it.
    #[must_use]
    pub fn n_turns_before(&self) -> usize {
        self.folds.n_before
    }

    /// Turns that the view no longer holds.
    #[must_use]
    pub fn n_turns_folded(&self) -> usize {
        self.folds.n_folded
    }

    /// Turns so far.
    #[must_use]
    pub fn n_turns(&self) -> usize {
        self.transcript.turns.len()
    }

    /// Makes the calls of one turn in order, and keeps the turn. Returns, for each, whether the tool did it.
    pub fn act(&mut self, reasoning: &str, content: &str, calls: &[Wanted]) -> Vec<bool> {
        let mut turn =
            Turn { reasoning: reasoning.to_owned(), content: content.to_owned(), ..Turn::default() };
        let mut done = Vec::new();
        for wanted in calls {
            let number = self.transcript.n_calls() + turn.calls.len() as u64 + 1;
            let output = self.call(wanted);
            let policy = &self.profile.policy;
            let counter = self.counter.as_ref();
            let shown = context::show(number, &wanted.name, &wanted.arguments, &output, policy, counter);
            done.push(output.is_done);
            turn.calls.push(Call {
                number,
                name: wanted.name.clone(),
                arguments: wanted.arguments.clone(),
                result: shown.text,
            });
        }
        self.transcript.turns.push(turn);
        done
    }

    fn call(&self, wanted: &Wanted) -> Output {
        let Some(tool) = self.profile.tools.get(&wanted.name) else {
            let names = self.profile.tools.names().join(", ");
            return Output { is_done: false, ..Output::done(words::no_tool(&wanted.name, &names)) };
        };
        match serde_json::from_str::<Arguments>(&wanted.arguments) {
            Ok(arguments) => at_once(tool.run(&arguments, &self.scope)),
            Err(error) => Output { is_done: false, ..Output::done(words::not_json(&error.to_string())) },
        }
    }

    /// The files as they were before the first call.
    #[must_use]
    pub fn files_before(&self) -> &Files {
        &self.before
    }

    /// The files as they are now.
    ///
    /// # Errors
    /// The system's, where the folder cannot be read.
    pub fn files(&self) -> std::io::Result<Files> {
        let mut files = Files::new();
        collect(self.folder.path(), "", &mut files)?;
        Ok(files)
    }
}

/// A future that is ready when first polled, as tools on files promise.
fn at_once(mut future: perilune_agent::gate::BoxFuture<'_, Output>) -> Output {
    match future.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => Output::failed("the tool waits, and nobody is there to wake it"),
    }
}

fn fresh_folder() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new(MEMORY_FOLDER);
    let named = |builder: &mut tempfile::Builder<'_, '_>| match memory.is_dir() {
        true => builder.tempdir_in(memory).or_else(|_| builder.tempdir()),
        false => builder.tempdir(),
    };
    named(tempfile::Builder::new().prefix("perilune-world-"))
}

fn collect(folder: &Path, beneath: &str, files: &mut Files) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{beneath}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name, String::from_utf8_lossy(&std::fs::read(entry.path())?).into_owned());
        }
    }
    Ok(())
}

/// Counts tokens as the small model will: its template, its tokenizer. Counts of texts are kept, since each prompt
/// repeats the one before.
pub struct Counter {
    tokenizer: Arc<Tokenizer>,
    template: Template,
    counts: Mutex<HashMap<String, usize>>,
}

impl Counter {
    /// A counter of Kimi K2 Thinking's chat template with this tokenizer.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, template: Template::default(), counts: Mutex::default() }
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }
}

impl TokenCounter for Counter {
    fn conversation(&self, conversation: &Conversation) -> usize {
        let rendered = self.template.render(conversation, Thinking::default());
        let tokens = |segment: &Segment| match segment {
            Segment::Special(_) => 1,
            Segment::Text(text) => self.text(text),
        };
        rendered.segments().iter().map(tokens).sum()
    }

    fn text(&self, text: &str) -> usize {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&count) = counts.get(text) {
            return count;
        }
        if counts.len() >= N_COUNTS_MAX {
            counts.clear();
        }
        let count = self.tokenizer.encode_ordinary(text).len();
        counts.insert(text.to_owned(), count);
        count
    }
}
