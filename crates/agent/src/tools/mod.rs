//! What can the model do? Each tool is one file: declaration, effect class, runtime, tests.
//!
//! A tool never holds a raw handle: it gets a [`Scope`] and reaches only what stands in it. Whether a call
//! may happen is the gate's matter ([`crate::gate`]); a tool says what it would touch ([`Tool::resources`]).
//! Whatever a tool answers is written for the model: an error is one sentence that says what to do next.
//!
//! The words of declarations and results are what the embedded model was trained on: changing them changes
//! what it sees, and a test pins them.

mod arguments;
mod artefacts;
mod ask_user;
mod calculate;
mod confined;
mod edit_file;
mod fetch_url;
mod finish;
mod list_files;
mod near;
mod outside;
mod pdf;
mod python;
mod read_file;
mod registry;
mod scope;
mod search_files;
mod shell;
mod todo;
mod web_search;
mod workspace;
mod write_file;

pub use arguments::ArgumentError;
pub(crate) use artefacts::Clean;
pub use ask_user::AskUser;
pub use calculate::{Calculate, CalculateError, evaluate};
pub use confined::Confined;
pub use edit_file::EditFile;
pub use fetch_url::FetchUrl;
pub use finish::Finish;
pub use list_files::ListFiles;
pub use pdf::Pdf;
pub use python::Python;
pub use read_file::ReadFile;
pub use registry::{Registry, RegistryError};
pub(crate) use scope::see;
pub use scope::{Limits, MayRead, Person, Scope, Seen};
pub use search_files::SearchFiles;
pub use shell::Shell;
pub use todo::Todo;
pub use web_search::WebSearch;
pub(crate) use workspace::ARTEFACTS;
pub use workspace::{OWN_FOLDER, Workspace, WorkspaceError};
pub use write_file::WriteFile;

use crate::gate::{BoxFuture, Effect, Resource};
use crate::secrets::Secrets;
use perilune_chat::message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Arguments of a call: an object in the model's own key order.
pub type Arguments = Map<String, Value>;

/// Something that the model can call. Object-safe: hold it as `Arc<dyn Tool>`.
pub trait Tool: Send + Sync {
    /// What the model reads of it.
    fn declaration(&self) -> Declaration;

    /// What a repetition of an attempt would do.
    fn effect(&self) -> Effect;

    /// Everything that a call with these arguments touches, for the gate; arguments of a wrong form touch nothing.
    fn resources(&self, arguments: &Arguments) -> Vec<Resource>;

    /// Whether calling it again and again with the same arguments is what it is for.
    fn is_polling(&self) -> bool {
        false
    }

    /// Whether it may run beside other calls of the same turn. True for reads.
    fn is_parallel(&self) -> bool {
        self.effect() == Effect::Read
    }

    /// Whether it waits for a person: then no time limit of the loop ends it, only that of the person's answer.
    fn waits_for_person(&self) -> bool {
        false
    }

    /// Whether a second attempt with the same [`Scope::key`] does nothing, because what it calls knows the key.
    fn takes_key(&self) -> bool {
        false
    }

    /// What the journal must know before the attempt, so that [`Tool::probe`] can tell afterwards whether it
    /// happened. Changes nothing.
    fn prepare(&self, _arguments: &Arguments, _scope: &Scope) -> Option<Value> {
        None
    }

    /// After a crash: did the attempt with this note happen? Changes nothing.
    fn probe(&self, _arguments: &Arguments, _note: &Value, _scope: &Scope) -> Probe {
        Probe::Unknown
    }

    /// Does it. Tools on files never wait, so their future is ready when first polled; they block for as long as
    /// the disk does. The loop gives up after a time, and drops a future that waits.
    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output>;

    /// Ends what calls have left running: the run is over. Ready when it can change nothing more.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What the model reads of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Name, as it is called.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// JSON Schema of the arguments: an object, its properties strings, numbers or truth values.
    pub parameters: Map<String, Value>,
}

impl Declaration {
    /// A declaration whose parameters are strings, numbers or truth values.
    #[must_use]
    pub fn flat(name: &str, description: &str, parameters: &[Parameter]) -> Self {
        let mut properties = Map::new();
        for parameter in parameters {
            let mut property = Map::new();
            property.insert("type".to_owned(), Value::from(parameter.kind));
            property.insert("description".to_owned(), Value::from(parameter.description));
            properties.insert(parameter.name.to_owned(), Value::Object(property));
        }
        let required: Vec<&str> = parameters.iter().filter(|it| it.is_required).map(|it| it.name).collect();
        let mut schema = Map::new();
        schema.insert("type".to_owned(), Value::from("object"));
        schema.insert("properties".to_owned(), Value::Object(properties));
        schema.insert("required".to_owned(), Value::from(required));
        Self { name: name.to_owned(), description: description.to_owned(), parameters: schema }
    }

    /// The form that the chat template renders.
    ///
    /// # Errors
    /// [`message::Invalid`]: the name is not one that a model can call.
    pub fn to_tool(&self) -> Result<message::Tool, message::Invalid> {
        message::Tool::function(&self.name, Some(&self.description), Some(&self.parameters))
    }
}

/// One parameter of a flat declaration.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Key in the arguments.
    pub name: &'static str,
    /// Its type in JSON Schema, such as `string`.
    pub kind: &'static str,
    /// A few words.
    pub description: &'static str,
    /// Whether it must be given.
    pub is_required: bool,
}

impl Parameter {
    /// A parameter that must be given.
    #[must_use]
    pub const fn required(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Self { name, kind, description, is_required: true }
    }

    /// A parameter that may be left out.
    #[must_use]
    pub const fn optional(name: &'static str, kind: &'static str, description: &'static str) -> Self {
        Self { name, kind, description, is_required: false }
    }
}

/// Where a result's text comes from; the context labels it by this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "origin", rename_all = "snake_case")]
pub enum Origin {
    /// The tool's own words.
    Tool,
    /// Text of files: data, never instructions.
    Files,
    /// Text of the network: data, never instructions.
    Web {
        /// Address it came from.
        url: String,
    },
}

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// Text for the model, before labels and cutting.
    pub text: String,
    /// Whether the call did what it was asked.
    pub is_done: bool,
    /// Where the text comes from.
    pub origin: Origin,
    /// Contents of files that the model has now seen: path and SHA-256 in hexadecimal.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<(String, String)>,
    /// Files left for people: paths beneath [`OWN_FOLDER`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artefacts: Vec<String>,
    /// The plan, where the call replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The answer, where the call ended the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl Output {
    /// The tool's own words, done.
    #[must_use]
    pub fn done(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_done: true,
            origin: Origin::Tool,
            seen: Vec::new(),
            artefacts: Vec::new(),
            plan: None,
            answer: None,
        }
    }

    /// Text of files, done.
    #[must_use]
    pub fn files(text: impl Into<String>) -> Self {
        Self { origin: Origin::Files, ..Self::done(text) }
    }

    /// Takes secret values out of everything that it says.
    pub(crate) fn redact(&mut self, secrets: &Secrets) {
        let seen = self.seen.iter_mut().map(|(path, _)| path);
        let texts = std::iter::once(&mut self.text).chain(seen).chain(&mut self.artefacts);
        let texts = texts.chain(&mut self.plan).chain(&mut self.answer);
        let url = match &mut self.origin {
            Origin::Web { url } => Some(url),
            Origin::Tool | Origin::Files => None,
        };
        for text in texts.chain(url) {
            secrets.redact_text(text);
        }
    }

    /// Not done: a sentence about what went wrong and what to do next, after `error: `.
    #[must_use]
    pub fn failed(text: impl Into<String>) -> Self {
        Self { is_done: false, ..Self::done(format!("error: {}", text.into())) }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// It happened; this is what the call would have answered.
    Done(Output),
    /// It did not happen.
    NotStarted,
    /// Nobody can tell.
    Unknown,
}

fn ready<'a>(output: Output) -> BoxFuture<'a, Output> {
    Box::pin(std::future::ready(output))
}
