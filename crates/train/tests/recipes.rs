//! Recipes: those of the repository are sound and priced, bad ones are one sentence.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use perilune_train::plan::Plan;
use perilune_train::recipe::Recipe;

#[test]
fn every_recipe_of_the_repository_parses_and_says_its_price() {
    let mut n_recipes = 0;
    for entry in std::fs::read_dir(common::recipes()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let recipe = Recipe::from_file(&path).unwrap();
        let head: Vec<&str> = recipe.text.lines().take_while(|line| line.starts_with('#')).collect();
        for word in ["Cost:", "Yield:"] {
            assert!(
                head.iter().any(|line| line.contains(word)),
                "{}: its head lacks `{word}`",
                path.display()
            );
        }
        n_recipes += 1;
    }
    assert!(n_recipes >= 2);
}

const STAGE: &str = "[[stage]]\nname = \"a\"\nfeed = \"copies\"\ntokens = 100\nbatch_tokens = 10\nsequence_tokens = 8\nlr = 1e-3\n";

#[test]
fn a_bad_recipe_is_one_sentence_that_names_key_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = common::write(folder.path(), "good.toml", STAGE);
    let plan = Plan::new(&Recipe::from_file(&good).unwrap(), 1).unwrap();
    assert_eq!((plan.tokens, plan.steps, plan.is_measured), (100, 10, true));
    assert!(plan.seconds > 0.0 && plan.flops > 1e6);
    let cases = [
        (STAGE.replace("lr =", "learning_rate ="), "learning_rate"),
        (STAGE.replace("tokens = 100\n", ""), "tokens"),
        (STAGE.replace("1e-3", "\"fast\""), "string"),
        (STAGE.replace("copies", "novels"), "`stage.a.feed` is `novels`; expected one of copies"),
        (STAGE.replace("sequence_tokens = 8", "sequence_tokens = 9000"), "`stage.a.sequence_tokens` is 9000"),
        (STAGE.replace("tokens = 100", "tokens = 0"), "`stage.a.tokens` is 0"),
        (format!("{STAGE}warmup = 0.9\ndecay = 0.2\n"), "`stage.a.decay`"),
        (format!("{STAGE}clip_tau = nan\n"), "`stage.a.clip_tau` is NaN"),
        (format!("{STAGE}{STAGE}"), "`a` twice"),
        ("stage = []".to_owned(), "at least one [[stage]]"),
        (format!("tokens_per_s = -1.0\n{STAGE}"), "`tokens_per_s`"),
        (format!("{STAGE}[sweep]\nseeds = [1]\nvariants = []\n"), "`sweep.variants` is 0"),
    ];
    for (text, expected) in cases {
        let path = common::write(folder.path(), "bad.toml", &text);
        let error = Recipe::from_file(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("bad.toml"), "{error}\n{text}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn an_impossible_shape_names_the_key_and_the_configs_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = common::write(folder.path(), "recipe.toml", &format!("{STAGE}quant = \"int4\"\n"));
    let model = folder.path().join("smoke.json");
    let config = std::fs::read_to_string(&model).unwrap();
    for (from, to, expected) in [
        ("\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 9", "num_experts_per_tok"),
        ("\"qk_rope_head_dim\": 16", "\"qk_rope_head_dim\": 15", "qk_rope_head_dim"),
        ("\"moe_intermediate_size\": 32", "\"moe_intermediate_size\": 40", "moe_intermediate_size (40)"),
    ] {
        assert!(config.contains(from));
        std::fs::write(&model, config.replace(from, to)).unwrap();
        let error = Recipe::from_file(&path).unwrap_err();
        let whole = match std::error::Error::source(&error) {
            Some(cause) => format!("{error} {cause}"),
            None => error.to_string(),
        };
        assert!(
            whole.contains(expected) && whole.contains("recipe.toml") && !whole.contains('\n'),
            "{whole}"
        );
    }
}
