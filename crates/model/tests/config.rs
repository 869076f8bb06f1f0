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

#[test]
fn every_published_spelling_gives_the_same_values() {
    let expected = k2();
    let same = |what: &str, edit: &dyn Fn(&mut Value)| {
        let found = edited(edit).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(found, expected, "{what}");
    };
    same("rope_type", &|v| {
        let kind = v["rope_scaling"].as_object_mut().unwrap().remove("type").unwrap();
        v["rope_scaling"]["rope_type"] = kind;
    });
    same("both names of the rope's type", &|v| v["rope_scaling"]["rope_type"] = json!("yarn"));
    same("rope_parameters", &|v| {
        let mut rope = v.as_object_mut().unwrap().remove("rope_scaling").unwrap();
        rope["rope_theta"] = v.as_object_mut().unwrap().remove("rope_theta").unwrap();
        rope["rope_type"] = rope.as_object_mut().unwrap().remove("type").unwrap();
        v["rope_parameters"] = rope;
    });
    same("rope_theta outside rope_parameters", &|v| {
        v["rope_parameters"] = v.as_object_mut().unwrap().remove("rope_scaling").unwrap();
    });
    same("dtype", &|v| v["dtype"] = v.as_object_mut().unwrap().remove("torch_dtype").unwrap());
    same("a list of end ids", &|v| v["eos_token_id"] = json!([163586]));
    same("no effectless keys", &|v| {
        for key in [
            "topk_method",
            "scoring_func",
            "hidden_act",
            "moe_layer_freq",
            "num_key_value_heads",
            "aux_loss_alpha",
        ] {
            v.as_object_mut().unwrap().remove(key).unwrap();
        }
    });
    same("keys unknown to this program", &|v| v["id2label"] = json!({"0": "LABEL_0"}));
    let deepseek = edited(|v| v["model_type"] = json!("deepseek_v3")).unwrap();
    assert_eq!(deepseek, Config { family: Family::DeepseekV3, ..expected });
}

#[test]
fn k25_nests_the_language_model_and_prefixes_its_tensors() {
    let mut inner = k2_value();
    let eos = inner.as_object_mut().unwrap().remove("eos_token_id").unwrap();
    let outer = json!({
        "model_type": "kimi_k25", "architectures": ["KimiK25ForConditionalGeneration"],
        "eos_token_id": eos, "text_config": inner, "vision_config": {"hidden_size": 1152},
    });
    let config = Config::from_json(&outer.to_string()).unwrap();
    let expected = Config { family: Family::KimiK25, tensor_prefix: "language_model.".into(), ..k2() };
    assert_eq!(config, expected);
    assert!(layout::expected(&config).all(|spec| spec.name.starts_with("language_model.")));
    let error = Config::from_json(r#"{"model_type": "kimi_k25"}"#).unwrap_err().to_string();
    assert!(error.contains("text_config"), "{error}");
}

#[test]
fn grouped_routing_and_plain_rope_are_supported() {
    let v3 = edited(|v| {
        v["n_group"] = json!(8);
        v["topk_group"] = json!(4);
        v["rope_scaling"] = json!({"type": "default"});
        v["quantization_config"] = Value::Null;
    })
    .unwrap();
    assert_eq!((v3.n_group, v3.topk_group, v3.rope.yarn, v3.quantization), (8, 4, None, None));
    let stated = edited(|v| v["rope_scaling"]["attention_factor"] = json!(1.25)).unwrap();
    close(stated.rope.attention_factor(), 1.25);
    let uneven = edited(|v| v["rope_scaling"]["mscale_all_dim"] = json!(0.5)).unwrap();
    // mscale(64, 1) / mscale(64, 0.5), and the square of the latter in the softmax scale.
    close(uneven.rope.attention_factor(), 1.415_888_308_3 / 1.207_944_154_2);
    close(uneven.softmax_scale(), 192f64.powf(-0.5) * 1.207_944_154_2f64.powi(2));
}

#[test]
fn what_is_not_supported_is_named_with_what_is() {
    let cases: [(&str, Value, &str); 29] = [
        ("/model_type", json!("llama"), "kimi_k2"),
        ("/topk_method", json!("greedy"), "noaux_tc"),
        ("/scoring_func", json!("softmax"), "sigmoid"),
        ("/hidden_act", json!("gelu"), "silu"),
        ("/attention_bias", json!(true), "false"),
        ("/moe_layer_freq", json!(2), "1"),
        ("/num_key_value_heads", json!(8), "64"),
        ("/q_lora_rank", json!(null), "latent"),
        ("/rope_scaling/type", json!("linear"), "yarn"),
        ("/rope_scaling/type", json!("dynamic"), "default"),
        ("/quantization_config/quant_method", json!("fp8"), "pack-quantized"),
        ("/quantization_config/quant_method", json!("gptq"), "compressed-tensors"),
        ("/quantization_config/format", json!("float-quantized"), "pack-quantized"),
        ("/quantization_config/format", json!("nvfp4-pack-quantized"), "pack-quantized"),
        ("/quantization_config/quantization_status", json!("frozen"), "compressed"),
        ("/quantization_config/kv_cache_scheme", json!({"num_bits": 8}), "INT4"),
        ("/quantization_config/config_groups/group_0/weights/num_bits", json!(8), "4"),
        ("/quantization_config/config_groups/group_0/weights/type", json!("float"), "int"),
        ("/quantization_config/config_groups/group_0/weights/symmetric", json!(false), "true"),
        ("/quantization_config/config_groups/group_0/weights/strategy", json!("channel"), "group"),
        ("/quantization_config/config_groups/group_0/weights/group_size", json!(128), "32"),
        ("/quantization_config/config_groups/group_0/weights/dynamic", json!(true), "false"),
        ("/quantization_config/config_groups/group_0/weights/actorder", json!("group"), "INT4"),
        ("/quantization_config/config_groups/group_0/input_activations", json!({"num_bits": 8}), "INT4"),
        ("/quantization_config/config_groups", json!({"a": {}, "b": {}}), "one group"),
        ("/quantization_config/config_groups", json!({}), "one group"),
        ("/n_group", json!(5), "divisor"),
        ("/hidden_size", json!(7160), "group_size"),
        ("/moe_intermediate_size", json!(2040), "group_size"),
    ];
    for (pointer, value, supported) in cases {
        let key = pointer.rsplit('/').next().unwrap();
        refused(pointer, value, &[key, supported]);
    }
}

/// K2's config with `value` at `pointer` is refused in one sentence that holds each of `words`.
fn refused(pointer: &str, value: Value, words: &[&str]) {
    let what = format!("{pointer} = {value}");
    let found = edited(|v| *v.pointer_mut(pointer).unwrap() = value);
    let error = found.map(|_| ()).expect_err(&what);
    for word in words {
        assert!(error.contains(word), "{what}: `{word}` is not in: {error}");
    }
    assert!(error.starts_with("config.json: ") && !error.contains('\n') && error.len() < 400, "{error}");
}

#[test]
fn values_out_of_range_are_named_with_the_range() {
    let sizes = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "n_routed_experts",
        "num_experts_per_tok",
        "n_group",
        "topk_group",
        "q_lora_rank",
        "kv_lora_rank",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "v_head_dim",
        "max_position_embeddings",
    ];
    for key in sizes {
        for value in [json!(0), json!(-1), json!(1.5), json!(u64::MAX), json!(1e300), json!("64"), json!([])]
        {
            refused(&format!("/{key}"), value, &[key, "expected a whole number from 1 to"]);
        }
    }
    for key in ["rms_norm_eps", "routed_scaling_factor", "rope_theta"] {
        for value in [json!(0), json!(-1), json!("x"), json!(null), json!(1e-60)] {
            refused(&format!("/{key}"), value, &[key, "expected a number above 0"]);
        }
    }
    refused("/rope_scaling/factor", json!(0), &["rope_scaling.factor", "above 0"]);
    refused("/rope_scaling/beta_fast", json!("32"), &["rope_scaling.beta_fast"]);
    refused("/rope_scaling/mscale", json!(-1), &["rope_scaling.mscale", "at least 0"]);
    refused("/rope_scaling", json!(3), &["rope_scaling", "an object"]);
    refused("/norm_topk_prob", json!(1), &["norm_topk_prob", "true or false"]);
    refused("/eos_token_id", json!([1, -2]), &["eos_token_id", "token id"]);
    refused("/first_k_dense_replace", json!(-1), &["first_k_dense_replace", "from 0"]);
    refused("/qk_rope_head_dim", json!(63), &["qk_rope_head_dim", "even"]);
    refused("/topk_group", json!(2), &["topk_group", "n_group"]);
    refused("/num_experts_per_tok", json!(385), &["num_experts_per_tok", "384"]);
}

#[test]
fn sizes_legal_one_by_one_and_absurd_together_are_refused_without_overflow() {
    let error = edited(|v| {
        v["num_hidden_layers"] = json!(1024);
        v["hidden_size"] = json!(1 << 20);
        v["moe_intermediate_size"] = json!(1 << 20);
        v["intermediate_size"] = json!(1 << 20);
        v["n_shared_experts"] = json!(1024);
        v["n_routed_experts"] = json!(65_536);
        v["num_attention_heads"] = json!(16_384);
        v["num_key_value_heads"] = json!(16_384);
        v["vocab_size"] = json!(1 << 24);
        for key in ["q_lora_rank", "kv_lora_rank"] {
            v[key] = json!(1 << 20);
        }
        for key in ["qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"] {
            v[key] = json!(16_384);
        }
    })
    .unwrap_err();
    assert!(error.contains("parameters together"), "{error}");
}

#[test]
fn absent_keys_are_named() {
    for key in [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "n_routed_experts",
        "n_group",
        "norm_topk_prob",
        "routed_scaling_factor",
        "rms_norm_eps",
        "rope_theta",
        "q_lora_rank",
        "first_k_dense_replace",
        "model_type",
    ] {
        let error = edited(|v| drop(v.as_object_mut().unwrap().remove(key))).unwrap_err();
        assert!(error.contains(&format!("lacks `{key}`")) && error.contains("expected"), "{error}");
    }
}

#[test]
fn text_that_is_no_config_is_a_sentence() {
    for text in ["", "{", "[]", "null", "\u{0}", "{\"a\":1}trailing", "3"] {
        let error = Config::from_json(text).unwrap_err().to_string();
        assert!(error.starts_with("config.json: "), "{error}");
    }
    let deep = "{\"a\":".repeat(100_000);
    assert!(Config::from_json(&deep).is_err());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    assert!(Config::from_file(&path).unwrap_err().to_string().contains("cannot be read"));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(Config::from_file(&path).unwrap_err().to_string().contains("config.json"));
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(Config::from_file(&path).unwrap_err().to_string().contains("at most"));
}

#[test]
fn damaged_text_never_panics() {
    let text = k2_text().as_bytes();
    let mut state = 20_261_124u64;
    let mut random = move |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for round in 0..20_000 {
        let mut bytes = text.to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = if random(2) == 0 { b"0123456789-e.\"{}[],:"[random(20)] } else { random(256) as u8 };
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let read =
            || Config::from_json(&text).map(|config| config.rope.inv_freq(config.qk_rope_head_dim).len());
        let outcome =
            std::panic::catch_unwind(read).unwrap_or_else(|_| panic!("round {round} panicked on {text}"));
        if let Ok(n) = outcome {
            assert!(n > 0, "round {round}");
        }
    }
}
