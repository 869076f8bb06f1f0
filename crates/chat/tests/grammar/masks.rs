//! Masks against brute force, and what is forced.

use perilune_chat::grammar::Tools;
use perilune_chat::message::ToolChoice;
use perilune_chat::scanner::Opening;
use serde_json::{Value, json};

use crate::forced::{Rng, allowed, bounded_tools, choose, read_section};
use crate::vocab::{self, Vocab};
use crate::{forced_completions::soak, specs};

/// Checks at every position of random completions that the mask is what can be accepted and gone on from.
fn compare_with_brute_force(vocab: &Vocab, tools: &[(String, Value)], seed: u64, every: usize) {
    let mut rng = Rng(seed);
    let request = Tools { specs: specs(tools), choice: ToolChoice::Required, ..Tools::default() };
    let mut constraint = vocab.factory.tool_calls(request, Opening::Unknown).expect("the tools compile");
    let n_vocab = vocab.tokenizer.n_vocab() as u32;
    let mut mask = vec![0; constraint.n_mask_words()];
    let mut beyond = vec![0; constraint.n_mask_words()];
    for position in 0..400 {
        if constraint.is_complete() {
            break;
        }
        constraint.fill_mask(&mut mask).expect("the state has a mask");
        let masked = allowed(&mask);
        if position % every == 0 {
            let forced = constraint.forced();
            let alive: Vec<u32> = (0..n_vocab)
                .filter(|id| {
                    let mut ahead = constraint.clone();
                    ahead.accept(*id).is_ok()
                        && ahead.fill_mask(&mut beyond).is_ok()
                        && beyond.iter().any(|word| *word != 0)
                })
                .collect();
            // Inside JSON, where the text goes on in one way only, the mask keeps to the tokenizer's own cut.
            let is_cut = masked.len() == 1 && forced.first() == masked.first() && alive.contains(&masked[0]);
            assert!(masked == alive || is_cut, "seed {seed}, position {position}: {masked:?}, {alive:?}");
        }
        constraint.accept(choose(&mask, &mut rng)).expect("an allowed token is accepted");
    }
}

#[test]
fn masks_are_what_can_be_accepted() {
    for seed in 0..4 {
        compare_with_brute_force(vocab::small(), &bounded_tools(), seed, 7);
    }
}

#[test]
fn masks_are_what_can_be_accepted_on_the_published_vocabulary() {
    if let Some(vocab) = vocab::published("masks by brute force on the published vocabulary") {
        compare_with_brute_force(&vocab, &bounded_tools(), 1, 40);
    }
}

/// Texts of a finite language, by enumeration, against the masks of its grammar: no code in common.
#[test]
fn masks_are_exact_on_a_finite_language() {
    let vocab = vocab::small();
    let schema = json!({"enum": ["a", "ab", "abc\"", "日本", "日本語", 12, 120, true, null]});
    let texts: Vec<Vec<u8>> =
        schema["enum"].as_array().expect("an array").iter().map(|v| v.to_string().into_bytes()).collect();
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let mut constraint =
            vocab.factory.json_schema(&schema, true, Opening::Answer).expect("the enum compiles");
        let mut mask = vec![0; constraint.n_mask_words()];
        let mut written: Vec<u8> = Vec::new();
        // The first position also allows opening a think block in other starts; here it is the value's own.
        while !constraint.is_complete() {
            constraint.fill_mask(&mut mask).expect("the state has a mask");
            let goes_on = |id: &u32| {
                let bytes = vocab.tokenizer.token_bytes(*id).unwrap_or_default();
                texts
                    .iter()
                    .any(|text| text.strip_prefix(&written[..]).is_some_and(|rest| rest.starts_with(bytes)))
            };
            let mut expect: Vec<u32> = (0..vocab.tokenizer.n_ranks() as u32).filter(goes_on).collect();
            if texts.contains(&written) {
                expect.push(vocab.tokenizer.markers().im_end);
            }
            let found = allowed(&mask);
            let forced = constraint.forced();
            if forced.is_empty() {
                assert_eq!(found, expect, "seed {seed} after {:?}", String::from_utf8_lossy(&written));
            } else {
                assert!(found == expect || found == forced[..1], "seed {seed}: {found:?}, {expect:?}");
            }
            let id = choose(&mask, &mut rng);
            constraint.accept(id).expect("an allowed token is accepted");
            if (id as usize) < vocab.tokenizer.n_ranks() {
                written.extend_from_slice(vocab.tokenizer.token_bytes(id).expect("a token"));
            }
        }
        assert!(texts.contains(&written), "seed {seed}");
    }
}

#[test]
fn forced_tokens_are_allowed_in_turn() {
    let vocab = vocab::small();
    let (mut n_forced, mut n_chosen) = (0, 0);
    for seed in 0..20 {
        let mut rng = Rng(seed);
        let tools =
            Tools { specs: specs(&bounded_tools()), choice: ToolChoice::Required, ..Tools::default() };
        let mut constraint = vocab.factory.tool_calls(tools, Opening::Answer).expect("the tools compile");
        let mut mask = vec![0; constraint.n_mask_words()];
        let mut ids = Vec::new();
        while !constraint.is_complete() {
            for id in constraint.forced() {
                constraint.fill_mask(&mut mask).expect("the state has a mask");
                assert!(allowed(&mask).contains(&id), "seed {seed}: forced {id} is masked");
                constraint.accept(id).expect("a forced token is accepted");
                ids.push(id);
                n_forced += 1;
            }
            if !constraint.is_complete() {
                constraint.fill_mask(&mut mask).expect("the state has a mask");
                let id = choose(&mask, &mut rng);
                constraint.accept(id).expect("an allowed token is accepted");
                ids.push(id);
                n_chosen += 1;
            }
        }
        read_section(&vocab.tokenizer, &ids).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(n_forced * 10 > n_chosen, "{n_forced} forced, {n_chosen} chosen");
}

fn is_send<T: Send>(_: &T) {}

#[test]
fn constraints_and_factories_cross_threads() {
    let vocab = vocab::small();
    is_send(&vocab.factory.json_object(Opening::Answer).expect("it compiles"));
    std::thread::scope(|scope| {
        for seed in 0..2 {
            scope.spawn(move || soak(vocab, 5, 500 + seed));
        }
    });
}
