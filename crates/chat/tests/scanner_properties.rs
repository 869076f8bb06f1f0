//! The scanner against hostile token streams: any split, the same deltas; no marker in any field; the twin agrees.
#![allow(clippy::unwrap_used)] // Helpers outside the test functions.

mod support;

use perilune_chat::scanner::{Delta, Ending, Opening, Reply, Scanner, ScannerOptions, Summary};
use perilune_chat::tokenizer::Tokenizer;
use std::sync::Arc;
use support::random::Random;
use support::twin;

/// Streams per run; `PERILUNE_FUZZ_STREAMS` sets another number, `PERILUNE_FUZZ_SEED` the first seed.
const N_STREAMS: u64 = 20_000;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// A stream that is sometimes well formed, mostly not. No ordinary text holds `<`, so any `<` in a field
/// would be a marker's.
fn stream(random: &mut Random, tokenizer: &Tokenizer) -> Vec<u32> {
    const MARKS: [&str; 7] = [
        "<think>",
        "</think>",
        "<|tool_calls_section_begin|>",
        "<|tool_calls_section_end|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
    ];
    const TEXTS: [&str; 12] = [
        " ",
        "\n",
        "  \n ",
        "functions.",
        "search",
        ":0",
        ":",
        "{\"q\": \"a b\"}",
        "{",
        "Now.",
        "日本",
        "functions.a-b.c:12",
    ];
    const CALL: [&str; 5] = [
        "<|tool_call_begin|>",
        "functions.a-b.c:1",
        "<|tool_call_argument_begin|>",
        "{\"k\": 1}",
        "<|tool_call_end|>",
    ];
    let mut ids = Vec::new();
    let say = |text: &str, ids: &mut Vec<u32>| match tokenizer.special_id(text) {
        Some(id) => ids.push(id),
        None => ids.extend(tokenizer.encode_ordinary(text)),
    };
    if random.below(8) == 0 {
        say("<|im_assistant|>", &mut ids);
        say(["assistant", "<think>", ""][random.below(3)], &mut ids);
        say(["<|im_middle|>", "", "<|im_end|>"][random.below(3)], &mut ids);
    }
    for _ in 0..random.below(40) {
        match random.below(20) {
            0..9 => say(MARKS[random.below(MARKS.len())], &mut ids),
            9..15 => say(TEXTS[random.below(TEXTS.len())], &mut ids),
            15 => CALL.iter().for_each(|text| say(text, &mut ids)),
            16 => ids.push(random.below(tokenizer.n_ranks()) as u32),
            17 => ids.push((tokenizer.n_ranks() + random.below(256)) as u32),
            18 => say(["<|im_end|>", "[EOS]", "[EOT]", "<|im_user|>", "[PAD]"][random.below(5)], &mut ids),
            _ => ids.push(random.next() as u32),
        }
    }
    let holds_angle =
        |id: &u32| *id < tokenizer.n_ranks() as u32 && tokenizer.token_bytes(*id).unwrap().contains(&b'<');
    ids.retain(|id| !holds_angle(id));
    ids
}

fn options(random: &mut Random) -> (ScannerOptions, Ending) {
    let options = ScannerOptions {
        opening: [Opening::Unknown, Opening::Thinking, Opening::Answer][random.below(3)],
        tool_names: if random.below(2) == 0 { vec!["a-b.c".into(), "search".into()] } else { Vec::new() },
        undecided_tokens_max: usize::MAX,
    };
    (options, if random.below(2) == 0 { Ending::Complete } else { Ending::Cut })
}

/// Deltas with neighbours of the same field joined: what any split must agree on.
fn joined(deltas: Vec<Delta>) -> Vec<Delta> {
    let mut joined: Vec<Delta> = Vec::new();
    for delta in deltas {
        match (joined.last_mut(), delta) {
            (Some(Delta::Reasoning(last)), Delta::Reasoning(text)) => last.push_str(&text),
            (Some(Delta::Content(last)), Delta::Content(text)) => last.push_str(&text),
            (Some(Delta::ToolCallArguments { text: last, .. }), Delta::ToolCallArguments { text, .. }) => {
                last.push_str(&text);
            }
            (_, delta) => joined.push(delta),
        }
    }
    joined
}

fn run(
    tokenizer: &Arc<Tokenizer>,
    parts: &[&[u32]],
    options: &ScannerOptions,
    ending: Ending,
) -> (Vec<Delta>, Summary) {
    let mut deltas = Vec::new();
    let mut scanner = Scanner::new(Arc::clone(tokenizer), options.clone());
    for part in parts {
        scanner.push_all(part, &mut deltas);
    }
    let summary = scanner.finish(ending, &mut deltas);
    (deltas, summary)
}

/// The same characters in other tokens: each ordinary token as the tokens of its bytes.
fn as_bytes(tokenizer: &Tokenizer, byte_ids: &[u32], ids: &[u32]) -> Vec<u32> {
    let split = |id: &u32| -> Vec<u32> {
        match tokenizer.token_bytes(*id) {
            Some(bytes) if !tokenizer.is_special(*id) => {
                bytes.iter().map(|b| byte_ids[*b as usize]).collect()
            }
            _ => vec![*id],
        }
    };
    ids.iter().flat_map(split).collect()
}

fn byte_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    let id =
        |byte: u8| (0..tokenizer.n_ranks() as u32).find(|id| tokenizer.token_bytes(*id) == Some(&[byte]));
    (0..=255).map(|byte| id(byte).unwrap()).collect()
}

#[test]
fn any_split_gives_the_same_deltas_without_markers_and_the_twin_agrees() {
    let tokenizer = support::small_tokenizer();
    let byte_ids = byte_ids(&tokenizer);
    let first = setting("PERILUNE_FUZZ_SEED", 1);
    let mut n_calls = 0;
    for seed in first..first + setting("PERILUNE_FUZZ_STREAMS", N_STREAMS) {
        let mut random = Random(seed);
        let ids = stream(&mut random, &tokenizer);
        let (options, ending) = options(&mut random);
        let (whole, summary) = run(&tokenizer, &[&ids], &options, ending);
        let parts: Vec<&[u32]> = ids.chunks(1 + random.below(5)).collect();
        assert_eq!((whole.clone(), summary), run(&tokenizer, &parts, &options, ending), "seed {seed}");

        let finer = as_bytes(&tokenizer, &byte_ids, &ids);
        let (fine, mut fine_summary) = run(&tokenizer, &[&finer], &options, ending);
        fine_summary.n_reasoning_tokens = summary.n_reasoning_tokens;
        assert_eq!(
            (joined(whole.clone()), summary),
            (joined(fine), fine_summary),
            "seed {seed}, byte tokens"
        );

        let reply: Reply = whole.into_iter().collect();
        assert_no_marker(&reply, seed);
        n_calls += reply.tool_calls.len();
        assert_eq!(
            (reply, summary),
            twin::parse(&tokenizer, &ids, &options, ending),
            "seed {seed}: twin (right)"
        );
    }
    assert!(n_calls > 1000, "the streams held only {n_calls} calls");
}

fn assert_no_marker(reply: &Reply, seed: u64) {
    let mut fields = vec![&reply.reasoning, &reply.content];
    fields.extend(reply.tool_calls.iter().flat_map(|call| [&call.id, &call.name, &call.arguments]));
    for field in fields {
        let has = ["<", "[EOS]", "[EOT]", "[BOS]", "[PAD]", "[UNK]", "reserved_token"]
            .iter()
            .any(|m| field.contains(m));
        assert!(!has, "seed {seed}: a marker in {field:?}");
    }
}

#[test]
fn the_limit_on_undecided_text_is_kept_and_streams_from_there() {
    let tokenizer = support::small_tokenizer();
    let ids = tokenizer.encode_ordinary(&"word after word ".repeat(40));
    let options = ScannerOptions { undecided_tokens_max: 10, ..ScannerOptions::default() };
    let mut scanner = Scanner::new(Arc::clone(&tokenizer), options);
    let mut deltas = Vec::new();
    for (idx, &id) in ids.iter().enumerate() {
        deltas.clear();
        scanner.push(id, &mut deltas);
        assert_eq!(deltas.is_empty(), idx < 10, "token {idx}: {deltas:?}");
    }
}

#[test]
fn arguments_of_a_megabyte_pass_through() {
    let tokenizer = support::small_tokenizer();
    let arguments = format!("{{\"text\": \"{}\"}}", "0123456789 ".repeat(100_000));
    let text = format!(
        "<think>x</think><|tool_calls_section_begin|><|tool_call_begin|>functions.write:0\
         <|tool_call_argument_begin|>{arguments}<|tool_call_end|><|tool_calls_section_end|><|im_end|>"
    );
    let (reply, summary) = perilune_chat::scanner::recover(&tokenizer, &text, ScannerOptions::default());
    assert_eq!(reply.tool_calls[0].arguments, arguments);
    assert_eq!(summary.n_calls, 1);
}
