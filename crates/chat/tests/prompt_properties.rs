//! Prompts of hostile conversations: no text becomes a marker, and what is written can be read back.
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

mod support;

use perilune_chat::message::{
    Arguments, Assistant, Conversation, Message, Request, Sampling, Thinking, Tool, ToolCall, ToolResult,
};
use perilune_chat::message::{Envelope, Invalid, Problem, ToolChoice};
use perilune_chat::scanner::{self, Ending, Finish, Opening, Reply, ScannerOptions};
use perilune_chat::template::{Segment, Special, Template};
use perilune_chat::tokenizer::{SpecialText, Tokenizer};
use perilune_chat::wire::openai;
use serde_json::json;
use std::sync::Arc;
use support::random::Random;

const N_CONVERSATIONS: u64 = 2_000;

/// A short text, often with the names of markers in it.
fn text(random: &mut Random) -> String {
    const WORDS: [&str; 12] = [
        "<|im_end|>",
        "<think>",
        "</think>",
        "<|tool_call_end|>",
        "[EOS]",
        "<|im_system|>",
        "hello",
        " ",
        "\n",
        "日本",
        "{\"a\": 1}",
        "<|tool_calls_section_begin|>",
    ];
    (0..random.below(5)).map(|_| WORDS[random.below(WORDS.len())]).collect()
}

fn assistant(random: &mut Random) -> Assistant {
    let call = |idx: usize, random: &mut Random| ToolCall {
        id: format!("call_{idx}"),
        name: ["search", "a-b.c"][random.below(2)].to_owned(),
        arguments: Arguments::Text(format!("{{\"q\": {}}}", json!(text(random)))),
    };
    let n_calls = random.below(3);
    Assistant {
        name: None,
        reasoning: text(random),
        content: text(random),
        tool_calls: (0..n_calls).map(|idx| call(idx, random)).collect(),
    }
}

fn conversation(random: &mut Random) -> Conversation {
    let mut messages = Vec::new();
    for _ in 0..1 + random.below(4) {
        messages.push(Message::User {
            name: Some(text(random)).filter(|name| !name.is_empty()),
            text: text(random),
        });
        let reply = assistant(random);
        let results: Vec<_> = reply.tool_calls.iter().map(|call| Some(call.id.clone())).collect();
        messages.push(Message::Assistant(reply));
        for call_id in results {
            messages.push(Message::ToolResult(ToolResult { name: None, call_id, text: text(random) }));
        }
    }
    let tool = Tool::function("search", Some(&text(random)), None).unwrap();
    Conversation::new(messages, vec![tool]).unwrap()
}

#[test]
fn text_never_becomes_a_marker_and_no_byte_is_lost() {
    let tokenizer = support::small_tokenizer();
    for seed in 0..N_CONVERSATIONS {
        let rendered = Template::default().render(&conversation(&mut Random(seed)), Thinking::default());
        let ids = rendered.ids(&tokenizer, SpecialText::AsText);
        let printed: Vec<u32> = rendered
            .segments()
            .iter()
            .filter_map(|segment| match segment {
                Segment::Special(special) => Some(special.id(tokenizer.markers())),
                Segment::Text(_) => None,
            })
            .collect();
        let found: Vec<u32> = ids.iter().copied().filter(|id| tokenizer.is_special(*id)).collect();
        assert_eq!(found, printed, "seed {seed}");
        assert_eq!(tokenizer.decode(&ids), rendered.text(), "seed {seed}");
        let vendor = rendered.ids(&tokenizer, SpecialText::AsTokens);
        assert_eq!(vendor, tokenizer.encode(&rendered.text(), SpecialText::AsTokens), "seed {seed}");
    }
}

#[test]
fn what_the_template_writes_the_scanner_reads() {
    let tokenizer = support::small_tokenizer();
    let header = [Special::ImAssistant, Special::ImMiddle].map(|special| special.id(tokenizer.markers()));
    for seed in 0..N_CONVERSATIONS {
        let mut written = assistant(&mut Random(seed));
        let messages = vec![Message::Assistant(written.clone())];
        let keep = Thinking { preserve: true, ..Thinking::default() };
        let template = Template { default_system: None, generation_prompt: false, ..Template::default() };
        let rendered = template.render(&Conversation::new(messages, Vec::new()).unwrap(), keep);
        let ids = rendered.ids(&tokenizer, SpecialText::AsText);
        assert_eq!(ids[0], header[0]);
        let body = ids.iter().position(|id| *id == header[1]).unwrap() + 1;
        let (reply, summary) =
            scanner::scan(&tokenizer, &ids[body..], ScannerOptions::default(), Ending::Cut);
        for (idx, call) in written.tool_calls.iter_mut().enumerate() {
            call.id = format!("functions.{}:{idx}", call.name);
        }
        let expected = if written.tool_calls.is_empty() { Finish::Stop } else { Finish::ToolCalls };
        assert_eq!((Assistant::from(reply), summary.finish), (written, expected), "seed {seed}");
    }
}

#[test]
fn a_request_sent_on_by_a_client_means_the_same() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut request = Request::new(conversation(&mut random));
        request.tool_choice = ToolChoice::Named("search".to_owned());
        request.max_tokens = Some(7);
        request.thinking =
            Thinking { enabled: Some(true), preserve: random.below(2) == 0, budget_tokens: None };
        request.sampling = Sampling { temperature: Some(0.5), stop: vec!["x".into()], ..Sampling::default() };
        let sent = serde_json::to_vec(&openai::ChatRequest::from(&request)).unwrap();
        let received: openai::ChatRequest = perilune_chat::wire::from_json(&sent).unwrap();
        assert_eq!(Envelope::try_from(received).unwrap().request, request, "seed {seed}");
    }
}

#[test]
fn a_conversation_without_messages_gets_the_default_system_prompt() {
    let rendered = Template::default().render(&Conversation::default(), Thinking::default());
    let expected = "<|im_system|>system<|im_middle|>You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>\
                    <|im_assistant|>assistant<|im_middle|>";
    assert_eq!(rendered.text(), expected);
    assert_eq!(rendered.opening(), Opening::Unknown);
}

#[test]
fn numbers_that_are_none_are_refused() {
    let request = |temperature| openai::ChatRequest {
        messages: vec![openai::Message { role: "user".into(), ..Default::default() }],
        temperature: Some(temperature),
        ..Default::default()
    };
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let refused = Envelope::try_from(request(value)).unwrap_err();
        assert!(
            matches!(refused, Invalid { ref path, problem: Problem::Range { .. } } if path == "temperature")
        );
    }
    let body = br#"{"messages": [{"role": "user"}], "temperature": 1e999}"#;
    let error = perilune_chat::wire::from_json::<openai::ChatRequest>(body).unwrap_err();
    assert_eq!(error.path, "temperature");
}

#[test]
fn many_calls_and_results_are_tied_in_reasonable_steps() {
    let call = |idx: usize| ToolCall {
        id: format!("c{}", idx % 7),
        name: "f".into(),
        arguments: Arguments::Text("{}".into()),
    };
    let n = 100_000;
    let calls = Assistant { tool_calls: (0..n).map(call).collect(), ..Assistant::default() };
    let mut messages = vec![Message::Assistant(calls)];
    messages.extend((0..n).map(|_| Message::ToolResult(ToolResult::default())));
    let conversation = Conversation::new(messages, Vec::new()).unwrap();
    assert_eq!(conversation.answered_calls(), (0..n).collect::<Vec<_>>());
}

#[test]
fn calls_leaked_into_reasoning_text_are_recovered() {
    for tokenizer in [support::small_tokenizer(), Arc::new(Tokenizer::of_bytes())] {
        recovered(&tokenizer);
    }
}

fn recovered(tokenizer: &Arc<Tokenizer>) {
    let leaked = "I should search — naïvely. <|tool_call_section_begin|><|tool_call_begin|>functions.search:4\
                  <|tool_call_argument_begin|>{\"q\": \"x\"}<|tool_call_end|><|tool_call_section_end|>";
    let options = ScannerOptions { opening: Opening::Thinking, ..ScannerOptions::default() };
    let (reply, summary) = scanner::recover(tokenizer, leaked, options);
    assert_eq!(summary.finish, Finish::ToolCalls);
    assert_eq!(reply.reasoning, "I should search — naïvely. ");
    assert_eq!(reply.content, "");
    let calls: Vec<_> =
        reply.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect();
    assert_eq!(calls, [("search", "{\"q\": \"x\"}")]);
    let (plain, _) = scanner::recover(
        tokenizer,
        "No calls here.",
        ScannerOptions { opening: Opening::Thinking, ..ScannerOptions::default() },
    );
    assert_eq!(plain, Reply { reasoning: "No calls here.".into(), ..Reply::default() });
}
