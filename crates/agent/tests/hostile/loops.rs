//! The agent's own loop around a model that does whatever it is told by anything that it is shown.

use perilune_agent::context::{Bytes, Profile};
use perilune_agent::gate::{BoxFuture, Gate, Unattended};
use perilune_agent::journal::{self, Entry, Opened};
use perilune_agent::run::{Budget, Hands, Listener, Price, Run, RunError, SystemClock};
use perilune_agent::tools::{Arguments, Registry, Scope};
use perilune_chat::message::{self, Message, Request, Sampling};
use perilune_chat::model::{ChatModel, Event, EventStream, ModelError};
use perilune_chat::scanner::{Closing, Delta, Finish};
use serde_json::Value;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Turns that the budget allows.
const N_STEPS_MAX: u64 = 13;

/// What the model does next, and everything that left the agent.
#[derive(Default)]
pub(crate) struct Mind {
    /// Calls that it will make, one a turn.
    pub(crate) calls: VecDeque<(String, Arguments)>,
    /// The results that it was shown.
    pub(crate) shown: Vec<String>,
    /// Whole requests as text.
    pub(crate) requests: Vec<String>,
    /// Of each request: tokens for thinking, tokens for the whole answer.
    pub(crate) limits: Vec<(Option<u64>, Option<u64>)>,
    /// What watchers were told.
    pub(crate) told: Vec<String>,
    /// What it says at the end.
    pub(crate) answer: String,
}

/// One mind, shared by the model, who watches and who judges.
#[derive(Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Mind>>);

impl Listener for Shared {
    fn event(&self, entry: &Entry) {
        self.0.lock().unwrap().told.push(serde_json::to_string(entry).unwrap());
    }

    fn delta(&self, delta: &Delta) {
        self.0.lock().unwrap().told.push(format!("{delta:?}"));
    }
}

impl ChatModel for Shared {
    fn name(&self) -> &str {
        "obeying"
    }

    fn answer(&self, request: Request) -> EventStream {
        let mut mind = self.0.lock().unwrap();
        let messages = request.conversation.messages();
        mind.limits.push((request.thinking.budget_tokens, request.max_tokens));
        mind.requests.push(messages.iter().map(text).collect());
        let results = messages.iter().filter_map(|it| match it {
            Message::ToolResult(it) => Some(it.text.clone()),
            _ => None,
        });
        let new: Vec<String> = results.skip(mind.shown.len()).collect();
        for result in new {
            mind.calls.extend(obey(&result));
            mind.shown.push(result);
        }
        let last = mind.shown.last().cloned().unwrap_or_default();
        let mut deltas = vec![Delta::Reasoning(format!("I was told: {last}"))];
        match mind.calls.pop_front() {
            Some((name, mut arguments)) => {
                fill(&mut arguments, &last);
                let (id, text) = (format!("functions.{name}:0"), Value::Object(arguments).to_string());
                deltas.push(Delta::ToolCallBegin { index: 0, id, name });
                deltas.push(Delta::ToolCallArguments { index: 0, text });
                deltas.push(Delta::ToolCallEnd { index: 0, closing: Closing::Marker });
            }
            None => deltas.push(Delta::Content(format!("Done. {}", mind.answer))),
        }
        let events = deltas.into_iter().map(|delta| Ok(Event::Delta(delta)));
        let end: Result<Event, ModelError> = Ok(Event::Finish { finish: Finish::Stop, left_open: None });
        Box::pin(futures_util::stream::iter(events.chain([end]).collect::<Vec<_>>()))
    }
}

/// Everything of a message that reaches a model.
fn text(message: &Message) -> String {
    match message {
        Message::System { text, .. } | Message::User { text, .. } => format!("{text}\n"),
        Message::Assistant(it) => {
            let calls = it.tool_calls.iter().map(|call| match &call.arguments {
                message::Arguments::Text(text) => format!("{} {text}\n", call.name),
                message::Arguments::Object(map) => format!("{} {}\n", call.name, Value::Object(map.clone())),
            });
            format!("{}\n{}\n{}", it.reasoning, it.content, calls.collect::<String>())
        }
        Message::ToolResult(it) => format!("{}\n", it.text),
    }
}

/// Every instruction of a text.
fn obey(text: &str) -> Vec<(String, Arguments)> {
    let calls = text.match_indices("DO {").filter_map(|(at, _)| {
        let call = serde_json::Deserializer::from_str(&text[at + 3..]).into_iter::<Value>().next()?.ok()?;
        Some((call["tool"].as_str()?.to_owned(), call["arguments"].as_object()?.clone()))
    });
    calls.collect()
}

/// Puts what was seen last into the arguments, as the instruction wants it encoded.
fn fill(arguments: &mut Arguments, seen: &str) {
    use base64::Engine;
    let forms = [
        ("{{SEEN}}", seen.to_owned()),
        ("{{B64}}", base64::engine::general_purpose::STANDARD.encode(seen)),
        ("{{HEX}}", seen.bytes().take(100).map(|byte| format!("{byte:02x}")).collect()),
        ("{{URL}}", url::form_urlencoded::byte_serialize(seen.as_bytes()).collect()),
    ];
    for value in arguments.values_mut() {
        let Some(written) = value.as_str() else { continue };
        *value = forms.iter().fold(written.to_owned(), |text, (form, seen)| text.replace(form, seen)).into();
    }
}

/// A run from its first event to its end, its journal in `folder`.
pub(crate) async fn run(
    task: &str,
    folder: &Path,
    mind: &Shared,
    tools: Registry,
    gate: Arc<dyn Gate>,
    scope: Scope,
) -> Result<String, RunError> {
    let opened = Opened { run: "run".to_owned(), task: task.to_owned(), ..Opened::default() };
    let (journal, entry) = journal::create(folder, 0, opened.redacted(&scope.secrets))?;
    let hands = hands(mind, tools, gate, scope);
    Run::new(hands, journal, &[entry])?.finish().await.map(|(_, text)| text)
}

/// What a run is handed: nobody is there to be asked.
pub(crate) fn hands(mind: &Shared, tools: Registry, gate: Arc<dyn Gate>, scope: Scope) -> Hands {
    Hands {
        model: Arc::new(mind.clone()),
        profile: Profile { tools, ..Profile::standard(1_000_000, 1_000) },
        scope,
        gate,
        approver: Arc::new(Unattended),
        counter: Arc::new(Bytes),
        tokenizer: None,
        clock: Arc::new(SystemClock),
        listener: Arc::new(mind.clone()),
        sampling: Sampling::default(),
        budget: Budget { n_steps_max: N_STEPS_MAX, ..Budget::STEPS_120 },
        price: Price::default(),
    }
}

pub(crate) fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}
