//! Load and cache change no bit of an answer, and a model that fails fails alone: through HTTP, on a real forward pass.

#![allow(clippy::unwrap_used)]

mod common;

use common::{N_SPECIAL, N_VOCAB, Server, at_once, model};
use serde_json::{Value, json};
use std::path::Path;

/// Words of which the test tokenizer makes more than one token each now and then.
const WORDS: [&str; 6] = ["harbour ", "seven ", "Lima, ", "éclipse ", "of the moon\n", "12 "];

fn words(n: usize, from: usize) -> String {
    (0..n).map(|i| WORDS[(from + i * i) % WORDS.len()]).collect()
}

fn tools() -> Value {
    let tool = |name: &str| {
        let parameters = json!({ "type": "object", "properties": { "city": { "type": "string", "maxLength": 9 } },
                                 "required": ["city"], "additionalProperties": false });
        json!({ "type": "function", "function": { "name": name, "parameters": parameters } })
    };
    json!([tool("get_weather"), tool("find-place")])
}

/// Request `i` of a set of mixed lengths, classes and settings; half of them with tools.
fn request(i: usize) -> Value {
    let n_words = [1, 20, 60, 150, 400, 9, 33, 220][i % 8] + i / 8;
    let mut body = json!({
        "model": if i % 5 == 4 { "kimi-k2-thinking-turbo" } else { "kimi-k2-thinking" },
        "messages": [{ "role": "user", "content": words(n_words, i) }],
        "max_tokens": 24 + i, "seed": i, "temperature": ([0.0, 1.0, 0.7][i % 3]), "logprobs": true, "top_logprobs": 5,
    });
    if i.is_multiple_of(2) {
        body["tools"] = tools();
    }
    if i.is_multiple_of(4) {
        body["tool_choice"] = json!("required");
        body["thinking"] = json!({ "type": "disabled" });
    }
    body
}

/// What must not depend on anybody else. Numbers are written so that they read back to the bit.
fn kept(answer: &Value) -> Value {
    json!([answer["choices"], answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]])
}

#[test]
fn sixteen_at_once_get_what_each_gets_alone_on_both_paths() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let requests: Vec<Value> = (0..16).map(request).collect();
    for path in ["exact", "fast"] {
        let alone = Server::start(&model, &["--path", path, "--threads", "1", "--no-prefix-cache"]);
        let one_by_one: Vec<Value> = requests.iter().map(|body| alone.answer(body)).collect();
        let together = Server::start(&model, &["--path", path, "--threads", "2"]);
        let at_once = at_once(&together, &requests);
        for (i, ((status, batched), alone)) in at_once.iter().zip(&one_by_one).enumerate() {
            assert_eq!(*status, 200, "{path}, request {i}: {batched}");
            assert_eq!(kept(batched), kept(alone), "{path}, request {i}");
        }
        let n_logprobs =
            |answer: &Value| answer["choices"][0]["logprobs"]["content"].as_array().unwrap().len();
        let n: usize = one_by_one.iter().map(n_logprobs).sum();
        let n_calls = one_by_one
            .iter()
            .filter(|answer| answer["choices"][0]["message"]["tool_calls"].is_array())
            .count();
        assert!(n > 200 && n_calls >= 2, "{n} tokens and {n_calls} calls show little");
        let (steps_alone, steps) = (alone.books("steps"), together.books("steps"));
        assert!(
            steps * 2 < steps_alone,
            "{steps} steps for what took {steps_alone} alone: nothing was batched"
        );
    }
}

#[test]
fn the_prefix_cache_changes_no_bit_on_the_exact_path() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let without = Server::start(&model, &["--path", "exact", "--threads", "1", "--no-prefix-cache"]);
    let with = Server::start(&model, &["--path", "exact", "--threads", "1"]);
    let mut n_cached = 0;
    for dialogue in 0..3 {
        let mut messages = vec![json!({ "role": "user", "content": words(120, dialogue) })];
        for turn in 0..5 {
            let mut body = request(turn);
            body["messages"] = json!(messages);
            let (off, on) = (without.answer(&body), with.answer(&body));
            assert_eq!(off["usage"]["cached_tokens"], 0);
            n_cached += on["usage"]["cached_tokens"].as_u64().unwrap();
            assert_eq!(kept(&on), kept(&off), "dialogue {dialogue}, turn {turn}");
            let message = off["choices"][0]["message"].clone();
            let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
            // A cut call can be sent back, an answer of nothing cannot.
            if !calls.is_empty() || message["content"].as_str().is_some_and(|text| !text.is_empty()) {
                messages.push(message);
            }
            for call in calls {
                messages
                    .push(json!({ "role": "tool", "tool_call_id": call["id"], "content": words(9, turn) }));
            }
            messages.push(json!({ "role": "user", "content": words(30, turn) }));
        }
    }
    assert!(n_cached > 2_000, "{n_cached} cached tokens show little");
}

/// Writes NaN over the embedding of token `id`.
fn poison(model: &Path, id: usize) {
    let path = model.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let n_head = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let head: Value = serde_json::from_slice(&bytes[8..8 + n_head]).unwrap();
    let tensor = &head["model.embed_tokens.weight"];
    assert_eq!((&tensor["dtype"], &tensor["shape"][0]), (&json!("BF16"), &json!(N_VOCAB)));
    let n_row = tensor["shape"][1].as_u64().unwrap() as usize * 2;
    let at = 8 + n_head + tensor["data_offsets"][0].as_u64().unwrap() as usize + id * n_row;
    // One element is enough, and the hardest to notice.
    bytes[at..at + 2].copy_from_slice(&0x7FC0_u16.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn a_poisoned_token_fails_its_request_alone_and_its_cache_is_dropped() {
    // Id of the byte `~` in the test tokenizer, which is a token of its own and in no text here but the bad one.
    let tokenizer =
        perilune_chat::tokenizer::Tokenizer::from_ranks(&std::fs::read(common::ranks()).unwrap(), None)
            .unwrap();
    let [id] = tokenizer.encode_ordinary("~")[..] else { panic!("`~` is one token") };
    let good = |i: usize| {
        let mut body = request(i);
        body["messages"][0]["content"] = json!(words(150, 0));
        body["logit_bias"] = json!({ id.to_string(): -100 });
        for special in N_VOCAB - N_SPECIAL..N_VOCAB {
            body["logit_bias"][special.to_string()] = json!(-100);
        }
        body
    };
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    for args in [&["--path", "exact"][..], &["--path", "fast"], &["--path", "fast", "--dense", "int8"]] {
        let sound = Server::start(&model, args);
        let goods: Vec<Value> = [1, 3, 5].into_iter().map(good).collect();
        let expected: Vec<Value> = goods.iter().map(|body| sound.answer(body)).collect();
        drop(sound);
        let sick_dir = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(&model).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), sick_dir.path().join(file.file_name())).unwrap();
        }
        poison(sick_dir.path(), id as usize);
        let sick = Server::start(sick_dir.path(), args);
        sick.answer(&goods[0]);
        let known = sick.answer(&goods[0])["usage"]["cached_tokens"].as_u64().unwrap();
        assert!(known > 128, "{args:?}: {known} cached tokens show little");
        let mut bad = goods[0].clone();
        bad["messages"][0]["content"] = json!(format!("{}~", words(150, 0)));
        let bodies: Vec<Value> = goods.iter().cloned().chain([bad.clone()]).collect();
        let mut answers = at_once(&sick, &bodies);
        let (status, failed) = answers.pop().unwrap();
        assert_eq!((status, &failed["error"]["code"]), (500, &json!("non_finite")), "{args:?}: {failed}");
        let message = failed["error"]["message"].as_str().unwrap();
        assert!(message.contains("no finite number at position"), "{message}");
        for ((status, answer), expected) in answers.iter().zip(&expected) {
            assert_eq!(*status, 200, "{args:?}: {answer}");
            assert_eq!(kept(answer), kept(expected), "{args:?}");
        }
        // It touched the prefix that it shared with the others: nothing of that is found again.
        assert_eq!(sick.chat(&bad).0, 500, "{args:?}");
        assert_eq!(sick.answer(&goods[0])["usage"]["cached_tokens"], 0, "{args:?}");
    }
}
