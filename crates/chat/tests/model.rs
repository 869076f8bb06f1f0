//! A script behind [`ChatModel`]: the trait is object-safe and needs no runtime.
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

use futures_core::Stream;
use perilune_chat::message::{Conversation, Message, Request};
use perilune_chat::model::{ChatModel, Event, EventStream, ModelError, Usage};
use perilune_chat::scanner::{Delta, Finish, Reply};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Answers each request with the next page of a script.
struct Script {
    pages: Mutex<VecDeque<Vec<Result<Event, ModelError>>>>,
}

struct Page(VecDeque<Result<Event, ModelError>>);

impl Stream for Page {
    type Item = Result<Event, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.pop_front())
    }
}

impl ChatModel for Script {
    fn name(&self) -> &str {
        "script"
    }

    fn count_tokens(&self, conversation: &Conversation) -> Option<usize> {
        Some(conversation.messages().len())
    }

    fn answer(&self, _: Request) -> EventStream {
        let over = || vec![Err(ModelError::Refused { status: None, message: "the script is over".into() })];
        let page = self.pages.lock().unwrap().pop_front().unwrap_or_else(over);
        Box::pin(Page(page.into()))
    }
}

fn collect(mut stream: EventStream) -> Vec<Result<Event, ModelError>> {
    let mut context = Context::from_waker(Waker::noop());
    let mut events = Vec::new();
    while let Poll::Ready(Some(event)) = stream.as_mut().poll_next(&mut context) {
        events.push(event);
    }
    events
}

#[test]
fn a_scripted_model_answers_as_any_other() {
    let page = vec![
        Ok(Event::Delta(Delta::Reasoning("hm".into()))),
        Ok(Event::Delta(Delta::Content("hi".into()))),
        Ok(Event::Usage(Usage { prompt_tokens: 26, ..Usage::default() })),
        Ok(Event::Finish { finish: Finish::Stop, left_open: None }),
    ];
    let model: Arc<dyn ChatModel> = Arc::new(Script { pages: Mutex::new([page.clone()].into()) });
    let user = Message::User { name: None, text: "hello".into() };
    let request = Request::new(Conversation::new(vec![user], Vec::new()).unwrap());
    assert_eq!((model.name(), model.context_tokens_max()), ("script", None));
    assert_eq!(model.count_tokens(&request.conversation), Some(1));

    let events = collect(model.answer(request.clone()));
    assert_eq!(events, page);
    let deltas = events.into_iter().filter_map(|event| match event {
        Ok(Event::Delta(delta)) => Some(delta),
        _ => None,
    });
    let reply: Reply = deltas.collect();
    assert_eq!((reply.reasoning.as_str(), reply.content.as_str()), ("hm", "hi"));

    let refused = collect(model.answer(request));
    assert!(matches!(refused.as_slice(), [Err(ModelError::Refused { .. })]), "{refused:?}");
}
