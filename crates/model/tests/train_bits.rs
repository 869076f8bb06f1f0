//! What training computes is what the exported file computes, bit for bit; and the same for any number of threads.

#![allow(clippy::unwrap_used)]

mod common;

use common::Rng;
use perilune_kernels::cpu::{Cpu, Isa};
use perilune_kernels::logits::{LogSoftmax, arg_max};
use perilune_kernels::router::Chosen;
use perilune_model::checkpoint::Checkpoint;
use perilune_model::config::Config;
use perilune_model::forward::{Arithmetic, Model, Observer, Phase, Wanted};
use perilune_model::solo::Solo;
use perilune_model::train::export::{Form, exported_config};
use perilune_model::train::{
    Batch, ExportError, Options, ParamClass, Parameters, Pass, Quant, TrainError, export,
};
use perilune_model::weights::{Dense, Weights};
use std::fs;
use std::path::Path;

/// The embedded model's shape.
const SMALL: &str = include_str!("data/train_small.json");

const FORMS: [(Form, Quant); 2] = [(Form::F32, Quant::Off), (Form::Int4, Quant::Int4Experts)];

fn batch(config: &Config, lengths: &[usize], seed: u64) -> Batch {
    let mut rng = Rng(seed);
    let n: usize = lengths.iter().sum();
    let mut ids = |n: usize| -> Vec<u32> { (0..n).map(|_| rng.below(config.vocab_size) as u32).collect() };
    Batch { ids: ids(n), lengths: lengths.to_vec(), targets: ids(n), weights: vec![1.0; n] }
}

/// Random weights, the selection bias of a size that changes choices.
fn parameters(config: &Config, seed: u64) -> Parameters {
    let mut parameters = Parameters::random(config, seed);
    let mut rng = Rng(seed + 1);
    for i in 0..parameters.specs().len() {
        if parameters.specs()[i].class == ParamClass::Bias {
            let noise = || rng.below(2001) as f32 / 10_000.0 - 0.1;
            parameters.tensor_mut(i).fill_with(noise);
        }
    }
    parameters
}

#[derive(Default)]
struct Routes(Vec<Vec<u32>>);

impl Observer for Routes {
    fn router(&mut self, layer_idx: usize, _logits: &[f32], chosen: &[Vec<Chosen>]) {
        self.0[layer_idx].extend(chosen.iter().flatten().map(|c| c.expert_idx));
    }
}

fn serve(dir: &Path, cpu: Cpu) -> Model {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let weights = Weights::load(&checkpoint, Dense::AsPublished, &cpu, |_, _| {}).unwrap();
    Model::new(checkpoint.config, weights, cpu, Arithmetic::Exact).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn the_exported_file_gives_the_bits_of_the_training_forward() {
    let sets = Isa::ALL.into_iter().filter(|isa| isa.is_present());
    for (isa, config) in sets.flat_map(|isa| [(isa, common::TINY), (isa, SMALL)]) {
        let config = Config::from_json(config).unwrap();
        let parameters = parameters(&config, 3);
        let batch = batch(&config, &[70, 1, 66], 5);
        for (form, quant) in FORMS {
            let dir = tempfile::tempdir().unwrap();
            export(dir.path(), &config, &parameters, form).unwrap();
            let model = serve(dir.path(), Cpu::with_isa(isa, 2).unwrap());
            let (mut pass, options) = (Pass::new(&config).unwrap(), Options { quant, seq_aux_alpha: 0.0 });
            let cpu = Cpu::with_isa(isa, 2).unwrap();
            let logits = pass.logits(&cpu, &parameters, &batch, &options).unwrap();
            let found = pass.evaluate(&cpu, &parameters, &batch, &options).unwrap();
            let mut routes = Routes(vec![Vec::new(); config.num_hidden_layers]);
            let (mut served, mut first) = (Vec::new(), 0);
            for length in &batch.lengths {
                let ids = &batch.ids[first..first + length];
                let mut solo = Solo::new(&model, *length);
                let rows = solo.advance(ids, Phase::Prefill, Wanted::All, &mut routes).unwrap();
                served.extend(rows);
                first += length;
            }
            assert_eq!(bits(&logits), bits(&served), "{isa:?} {form:?}");
            assert_eq!(found.routing.layers, routes.0, "{isa:?} {form:?}");
            for (t, row) in served.chunks_exact(config.vocab_size).enumerate() {
                let log_prob = LogSoftmax::new(row).of(row[batch.targets[t] as usize]);
                assert_eq!(found.log_probs[t].to_bits(), log_prob.to_bits(), "{isa:?} {form:?} token {t}");
                assert_eq!(found.argmax[t] as usize, arg_max(row).unwrap());
            }
        }
    }
}

#[test]
fn packing_what_was_unpacked_changes_nothing() {
    let config = Config::from_json(SMALL).unwrap();
    let mut parameters = parameters(&config, 9);
    // Groups of zeros, of tiny values and of one large value.
    let expert = parameters.specs().iter().position(|spec| spec.class == ParamClass::Expert).unwrap();
    parameters.tensor_mut(expert)[..32].fill(0.0);
    parameters.tensor_mut(expert)[32..64].iter_mut().for_each(|w| *w *= 1e-5);
    parameters.tensor_mut(expert)[70] = 100.0;
    let (once, twice) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    export(once.path(), &config, &parameters, Form::Int4).unwrap();
    let reread = Parameters::from_checkpoint(&Checkpoint::open(once.path()).unwrap()).unwrap();
    assert_ne!(reread.flat(), parameters.flat(), "rounding changed something");
    export(twice.path(), &config, &reread, Form::Int4).unwrap();
    for name in ["model.safetensors", "config.json"] {
        assert!(
            fs::read(once.path().join(name)).unwrap() == fs::read(twice.path().join(name)).unwrap(),
            "{name}"
        );
    }
    let plain = tempfile::tempdir().unwrap();
    export(plain.path(), &config, &parameters, Form::F32).unwrap();
    let reread = Parameters::from_checkpoint(&Checkpoint::open(plain.path()).unwrap()).unwrap();
    assert_eq!(bits(reread.flat()), bits(parameters.flat()));
}

#[test]
fn the_exported_config_reads_back_as_it_was() {
    for text in [common::TINY, SMALL] {
        let config = Config::from_json(text).unwrap();
        for (form, _) in FORMS {
            let dir = tempfile::tempdir().unwrap();
            export(dir.path(), &config, &parameters(&config, 1), form).unwrap();
            let reread = Config::from_file(&dir.path().join("config.json")).unwrap();
            assert_eq!(reread, exported_config(&config, form));
        }
    }
}

#[test]
fn gradients_and_measures_do_not_depend_on_the_number_of_threads() {
    let config = Config::from_json(SMALL).unwrap();
    let parameters = parameters(&config, 2);
    let batch = batch(&config, &[200, 33, 90], 4);
    let options = Options { quant: Quant::Int4Experts, seq_aux_alpha: 0.01 };
    let run = |n_threads: usize| {
        let mut gradients = parameters.gradients();
        let mut pass = Pass::new(&config).unwrap();
        let cpu = Cpu::new(n_threads);
        let mut stats = pass.forward_backward(&cpu, &parameters, &batch, &options, &mut gradients).unwrap();
        // A second pass over used buffers must not differ from one over new ones.
        let again = pass.forward_backward(&cpu, &parameters, &batch, &options, &mut gradients).unwrap();
        assert_eq!(stats, again);
        stats.merge(&again);
        (bits(gradients.flat()), stats)
    };
    let alone = run(1);
    assert!(alone == run(2), "2 threads");
    assert!(alone == run(5), "5 threads");
}

#[test]
fn a_sequence_does_not_see_its_neighbours() {
    let config = Config::from_json(SMALL).unwrap();
    let (cpu, parameters, options) = (Cpu::new(2), parameters(&config, 2), Options::default());
    let packed = batch(&config, &[40, 97], 8);
    let alone = Batch {
        ids: packed.ids[40..].to_vec(),
        lengths: vec![97],
        targets: packed.targets[40..].to_vec(),
        weights: vec![1.0; 97],
    };
    let mut pass = Pass::new(&config).unwrap();
    let both = pass.evaluate(&cpu, &parameters, &packed, &options).unwrap();
    let one = pass.evaluate(&cpu, &parameters, &alone, &options).unwrap();
    assert_eq!(bits(&both.log_probs[40..]), bits(&one.log_probs));
}

/// QK-Clip of one head by `gamma`: its nope rows by the root on both sides, its rotated query rows by `gamma`.
fn clip(config: &Config, parameters: &mut Parameters, layer_idx: usize, h: usize, gamma: f32) {
    let (nope, rope, v) = (config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim);
    let scale = |parameters: &mut Parameters, class: ParamClass, first: usize, n: usize, factor: f32| {
        let is = |spec: &perilune_model::train::ParamSpec| {
            spec.class == class && spec.layer_idx == Some(layer_idx)
        };
        let i = parameters.specs().iter().position(is).unwrap();
        let cols = parameters.specs()[i].cols;
        parameters.tensor_mut(i)[first * cols..(first + n) * cols].iter_mut().for_each(|w| *w *= factor);
    };
    let q = h * (nope + rope);
    scale(parameters, ParamClass::QB, q, nope, gamma.sqrt());
    scale(parameters, ParamClass::QB, q + nope, rope, gamma);
    scale(parameters, ParamClass::KvB, h * (nope + v), nope, gamma.sqrt());
}

#[test]
fn a_clipped_heads_largest_logit_is_the_threshold_and_the_others_stay() {
    for text in [common::TINY, SMALL] {
        let config = Config::from_json(text).unwrap();
        let (cpu, options) = (Cpu::new(2), Options::default());
        let mut parameters = parameters(&config, 6);
        let mut pass = Pass::new(&config).unwrap();
        let batch = batch(&config, &[100, 60], 3);
        let mut gradients = parameters.gradients();
        let stats = pass.forward_backward(&cpu, &parameters, &batch, &options, &mut gradients).unwrap();
        for layer_idx in 0..config.num_hidden_layers {
            let before = &stats.max_logit[layer_idx];
            let again = pass.max_logits_again(&cpu, &parameters, &options, layer_idx).unwrap();
            assert_eq!(bits(&again), bits(before));
            let h = layer_idx % config.num_attention_heads;
            assert!(before[h] > 0.0, "this head has something to clip");
            let threshold = before[h] / 3.0;
            clip(&config, &mut parameters, layer_idx, h, threshold / before[h]);
            let after = pass.max_logits_again(&cpu, &parameters, &options, layer_idx).unwrap();
            assert!((after[h] / threshold - 1.0).abs() < 1e-5, "{} against {threshold}", after[h]);
            for other in (0..config.num_attention_heads).filter(|other| *other != h) {
                assert_eq!(after[other].to_bits(), before[other].to_bits());
            }
        }
    }
}

#[test]
fn what_cannot_run_is_said_and_changes_nothing() {
    let config = Config::from_json(common::TINY).unwrap();
    let (cpu, options, parameters) = (Cpu::new(1), Options::default(), parameters(&config, 1));
    let good = batch(&config, &[5, 4], 1);
    let mut pass = Pass::new(&config).unwrap();
    let mut gradients = parameters.gradients();
    let mut refuse = |change: &dyn Fn(&mut Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        let error = pass.forward_backward(&cpu, &parameters, &batch, &options, &mut gradients).unwrap_err();
        assert!(gradients.flat().iter().all(|g| *g == 0.0));
        error
    };
    assert!(matches!(refuse(&|b| b.ids[3] = 96), TrainError::OutsideVocabulary { id: 96, place: 3, .. }));
    assert!(matches!(refuse(&|b| b.targets[8] = 1000), TrainError::OutsideVocabulary { .. }));
    assert!(matches!(refuse(&|b| b.lengths = vec![5, 5]), TrainError::Lengths { n_in_sequences: 10, .. }));
    assert!(matches!(refuse(&|b| b.lengths = vec![9, 0]), TrainError::Lengths { .. }));
    assert!(matches!(refuse(&|b| b.weights.truncate(2)), TrainError::Lengths { n_weights: 2, .. }));
    assert!(matches!(refuse(&|b| *b = Batch::default()), TrainError::Lengths { n_ids: 0, .. }));
    let other = Parameters::zeros(&Config::from_json(SMALL).unwrap());
    let error = pass.evaluate(&cpu, &other, &good, &options).unwrap_err();
    assert!(matches!(error, TrainError::OtherConfig { .. }), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let mut broken = parameters.clone();
    broken.flat_mut()[7] = f32::NAN;
    let error = export(dir.path(), &config, &broken, Form::Int4).unwrap_err();
    assert!(matches!(&error, ExportError::NotFinite { tensor } if tensor == "model.embed_tokens.weight"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
