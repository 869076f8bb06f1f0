//! Completions by random choice among the allowed tokens, judged from outside.

use perilune_chat::grammar::{GrammarError, Tools};
use perilune_chat::message::ToolChoice;
use perilune_chat::scanner::Opening;
use serde_json::{Value, json};

use crate::forced::{Judge, Rng, bounded_tools, complete, read_section};
use crate::random_schema::random_schema;
use crate::specs;
use crate::vocab::{self, Vocab};
use crate::walks::Walk;

/// Tokens after which a completion counts as failed.
const N_TOKENS_MAX: usize = 8_192;

pub(crate) fn soak(vocab: &Vocab, n_completions: u64, seed: u64) {
    let tools = bounded_tools();
    let judges: Vec<Judge> = tools.iter().map(|(_, schema)| Judge::new(schema)).collect();
    for completion in 0..n_completions {
        let mut rng = Rng(seed + completion);
        let next_call_idx = rng.below(100) as u32;
        let request =
            Tools { specs: specs(&tools), choice: ToolChoice::Required, next_call_idx, ..Tools::default() };
        let mut constraint = vocab.factory.tool_calls(request, Opening::Answer).expect("the tools compile");
        let context = format!("seed {}", seed + completion);
        assert!(
            constraint.reports().iter().all(|report| report.bytes_max.is_some()),
            "a tool is not bounded"
        );
        let ids = complete(&mut constraint, &mut rng, N_TOKENS_MAX)
            .unwrap_or_else(|error| panic!("{context}: {error}"))
            .unwrap_or_else(|| panic!("{context}: more than {N_TOKENS_MAX} tokens"));
        let calls = read_section(&vocab.tokenizer, &ids).unwrap_or_else(|error| panic!("{context}: {error}"));
        for (nth, call) in calls.iter().enumerate() {
            let tool = tools.iter().position(|(name, _)| *name == call.name);
            let tool = tool.unwrap_or_else(|| panic!("{context}: undeclared {:?}", call.name));
            assert_eq!(call.idx, next_call_idx + nth as u32, "{context}: {call:?}");
            let value: Value = serde_json::from_str(&call.arguments)
                .unwrap_or_else(|error| panic!("{context}: {error} in {}", call.arguments));
            judges[tool]
                .check(&value)
                .unwrap_or_else(|error| panic!("{context}: {error} in {}", call.arguments));
        }
    }
}

#[test]
fn forced_completions_parse_and_validate() {
    soak(vocab::small(), 150, 1);
}

#[test]
fn forced_completions_parse_and_validate_on_the_published_vocabulary() {
    if let Some(vocab) = vocab::published("forced completions on the published vocabulary") {
        soak(&vocab, 30, 10_000);
    }
}

#[test]
fn forced_json_answers_validate() {
    let vocab = vocab::small();
    for (tool, (name, schema)) in bounded_tools().into_iter().enumerate() {
        let judge = Judge::new(&schema);
        for seed in 0..4 {
            let mut rng = Rng(1_000 * tool as u64 + seed);
            let mut constraint =
                vocab.factory.json_schema(&schema, true, Opening::Answer).expect("the schema compiles");
            let ids = complete(&mut constraint, &mut rng, N_TOKENS_MAX).expect("no limit is met");
            let ids = ids.unwrap_or_else(|| panic!("{name} seed {seed}: too many tokens"));
            let (end, body) = ids.split_last().expect("the turn has an end");
            assert_eq!(*end, vocab.tokenizer.markers().im_end);
            let value =
                serde_json::from_slice(&vocab.tokenizer.decode_bytes(body)).expect("the answer is JSON");
            judge.check(&value).unwrap_or_else(|error| panic!("{name} seed {seed}: {error}"));
        }
    }
}

fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(map) => map.values().any(has_float),
        _ => false,
    }
}

/// What is generated under a random schema is valid by it, keyword for keyword.
#[test]
fn random_schemas_give_valid_values() {
    let vocab = vocab::small();
    let (mut n_judged, mut n_refused) = (0, 0);
    for seed in 0..250 {
        let mut rng = Rng(seed);
        let schema = random_schema(&mut rng);
        let mut constraint = match vocab.factory.json_schema(&schema, false, Opening::Answer) {
            Ok(constraint) => constraint,
            Err(error) => {
                let is_known = matches!(
                    error,
                    GrammarError::Unsatisfiable { .. }
                        | GrammarError::CyclicRef { .. }
                        | GrammarError::InfiniteValue { .. }
                        | GrammarError::SchemaTooLarge { .. }
                );
                assert!(is_known, "seed {seed}: {error}: {schema}");
                n_refused += 1;
                continue;
            }
        };
        if constraint.reports()[0].unenforced.iter().any(|entry| entry.is_assertion) {
            continue;
        }
        let judge = Judge::new(&schema);
        for round in 0..3 {
            let ids = complete(&mut constraint.clone(), &mut rng, 1_000);
            let ids = ids.unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}: {schema}"));
            let Some((_, body)) = ids.as_ref().and_then(|ids| ids.split_last()) else { continue };
            let text = vocab.tokenizer.decode(body);
            let context = || format!("seed {seed}, round {round}: {text} by {schema}");
            let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", context()));
            judge.check(&value).unwrap_or_else(|error| panic!("{error}: {}", context()));
            n_judged += 1;
            // The same value in other layouts; a float could come back in a form that the grammar does not write.
            let pretty = serde_json::to_string_pretty(&value).expect("a value is JSON");
            let is_shallow = !pretty.contains(&" ".repeat(41));
            for text in std::iter::once(value.to_string()).chain(is_shallow.then_some(pretty)) {
                let mut again = constraint.clone();
                let ids = vocab.tokenizer.encode_ordinary(&text);
                let takes = |id: &u32| again.accept(*id).is_ok();
                assert!(has_float(&value) || ids.iter().all(takes), "{text:?} is refused: {}", context());
            }
        }
        constraint.forced();
    }
    println!("{n_judged} values judged, {n_refused} schemas refused");
    assert!(n_judged > 400 && n_refused < 50, "{n_judged} values judged, {n_refused} schemas refused");
}

#[test]
fn open_schemas_never_lead_into_a_dead_end() {
    let vocab = vocab::small();
    for (seed, schema) in
        (0..40).zip([json!({}), json!({"type": "object"}), json!({"items": {}})].iter().cycle())
    {
        let mut rng = Rng(seed);
        let mut constraint = vocab.factory.json_schema(schema, true, Opening::Answer).expect("it compiles");
        let ids =
            complete(&mut constraint, &mut rng, 600).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let Some((_, body)) = ids.as_ref().and_then(|ids| ids.split_last()) else { continue };
        let text = vocab.tokenizer.decode_bytes(body);
        serde_json::from_slice::<Value>(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn long_strings_with_a_limit_reach_it() {
    let vocab = vocab::small();
    let n_chars_max = 32_768;
    let schema = json!({"type": "string", "maxLength": n_chars_max});
    for unit in ["The quick brown fox jumps. ", "请确认酒店预订和会议时间，谢谢。", "🙂🙃🎉"]
    {
        let mut constraint = vocab.factory.json_schema(&schema, true, Opening::Answer).expect("it compiles");
        let n_units = n_chars_max / unit.chars().count();
        let padding = "x".repeat(n_chars_max % unit.chars().count());
        let text = format!("\"{}{padding}", unit.repeat(n_units));
        let mut mask = vec![0; constraint.n_mask_words()];
        for id in vocab.tokenizer.encode_ordinary(&text) {
            constraint.fill_mask(&mut mask).unwrap_or_else(|error| panic!("{unit}: {error}"));
            constraint.accept(id).unwrap_or_else(|error| panic!("{unit}: {error}"));
        }
        let mut walk = Walk { constraint, tokenizer: &vocab.tokenizer };
        walk = walk.refuses(&["x", "\\"]);
        walk.takes("\"<|im_end|>").completes(true);
    }
}
