//! A request written for an Anthropic-shaped endpoint, read back by that format's own door.

#![allow(clippy::unwrap_used)]

use perilune_chat::message::{
    Arguments, Assistant, Conversation, Envelope, Message, Request, Thinking, Tool, ToolCall, ToolChoice,
    ToolResult,
};
use perilune_chat::wire::anthropic::MessagesRequest;
use serde_json::{Value, json};

fn call(id: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), name: "f".to_owned(), arguments: Arguments::Text(arguments.to_owned()) }
}

fn result(id: Option<&str>, text: &str) -> Message {
    Message::ToolResult(ToolResult { name: None, call_id: id.map(str::to_owned), text: text.to_owned() })
}

fn user(text: &str) -> Message {
    Message::User { name: None, text: text.to_owned() }
}

fn request() -> Request {
    let system = |text: &str| Message::System { name: None, text: text.to_owned() };
    let asks = |calls: Vec<ToolCall>| {
        Message::Assistant(Assistant {
            reasoning: "hm".to_owned(),
            tool_calls: calls,
            ..Assistant::default()
        })
    };
    let messages = vec![
        system("Be brief."),
        system("Be kind."),
        user("go"),
        asks(vec![call("functions.f:0", "{\"a\":1}"), call("toolu_1", "not json")]),
        result(Some("toolu_1"), "second"),
        result(None, "first"),
        user("and now?"),
        system("Hurry."),
        asks(vec![call("toolu_1", "")]),
        result(Some("toolu_1"), "third"),
    ];
    let tool = Tool::function("f", Some("does f"), None).unwrap();
    Request::new(Conversation::new(messages, vec![tool]).unwrap())
}

#[test]
fn a_dialogue_alternates_and_every_result_names_its_call() {
    let sent = serde_json::to_value(MessagesRequest::from(&request())).unwrap();
    assert_eq!(sent["system"], "Be brief.\n\nBe kind.");
    assert_eq!(
        sent["tools"][0],
        json!({ "name": "f", "description": "does f", "input_schema": { "type": "object" } })
    );
    let turns = sent["messages"].as_array().unwrap();
    let roles: Vec<&Value> = turns.iter().map(|turn| &turn["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant", "user"]);
    let calls = &turns[1]["content"];
    assert_eq!(calls[0], json!({ "type": "thinking", "thinking": "hm", "signature": "" }));
    assert_eq!(calls[1], json!({ "type": "tool_use", "id": "call_0", "name": "f", "input": { "a": 1 } }));
    assert_eq!(calls[2]["input"], json!({ "arguments": "not json" }));
    let results = turns[2]["content"].as_array().unwrap();
    let ids: Vec<&Value> = results[..2].iter().map(|block| &block["tool_use_id"]).collect();
    assert_eq!(ids, ["toolu_1", "call_0"]);
    assert_eq!((&results[2]["text"], &results[3]["text"]), (&json!("and now?"), &json!("Hurry.")));
    assert_eq!(turns[3]["content"][1]["id"], "call_2", "an id that repeats gets its number");
    assert_eq!(turns[4]["content"][0]["tool_use_id"], "call_2");
}

#[test]
fn settings_come_back_through_the_door() {
    let mut asked = request();
    asked.max_tokens = Some(9_000);
    asked.single_tool_call = true;
    asked.tool_choice = ToolChoice::Named("f".to_owned());
    asked.sampling.stop = vec!["END".to_owned()];
    asked.sampling.temperature = Some(0.5);
    asked.thinking = Thinking { enabled: Some(true), ..Thinking::default() };
    let back = Envelope::try_from(MessagesRequest::from(&asked)).unwrap().request;
    assert_eq!((back.max_tokens, back.single_tool_call), (asked.max_tokens, true));
    assert_eq!((&back.tool_choice, &back.sampling), (&asked.tool_choice, &asked.sampling));
    assert_eq!(back.thinking.budget_tokens, Some(4_500));
    let plain = MessagesRequest::from(&Request::new(Conversation::new(vec![user("x")], Vec::new()).unwrap()));
    assert_eq!((plain.thinking, plain.tools, plain.tool_choice), (None, None, None));
    assert!(plain.max_tokens.is_some(), "the format demands a limit");
}
