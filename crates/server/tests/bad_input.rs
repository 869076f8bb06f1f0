//! What the door refuses, and how it says so.

#![allow(clippy::unwrap_used)]

mod common;

use common::{House, chat, request, text, user};
use perilune_server::store::{KeyKind, KeyLimits, Period, Status, Store, Usd};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";

async fn refused(house: &House, body: impl Into<axum::body::Body>) -> (u16, Value) {
    let response = house.send(request(CHAT, None, body)).await;
    let status = response.status().as_u16();
    (status, serde_json::from_str(&text(response).await).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_name_the_field_and_the_way_out() {
    let house = House::new();
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let with = |more: Value| chat("hello", &more).to_string();
    let cases: Vec<(String, &str)> = vec![
        ("{".to_owned(), "body"),
        ("[1, 2]".to_owned(), "body"),
        ("\u{0}".to_owned(), "body"),
        (deep, "body"),
        (json!({ "messages": [] }).to_string(), "messages"),
        (json!({ "messages": "hello" }).to_string(), "messages"),
        (json!({ "messages": [{ "role": "robot", "content": "x" }] }).to_string(), "messages[0].role"),
        (json!({ "messages": [{ "role": "user", "content": 7 }] }).to_string(), "messages[0].content"),
        (
            json!({ "messages": [{ "role": "tool", "tool_call_id": "x", "content": "" }] }).to_string(),
            "messages[0].tool_call_id",
        ),
        (with(json!({ "temperature": -1 })), "temperature"),
        (with(json!({ "temperature": "hot" })), "temperature"),
        (with(json!({ "top_p": 1.5 })), "top_p"),
        (with(json!({ "max_tokens": -5 })), "max_tokens"),
        (with(json!({ "n": 0 })), "n"),
        (with(json!({ "n": 6 })), "n"),
        (with(json!({ "logit_bias": { "5": 1000 } })), "logit_bias.5"),
        (with(json!({ "stop": ["a", "b", "c", "d", "e", "f"] })), "stop"),
        (with(json!({ "tool_choice": "required" })), "tool_choice"),
        (with(json!({ "max_tokens": 1_000_000 })), "messages"),
        (chat(&"word ".repeat(40_000), &json!({})).to_string(), "messages"),
    ];
    for (body, param) in cases {
        let shown: String = body.chars().take(120).collect();
        let (status, answer) = refused(&house, body).await;
        assert_eq!(status, 400, "{shown}: {answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error", "{shown}");
        assert_eq!(answer["error"]["param"], param, "{shown}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().len() > 10, "{shown}");
    }
    // JSON has no NaN: it is a broken body.
    let nan = r#"{"messages":[{"role":"user","content":"x"}],"temperature":NaN}"#;
    assert_eq!(refused(&house, nan).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_have_limits() {
    let house = House::new();
    let (status, answer) = refused(&house, vec![b' '; 50 << 20]).await;
    assert_eq!(status, 413, "{answer}");
    let many: Vec<Value> = (0..10_000).map(|_| json!({ "role": "user", "content": "x" })).collect();
    let (status, answer) = refused(&house, json!({ "messages": many }).to_string()).await;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("messages")), "{answer}");
    let values: Vec<String> = (0..700_000).map(|n| format!("value {n}")).collect();
    for parameters in [
        json!({ "type": "object", "properties": { "x": { "enum": values } } }),
        json!({ "$ref": "#" }),
        json!({ "$ref": "https://example.com/schema.json" }),
        json!({ "type": "object", "properties": { "x": { "type": "string", "pattern": "(a+)+(b+)+".repeat(200) } } }),
    ] {
        let tool = json!({ "type": "function", "function": { "name": "big", "parameters": parameters } });
        let since = Instant::now();
        let (status, answer) = refused(&house, chat("x", &json!({ "tools": [tool] })).to_string()).await;
        assert_eq!(status, 400, "{answer}");
        assert!(since.elapsed() < Duration::from_secs(30), "hostile schemas are refused, not compiled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_methods_and_types_are_told_apart() {
    let house = House::new();
    let get = |path: &str| http::Request::get(path).body(axum::body::Body::empty()).unwrap();
    assert_eq!(house.send(get("/v1/nothing")).await.status(), 404);
    assert_eq!(house.send(get(CHAT)).await.status(), 405);
    let form = http::Request::post(CHAT).header("content-type", "text/plain").body("{}".into()).unwrap();
    assert_eq!(house.send(form).await.status(), 415);
    let (status, answer) = house.post("/v1/messages", &json!({ "messages": user("x") })).await;
    assert_eq!((status, &answer["error"]["type"]), (400, &json!("invalid_request_error")), "{answer}");
    let (status, answer) = house.post(CHAT, &json!({ "model": "gpt", "messages": user("x") })).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("model_not_found")));
    let foreign =
        http::Request::post(CHAT).header("origin", "https://example.com").body("{}".into()).unwrap();
    assert_eq!(house.send(foreign).await.status(), 403, "a web page of elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_needed_once_there_is_one() {
    let store = Store::in_memory().unwrap();
    let house = House::with(Duration::ZERO, store.clone());
    let body = chat("x", &json!({ "max_tokens": 3 }));
    assert_eq!(house.post_as(CHAT, None, &body).await.0, 200, "no key exists yet");
    let new = store.create_key("one", KeyKind::Api, KeyLimits::default(), None).await.unwrap();
    assert_eq!(house.post_as(CHAT, None, &body).await.0, 401);
    assert_eq!(house.post_as(CHAT, Some("sk-wrong"), &body).await.0, 401);
    assert_eq!(house.post_as(CHAT, Some(&new.secret), &body).await.0, 200);
    store.revoke_key(&new.key.id.to_string()).await.unwrap();
    let (status, answer) = house.post_as(CHAT, Some(&new.secret), &body).await;
    assert_eq!((status, &answer["error"]["type"]), (401, &json!("incorrect_api_key_error")));
    assert_eq!(house.post_as(CHAT, None, &body).await.0, 401, "a revoked key does not open the house again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balance_is_spent_to_the_token_and_then_refused() {
    let store = Store::in_memory().unwrap();
    let house = House::with(Duration::ZERO, store.clone());
    let balance = Usd { nano: 60_000 };
    let new = store.create_key("poor", KeyKind::Api, KeyLimits::default(), Some(balance)).await.unwrap();
    let text = house.script("<think>a</think>b");
    let mut spent = 0;
    let status = loop {
        let (status, answer) = house.post_as(CHAT, Some(&new.secret), &chat(&text, &json!({}))).await;
        if status != 200 {
            assert_eq!(answer["error"]["type"], "exceeded_current_quota_error");
            break status;
        }
        let usage = &answer["usage"];
        let count = |name: &str| usage[name].as_i64().unwrap();
        let cached = count("cached_tokens");
        spent += (count("prompt_tokens") - cached) * 600 + cached * 150 + count("completion_tokens") * 2_500;
        store.flush().await.unwrap();
        let lines = store.lines(Period::default(), 1).await.unwrap();
        assert_eq!((lines[0].status, lines[0].key_id), (Status::Done, Some(new.key.id)));
        let left = store.keys().await.unwrap()[0].balance.unwrap();
        assert_eq!(left.nano, balance.nano - spent);
    };
    assert_eq!(status, 429);
    assert!(spent >= balance.nano);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_told_when_to_come_again() {
    let store = Store::in_memory().unwrap();
    let house = House::with(Duration::ZERO, store.clone());
    let limits = KeyLimits { requests_per_min: Some(5), tokens_per_min: Some(100_000), concurrency: None };
    let key = store.create_key("fast", KeyKind::Api, limits, None).await.unwrap().secret;
    let body = chat("x", &json!({ "max_tokens": 1 })).to_string();
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let response = house.send(request(CHAT, Some(&key), body.clone())).await;
        assert_eq!(response.headers()["x-ratelimit-limit-requests"], "5");
        if response.status() == 429 {
            let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=12).contains(&wait), "{wait}");
        }
        statuses.push(response.status().as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 5, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_stops_its_work_and_pays_for_what_was_done() {
    use http_body_util::BodyExt;
    let store = Store::in_memory().unwrap();
    let house = House::with(Duration::from_millis(200), store.clone());
    let body = chat(
        "noise",
        &json!({ "stream": true, "temperature": 1, "seed": 1, "max_tokens": 10_000, "thinking": { "type": "disabled" } }),
    );
    let response = house.send(request(CHAT, None, body.to_string())).await;
    let mut stream = response.into_body();
    for _ in 0..5 {
        stream.frame().await.unwrap().unwrap();
    }
    let before = house.engine.stats().generated_tokens;
    drop(stream);
    store.flush().await.unwrap();
    let line = store.lines(Period::default(), 1).await.unwrap().remove(0);
    assert_eq!(line.status, Status::Cancelled);
    assert!(line.usage.completion_tokens >= 3 && line.cost.nano > 0, "{line:?}");
    let deadline = Instant::now() + Duration::from_secs(60);
    while house.engine.stats().running != [0, 0] {
        assert!(Instant::now() < deadline, "the engine still works for nobody");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let generated = house.engine.stats().generated_tokens;
    assert!(generated <= before + 2, "{before} generated, then {generated}, {line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_line_of_a_dead_process_is_lost_and_free() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    let store = Store::open(&path).unwrap();
    let house = House::with(Duration::from_millis(20), store.clone());
    let body = chat("noise", &json!({ "stream": true, "max_tokens": 10_000 }));
    let _running = house.send(request(CHAT, None, body.to_string())).await;
    // Another process opens the same file, as the next start would after a kill.
    let next = Store::open(&path).unwrap();
    assert_eq!(next.lines(Period::default(), 1).await.unwrap()[0].status, Status::Open);
    assert_eq!(next.recover().await.unwrap(), 1);
    let line = next.lines(Period::default(), 1).await.unwrap().remove(0);
    assert_eq!((line.status, line.cost), (Status::Lost, Usd::default()));
    assert_eq!(next.recover().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    drop(Store::open(&path).unwrap());
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&path).err().unwrap().to_string();
    assert!(error.contains("99"), "{error}");
}
