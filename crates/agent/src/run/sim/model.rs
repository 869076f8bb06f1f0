//! A model that errs: bad calls, unknown tools, empty answers, failures, streams that break off.

use super::world::World;
use perilune_chat::message::{Arguments, Message, Request};
use perilune_chat::model::{ChatModel, Event, EventStream, ModelError};
use perilune_chat::scanner::{Closing, Delta, Finish};
use std::sync::Arc;

/// Writes what the world's random numbers say.
pub(super) struct Erring(pub(super) Arc<World>);

const TOOLS: [&str; 8] = ["look", "put", "pay", "send", "drop", "launch", "forbid", "confirm"];

impl ChatModel for Erring {
    fn name(&self) -> &str {
        "erring"
    }

    fn answer(&self, request: Request) -> EventStream {
        let messages = request.conversation.messages();
        self.0.send(messages.iter().map(text).collect());
        let busy = || Err(ModelError::Busy { retry_after_ms: Some(1), message: "busy".to_owned() });
        let events = match self.0.below(12) {
            0 => vec![busy()],
            1 => vec![Ok(Event::Delta(Delta::Reasoning("broken".to_owned())))],
            _ => self.whole(messages.iter().filter(|it| matches!(it, Message::Assistant(_))).count() as u64),
        };
        Box::pin(futures_util::stream::iter(events))
    }
}

impl Erring {
    fn whole(&self, n_answers: u64) -> Vec<Result<Event, ModelError>> {
        let mut deltas = vec![Delta::Reasoning(self.0.think())];
        let is_over = n_answers >= self.0.n_turns && !self.0.is_circling;
        if is_over {
            deltas.push(Delta::Content("the end".to_owned()));
        } else if self.0.is_circling && n_answers > 1 {
            push(&mut deltas, "look", "{\"id\":0}".to_owned());
        } else if self.0.below(8) == 0 {
            let (name, arguments) = (TOOLS[self.0.below(8) as usize], self.0.next_id());
            deltas.push(Delta::Reasoning(format!(
                "<|tool_calls_section_begin|><|tool_call_begin|>functions.{name}:0\
                 <|tool_call_argument_begin|>{{\"id\":{arguments}}}<|tool_call_end|><|tool_calls_section_end|>"
            )));
        } else if self.0.below(10) > 0 {
            for _ in 0..=self.0.below(3) {
                let (name, arguments) = self.call();
                push(&mut deltas, &name, arguments);
            }
        }
        let has_calls = deltas.iter().any(|delta| matches!(delta, Delta::ToolCallBegin { .. }));
        let finish = if has_calls { Finish::ToolCalls } else { Finish::Stop };
        let events = deltas.into_iter().map(|delta| Ok(Event::Delta(delta)));
        events.chain([Ok(Event::Finish { finish, left_open: None })]).collect()
    }

    fn call(&self) -> (String, String) {
        let id = self.0.next_id();
        let name = TOOLS[self.0.below(TOOLS.len() as u64) as usize];
        match self.0.below(12) {
            0 => (name.to_owned(), format!("{{\"id\":{id}")),
            1 => (name.to_owned(), format!("[{id}]")),
            2 => (format!("no_{name}"), format!("{{\"id\":{id}}}")),
            _ => (name.to_owned(), format!("{{\"id\":{id}}}")),
        }
    }
}

fn push(deltas: &mut Vec<Delta>, name: &str, arguments: String) {
    let index = deltas.iter().filter(|delta| matches!(delta, Delta::ToolCallBegin { .. })).count();
    deltas.push(Delta::ToolCallBegin {
        index,
        id: format!("functions.{name}:{index}"),
        name: name.to_owned(),
    });
    deltas.push(Delta::ToolCallArguments { index, text: arguments });
    deltas.push(Delta::ToolCallEnd { index, closing: Closing::Marker });
}

/// A message on one line, for the judge.
fn text(message: &Message) -> String {
    match message {
        Message::System { .. } => "system\n".to_owned(),
        Message::User { text, .. } => format!("user {text}\n"),
        Message::Assistant(it) => {
            let calls = it.tool_calls.iter().map(|call| match &call.arguments {
                Arguments::Text(text) => format!(" | {} {text}", call.name),
                Arguments::Object(_) => " | object".to_owned(),
            });
            format!("assistant {}{}\n", it.reasoning, calls.collect::<String>())
        }
        Message::ToolResult(it) => format!("result {}\n", it.text.replace('\n', " ")),
    }
}
