//! Gradients against finite differences, with the choice of experts fixed: with a free choice the loss has jumps.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::Rng;
use perilune_kernels::cpu::Cpu;
use perilune_model::config::Config;
use perilune_model::train::{Batch, Gradients, Options, ParamClass, Parameters, Pass, Quant};

/// Largest relative difference of a class's derivative.
const TOLERANCE: f64 = 1e-2;
/// What most classes keep to.
const USUAL: f64 = 1e-3;

fn config() -> Config {
    Config::from_json(common::TINY).unwrap()
}

fn batch(config: &Config, lengths: &[usize], seed: u64) -> Batch {
    let mut rng = Rng(seed);
    let n: usize = lengths.iter().sum();
    let mut ids = |n: usize| -> Vec<u32> { (0..n).map(|_| rng.below(config.vocab_size) as u32).collect() };
    let (ids, targets) = (ids(n), ids(n));
    let weights = (0..n).map(|t| [1.0, 0.5, 0.0][t % 3]).collect();
    Batch { ids, lengths: lengths.to_vec(), targets, weights }
}

/// Weights with norms, biases and routers away from their starting values.
fn parameters(config: &Config, seed: u64) -> Parameters {
    let mut parameters = Parameters::random(config, seed);
    let mut rng = Rng(seed + 100);
    for i in 0..parameters.specs().len() {
        let class = parameters.specs()[i].class;
        let mut noise = || rng.below(2001) as f32 / 1000.0 - 1.0;
        match class {
            ParamClass::Norm => parameters.tensor_mut(i).iter_mut().for_each(|w| *w = 1.0 + 0.3 * noise()),
            ParamClass::Bias => parameters.tensor_mut(i).iter_mut().for_each(|w| *w = 0.1 * noise()),
            ParamClass::Router => parameters.tensor_mut(i).iter_mut().for_each(|w| *w *= 10.0),
            _ => parameters.tensor_mut(i).iter_mut().for_each(|w| *w *= 2.0),
        }
    }
    parameters
}

struct Objective<'a> {
    cpu: &'a Cpu,
    pass: Pass,
    batch: Batch,
    options: Options,
}

impl Objective<'_> {
    fn value(&mut self, parameters: &Parameters) -> f64 {
        let found = self.pass.evaluate(self.cpu, parameters, &self.batch, &self.options).unwrap();
        found.stats.loss_sum + f64::from(self.options.seq_aux_alpha) * found.stats.seq_aux
    }

    fn gradient(&mut self, parameters: &Parameters) -> Gradients {
        let mut gradients = parameters.gradients();
        self.pass.forward_backward(self.cpu, parameters, &self.batch, &self.options, &mut gradients).unwrap();
        gradients
    }
}

/// Relative differences of the derivative along a random direction that has the signs of the gradient, so that
/// nothing cancels, per class.
fn differences(seed: u64, alpha: f32) -> Vec<(ParamClass, f64)> {
    let config = config();
    let cpu = Cpu::new(2);
    let parameters = parameters(&config, seed);
    let batch = batch(&config, &[23, 70, 1], seed);
    let options = Options { quant: Quant::Off, seq_aux_alpha: alpha };
    let mut pass = Pass::new(&config).unwrap();
    let routing = pass.evaluate(&cpu, &parameters, &batch, &options).unwrap().routing;
    pass.replay(Some(routing));
    let mut objective = Objective { cpu: &cpu, pass, batch, options };
    let gradients = objective.gradient(&parameters);
    let mut rng = Rng(seed + 7);
    let mut found = Vec::new();
    for class in ParamClass::ALL {
        let mut direction = vec![0.0f32; parameters.flat().len()];
        for spec in parameters.specs().iter().filter(|spec| spec.class == class) {
            for i in spec.range.clone() {
                direction[i] = gradients.flat()[i] * (rng.below(1000) as f32 / 1000.0);
            }
        }
        let norm = direction.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>().sqrt();
        if class == ParamClass::Bias {
            assert_eq!(norm, 0.0, "no gradient reaches the selection bias");
            continue;
        }
        let slope =
            direction.iter().zip(gradients.flat()).map(|(d, g)| f64::from(*d) * f64::from(*g)).sum::<f64>()
                / norm;
        let mut difference = |step: f64| {
            let mut at = |sign: f64| {
                let mut moved = parameters.clone();
                let factor = (sign * step / norm) as f32;
                moved.flat_mut().iter_mut().zip(&direction).for_each(|(w, d)| *w += factor * d);
                objective.value(&moved)
            };
            (at(1.0) - at(-1.0)) / (2.0 * step)
        };
        // Richardson: the two steps' errors of second order cancel.
        let step = 0.02;
        let estimate = (4.0 * difference(step) - difference(2.0 * step)) / 3.0;
        found.push((class, ((estimate - slope) / slope).abs()));
    }
    found
}

#[test]
fn every_class_of_gradient_is_that_of_finite_differences() {
    for (seed, alpha) in [(1, 0.0), (2, 0.5)] {
        let found = differences(seed, alpha);
        println!("seed {seed}: {found:?}");
        assert!(found.iter().all(|(_, difference)| *difference < TOLERANCE), "seed {seed}: {found:?}");
        let usual = found.iter().filter(|(_, difference)| *difference < USUAL).count();
        assert!(usual * 4 >= found.len() * 3, "seed {seed}: {found:?}");
    }
}
