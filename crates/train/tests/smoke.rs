//! The smoke recipe from first weights to the exported file: every stage, the clip, the balance, the rounding.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use perilune_kernels::cpu::Cpu;
use perilune_model::checkpoint::Checkpoint;
use perilune_model::train::{Options, ParamClass, Parameters, Pass, Quant};
use perilune_train::feed::{self, Draw};
use perilune_train::recipe::Recipe;
use perilune_train::run::{self, Ended};
use perilune_train::{export, report};

/// Loss, in nats, that the exported file must beat on held-out sequences: chance is ln 64 = 4.16, and who knows the letters
/// of a piece but cannot copy it stays above 2.
const LOSS_MAX: f64 = 0.8;

#[test]
fn the_smoke_recipe_learns_clips_balances_quantises_and_exports() {
    let recipe = Recipe::from_file(&common::recipes().join("smoke.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (out, model) = (folder.path().join("run"), folder.path().join("model"));
    let mut notebook = common::Notebook::default();
    let ended = run::run(&recipe, &common::leg(&out, false, Cpu::n_available()), &mut notebook).unwrap();
    assert_eq!(ended, Ended::Complete);
    let records = &notebook.records;
    for stage in &recipe.stages {
        let last = records.iter().rev().find(|record| record.stage == stage.name).unwrap();
        println!(
            "{}: {} steps, held out {:?}, {:.0} s",
            stage.name, last.step, last.held_out_loss, last.seconds
        );
    }
    let n_clipped: usize = records.iter().flat_map(|record| &record.n_clipped).sum();
    assert!(n_clipped > 0, "a threshold of {} must fire", recipe.stages[0].clip_tau);
    let quantised = records.iter().filter(|record| record.is_quantised).count();
    assert!(quantised > 0 && quantised < records.len());

    let exported = export::export(&out, &model, true).unwrap();
    assert_eq!(exported.total_step, records.last().unwrap().total_step);
    let checkpoint = Checkpoint::open(&model).unwrap();
    assert!(checkpoint.config.quantization.is_some() && checkpoint.unused().is_empty());
    let params = Parameters::from_checkpoint(&checkpoint).unwrap();
    let bias = params.specs().iter().position(|spec| spec.class == ParamClass::Bias).unwrap();
    assert!(params.tensor(bias).iter().any(|b| *b != 0.0), "balancing moved the selection bias");

    let draw = Draw { seed: 77, n_tokens: 64, vocab_size: params_vocab(&checkpoint), is_held_out: true };
    let feed = feed::open("copies", draw, None).unwrap();
    let batch = feed::pack(&(0..16).map(|index| feed.sequence(index)).collect::<Vec<_>>());
    let mut pass = Pass::new(&checkpoint.config).unwrap();
    let mut loss = |params: &Parameters, quant| {
        let options = Options { quant, ..Options::default() };
        let stats = pass.evaluate(&Cpu::new(2), params, &batch, &options).unwrap().stats;
        stats.loss_sum / stats.weight_sum
    };
    let (file, start) = (loss(&params, Quant::Off), loss(&Parameters::random(&recipe.config, 1), Quant::Off));
    println!("held-out loss of the exported file {file:.4}, of random weights {start:.4}");
    assert!(file < LOSS_MAX && start > 3.0, "{file} {start}");

    let page = report::html(&report::read(&out).unwrap());
    assert!(page.contains("<polyline") && page.contains("Largest attention logit"));
}

fn params_vocab(checkpoint: &Checkpoint) -> usize {
    checkpoint.config.vocab_size
}
