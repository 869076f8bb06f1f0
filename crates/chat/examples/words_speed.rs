//! How fast are prompt and scanner? `cargo run --release -p perilune-chat --example words_speed -- RANK_FILE`
//!
//! Renders and encodes a conversation of 200 tool calls, then scans its replies; prints the best of five.
#![allow(clippy::print_stdout, clippy::expect_used)] // A program for the terminal.

use perilune_chat::message::{Arguments, Assistant, Conversation, Message, Thinking, ToolCall, ToolResult};
use perilune_chat::scanner::{Ending, Scanner, ScannerOptions};
use perilune_chat::template::Template;
use perilune_chat::tokenizer::{SpecialText, Tokenizer};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

const N_CALLS: usize = 200;

fn main() {
    let path = PathBuf::from(std::env::args().nth(1).expect("give the path of a rank file"));
    let tokenizer = Arc::new(Tokenizer::from_rank_file(&path).expect("the rank file can be read"));
    let conversation = Conversation::new(messages(), Vec::new()).expect("every result has its call");
    let template = Template::default();
    let (text_s, text) = best(|| template.render(&conversation, Thinking::default()).text());
    let (ids_s, ids) =
        best(|| template.render(&conversation, Thinking::default()).ids(&tokenizer, SpecialText::AsText));
    let mb = text.len() as f64 / 1e6;
    println!("render          {:8.1} MB/s ({mb:.2} MB)", mb / text_s);
    println!("render + encode {:8.1} MB/s ({} tokens)", mb / ids_s, ids.len());

    let reply = reply_ids(&tokenizer);
    let (scan_s, n_deltas) = best(|| {
        let mut deltas = Vec::new();
        let mut scanner = Scanner::new(Arc::clone(&tokenizer), ScannerOptions::default());
        scanner.push_all(&reply, &mut deltas);
        scanner.finish(Ending::Complete, &mut deltas);
        deltas.len()
    });
    let rate = reply.len() as f64 / scan_s;
    println!("scan            {:8.2} M tokens/s ({} tokens, {n_deltas} deltas)", rate / 1e6, reply.len());
}

fn assistant(idx: usize) -> Assistant {
    Assistant {
        name: None,
        reasoning: format!("Step {idx}: the file has to be read before it can be changed. ").repeat(8),
        content: "Reading on.".to_owned(),
        tool_calls: vec![ToolCall {
            id: format!("call_{idx}"),
            name: "files.read-range".to_owned(),
            arguments: Arguments::Text(format!(
                "{{\"path\": \"src/part_{idx}.rs\", \"first\": {idx}, \"n\": 200}}"
            )),
        }],
    }
}

fn messages() -> Vec<Message> {
    let mut messages = vec![Message::User { name: None, text: "Change every file.".to_owned() }];
    for idx in 0..N_CALLS {
        messages.push(Message::Assistant(assistant(idx)));
        let text = "    let total = parts.iter().map(|part| part.len()).sum::<usize>();\n".repeat(40);
        messages.push(Message::ToolResult(ToolResult {
            name: None,
            call_id: Some(format!("call_{idx}")),
            text,
        }));
    }
    messages
}

/// One long reply: thoughts and calls, a section for each.
fn reply_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    let template = Template { default_system: None, generation_prompt: false, ..Template::default() };
    let keep = Thinking { preserve: true, ..Thinking::default() };
    let markers = tokenizer.markers();
    let mut reply = Vec::new();
    for idx in 0..N_CALLS {
        let one = Conversation::new(vec![Message::Assistant(assistant(idx))], Vec::new())
            .expect("calls need no results");
        let ids = template.render(&one, keep).ids(tokenizer, SpecialText::AsText);
        let body = ids.iter().position(|id| *id == markers.im_middle).expect("a message has a header") + 1;
        reply.extend(ids[body..].iter().filter(|id| **id != markers.im_end));
    }
    reply
}

fn best<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut best_s = f64::INFINITY;
    let mut last = None;
    for _ in 0..5 {
        let start = Instant::now();
        last = Some(work());
        best_s = best_s.min(start.elapsed().as_secs_f64());
    }
    (best_s, last.expect("five rounds ran"))
}
