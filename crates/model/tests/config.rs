//! Config variants: every published spelling gives the same values; every unsupported feature is one clear sentence.

#![allow(clippy::unwrap_used)]

use perilune_model::config::{Config, Family, Quantization};
use perilune_model::layout;
use serde_json::{Value, json};

fn k2_text() -> &'static str {
    include_str!("data/k2_thinking_config.json")
}

fn k2_value() -> Value {
    serde_json::from_str(k2_text()).unwrap()
}

fn k2() -> Config {
    Config::from_json(k2_text()).unwrap()
}

/// K2's config with the value at `pointer`'s parent changed; `Value::Null` under `remove` takes the key out.
fn edited(edit: impl FnOnce(&mut Value)) -> Result<Config, String> {
    let mut value = k2_value();
    edit(&mut value);
    Config::from_json(&value.to_string()).map_err(|error| error.to_string())
}

fn close(found: f32, expected: f64) {
    assert!((f64::from(found) / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
}

#[test]
fn k2_thinking_reads_as_published() {
    let config = k2();
    assert_eq!(config.family, Family::KimiK2);
    assert_eq!((config.num_hidden_layers, config.n_routed_experts, config.num_experts_per_tok), (61, 384, 8));
    assert_eq!(config.quantization, Some(Quantization { num_bits: 4, group_size: 32 }));
    assert_eq!((config.eos_token_ids.as_slice(), config.bos_token_id), ([163586].as_slice(), Some(163584)));
    assert_eq!((config.rms_norm_eps, config.latent_norm_eps), (1e-5, 1e-6));
    assert!(!config.is_moe_layer(0) && config.is_moe_layer(1));
    close(config.softmax_scale(), 0.144_679_625_8);
    close(config.rope.attention_factor(), 1.0);
}

#[test]
fn rope_frequencies_are_those_of_the_facts() {
    // Check values: YaRN formula evaluated outside this program, K2 Thinking (betas 1 and 1), then K2.5 (32 and 1).
    let frequencies = k2().rope.inv_freq(64);
    assert_eq!(frequencies.len(), 32);
    let k2_values = [
        (0, 1.0),
        (1, 0.713_111_1),
        (10, 3.400_728e-2),
        (19, 1.621_760e-3),
        (20, 1.807_023e-5),
        (31, 4.382_206e-7),
    ];
    for (i, expected) in k2_values {
        close(frequencies[i], expected);
    }
    let k25 = edited(|v| v["rope_scaling"]["beta_fast"] = json!(32.0)).unwrap().rope.inv_freq(64);
    for (i, expected) in [(9, 4.377_666e-2), (14, 4.465_849e-3), (19, 1.583_750e-4), (20, 1.807_023e-5)] {
        close(k25[i], expected);
    }
    let plain = edited(|v| v["rope_scaling"] = Value::Null).unwrap();
    close(plain.rope.inv_freq(64)[20], 1.807_023e-5 * 64.0);
    close(plain.softmax_scale(), 192f64.powf(-0.5));
}

#[test]
fn k2_has_the_published_size() {
    let config = k2();
    let parameters = layout::parameters(&config);
    assert_eq!(parameters.total, 1_026_408_232_448);
    assert_eq!(parameters.embedding, 163_840 * 7_168);
    // The facts: 32.86e9 counting the embedding matrix, 31.69e9 without it.
    assert!((parameters.active as f64 / 32.86e9 - 1.0).abs() < 1e-3, "{parameters:?}");
    assert!(
        ((parameters.active - parameters.embedding) as f64 / 31.69e9 - 1.0).abs() < 1e-3,
        "{parameters:?}"
    );
    let bytes = layout::tally(&config, |spec| spec.n_bytes().into());
    assert!(((bytes.routed + bytes.rest) as f64 / 594.2e9 - 1.0).abs() < 1e-3, "{bytes:?}");
}

#[test]
fn the_tally_is_the_walk() {
    let config = edited(|v| {
        v["n_routed_experts"] = json!(16);
        v["num_hidden_layers"] = json!(5);
        v["first_k_dense_replace"] = json!(2);
    })
    .unwrap();
    let walked: u128 = layout::expected(&config).map(|spec| u128::from(spec.n_parameters())).sum();
    assert_eq!(layout::parameters(&config).total, walked);
    let names: std::collections::HashSet<String> = layout::expected(&config).map(|spec| spec.name).collect();
    // Per layer 9 besides the MLP; 3 dense matrices, or a router of 2, 3 shared and 16 experts of 9.
    assert_eq!(names.len(), 3 + 5 * 9 + 2 * 3 + 3 * (2 + 3 + 16 * 9));
}
