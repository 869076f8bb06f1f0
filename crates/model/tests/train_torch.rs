//! Loss, balance loss, choice of experts and every gradient against torch autograd through transformers'
//! `DeepseekV3ForCausalLM` (`goldens/train`, made by `tools/oracle/make_train_fixture.py`).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use perilune_kernels::cpu::{Cpu, Isa};
use perilune_model::checkpoint::Checkpoint;
use perilune_model::train::{Batch, Options, ParamClass, Parameters, Pass, Quant};
use safetensors::SafeTensors;
use std::path::Path;

/// Factor of the balance loss in the fixture.
const ALPHA: f32 = 0.05;
/// Largest difference of a tensor's gradient, relative to its largest value.
const TOLERANCE: f32 = 1e-4;

struct Step(Vec<u8>);

impl Step {
    fn f32s(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn u32s(&self, name: &str) -> Vec<u32> {
        self.f32s(name).into_iter().map(f32::to_bits).collect()
    }

    /// I64, all small and not negative.
    fn ids(&self, name: &str) -> Vec<u32> {
        self.u32s(name).into_iter().step_by(2).collect()
    }

    fn batch(&self) -> Batch {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let shape = file.tensor("input_ids").unwrap().shape().to_vec();
        Batch {
            ids: self.ids("input_ids"),
            lengths: vec![shape[1]; shape[0]],
            targets: self.ids("targets"),
            weights: self.f32s("weights"),
        }
    }
}

fn relative(a: f64, b: f64) -> f64 {
    ((a - b) / b).abs()
}

#[test]
fn loss_and_gradients_are_those_of_torch() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/train");
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let step = Step(std::fs::read(dir.join("step.safetensors")).unwrap());
    let parameters = Parameters::from_checkpoint(&checkpoint).unwrap();
    let batch = step.batch();
    let options = Options { quant: Quant::Off, seq_aux_alpha: ALPHA };
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_present()) {
        let cpu = Cpu::with_isa(isa, 2).unwrap();
        let mut pass = Pass::new(&checkpoint.config).unwrap();
        let mut gradients = parameters.gradients();
        let stats = pass.forward_backward(&cpu, &parameters, &batch, &options, &mut gradients).unwrap();
        assert!(relative(stats.loss_sum, f64::from(step.f32s("loss")[0])) < 1e-5, "{isa:?} {stats:?}");
        assert!(relative(stats.seq_aux, f64::from(step.f32s("seq_aux")[0])) < 1e-5, "{isa:?} {stats:?}");
        let routing = pass.evaluate(&cpu, &parameters, &batch, &options).unwrap().routing;
        for (layer_idx, experts) in routing.layers.iter().enumerate().filter(|(_, e)| !e.is_empty()) {
            assert_eq!(*experts, step.u32s(&format!("topk_idx.{layer_idx}")), "{isa:?} layer {layer_idx}");
        }
        let mut worst = (0.0f32, "");
        for (i, spec) in gradients.specs().iter().enumerate() {
            if spec.class == ParamClass::Bias {
                assert!(gradients.tensor(i).iter().all(|g| *g == 0.0));
                continue;
            }
            let expected = step.f32s(&format!("grad.{}", spec.name));
            let largest = expected.iter().fold(0.0f32, |m, g| m.max(g.abs()));
            let difference =
                gradients.tensor(i).iter().zip(&expected).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            let difference = if largest > 0.0 { difference / largest } else { difference };
            assert!(difference < TOLERANCE, "{isa:?} {}: {difference}", spec.name);
            if difference > worst.0 {
                worst = (difference, &spec.name);
            }
        }
        println!("{isa:?}: largest relative difference {worst:?}");
    }
}
