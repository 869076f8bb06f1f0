//! An id forwarded to another endpoint: here, this same server on a socket.

#![allow(clippy::unwrap_used)]

mod common;

use common::{House, chat};
use futures_util::StreamExt;
use perilune_chat::message::{Conversation, Message, Request};
use perilune_chat::model::{ChatModel, Event, ModelError};
use perilune_server::app::App;
use perilune_server::routes::{self, Pages};
use perilune_server::serve::serve;
use perilune_server::store::{KeyKind, KeyLimits, Period, Status, Store};
use perilune_server::upstream::{Dialect, Endpoint, Upstream};
use serde_json::json;
use std::time::Duration;
use tokio::net::TcpListener;

/// Serves the house on a free port; its address.
async fn listen(house: &House) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let (app, router) = (house.app.clone(), house.router.clone());
    tokio::spawn(async move { serve(listener, app, router, std::future::pending(), Duration::ZERO).await });
    base
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_answer_is_the_same_and_metered() {
    let far = House::new();
    let base_url = listen(&far).await;
    let store = Store::in_memory().unwrap();
    let endpoint =
        Endpoint { base_url, api_key: None, model: "kimi-k2-thinking".to_owned(), dialect: Dialect::OpenAi };
    let app =
        App::new(store.clone(), true).unwrap().with_upstream("elsewhere", Upstream::new(endpoint).unwrap());
    let router = routes::router(app, Pages::new());
    let call = "<think>hm</think>Look:<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0\
                <|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|><|tool_call_begin|>functions.f:1\
                <|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>";
    let text = far.script(call);
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } });
    let mut body = chat(&text, &json!({ "tools": [tool], "max_tokens": 400 }));
    let (_, direct) = far.post("/v1/chat/completions", &body).await;
    body["model"] = json!("elsewhere");
    let near = House { router, ..House::new() };
    let (status, forwarded) = near.post("/v1/chat/completions", &body).await;
    assert_eq!(status, 200, "{forwarded}");
    assert_eq!(forwarded["choices"], direct["choices"]);
    assert_eq!(forwarded["usage"]["completion_tokens"], direct["usage"]["completion_tokens"]);
    store.flush().await.unwrap();
    let line = store.lines(Period::default(), 1).await.unwrap().remove(0);
    assert_eq!(
        (line.status, line.model.as_str(), line.class.as_str()),
        (Status::Done, "elsewhere", "upstream")
    );
    assert_eq!(line.usage.prompt_tokens, direct["usage"]["prompt_tokens"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_s_refusals_keep_their_meaning() {
    let store = Store::in_memory().unwrap();
    let far = House::with(Duration::ZERO, store.clone());
    let base_url = listen(&far).await;
    let limits = KeyLimits { requests_per_min: Some(1), ..KeyLimits::default() };
    let secret = store.create_key("k", KeyKind::Api, limits, None).await.unwrap().secret;
    let ask = |api_key: Option<String>, model: &str| {
        let endpoint = Endpoint {
            base_url: base_url.clone(),
            api_key,
            model: model.to_owned(),
            dialect: Dialect::OpenAi,
        };
        let hello = Message::User { name: None, text: "hello".to_owned() };
        let mut request = Request::new(Conversation::new(vec![hello], Vec::new()).unwrap());
        request.max_tokens = Some(2);
        let events = Upstream::new(endpoint).unwrap().answer(request);
        async move { events.collect::<Vec<_>>().await.pop().unwrap() }
    };
    let wrong = ask(Some("sk-x".to_owned()), "kimi-k2-thinking").await;
    assert!(matches!(wrong, Err(ModelError::Unauthorized { .. })), "{wrong:?}");
    let unknown = ask(Some(secret.clone()), "nothing").await;
    assert!(matches!(unknown, Err(ModelError::Refused { status: Some(404), .. })), "{unknown:?}");
    let good = ask(Some(secret.clone()), "kimi-k2-thinking").await;
    assert!(matches!(good, Ok(Event::Finish { .. })), "{good:?}");
    let busy = ask(Some(secret), "kimi-k2-thinking").await;
    assert!(matches!(busy, Err(ModelError::Busy { retry_after_ms: Some(1000..), .. })), "{busy:?}");
    let endpoint = Endpoint {
        base_url: "http://127.0.0.1:9/v1".to_owned(),
        api_key: None,
        model: "x".to_owned(),
        dialect: Dialect::OpenAi,
    };
    let request = Request::new(Conversation::default());
    let gone = Upstream::new(endpoint).unwrap().answer(request).next().await.unwrap();
    assert!(matches!(gone, Err(ModelError::Transport { .. })), "{gone:?}");
}
