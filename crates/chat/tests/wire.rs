//! Wire types against bodies written from the published formats: what is read is written again unchanged.
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

use perilune_chat::message::Invalid;
use perilune_chat::message::Problem;
use perilune_chat::model::Usage;
use perilune_chat::scanner::{Closing, Delta, Reply};
use perilune_chat::wire::{anthropic, from_json, openai};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads and writes; the JSON value must not change, key order of free objects included.
fn unchanged<T: Serialize + DeserializeOwned>(body: &str) -> T {
    let value: T = from_json(body.as_bytes()).unwrap();
    let written = serde_json::to_string(&value).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&written).unwrap(),
        serde_json::from_str::<Value>(body).unwrap()
    );
    value
}

#[test]
fn a_chat_request_with_every_field() {
    let body = r#"{"model":"kimi-k2-thinking","messages":[
        {"role":"system","content":"s"},
        {"role":"user","content":[{"type":"text","text":"u","x":1}],"name":"n","future":true},
        {"role":"assistant","content":null,"reasoning_content":"r","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"a","content":""},
        {"role":"assistant","content":"x","partial":true}],
      "tools":[{"function":{"parameters":{"z":1,"a":2},"name":"f"},"type":"function"}],
      "tool_choice":{"type":"function","function":{"name":"f"}},"parallel_tool_calls":false,
      "response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"object"}}},
      "temperature":1.0,"top_p":0.5,"top_k":40,"min_p":0.1,"presence_penalty":0.5,"frequency_penalty":-0.5,
      "repetition_penalty":1.5,"seed":7,"stop":["a"],"logit_bias":{"5":1.0},"max_tokens":5,"max_completion_tokens":6,
      "n":2,"logprobs":true,"top_logprobs":3,"stream":true,"stream_options":{"include_usage":true},
      "thinking":{"type":"enabled","keep":"all"},"chat_template_kwargs":{"thinking":true,"preserve_thinking":true,"other":1},
      "prompt_cache_key":"k","safety_identifier":"s","user":"u","metadata":{"b":1,"a":2}}"#;
    // A null content is the same as none, so it is not written again.
    let body = body.replace("\"content\":null,", "");
    let request: openai::ChatRequest = unchanged(&body);
    assert_eq!(request.extra.keys().collect::<Vec<_>>(), ["metadata"]);
    assert_eq!(request.messages[1].extra.keys().collect::<Vec<_>>(), ["future"]);
    let tools = serde_json::to_string(&request.tools).unwrap();
    assert_eq!(tools, r#"[{"function":{"parameters":{"z":1,"a":2},"name":"f"},"type":"function"}]"#);
}

#[test]
fn a_chat_response_and_its_chunks() {
    let usage = r#"{"prompt_tokens":26,"completion_tokens":10,"total_tokens":36,"cached_tokens":16,
        "prompt_tokens_details":{"cached_tokens":16},"completion_tokens_details":{"reasoning_tokens":4}}"#;
    let usage_value: openai::Usage = unchanged(usage);
    assert_eq!(usage_value, openai::Usage::new(26, 16, 10, 4));
    let response: openai::ChatResponse = unchanged(&format!(
        r#"{{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant",
            "content":null,"reasoning_content":"r","tool_calls":[{{"id":"functions.f:0","type":"function",
            "function":{{"name":"f","arguments":"{{}}"}}}}]}},"finish_reason":"tool_calls"}}],"usage":{usage}}}"#
    ));
    assert_eq!(response.choices[0].finish_reason, Some(openai::FinishReason::ToolCalls));
    for delta in [
        r#"{"role":"assistant"}"#,
        r#"{"reasoning_content":"r"}"#,
        r#"{"content":"c"}"#,
        r#"{"tool_calls":[{"index":0,"id":"functions.f:0","type":"function","function":{"name":"f","arguments":""}}]}"#,
        r#"{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}"#,
    ] {
        unchanged::<openai::ChatChunk>(&format!(
            r#"{{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{delta},"finish_reason":null}}]}}"#
        ));
    }
    let last: openai::ChatChunk = unchanged(&format!(
        r#"{{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{{"index":0,"delta":{{}},"finish_reason":"length","usage":{usage}}}]}}"#
    ));
    assert_eq!(last.choices[0].usage.unwrap().cached(), 16);
    unchanged::<openai::ChatChunk>(&format!(
        r#"{{"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{usage}}}"#
    ));
}

/// A client that adds up the chunks has what the unstreamed answer holds.
#[test]
fn streamed_equals_unstreamed() {
    let deltas = [
        Delta::Reasoning("r1 ".into()),
        Delta::Reasoning("r2".into()),
        Delta::Content("c".into()),
        Delta::ToolCallBegin { index: 0, id: "functions.f:0".into(), name: "f".into() },
        Delta::ToolCallArguments { index: 0, text: "{\"a\"".into() },
        Delta::ToolCallArguments { index: 0, text: ": 1}".into() },
        Delta::ToolCallEnd { index: 0, closing: Closing::Marker },
        Delta::ToolCallBegin { index: 1, id: "functions.g:1".into(), name: "g".into() },
        Delta::ToolCallEnd { index: 1, closing: Closing::Marker },
    ];
    let (mut content, mut reasoning) = (String::new(), String::new());
    let mut calls: Vec<openai::ToolCall> = Vec::new();
    for delta in deltas.iter().filter_map(Delta::to_openai) {
        content += &delta.content.unwrap_or_default();
        reasoning += &delta.reasoning_content.unwrap_or_default();
        for piece in delta.tool_calls.unwrap_or_default() {
            if let Some(id) = piece.id {
                assert_eq!(piece.index as usize, calls.len());
                let function =
                    openai::FunctionCall { name: piece.function.name.unwrap(), arguments: "".into() };
                calls.push(openai::ToolCall { id: Some(id), kind: piece.kind, function });
            }
            let call = &mut calls[piece.index as usize].function;
            call.arguments =
                (call.arguments.as_str().unwrap().to_owned() + &piece.function.arguments.unwrap()).into();
        }
    }
    let whole = openai::ResponseMessage::from(Reply::from_iter(deltas));
    assert_eq!((whole.content.unwrap(), whole.reasoning_content.unwrap()), (content, reasoning));
    assert_eq!(whole.tool_calls.unwrap(), calls);
    let empty = serde_json::to_string(&openai::ResponseMessage::from(Reply::default())).unwrap();
    assert_eq!(empty, r#"{"role":"assistant","content":""}"#);
}

#[test]
fn usage_moves_between_formats() {
    let usage = Usage { prompt_tokens: 26, cached_tokens: 16, completion_tokens: 10, reasoning_tokens: 4 };
    assert_eq!(Usage::from(openai::Usage::from(usage)), usage);
    let apart = anthropic::Usage::from(usage);
    assert_eq!((apart.input_tokens, apart.cache_read_input_tokens, apart.output_tokens), (10, Some(16), 10));
}

#[test]
fn cached_tokens_are_found_in_either_place() {
    for body in [
        r#"{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10,"cached_tokens":8}"#,
        r#"{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10,"prompt_tokens_details":{"cached_tokens":8}}"#,
    ] {
        assert_eq!(unchanged::<openai::Usage>(body).cached(), 8);
    }
}

#[test]
fn completions_models_counts_and_errors() {
    for prompt in [r#""text""#, r#"["a","b"]"#, "[1,2]", "[[1],[2,3]]"] {
        unchanged::<openai::CompletionRequest>(&format!(
            r#"{{"prompt":{prompt},"max_tokens":5,"echo":true,"suffix":"s"}}"#
        ));
    }
    unchanged::<openai::CompletionResponse>(
        r#"{"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"t","logprobs":null,"finish_reason":"stop"}]}"#,
    );
    unchanged::<openai::ModelList>(
        r#"{"object":"list","data":[{"id":"kimi-k2-thinking","object":"model","created":1,"owned_by":"moonshot",
            "context_length":262144,"supports_image_in":false,"supports_video_in":false,"supports_reasoning":true}]}"#,
    );
    unchanged::<openai::TokenCountResponse>(r#"{"data":{"total_tokens":26}}"#);
    let invalid = Invalid::new("messages[1].role", Problem::NoTools);
    let body = serde_json::to_value(openai::ErrorBody::from(&invalid)).unwrap();
    assert_eq!(body["error"]["type"], "invalid_request_error");
    assert_eq!(body["error"]["param"], "messages[1].role");
    assert!(body["error"]["message"].as_str().unwrap().starts_with("messages[1].role: "));
    // Providers leave out what they do not have.
    let short: openai::ErrorBody = from_json(br#"{"error":{"message":"m","type":"t"}}"#).unwrap();
    assert_eq!((short.error.code, short.error.param), (None, None));
}

#[test]
fn an_anthropic_request_and_response() {
    unchanged::<anthropic::MessagesRequest>(
        r#"{"model":"m","max_tokens":5,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],
          "messages":[{"role":"user","content":"u"},{"role":"assistant","content":[
            {"type":"thinking","thinking":"t","signature":"s"},{"type":"redacted_thinking","data":"d"},{"type":"text","text":"x"},
            {"type":"tool_use","id":"t1","name":"f","input":{"z":1,"a":2}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"r"}],"is_error":true},
            {"type":"image","source":{"type":"base64","data":"x"}}]}],
          "tools":[{"name":"f","description":"d","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}}],
          "tool_choice":{"type":"any","disable_parallel_tool_use":true},"thinking":{"type":"enabled","budget_tokens":1024},
          "temperature":1.0,"top_p":0.5,"top_k":5,"stop_sequences":["a"],"stream":true,"metadata":{"user_id":"u"},"service_tier":"auto"}"#,
    );
    unchanged::<anthropic::MessagesResponse>(
        r#"{"id":"m1","type":"message","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"t","signature":""},
          {"type":"text","text":"x"},{"type":"tool_use","id":"t1","name":"f","input":{}}],"stop_reason":"tool_use","stop_sequence":null,
          "usage":{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":16}}"#,
    );
    unchanged::<anthropic::CountTokensResponse>(r#"{"input_tokens":26}"#);
    unchanged::<anthropic::ErrorBody>(
        r#"{"type":"error","error":{"type":"overloaded_error","message":"m"},"request_id":"r"}"#,
    );
}

#[test]
fn every_anthropic_stream_event() {
    for body in [
        r#"{"type":"message_start","message":{"id":"m1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"t"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":""}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"x"}}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t1","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{"}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":10,"output_tokens":5}}"#,
        r#"{"type":"message_stop"}"#,
        r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#,
    ] {
        unchanged::<anthropic::StreamEvent>(body);
    }
}

#[test]
fn broken_bodies_name_their_place() {
    let error = |body: &[u8]| from_json::<openai::ChatRequest>(body).unwrap_err().to_string();
    assert_eq!(error(b"{\"messages\": \"\xFF\"}"), "body: not UTF-8 at byte 14; send JSON encoded as UTF-8");
    assert!(error(b"{\"messages\": []} x").starts_with("body: more text after the JSON value"));
    assert!(error(b"").starts_with("body: EOF"));
    let deep = format!("{{\"messages\": [], \"x\": {}1{}}}", "[".repeat(1000), "]".repeat(1000));
    assert!(error(deep.as_bytes()).contains("recursion limit"), "{}", error(deep.as_bytes()));
}
