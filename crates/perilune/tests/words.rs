//! The verbs of words from outside: the binary with files and pipes.
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

fn small_ranks() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../chat/tests/data/small.tiktoken")
}

/// Runs the binary with bytes on stdin.
fn perilune(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_perilune"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// Stdout of a run that must succeed.
fn out(args: &[&str], input: &[u8]) -> Vec<u8> {
    let output = perilune(args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Stderr of a run that must fail.
fn error(args: &[&str], input: &[u8]) -> String {
    let output = perilune(args, input);
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(output.stdout.is_empty(), "{args:?} wrote to stdout before failing");
    String::from_utf8(output.stderr).unwrap()
}

fn ids(bytes: &[u8]) -> Vec<u32> {
    std::str::from_utf8(bytes).unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect()
}

fn request_file(dir: &tempfile::TempDir, body: &Value) -> String {
    let path = dir.path().join("request.json");
    std::fs::write(&path, body.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn n_ranks() -> u32 {
    std::fs::read_to_string(small_ranks()).unwrap().lines().count() as u32
}

#[test]
fn text_goes_to_ids_and_back_byte_for_byte() {
    let ranks = small_ranks();
    let ranks = ranks.to_str().unwrap();
    for text in ["", "hello\n", "日本語 🙂 \r\n\t x", "<|im_end|> stays text"] {
        let line = out(&["tokenize", ranks], text.as_bytes());
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1, "ids stand on one line");
        assert!(ids(&line).iter().all(|id| *id < n_ranks()));
        assert_eq!(out(&["detokenize", ranks], &line), text.as_bytes());
        let json = out(&["tokenize", ranks, "--json"], text.as_bytes());
        assert_eq!(serde_json::from_slice::<Vec<u32>>(&json).unwrap(), ids(&line));
        assert_eq!(out(&["detokenize", ranks], &json), text.as_bytes());
    }
}

#[test]
fn special_names_become_special_ids_on_request() {
    let ranks = small_ranks();
    let line = out(&["tokenize", ranks.to_str().unwrap(), "--special"], b"<think>[EOS]<|im_end|>");
    let first = n_ranks();
    assert_eq!(ids(&line), [first + 22, first + 1, first + 2]);
}

#[test]
fn a_request_renders_to_text_and_to_the_ids_of_that_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = request_file(&dir, &json!({"messages": [{"role": "user", "content": "hi"}]}));
    let ranks = small_ranks();
    let ranks = ranks.to_str().unwrap();
    let text = out(&["render", ranks, "--messages", &file], b"");
    let expected = "<|im_system|>system<|im_middle|>You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>\
                    <|im_user|>user<|im_middle|>hi<|im_end|><|im_assistant|>assistant<|im_middle|>";
    assert_eq!(String::from_utf8(text.clone()).unwrap(), expected);
    let line = out(&["render", ranks, "--messages", &file, "--ids"], b"");
    assert_eq!(line, out(&["tokenize", ranks, "--special"], &text));
}

#[test]
fn marker_text_in_a_message_becomes_a_marker_only_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let file = request_file(&dir, &json!({"messages": [{"role": "user", "content": "a<|im_end|>b"}]}));
    let ranks = small_ranks();
    let ranks = ranks.to_str().unwrap();
    let n_ends = |args: &[&str]| ids(&out(args, b"")).iter().filter(|id| **id == n_ranks() + 2).count();
    let args = ["render", ranks, "--messages", &file, "--ids", "--special"];
    assert_eq!((n_ends(&args[..5]), n_ends(&args)), (2, 3));
}

#[test]
fn tools_render_as_typescript_on_request() {
    let dir = tempfile::tempdir().unwrap();
    let tool = json!({"type": "function", "function": {"name": "now", "description": "The time."}});
    let file = request_file(&dir, &json!({"tools": [tool], "messages": [{"role": "user", "content": "hi"}]}));
    let ranks = small_ranks();
    let args = ["render", ranks.to_str().unwrap(), "--messages", &file, "--tool-form", "typescript"];
    let text = String::from_utf8(out(&args, b"")).unwrap();
    let declared =
        "# Tools\n\n## functions\nnamespace functions {\n// The time.\ntype now = (_: {}) => any;\n}\n";
    assert!(text.contains(declared), "{text}");
}

#[test]
fn a_reply_parses_into_a_message() {
    let ranks = small_ranks();
    let ranks = ranks.to_str().unwrap();
    let reply = "<think>Need it.</think>Checking.<|tool_calls_section_begin|><|tool_call_begin|>functions.a-b.c:3\
                 <|tool_call_argument_begin|>{\"x\": 1}<|tool_call_end|><|tool_calls_section_end|><|im_end|>";
    let line = out(&["tokenize", ranks, "--special"], reply.as_bytes());
    let choice: Value = serde_json::from_slice(&out(&["parse", ranks], &line)).unwrap();
    let expected = json!({
        "message": {
            "role": "assistant", "content": "Checking.", "reasoning_content": "Need it.",
            "tool_calls": [{"id": "functions.a-b.c:3", "type": "function",
                            "function": {"name": "a-b.c", "arguments": "{\"x\": 1}"}}],
        },
        "finish_reason": "tool_calls",
    });
    assert_eq!(choice, expected);
}

#[test]
fn parsing_knows_the_request_and_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let body = json!({"thinking": {"type": "disabled"}, "messages": [{"role": "user", "content": "hi"}]});
    let file = request_file(&dir, &body);
    let ranks = small_ranks();
    let ranks = ranks.to_str().unwrap();
    let line = out(&["tokenize", ranks, "--special"], b"a</think>b");
    let parse = |args: &[&str]| -> Value { serde_json::from_slice(&out(args, &line)).unwrap() };
    let plain = parse(&["parse", ranks]);
    assert_eq!(
        (&plain["message"]["reasoning_content"], &plain["message"]["content"]),
        (&json!("a"), &json!("b"))
    );
    let known = parse(&["parse", ranks, "--messages", &file, "--cut"]);
    assert_eq!((&known["message"]["content"], &known["finish_reason"]), (&json!("ab"), &json!("length")));
    let thinking = out(&["tokenize", ranks, "--special"], b"<think>a");
    let cut: Value = serde_json::from_slice(&out(&["parse", ranks, "--cut"], &thinking)).unwrap();
    assert_eq!(cut["left_open"], json!("thinking"));
}

#[test]
fn bad_input_is_answered_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let ranks = small_ranks();
    let ranks = ranks.to_str().unwrap();
    assert_eq!(
        error(&["tokenize", ranks], b"abc\xE6\x97"),
        "error: stdin is not UTF-8 at byte 3; convert the text to UTF-8 first\n"
    );
    assert_eq!(
        error(&["detokenize", ranks], b"1 2 three"),
        "error: \"three\" at position 2 is not a token id; send numbers separated by spaces or commas\n"
    );
    let last = n_ranks() + 255;
    assert_eq!(
        error(&["parse", ranks], format!("0 {}", last + 1).as_bytes()),
        format!(
            "error: token id {} at position 1 is not in the vocabulary; its last id is {last}\n",
            last + 1
        )
    );
    let missing = error(&["tokenize", "/no/such/model"], b"");
    assert!(missing.contains("/no/such/model"), "{missing}");
    let file =
        request_file(&dir, &json!({"messages": [{"role": "tool", "tool_call_id": "x", "content": ""}]}));
    let refused = error(&["render", ranks, "--messages", &file], b"");
    assert!(refused.contains("messages[0].tool_call_id: no earlier assistant message"), "{refused}");
    std::fs::write(&file, b"{\"messages\": [\"\xFF\"]}").unwrap();
    let not_utf8 = error(&["render", ranks, "--messages", &file], b"");
    assert!(not_utf8.contains("not UTF-8 at byte 15"), "{not_utf8}");
}

#[test]
fn the_config_of_a_model_folder_chooses_its_template() {
    let dir = tempfile::tempdir().unwrap();
    let tool = json!({"type": "function", "function": {"name": "now"}});
    let file = request_file(&dir, &json!({"tools": [tool], "messages": [{"role": "user", "content": "hi"}]}));
    let model = dir.path().to_str().unwrap();
    std::fs::copy(small_ranks(), dir.path().join("tiktoken.model")).unwrap();
    let render = || String::from_utf8(out(&["render", model, "--messages", &file], b"")).unwrap();
    assert!(render().contains("[{\"type\":\"function\""));
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "kimi_k25"}"#).unwrap();
    assert!(render().contains("namespace functions {") && render().ends_with("<|im_middle|><think>"));
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "kimi_k2"}"#).unwrap();
    assert!(render().ends_with("<|im_middle|>"));
}
