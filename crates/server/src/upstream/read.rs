//! Chunks of an OpenAI-shaped stream to the events of `ChatModel`.

use perilune_chat::model::{Event, ModelError, Usage};
use perilune_chat::scanner::{Closing, Delta, Finish};
use perilune_chat::wire::openai::{ChatChunk, ChunkDelta, ErrorBody, FinishReason, ToolCallDelta};

/// What has come so far.
#[derive(Default)]
pub(super) struct Reader {
    /// The endpoint's index of the open call.
    open_call: Option<u32>,
    n_calls: usize,
    usage: Option<Usage>,
    finish: Option<Finish>,
}

type Events = Vec<Result<Event, ModelError>>;

impl Reader {
    /// Takes the data of some events; whether the stream is over.
    pub(super) fn take(&mut self, data: Vec<String>, events: &mut Events) -> bool {
        for text in data {
            if text == "[DONE]" {
                return self.close(events);
            }
            match serde_json::from_str::<ChatChunk>(&text) {
                Ok(chunk) => self.chunk(chunk, events),
                Err(error) => {
                    let message = match serde_json::from_str::<ErrorBody>(&text) {
                        Ok(body) => body.error.message,
                        Err(_) => format!("a chunk is not of the published shape ({error})"),
                    };
                    events.push(Err(ModelError::Protocol { message }));
                    return true;
                }
            }
        }
        false
    }

    /// The connection failed.
    pub(super) fn broken(&mut self, message: &str, events: &mut Events) -> bool {
        events.push(Err(ModelError::Transport { message: message.to_owned() }));
        true
    }

    /// The stream ended; without a reason it broke off.
    pub(super) fn close(&mut self, events: &mut Events) -> bool {
        let Some(finish) = self.finish.take() else {
            return self.broken("the endpoint's stream broke off", events);
        };
        events.extend(self.usage.take().map(|usage| Ok(Event::Usage(usage))));
        events.push(Ok(Event::Finish { finish, left_open: None }));
        true
    }

    fn chunk(&mut self, chunk: ChatChunk, events: &mut Events) {
        if let Some(usage) = chunk.usage {
            self.usage = Some(usage.into());
        }
        let Some(choice) = chunk.choices.into_iter().find(|choice| choice.index == 0) else { return };
        if let Some(usage) = choice.usage {
            self.usage = Some(usage.into());
        }
        self.delta(choice.delta, events);
        if let Some(reason) = choice.finish_reason {
            self.close_call(events);
            self.finish = Some(match reason {
                FinishReason::Stop | FinishReason::ContentFilter => Finish::Stop,
                FinishReason::Length => Finish::Length,
                FinishReason::ToolCalls => Finish::ToolCalls,
            });
        }
    }

    fn delta(&mut self, delta: ChunkDelta, events: &mut Events) {
        let mut push = |delta| events.push(Ok(Event::Delta(delta)));
        if let Some(text) = delta.reasoning_content.filter(|text| !text.is_empty()) {
            push(Delta::Reasoning(text));
        }
        if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
            push(Delta::Content(text));
        }
        for call in delta.tool_calls.unwrap_or_default() {
            self.call(call, events);
        }
    }

    fn call(&mut self, call: ToolCallDelta, events: &mut Events) {
        if self.open_call != Some(call.index) {
            self.close_call(events);
            let Some(name) = call.function.name else {
                let message = "a tool call began without a name".to_owned();
                return events.push(Err(ModelError::Protocol { message }));
            };
            let index = self.n_calls;
            let id = call.id.unwrap_or_else(|| format!("functions.{name}:{index}"));
            events.push(Ok(Event::Delta(Delta::ToolCallBegin { index, id, name })));
            self.open_call = Some(call.index);
            self.n_calls += 1;
        }
        if let Some(text) = call.function.arguments.filter(|text| !text.is_empty()) {
            let index = self.n_calls - 1;
            events.push(Ok(Event::Delta(Delta::ToolCallArguments { index, text })));
        }
    }

    fn close_call(&mut self, events: &mut Events) {
        if self.open_call.take().is_some() {
            let (index, closing) = (self.n_calls - 1, Closing::Marker);
            events.push(Ok(Event::Delta(Delta::ToolCallEnd { index, closing })));
        }
    }
}
