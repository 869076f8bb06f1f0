//! What the endpoints answer: streamed as unstreamed, calls, formats, stops, choices, counts.

#![allow(clippy::unwrap_used)]

mod common;

use common::{House, Rng, chat, user};
use futures_util::StreamExt;
use perilune_chat::message::{Conversation, Message, Request};
use perilune_chat::model::{ChatModel, Event};
use perilune_chat::scanner::{Finish, Reply};
use perilune_engine::request::Class;
use perilune_server::answer::served::ServedModel;
use serde_json::{Map, Value, json};

const CHAT: &str = "/v1/chat/completions";

fn tools() -> Value {
    let parameters = json!({
        "type": "object",
        "properties": { "city": { "type": "string", "maxLength": 12 }, "days": { "type": "integer" } },
        "required": ["city"],
        "additionalProperties": false,
    });
    let tool =
        |name: &str| json!({ "type": "function", "function": { "name": name, "parameters": parameters } });
    json!([tool("get_weather"), tool("find-place")])
}

/// Puts a stream's chunks together; usage from the last chunk of the choice and from the usage chunk must agree.
fn folded(events: &[String]) -> Value {
    assert_eq!(events.last().unwrap(), "[DONE]");
    let (mut message, mut calls, mut finish, mut usages) =
        (Map::new(), Vec::<Value>::new(), Value::Null, Vec::new());
    for event in &events[..events.len() - 1] {
        let chunk: Value = serde_json::from_str(event).unwrap();
        usages.extend(chunk.get("usage").cloned());
        let Some(choice) = chunk["choices"].get(0) else { continue };
        usages.extend(choice.get("usage").cloned());
        if !choice["finish_reason"].is_null() {
            finish = choice["finish_reason"].clone();
        }
        for field in ["content", "reasoning_content"] {
            if let Some(text) = choice["delta"][field].as_str().filter(|text| !text.is_empty()) {
                let sum = message.get(field).and_then(Value::as_str).unwrap_or_default();
                message.insert(field.to_owned(), Value::from(format!("{sum}{text}")));
            }
        }
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                calls.push(json!({ "id": call["id"], "type": call["type"], "function": call["function"] }));
            } else {
                let arguments = &mut calls[index]["function"]["arguments"];
                let more = call["function"]["arguments"].as_str().unwrap();
                *arguments = Value::from(format!("{}{more}", arguments.as_str().unwrap()));
            }
        }
    }
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::from(calls));
    }
    assert_eq!(usages.len(), 2);
    assert_eq!(usages[0], usages[1]);
    json!({ "message": message, "finish_reason": finish, "usage": usages[0] })
}

/// The same of an unstreamed answer.
fn plain(body: &Value) -> Value {
    let mut message = body["choices"][0]["message"].as_object().unwrap().clone();
    message.remove("role");
    message.retain(|_, value| !value.is_null() && *value != "");
    json!({ "message": message, "finish_reason": body["choices"][0]["finish_reason"], "usage": body["usage"] })
}

/// A reply of random thought, answer and calls, some of it malformed or unfinished.
fn random_reply(rng: &mut Rng) -> String {
    let words = ["sun ", "rain", "é🌒", "\n", " <b>", "END", "{\"a\": 1}", "thé "];
    let text = |rng: &mut Rng| (0..rng.below(6)).map(|_| words[rng.below(words.len())]).collect::<String>();
    let mut reply = String::new();
    if rng.below(4) > 0 {
        reply += &format!("<think>{}", text(rng));
        reply += if rng.below(8) > 0 { "</think>" } else { "" };
    }
    reply += &text(rng);
    if rng.below(2) == 0 {
        reply += "<|tool_calls_section_begin|>";
        for call in 0..1 + rng.below(3) {
            let name = ["get_weather", "find-place"][rng.below(2)];
            reply += &format!("<|tool_call_begin|>functions.{name}:{call}<|tool_call_argument_begin|>");
            reply +=
                &format!("{{\"city\": \"{}\"}}<|tool_call_end|>", ["Lima", "Oslo", "Bern"][rng.below(3)]);
        }
        reply += "<|tool_calls_section_end|>";
    }
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_is_unstreamed() {
    let house = House::new();
    let (seed, mut n_calls, mut n_thoughts, mut n_stops) = (20_251_124, 0, 0, 0);
    let mut rng = Rng(seed);
    for round in 0..200 {
        let text = house.script(&random_reply(&mut rng));
        let more = json!({
            "tools": tools(),
            "max_tokens": 20 + rng.below(200),
            "stop": if rng.below(3) == 0 { json!("END") } else { Value::Null },
            "temperature": ([0.0, 0.7, 1.0][rng.below(3)]),
            "seed": round,
        });
        let (status, body) = house.post(CHAT, &chat(&text, &more)).await;
        assert_eq!(status, 200, "seed {seed}, round {round}: {body}");
        let mut streamed = chat(&text, &more);
        streamed["stream"] = Value::Bool(true);
        streamed["stream_options"] = json!({ "include_usage": true });
        let (one, mut other) = (plain(&body), folded(&house.stream(CHAT, &streamed).await));
        // The second request finds the first one's prompt in the cache; all else is equal.
        for place in ["/usage/cached_tokens", "/usage/prompt_tokens_details/cached_tokens"] {
            *other.pointer_mut(place).unwrap() = one.pointer(place).unwrap().clone();
        }
        assert_eq!(one, other, "seed {seed}, round {round}");
        n_calls += one["message"]["tool_calls"].as_array().map_or(0, Vec::len);
        n_thoughts += usize::from(one["message"].get("reasoning_content").is_some());
        n_stops += usize::from(one["finish_reason"] == "stop");
        for call in one["message"]["tool_calls"].as_array().into_iter().flatten() {
            if one["finish_reason"] == "tool_calls" {
                let arguments: Value =
                    serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
                assert!(arguments["city"].is_string(), "seed {seed}, round {round}: {call}");
            }
        }
    }
    assert!(
        n_calls > 50 && n_thoughts > 50 && n_stops > 50,
        "{n_calls} calls, {n_thoughts} thoughts, {n_stops} stops"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_streamed_is_unstreamed() {
    let house = House::new();
    let seed = 7;
    let mut rng = Rng(seed);
    for round in 0..60 {
        let text = house.script(&random_reply(&mut rng));
        let tool = json!({ "name": "get_weather", "input_schema": { "type": "object" } });
        let other = json!({ "name": "find-place", "input_schema": { "type": "object" } });
        let mut body = json!({
            "model": "kimi-k2-thinking", "max_tokens": 300, "temperature": 0, "messages": user(&text),
            "tools": [tool, other], "stop_sequences": ["END"],
        });
        let (status, plain) = house.post("/v1/messages", &body).await;
        assert_eq!(status, 200, "{plain}");
        body["stream"] = Value::Bool(true);
        let events = house.stream("/v1/messages", &body).await;
        let streamed = anthropic_folded(&events);
        for field in ["content", "stop_reason", "stop_sequence"] {
            assert_eq!(streamed[field], plain[field], "seed {seed}, round {round}");
        }
        assert_eq!(streamed["output_tokens"], plain["usage"]["output_tokens"], "seed {seed}, round {round}");
    }
}

/// Blocks of one kind that stand side by side are one block of the unstreamed answer, whose order is by kind.
fn anthropic_folded(events: &[String]) -> Value {
    let (mut thinking, mut text, mut calls, mut open) = (String::new(), String::new(), Vec::new(), None);
    let mut end = json!({});
    for event in events {
        let event: Value = serde_json::from_str(event).unwrap();
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert!(open.is_none(), "a block opens inside another");
                open = event["index"].as_u64();
                if event["content_block"]["type"] == "tool_use" {
                    calls.push((event["content_block"].clone(), String::new()));
                }
            }
            "content_block_delta" => {
                assert_eq!(open, event["index"].as_u64());
                let delta = &event["delta"];
                thinking += delta["thinking"].as_str().unwrap_or_default();
                text += delta["text"].as_str().unwrap_or_default();
                if let Some(json) = delta["partial_json"].as_str() {
                    calls.last_mut().unwrap().1 += json;
                }
            }
            "content_block_stop" => assert_eq!(open.take(), event["index"].as_u64()),
            "message_delta" => {
                end = event["delta"].clone();
                end["output_tokens"] = event["usage"]["output_tokens"].clone();
            }
            "message_start" | "message_stop" => {}
            other => panic!("{other}"),
        }
    }
    let mut content = Vec::new();
    if !thinking.is_empty() {
        content.push(json!({ "type": "thinking", "thinking": thinking, "signature": "" }));
    }
    if !text.is_empty() {
        content.push(json!({ "type": "text", "text": text }));
    }
    for (mut call, json) in calls {
        call["input"] = serde_json::from_str(&json).unwrap();
        content.push(call);
    }
    end["content"] = Value::from(content);
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn thought_answer_and_counts() {
    let house = House::new();
    let text = house.script("<think>Two and two.</think>Four.");
    let (status, body) = house.post(CHAT, &chat(&text, &json!({}))).await;
    assert_eq!(status, 200, "{body}");
    let message = &body["choices"][0]["message"];
    assert_eq!(
        (&message["reasoning_content"], &message["content"]),
        (&json!("Two and two."), &json!("Four."))
    );
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let n_thought = house.tokenizer.encode_ordinary("Two and two.").len();
    let n_answer = house.tokenizer.encode_ordinary("Four.").len();
    let usage = &body["usage"];
    assert_eq!(usage["completion_tokens"], n_thought + n_answer + 3);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], n_thought);
    let (_, counted) = house.post("/v1/tokenizers/estimate-token-count", &chat(&text, &json!({}))).await;
    assert_eq!(counted["data"]["total_tokens"], usage["prompt_tokens"]);
    let (_, counted) = house.post("/v1/messages/count_tokens", &json!({ "messages": user(&text) })).await;
    assert_eq!(counted["input_tokens"], usage["prompt_tokens"]);
}

/// The tokens of an answer by name, and the answer's choice.
async fn written(house: &House, script: &str, tools: &Value) -> (Vec<String>, Value) {
    let text = house.script(script);
    let more = json!({ "tools": tools, "max_tokens": 300, "logprobs": true });
    let (status, body) = house.post(CHAT, &chat(&text, &more)).await;
    assert_eq!(status, 200, "{body}");
    let choice = body["choices"][0].clone();
    let tokens = choice["logprobs"]["content"].as_array().unwrap().iter();
    (tokens.map(|token| token["token"].as_str().unwrap().to_owned()).collect(), choice)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tools_no_marker_of_a_call_is_written() {
    let house = House::new();
    let call = "<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{\"city\": \"Oslo\"}<|tool_call_end|>";
    let section = format!("<|tool_calls_section_begin|>{call}<|tool_calls_section_end|>");
    let markers = |tokens: &[String]| tokens.iter().filter(|token| token.starts_with("<|tool_call")).count();
    let (tokens, choice) = written(&house, &format!("<think>a</think>Look:{section}"), &tools()).await;
    assert_eq!((markers(&tokens), &choice["finish_reason"]), (5, &json!("tool_calls")), "{choice}");
    for script in [
        format!("<think>a</think>Look:{section}"),
        format!("<think>Look:{section}</think>b"),
        format!("<think>a</think>Look:{call}"),
    ] {
        let (tokens, choice) = written(&house, &script, &Value::Null).await;
        assert_eq!(markers(&tokens), 0, "{script}: {tokens:?}");
        assert_ne!(choice["finish_reason"], "tool_calls", "{script}: {choice}");
        assert!(choice["message"]["tool_calls"].is_null(), "{script}: {choice}");
        assert!(choice["message"].to_string().contains("Look:"), "{script}: {choice}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demanded_call_parses_and_validates() {
    let house = House::new();
    for seed in 0..20 {
        let more = json!({
            "tools": tools(), "tool_choice": "required", "thinking": { "type": "disabled" },
            "temperature": 1, "seed": seed, "parallel_tool_calls": false, "max_tokens": 4000,
        });
        let (status, body) = house.post(CHAT, &chat("noise", &more)).await;
        assert_eq!(status, 200, "{body}");
        let choice = &body["choices"][0];
        if choice["finish_reason"] == "length" {
            continue;
        }
        assert_eq!(choice["finish_reason"], "tool_calls", "seed {seed}: {body}");
        let call = &choice["message"]["tool_calls"][0]["function"];
        assert!(["get_weather", "find-place"].contains(&call["name"].as_str().unwrap()));
        let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
        assert!(arguments["city"].as_str().unwrap().chars().count() <= 12, "seed {seed}: {arguments}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_is_kept() {
    let house = House::new();
    let schema = json!({
        "type": "object", "properties": { "ok": { "type": "boolean" }, "n": { "enum": [1, 2, 3] } },
        "required": ["ok", "n"], "additionalProperties": false,
    });
    for seed in 0..10 {
        let more = json!({
            "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } },
            "thinking": { "type": "disabled" }, "temperature": 1, "seed": seed, "max_tokens": 4000,
        });
        let (status, body) = house.post(CHAT, &chat("noise", &more)).await;
        assert_eq!(status, 200, "{body}");
        if body["choices"][0]["finish_reason"] == "length" {
            continue;
        }
        let answer: Value =
            serde_json::from_str(body["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
        assert!(answer["ok"].is_boolean() && (1..=3).contains(&answer["n"].as_i64().unwrap()), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_differ_and_repeat() {
    let house = House::new();
    let more =
        json!({ "n": 3, "temperature": 1, "seed": 5, "max_tokens": 12, "logprobs": true, "top_logprobs": 2 });
    let (status, first) = house.post(CHAT, &chat("noise", &more)).await;
    assert_eq!(status, 200, "{first}");
    let (_, second) = house.post(CHAT, &chat("noise", &more)).await;
    assert_eq!(first["choices"], second["choices"], "the same seed gives the same choices");
    let choices = first["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    assert_ne!(choices[0]["message"], choices[1]["message"]);
    let total: usize = choices.iter().map(|c| c["logprobs"]["content"].as_array().unwrap().len()).sum();
    assert_eq!(first["usage"]["completion_tokens"], total, "one log-probability a token");
    let one = &choices[0]["logprobs"]["content"][0];
    assert!(one["logprob"].as_f64().unwrap() < 0.0 && one["top_logprobs"].as_array().unwrap().len() == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_completion_is_echoed_and_streamed() {
    let house = House::new();
    let mut body =
        json!({ "prompt": "Once", "max_tokens": 9, "temperature": 1, "seed": 3, "echo": true, "n": 2 });
    let (status, plain) = house.post("/v1/completions", &body).await;
    assert_eq!(status, 200, "{plain}");
    assert!(plain["choices"][0]["text"].as_str().unwrap().starts_with("Once"));
    body["stream"] = Value::Bool(true);
    let mut texts = [String::new(), String::new()];
    for event in house.stream("/v1/completions", &body).await.iter().filter(|event| *event != "[DONE]") {
        let chunk: Value = serde_json::from_str(event).unwrap();
        let choice = &chunk["choices"][0];
        texts[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
    }
    assert_eq!(json!(texts), json!([plain["choices"][0]["text"], plain["choices"][1]["text"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_what_a_client_gets() {
    let house = House::new();
    let text = house.script("<think>Two and two.</think>Four.");
    let (_, body) = house.post(CHAT, &chat(&text, &json!({}))).await;
    let (name, model) = ("local".to_owned(), house.app.local().unwrap().clone());
    let served = ServedModel { name, model, class: Class::Latency };
    let asked = Message::User { name: None, text };
    let conversation = Conversation::new(vec![asked], Vec::new()).unwrap();
    assert_eq!(
        served.count_tokens(&conversation).unwrap() as u64,
        body["usage"]["prompt_tokens"].as_u64().unwrap()
    );
    let mut request = Request::new(conversation);
    request.sampling.temperature = Some(0.0);
    let events: Vec<Event> = served.answer(request).map(Result::unwrap).collect().await;
    let deltas = events.iter().filter_map(|event| match event {
        Event::Delta(delta) => Some(delta.clone()),
        _ => None,
    });
    let reply: Reply = deltas.collect();
    assert_eq!((reply.reasoning.as_str(), reply.content.as_str()), ("Two and two.", "Four."));
    let [.., Event::Usage(usage), Event::Finish { finish: Finish::Stop, left_open: None }] =
        events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!(usage.completion_tokens, body["usage"]["completion_tokens"].as_u64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thinking_budget_ends_the_thinking() {
    let house = House::new();
    let text = house.script(&format!("<think>{}</think>Done.", "on and on ".repeat(60)));
    let body = json!({
        "model": "kimi-k2-thinking", "max_tokens": 400, "temperature": 0, "messages": user(&text),
        "thinking": { "type": "enabled", "budget_tokens": 20 },
    });
    let (status, answer) = house.post("/v1/messages", &body).await;
    assert_eq!(status, 200, "{answer}");
    let thinking = answer["content"][0]["thinking"].as_str().unwrap();
    assert!(house.tokenizer.encode_ordinary(thinking).len() <= 20, "{thinking}");
}
