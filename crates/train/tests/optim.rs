//! The optimizer: one step against torch, the band of Newton-Schulz, QK-Clip's promise, any number of threads.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use perilune_kernels::cpu::Cpu;
use perilune_model::checkpoint::Checkpoint;
use perilune_model::config::Config;
use perilune_model::train::{Batch, Gradients, Options, ParamClass, Parameters, Pass, Stats};
use perilune_train::optim::balance::balance;
use perilune_train::optim::clip::qk_clip;
use perilune_train::optim::{Optimizer, Settings, State, Update, muon, update_of};
use perilune_train::recipe::OptimizerKind;
use perilune_train::rng::Rng;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// Constants of `tools/oracle/make_train_fixture.py`.
const SETTINGS: Settings = Settings { lr: 0.02, adamw_lr: 0.003, weight_decay: 0.1, grad_clip: 1e6 };
const BUFFER: f32 = 0.01;
/// Largest difference of a tensor after the step, relative to its largest value.
const TOLERANCE: f32 = 1e-4;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/goldens/train")
}

fn f32s(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |max, value| max.max(value.abs()))
}

/// The fixture's weights, its mean gradient, and an optimizer with the momentum it starts from.
fn before(step: &SafeTensors<'_>) -> (Parameters, Gradients, Optimizer) {
    let params = Parameters::from_checkpoint(&Checkpoint::open(&fixture()).unwrap()).unwrap();
    let mut grads = params.gradients();
    let weight_sum: f32 = f32s(step, "weights").iter().sum();
    let mut optimizer = Optimizer::new(OptimizerKind::MuonClip, &params);
    let mut state = State { ..optimizer.state().clone() };
    for (i, spec) in params.specs().iter().enumerate() {
        if spec.class == ParamClass::Bias {
            continue;
        }
        grads.tensor_mut(i).copy_from_slice(&f32s(step, &format!("grad.{}", spec.name)));
        if update_of(OptimizerKind::MuonClip, spec.class) == Update::Muon {
            let momentum = params.tensor(i).iter().map(|w| BUFFER * w);
            state.first[spec.range.clone()].iter_mut().zip(momentum).for_each(|(m, value)| *m = value);
        }
    }
    grads.scale(1.0 / weight_sum);
    assert!(optimizer.restore(state));
    (params, grads, optimizer)
}

#[test]
fn a_step_is_torchs_for_every_tensor() {
    let bytes = std::fs::read(fixture().join("step.safetensors")).unwrap();
    let step = SafeTensors::deserialize(&bytes).unwrap();
    let (mut params, grads, mut optimizer) = before(&step);
    let old = params.clone();
    let cpu = Cpu::new(2);
    let norms = optimizer.norms(&cpu, &grads);
    optimizer.step(&cpu, &mut params, &grads, norms, SETTINGS);
    let mut worst = (0.0f32, String::new());
    for (i, spec) in params.specs().iter().enumerate() {
        if spec.class == ParamClass::Bias {
            assert_eq!(params.tensor(i), old.tensor(i), "the selection bias is not the optimizer's");
            continue;
        }
        let expected = f32s(&step, &format!("after.{}", spec.name));
        assert!(params.tensor(i) != old.tensor(i), "{} did not move", spec.name);
        let differences: Vec<f32> = params.tensor(i).iter().zip(&expected).map(|(a, b)| a - b).collect();
        let relative = largest(&differences) / largest(&expected);
        assert!(relative < TOLERANCE, "{}: {relative}", spec.name);
        if relative > worst.0 {
            worst = (relative, spec.name.clone());
        }
    }
    println!("largest relative difference {worst:?}");
}

#[test]
fn threads_change_no_bit_of_a_step() {
    let bytes = std::fs::read(fixture().join("step.safetensors")).unwrap();
    let step = SafeTensors::deserialize(&bytes).unwrap();
    let after = [1, 2, 5].map(|n_threads| {
        let (mut params, grads, mut optimizer) = before(&step);
        let cpu = Cpu::new(n_threads);
        let norms = optimizer.norms(&cpu, &grads);
        optimizer.step(&cpu, &mut params, &grads, norms, SETTINGS);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        (bits(params.flat()), bits(&optimizer.state().first), bits(&optimizer.state().second))
    });
    assert!(after[0] == after[1] && after[0] == after[2]);
}

/// Singular values of `X` are the roots of the eigenvalues of `X X^T`; for a diagonal input they stand on the diagonal.
#[test]
fn singular_values_land_in_the_band() {
    let cpu = Cpu::new(1);
    let n = 8;
    let values: Vec<f32> = (0..n).map(|i| 1.0 - 0.1 * i as f32).collect();
    for (rows, cols) in [(n, n), (n, 3 * n), (3 * n, n)] {
        let mut x = vec![0.0; rows * cols];
        values.iter().enumerate().for_each(|(i, value)| x[i * cols + i] = *value);
        let out = muon::orthogonal(&cpu, x, rows, cols);
        for (i, value) in out.iter().enumerate() {
            let (row, col) = (i / cols, i % cols);
            if row == col {
                assert!((0.68..=1.13).contains(value), "{rows} x {cols}: {value}");
            } else {
                assert!(value.abs() < 1e-5, "{rows} x {cols}: {value} off the diagonal");
            }
        }
    }
    assert!(muon::orthogonal(&cpu, vec![0.0; 12], 3, 4).iter().all(|v| *v == 0.0), "nothing to follow");
}

fn smoke_config() -> Config {
    Config::from_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/smoke.json")).unwrap()
}

fn batch(config: &Config, seed: u64) -> Batch {
    let mut rng = Rng::new(seed);
    let n = 2 * 40;
    let mut ids = || (0..n).map(|_| rng.below(config.vocab_size as u64) as u32).collect::<Vec<u32>>();
    Batch { ids: ids(), targets: ids(), lengths: vec![40; 2], weights: vec![1.0; n] }
}

fn stats(config: &Config, params: &Parameters, batch: &Batch) -> Stats {
    let mut pass = Pass::new(config).unwrap();
    pass.evaluate(&Cpu::new(2), params, batch, &Options::default()).unwrap().stats
}

/// Each layer alone, so that its input stays: layers before it are as they were.
#[test]
fn a_clipped_heads_largest_logit_is_the_threshold_and_the_others_keep_their_bits() {
    let (config, seed) = (smoke_config(), 11);
    let mut params = Parameters::random(&config, seed);
    for i in 0..params.specs().len() {
        // Queries large enough that logits differ between heads.
        if params.specs()[i].class == ParamClass::QB {
            params.tensor_mut(i).iter_mut().for_each(|w| *w *= 8.0);
        }
    }
    let batch = batch(&config, seed);
    let before = stats(&config, &params, &batch).max_logit;
    for (layer_idx, heads) in before.iter().enumerate() {
        let (low, high) = heads.iter().fold((f32::MAX, f32::MIN), |(l, h), s| (l.min(*s), h.max(*s)));
        let tau = 0.5 * (low + high);
        let mut only = vec![vec![f32::NEG_INFINITY; heads.len()]; before.len()];
        only[layer_idx].clone_from(heads);
        let mut clipped = params.clone();
        let counts = qk_clip(&config, &mut clipped, &only, tau);
        let after = &stats(&config, &clipped, &batch).max_logit[layer_idx];
        let n_above = heads.iter().filter(|s| **s > tau).count();
        assert!(
            n_above > 0 && n_above < heads.len(),
            "seed {seed}: some heads fire and some do not: {heads:?}"
        );
        assert_eq!(counts[layer_idx], n_above, "seed {seed}");
        for (old, new) in heads.iter().zip(after) {
            if *old > tau {
                assert!(
                    ((new - tau) / tau).abs() < 1e-5,
                    "seed {seed}, layer {layer_idx}: {old} became {new}, not {tau}"
                );
            } else {
                assert_eq!(old.to_bits(), new.to_bits(), "seed {seed}, layer {layer_idx}");
            }
        }
    }
}

#[test]
fn maxima_at_or_below_zero_change_nothing() {
    let config = smoke_config();
    let params = Parameters::random(&config, 2);
    for max in [-3.0, 0.0, f32::NEG_INFINITY, f32::NAN] {
        let mut clipped = params.clone();
        let heads = vec![vec![max; config.num_attention_heads]; config.num_hidden_layers];
        assert_eq!(qk_clip(&config, &mut clipped, &heads, 1e-3), vec![0; config.num_hidden_layers]);
        assert_eq!(clipped.flat(), params.flat());
    }
}

#[test]
fn the_bias_of_busy_experts_falls_and_of_idle_ones_rises() {
    let config = smoke_config();
    let mut params = Parameters::zeros(&config);
    let load = vec![Vec::new(), vec![10, 0, 5, 5]];
    balance(&mut params, &load, 0.25);
    balance(&mut params, &load, 0.0);
    let bias = params.specs().iter().position(|spec| spec.class == ParamClass::Bias).unwrap();
    assert_eq!(params.tensor(bias), [-0.25, 0.25, 0.0, 0.0]);
}
