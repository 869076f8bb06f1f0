//! Endpoints of both shapes, scripted word for word: what is sent to them, what is made of what they say.

#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use perilune_server::app::App;
use perilune_server::routes::{self, Pages};
use perilune_server::store::{Line, Period, Status, Store};
use perilune_server::upstream::{Dialect, Endpoint, Upstream};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tower::ServiceExt;

const KEY: &str = "sk-far-0123456789";

/// What the endpoint says to the next request.
#[derive(Clone)]
struct Say {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    /// The connection ends in the middle of the body.
    is_cut: bool,
}

impl Say {
    fn new(status: u16, kind: &'static str, body: impl Into<String>) -> Self {
        Self { status, headers: vec![("content-type", kind)], body: body.into(), is_cut: false }
    }

    fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    fn events(events: &[Value]) -> Self {
        let named = |event: &Value| {
            let name = event["type"].as_str().map_or(String::new(), |name| format!("event: {name}\n"));
            format!("{name}data: {event}\n\n")
        };
        Self::new(200, "text/event-stream", events.iter().map(named).collect::<String>())
    }

    fn response(self) -> Response {
        let mut response = Response::builder().status(self.status);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        let cut = async {
            // What was said before arrives.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            Err(std::io::Error::other("cut"))
        };
        let said = futures_util::stream::once(async { Ok(self.body) });
        let end = futures_util::stream::once(cut).take(usize::from(self.is_cut));
        response.body(Body::from_stream(said.chain(end))).unwrap()
    }
}

/// What the endpoint was asked: path, headers, body.
type Asked = Arc<Mutex<Vec<(String, HeaderMap, Value)>>>;

/// The endpoint and, in front of it, a server that forwards `far` to it.
struct House {
    next: Arc<Mutex<Option<Say>>>,
    asked: Asked,
    endpoint: Endpoint,
    store: Store,
    router: Router,
}

impl House {
    async fn new(dialect: Dialect) -> Self {
        let (next, asked) = (Arc::new(Mutex::new(None::<Say>)), Asked::default());
        let (say, note) = (Arc::clone(&next), Arc::clone(&asked));
        let endpoint = async move |request: Request<Body>| {
            let (parts, body) = request.into_parts();
            let body = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
            note.lock().unwrap().push((parts.uri.path().to_owned(), parts.headers, body));
            let said = say.lock().unwrap().clone();
            said.unwrap().response()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(endpoint)).await });
        let endpoint =
            Endpoint { base_url, api_key: Some(KEY.to_owned()), model: "there".to_owned(), dialect };
        let (store, router) = (Store::in_memory().unwrap(), Router::new());
        Self { next, asked, endpoint, store: store.clone(), router }.restarted(store).await
    }

    /// The same endpoint behind a new server, which has what `store` kept and nothing else.
    async fn restarted(self, store: Store) -> Self {
        let upstream = Upstream::new(self.endpoint.clone()).unwrap().with_store(&store).await.unwrap();
        let app = App::new(store.clone(), true).unwrap().with_upstream("far", upstream);
        Self { store, router: routes::router(app, Pages::new()), ..self }
    }

    /// Sends a request while the endpoint says `say`; status, headers, body.
    async fn ask(&self, path: &str, body: &Value, say: Say) -> (u16, HeaderMap, String) {
        *self.next.lock().unwrap() = Some(say);
        let request = Request::post(path).header("content-type", "application/json");
        let response = self.router.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await;
        let (parts, body) = response.unwrap().into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().into()).unwrap();
        (parts.status.as_u16(), parts.headers, text)
    }

    /// A chat request that is answered whole.
    async fn chat(&self, more: Value, say: Say) -> (u16, Value) {
        let (status, _, text) = self.ask("/v1/chat/completions", &chat(more), say).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The thinking that the endpoint was sent last.
    fn last_thinking(&self) -> Vec<Value> {
        let (_, _, sent) = self.last_asked();
        let blocks =
            sent["messages"].as_array().unwrap().iter().filter_map(|turn| turn["content"].as_array());
        blocks.flatten().filter(|block| block["type"] == "thinking").cloned().collect()
    }

    fn last_asked(&self) -> (String, HeaderMap, Value) {
        self.asked.lock().unwrap().last().unwrap().clone()
    }

    /// The newest line of the ledger.
    async fn line(&self) -> Line {
        self.store.flush().await.unwrap();
        self.store.lines(Period::default(), 1).await.unwrap().remove(0)
    }
}

fn chat(more: Value) -> Value {
    let mut body = json!({ "model": "far", "messages": [{ "role": "user", "content": "go" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn tools() -> Value {
    json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }])
}

/// Thinking under a seal, text, a call with arguments and one without.
fn turn() -> Vec<Value> {
    let delta =
        |index: u32, delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
    let begin = |index: u32, block: Value| json!({ "type": "content_block_start", "index": index, "content_block": block });
    let stop = |index: u32| json!({ "type": "content_block_stop", "index": index });
    let usage = json!({ "input_tokens": 10, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 2, "output_tokens": 1 });
    vec![
        json!({ "type": "message_start", "message": { "id": "m", "type": "message", "role": "assistant", "model": "there",
            "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage } }),
        json!({ "type": "ping" }),
        begin(0, json!({ "type": "thinking", "thinking": "" })),
        delta(0, json!({ "type": "thinking_delta", "thinking": "h" })),
        delta(0, json!({ "type": "thinking_delta", "thinking": "m" })),
        delta(0, json!({ "type": "signature_delta", "signature": "SEAL" })),
        stop(0),
        begin(1, json!({ "type": "text", "text": "" })),
        delta(1, json!({ "type": "text_delta", "text": "Look:" })),
        json!({ "type": "something_new" }),
        stop(1),
        begin(2, json!({ "type": "tool_use", "id": "toolu_1", "name": "f", "input": {} })),
        delta(2, json!({ "type": "input_json_delta", "partial_json": "{\"a\":" })),
        delta(2, json!({ "type": "input_json_delta", "partial_json": "1}" })),
        stop(2),
        begin(3, json!({ "type": "tool_use", "id": "toolu_2", "name": "f", "input": {} })),
        stop(3),
        json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use", "stop_sequence": null }, "usage": { "output_tokens": 25 } }),
        json!({ "type": "message_stop" }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anthropic_endpoint_serves_openai_clients() {
    let house = House::new(Dialect::Anthropic).await;
    let asked = json!({ "tools": tools(), "stop": ["END"], "max_tokens": 500, "temperature": 0.5 });
    let (status, whole) = house.chat(asked.clone(), Say::events(&turn())).await;
    assert_eq!(status, 200, "{whole}");
    let message = &whole["choices"][0]["message"];
    assert_eq!((&message["reasoning_content"], &message["content"]), (&json!("hm"), &json!("Look:")));
    let calls: Vec<&Value> =
        message["tool_calls"].as_array().unwrap().iter().map(|call| &call["function"]).collect();
    assert_eq!(
        calls,
        [&json!({ "name": "f", "arguments": "{\"a\":1}" }), &json!({ "name": "f", "arguments": "{}" })]
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls");
    let usage = &whole["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(42), &json!(25)));
    let (path, headers, sent) = house.last_asked();
    assert_eq!(
        (path.as_str(), &headers["x-api-key"]),
        ("/v1/messages", &http::HeaderValue::from_static(KEY))
    );
    assert_eq!(headers["anthropic-version"], "2023-06-01");
    assert!(!headers.contains_key("authorization"));
    assert_eq!(
        (&sent["model"], &sent["stop_sequences"], &sent["max_tokens"]),
        (&json!("there"), &json!(["END"]), &json!(500))
    );
    let line = house.line().await;
    assert_eq!((line.status, line.class.as_str()), (Status::Done, "upstream"));
    assert_eq!(
        (line.usage.prompt_tokens, line.usage.cached_tokens, line.usage.completion_tokens),
        (42, 30, 25)
    );

    let mut streaming = asked;
    streaming["stream"] = json!(true);
    let (_, _, text) = house.ask("/v1/chat/completions", &chat(streaming), Say::events(&turn())).await;
    let chunks: Vec<Value> =
        text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let joined = |field: &str| {
        chunks.iter().filter_map(|c| c["choices"][0]["delta"][field].as_str()).collect::<String>()
    };
    assert_eq!((joined("reasoning_content"), joined("content")), ("hm".to_owned(), "Look:".to_owned()));
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anthropic_endpoint_serves_anthropic_clients_and_gets_its_seals_back() {
    let house = House::new(Dialect::Anthropic).await;
    let body =
        json!({ "model": "far", "max_tokens": 400, "messages": [{ "role": "user", "content": "go" }] });
    let (status, _, text) = house.ask("/v1/messages", &body, Say::events(&turn())).await;
    assert_eq!(status, 200, "{text}");
    let message: Value = serde_json::from_str(&text).unwrap();
    let kinds: Vec<&Value> =
        message["content"].as_array().unwrap().iter().map(|block| &block["type"]).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
    assert_eq!(
        (&message["stop_reason"], &message["content"][2]["input"]),
        (&json!("tool_use"), &json!({ "a": 1 }))
    );

    let result = |id: &str| json!({ "type": "tool_result", "tool_use_id": id, "content": "ok" });
    let mut next = body;
    next["messages"] = json!([
        { "role": "user", "content": "go" },
        { "role": "assistant", "content": [{ "type": "thinking", "thinking": "of elsewhere", "signature": "" }] },
        { "role": "user", "content": "on" },
        { "role": "assistant", "content": message["content"] },
        { "role": "user", "content": [result("toolu_1"), result("toolu_2")] },
    ]);
    let whole = json!({ "type": "message", "role": "assistant", "content": [{ "type": "text", "text": "done" }],
        "stop_reason": "stop_sequence", "stop_sequence": "END", "usage": { "input_tokens": 5, "output_tokens": 7 } });
    let (status, _, text) = house.ask("/v1/messages", &next, Say::json(200, &whole)).await;
    let message: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (status, &message["content"][0]["text"]),
        (200, &json!("done")),
        "an answer that came whole: {text}"
    );
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!("END"))
    );
    assert_eq!(
        house.last_thinking(),
        [json!({ "type": "thinking", "thinking": "hm", "signature": "SEAL" })],
        "unsealed thinking stays out"
    );
    assert_eq!(house.line().await.usage.completion_tokens, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn seals_outlive_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("perilune.db");
    let house = House::new(Dialect::Anthropic).await.restarted(Store::open(&path).unwrap()).await;
    let (status, whole) = house.chat(json!({ "tools": tools() }), Say::events(&turn())).await;
    assert_eq!(status, 200, "{whole}");
    house.store.flush().await.unwrap();
    let house = house.restarted(Store::open(&path).unwrap()).await;
    let thought = |text: &str| {
        json!({ "role": "assistant", "content": "Look:", "reasoning_content": text,
        "tool_calls": whole["choices"][0]["message"]["tool_calls"] })
    };
    let result = |id: &str| json!({ "role": "tool", "tool_call_id": id, "content": "ok" });
    let ask = async |thinking: &str| {
        let messages = json!([{ "role": "user", "content": "go" }, thought(thinking), result("toolu_1"), result("toolu_2")]);
        let (status, answer) =
            house.chat(json!({ "tools": tools(), "messages": messages }), Say::events(&turn())).await;
        assert_eq!(status, 200, "{answer}");
        house.last_thinking()
    };
    assert!(ask("of elsewhere").await.is_empty(), "this endpoint is known to seal");
    assert_eq!(ask("hm").await, [json!({ "type": "thinking", "thinking": "hm", "signature": "SEAL" })]);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_keep_their_meaning_and_never_hold_the_key() {
    let said =
        |kind: &str, message: &str| json!({ "type": "error", "error": { "type": kind, "message": message } });
    for dialect in [Dialect::Anthropic, Dialect::OpenAi] {
        let house = House::new(dialect).await;
        let leak = Say::json(401, &said("authentication_error", &format!("invalid x-api-key {KEY}")));
        let (status, body) = house.chat(json!({}), leak).await;
        assert_eq!(status, 502, "{body}");
        assert!(
            body["error"]["message"].as_str().unwrap().contains("server's own key")
                && !body.to_string().contains(KEY)
        );
        let mut busy = Say::json(429, &said("rate_limit_error", &format!("slow down, {KEY}")));
        busy.headers.push(("retry-after", "7"));
        let (status, headers, text) = house.ask("/v1/chat/completions", &chat(json!({})), busy).await;
        assert_eq!((status, headers["retry-after"].to_str().unwrap()), (429, "7"), "{text}");
        assert!(text.contains("slow down, [key]"), "{text}");
        let (status, headers, _) = house
            .ask(
                "/v1/chat/completions",
                &chat(json!({})),
                Say::json(529, &said("overloaded_error", "Overloaded")),
            )
            .await;
        assert_eq!((status, headers.contains_key("retry-after")), (429, true));
        let (status, body) =
            house.chat(json!({}), Say::json(400, &said("invalid_request_error", "too hot"))).await;
        assert_eq!(status, 400);
        assert!(body["error"]["message"].as_str().unwrap().contains("too hot"), "{body}");
        let (status, _) = house.chat(json!({}), Say::new(500, "text/plain", "oops")).await;
        assert_eq!(status, 502);
        let (status, body) = house.chat(json!({}), Say::new(200, "text/html", "<html>")).await;
        assert_eq!(status, 502);
        assert!(body["error"]["message"].as_str().unwrap().contains("text/html"), "{body}");
        for junk in [
            Say::new(200, "application/json", "[1"),
            Say::new(200, "text/event-stream", "data: nonsense\n\n"),
        ] {
            assert_eq!(house.chat(json!({}), junk).await.0, 502);
        }
        assert_eq!(house.line().await.status, Status::Failed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_is_an_error_and_is_metered() {
    let house = House::new(Dialect::Anthropic).await;
    for (is_cut, n_events) in [(true, 9), (false, 9)] {
        let say = Say { is_cut, ..Say::events(&turn()[..n_events]) };
        let (status, _, text) =
            house.ask("/v1/chat/completions", &chat(json!({ "stream": true })), say).await;
        assert_eq!(status, 200);
        assert!(
            text.contains("\"content\":\"Look:\"") && text.contains("\"error\"") && !text.contains("[DONE]"),
            "{text}"
        );
        let line = house.line().await;
        assert_eq!(
            (line.status, line.usage.completion_tokens),
            (Status::Failed, 3),
            "a delta counts as a token"
        );
    }
    let mut events = turn()[..3].to_vec();
    events.push(json!({ "type": "error", "error": { "type": "overloaded_error", "message": "Overloaded" } }));
    let (status, body) = house.chat(json!({}), Say::events(&events)).await;
    assert_eq!((status, &body["error"]["type"]), (429, &json!("engine_overloaded_error")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_format_lacks_is_refused_by_field_and_charged_nothing() {
    let house = House::new(Dialect::Anthropic).await;
    let fields = [
        ("n", json!(2)),
        ("logprobs", json!(true)),
        ("seed", json!(1)),
        ("logit_bias", json!({ "5": 1.0 })),
        ("presence_penalty", json!(0.5)),
        ("response_format", json!({ "type": "json_object" })),
    ];
    for (field, value) in fields {
        let (status, body) = house.chat(json!({ field: value }), Say::events(&turn())).await;
        assert_eq!((status, &body["error"]["param"]), (400, &json!(field)), "{body}");
    }
    assert!(house.asked.lock().unwrap().is_empty(), "nothing was sent");
    house.store.flush().await.unwrap();
    assert!(house.store.lines(Period::default(), 9).await.unwrap().is_empty());
    let neutral = json!({ "presence_penalty": 0, "n": 1, "logprobs": false });
    assert_eq!(house.chat(neutral, Say::events(&turn())).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_and_logprobs_go_through_an_openai_endpoint() {
    let house = House::new(Dialect::OpenAi).await;
    let chunk = |choices: Value| json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "there", "choices": choices });
    let said = |index: u32, text: &str| {
        let logprob = json!({ "token": text, "logprob": -0.5, "bytes": null, "top_logprobs": [{ "token": text, "logprob": -0.5, "bytes": null }] });
        json!([{ "index": index, "delta": { "content": text }, "logprobs": { "content": [logprob] }, "finish_reason": null }])
    };
    let end = |index: u32| json!([{ "index": index, "delta": {}, "finish_reason": "stop" }]);
    let mut last = chunk(json!([]));
    last["usage"] = json!({ "prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15 });
    let events = [
        chunk(said(0, "a")),
        chunk(said(1, "x")),
        chunk(said(1, "y")),
        chunk(end(1)),
        chunk(said(0, "b")),
        chunk(end(0)),
        last,
    ];
    let asked = json!({ "n": 2, "logprobs": true, "top_logprobs": 1, "stop": "END" });
    let mut say = Say::events(&events);
    say.body.push_str("data: [DONE]\n\n");
    let (status, body) = house.chat(asked.clone(), say).await;
    assert_eq!(status, 200, "{body}");
    let text = |choice: usize| &body["choices"][choice]["message"]["content"];
    assert_eq!((text(0), text(1)), (&json!("ab"), &json!("xy")));
    assert_eq!(body["choices"][1]["logprobs"]["content"][1]["top_logprobs"][0]["token"], "y");
    let (path, headers, sent) = house.last_asked();
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
    assert_eq!(
        (&sent["n"], &sent["logprobs"], &sent["top_logprobs"], &sent["stop"]),
        (&json!(2), &json!(true), &json!(1), &json!(["END"]))
    );
    let line = house.line().await;
    assert_eq!(
        (line.usage.prompt_tokens, line.usage.completion_tokens),
        (11, 4),
        "counted once, whoever sums"
    );

    let whole = json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "there", "choices": [
        { "index": 0, "message": { "role": "assistant", "content": "first" }, "finish_reason": "length" },
        { "index": 1, "message": { "role": "assistant", "content": null, "tool_calls": [
            { "id": "k", "type": "function", "function": { "name": "f", "arguments": "{}" } }] }, "finish_reason": "tool_calls" },
    ], "usage": { "prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5 } });
    let (status, body) = house.chat(json!({ "n": 2 }), Say::json(200, &whole)).await;
    assert_eq!((status, &body["choices"][0]["finish_reason"]), (200, &json!("length")), "{body}");
    assert_eq!(body["choices"][1]["message"]["tool_calls"][0]["function"]["name"], "f");
    let (status, _) = house.chat(json!({}), Say::json(200, &whole)).await;
    assert_eq!(status, 502, "a choice that nobody asked for");
}

#[test]
fn a_key_that_no_header_carries_is_refused_without_being_said() {
    let endpoint = Endpoint {
        base_url: "https://host/v1".to_owned(),
        api_key: Some("sk-\n-broken".to_owned()),
        model: "m".to_owned(),
        dialect: Dialect::Anthropic,
    };
    let message = Upstream::new(endpoint).err().unwrap();
    assert!(message.contains("copy it again") && !message.contains("broken"), "{message}");
}
