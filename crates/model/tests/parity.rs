//! Parity with transformers' `DeepseekV3ForCausalLM` in float32, on the checkpoints under `goldens/` (see the README
//! there), and the agreements between our own paths.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use perilune_kernels::cpu::{Cpu, Isa};
use perilune_kernels::logits::arg_max;
use perilune_kernels::router::Chosen;
use perilune_model::cache::CacheForm;
use perilune_model::checkpoint::Checkpoint;
use perilune_model::config::Config;
use perilune_model::forward::{Arithmetic, Model, Observer, Phase, Unobserved, Wanted};
use perilune_model::solo::Solo;
use perilune_model::weights::{Dense, Weights};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// Largest difference of a logit on the exact path.
const LOGIT_TOLERANCE: f32 = 1e-3;
/// Largest mean KL divergence of the fast path from the exact one.
const FAST_KL: f64 = 1e-2;

/// The goldens in this repository, and more where `PERILUNE_GOLDENS` names a folder of the same layout.
fn goldens() -> Vec<PathBuf> {
    let mut roots = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")];
    roots.extend(std::env::var_os("PERILUNE_GOLDENS").map(PathBuf::from));
    let subfolders = |dir: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect()
    };
    let mut all: Vec<PathBuf> =
        roots.iter().flat_map(|r| subfolders(r)).flat_map(|d| subfolders(&d)).collect();
    all.sort();
    assert!(all.len() >= 4, "the goldens are part of the repository");
    all
}

struct Reference {
    bytes: Vec<u8>,
}

impl Reference {
    fn read(dir: &Path) -> Self {
        Reference { bytes: std::fs::read(dir.join("reference.safetensors")).unwrap() }
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        let all: Vec<u32> =
            tensor.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
        all.chunks(tensor.shape()[1]).map(<[u32]>::to_vec).collect()
    }

    fn i32s(&self, name: &str) -> Vec<i32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        file.tensor(name).unwrap().data().as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect()
    }
}

fn model_on(dir: &Path, arithmetic: Arithmetic, dense: Dense, cpu: Cpu) -> Model {
    let checkpoint = Checkpoint::open(dir).unwrap();
    let weights = Weights::load(&checkpoint, dense, &cpu, |_, _| {}).unwrap();
    Model::new(checkpoint.config, weights, cpu, arithmetic).unwrap()
}

fn model(dir: &Path, arithmetic: Arithmetic) -> Model {
    model_on(dir, arithmetic, Dense::AsPublished, Cpu::new(2))
}

/// Logits of every position, in one pass.
fn full_pass(model: &Model, ids: &[u32], observer: &mut dyn Observer) -> Vec<f32> {
    Solo::new(model, ids.len()).advance(ids, Phase::Prefill, Wanted::All, observer).unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().chain(b).all(|v| v.is_finite()));
    a.iter().zip(b).fold(0.0, |m, (a, b)| m.max((a - b).abs()))
}

fn assert_same_bits(what: &str, a: &[f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{what}");
    let differing = a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    assert_eq!(differing, 0, "{what}: {differing} of {} values differ", a.len());
}

/// Keeps what a pass shows.
#[derive(Default)]
struct Recorder {
    hidden: Vec<Vec<f32>>,
    router: Vec<(usize, Vec<f32>, Vec<Vec<Chosen>>)>,
}

impl Observer for Recorder {
    fn hidden(&mut self, layer_idx: usize, x: &[f32]) {
        assert_eq!(self.hidden.len(), layer_idx);
        self.hidden.push(x.to_vec());
    }

    fn router(&mut self, layer_idx: usize, logits: &[f32], chosen: &[Vec<Chosen>]) {
        self.router.push((layer_idx, logits.to_vec(), chosen.to_vec()));
    }
}

fn check_against_reference(dir: &Path) {
    let (model, reference) = (model(dir, Arithmetic::Exact), Reference::read(dir));
    let rows = reference.ids("input_ids");
    let per_row = |all: Vec<f32>, i: usize| {
        let n = all.len() / rows.len();
        all[i * n..(i + 1) * n].to_vec()
    };
    for (i, ids) in rows.iter().enumerate() {
        let mut seen = Recorder::default();
        let logits = full_pass(&model, ids, &mut seen);
        let off = largest_difference(&logits, &per_row(reference.f32s("logits"), i));
        println!("{} row {i}: max |d logit| {off:.2e}", dir.display());
        assert!(off <= LOGIT_TOLERANCE, "{}: {off}", dir.display());
        for (layer_idx, hidden) in seen.hidden.iter().enumerate() {
            let expect = per_row(reference.f32s(&format!("hidden.{layer_idx}")), i);
            let off = largest_difference(hidden, &expect);
            assert!(off <= LOGIT_TOLERANCE, "{}: input of layer {layer_idx} off by {off}", dir.display());
        }
        for (layer_idx, router, chosen) in &seen.router {
            let expect = per_row(reference.f32s(&format!("router_logits.{layer_idx}")), i);
            assert!(largest_difference(router, &expect) <= LOGIT_TOLERANCE);
            let all = reference.i32s(&format!("topk_idx.{layer_idx}"));
            let n = all.len() / rows.len();
            let got: Vec<i32> = chosen.iter().flatten().map(|c| c.expert_idx as i32).collect();
            assert_eq!(got, all[i * n..(i + 1) * n], "{}: experts of layer {layer_idx}", dir.display());
        }
        assert!(!seen.router.is_empty(), "a golden without experts shows nothing");
    }
}

#[test]
fn the_exact_path_equals_transformers() {
    goldens().iter().for_each(|dir| check_against_reference(dir));
}

#[test]
fn greedy_tokens_equal_transformers() {
    for dir in goldens() {
        let model = model(&dir, Arithmetic::Exact);
        let expect = &Reference::read(&dir).ids("greedy")[0];
        let (prompt, generated) = expect.split_at(32);
        let mut solo = Solo::new(&model, expect.len());
        let mut logits = solo.prefill(prompt, 512, |_| true).unwrap().unwrap();
        let mut got = Vec::new();
        for _ in generated {
            got.push(arg_max(&logits).unwrap() as u32);
            logits = solo.decode(got[got.len() - 1]).unwrap();
        }
        assert_eq!(got, generated, "{}", dir.display());
    }
}

/// Logits of every position, cut into passes of the given lengths.
fn in_passes(model: &Model, form: CacheForm, ids: &[u32], lengths: &[usize], phase: Phase) -> Vec<f32> {
    let mut solo = Solo::with_form(model, ids.len(), form);
    let mut at = 0;
    let mut logits = Vec::new();
    for &n in lengths.iter().cycle() {
        let end = (at + n).min(ids.len());
        logits.extend(solo.advance(&ids[at..end], phase, Wanted::All, &mut Unobserved).unwrap());
        at = end;
        if at == ids.len() {
            return logits;
        }
    }
    unreachable!("the cycle ends at the last id");
}

#[test]
fn cached_decode_and_chunked_prefill_equal_the_full_pass_bit_for_bit() {
    for dir in goldens() {
        let ids = &Reference::read(&dir).ids("input_ids")[0];
        for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
            let model = model(&dir, arithmetic);
            let full = full_pass(&model, ids, &mut Unobserved);
            for lengths in [&[1][..], &[7, 20, 3], &[32]] {
                let cut = in_passes(&model, arithmetic.cache_form(), ids, lengths, Phase::Prefill);
                assert_same_bits(&format!("{} {arithmetic:?} {lengths:?}", dir.display()), &cut, &full);
            }
        }
    }
}

#[test]
fn absorbed_equals_expanded() {
    for dir in goldens() {
        let ids = &Reference::read(&dir).ids("input_ids")[0];
        let model = model(&dir, Arithmetic::Exact);
        let expanded = full_pass(&model, ids, &mut Unobserved);
        for phase in [Phase::Prefill, Phase::Decode] {
            let other = in_passes(&model, CacheForm::LatentF32, ids, &[1], phase);
            let off = largest_difference(&other, &expanded);
            println!("{} {phase:?} over f32 latents: {off:.2e}", dir.display());
            assert!(off <= 1e-4, "{} {phase:?}: {off}", dir.display());
        }
    }
}

/// Mean KL(exact || fast) in nats and the share of positions with the same arg-max.
fn divergence(exact: &[f32], fast: &[f32], vocab_size: usize) -> (f64, f64) {
    let log_probs = |row: &[f32]| -> Vec<f64> {
        let max = row.iter().fold(f32::MIN, |m, v| m.max(*v));
        let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
        row.iter().map(|v| f64::from(v - max) - sum.ln()).collect()
    };
    let rows = exact.chunks(vocab_size).zip(fast.chunks(vocab_size));
    let n = (exact.len() / vocab_size) as f64;
    let (mut kl, mut same) = (0.0, 0.0);
    for (exact, fast) in rows {
        same += f64::from(u8::from(arg_max(exact) == arg_max(fast)));
        let (p, q) = (log_probs(exact), log_probs(fast));
        kl += p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
    }
    (kl / n, same / n)
}

#[test]
fn the_fast_path_stays_near_the_exact_one() {
    for dir in goldens() {
        let ids = &Reference::read(&dir).ids("input_ids")[0];
        let exact = full_pass(&model(&dir, Arithmetic::Exact), ids, &mut Unobserved);
        for dense in [Dense::AsPublished, Dense::Int8] {
            let fast = model_on(&dir, Arithmetic::Fast, dense, Cpu::new(2));
            let vocab_size = fast.config().vocab_size;
            let (kl, same) = divergence(&exact, &full_pass(&fast, ids, &mut Unobserved), vocab_size);
            println!("{} {dense:?}: mean KL {kl:.2e}, arg-max agrees {same:.3}", dir.display());
            assert!(kl <= FAST_KL, "{} {dense:?}: {kl}", dir.display());
            for form in [CacheForm::LatentBf16, CacheForm::LatentInt8] {
                for phase in [Phase::Prefill, Phase::Decode] {
                    let passed = in_passes(&fast, form, ids, &[1], phase);
                    let (kl, _) = divergence(&exact, &passed, vocab_size);
                    println!("{} {dense:?} {form:?} {phase:?}: mean KL {kl:.2e}", dir.display());
                    assert!(kl <= FAST_KL, "{} {dense:?} {form:?} {phase:?}: {kl}", dir.display());
                }
            }
        }
    }
}

#[test]
fn every_instruction_set_and_thread_count_gives_the_same_bits() {
    for dir in goldens() {
        let ids = &Reference::read(&dir).ids("input_ids")[0][..40];
        for (arithmetic, dense) in [(Arithmetic::Exact, Dense::AsPublished), (Arithmetic::Fast, Dense::Int8)]
        {
            let run = |cpu: Cpu| {
                let model = model_on(&dir, arithmetic, dense, cpu);
                let mut logits = full_pass(&model, ids, &mut Unobserved);
                logits.extend(in_passes(&model, arithmetic.cache_form(), ids, &[1], Phase::Decode));
                logits
            };
            let expect = run(Cpu::with_isa(Isa::Scalar, 1).unwrap());
            for isa in Isa::ALL {
                for n_threads in [1, 2] {
                    match Cpu::with_isa(isa, n_threads) {
                        None => println!("skipped {}: this processor lacks it", isa.name()),
                        Some(cpu) => {
                            let what = format!("{} {} {n_threads}", dir.display(), isa.name());
                            assert_same_bits(&what, &run(cpu), &expect);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_sequence_does_not_depend_on_the_others_in_its_batch() {
    use perilune_model::cache::Cache;
    use perilune_model::forward::{Segment, Workspace};
    for dir in goldens() {
        let ids = &Reference::read(&dir).ids("input_ids")[0];
        for arithmetic in [Arithmetic::Exact, Arithmetic::Fast] {
            let model = model(&dir, arithmetic);
            let alone = full_pass(&model, &ids[..20], &mut Unobserved);
            let mut cache = Cache::new(model.config(), arithmetic.cache_form(), 64);
            let blocks: Vec<u32> = (0..64).rev().collect();
            let segment = |i: usize| Segment {
                ids: if i == 40 { &ids[..20] } else { &ids[i % 30..i % 30 + 1 + i % 9] },
                first_position: 0,
                blocks: &blocks[i..i + 1],
                phase: if i.is_multiple_of(2) { Phase::Prefill } else { Phase::Decode },
                wanted: if i == 40 { Wanted::All } else { Wanted::Nothing },
            };
            let segments: Vec<Segment<'_>> = (0..64).map(segment).collect();
            let got =
                model.forward(&mut cache, &segments, &mut Workspace::default(), &mut Unobserved).unwrap();
            assert_same_bits(&format!("{} {arithmetic:?}", dir.display()), &got, &alone);
        }
    }
}

#[test]
fn what_cannot_run_is_a_sentence() {
    let dir = &goldens()[0];
    let model = model(dir, Arithmetic::Exact);
    let vocab_size = model.config().vocab_size as u32;
    let run = |ids: &[u32]| {
        Solo::new(&model, 64)
            .advance(ids, Phase::Prefill, Wanted::Last, &mut Unobserved)
            .unwrap_err()
            .to_string()
    };
    assert!(run(&[1, vocab_size]).contains(&format!("token id {vocab_size} at position 1")));
    assert!(run(&[1; 65]).contains("65 tokens does not fit the 64"));
    assert!(run(&[]).contains("at least one id"));
    let text = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let odd = text.replace("\"kv_lora_rank\"", "\"kv_lora_rank\": 24, \"was\"");
    let config = Config::from_json(&odd).unwrap();
    let weights = Weights::load(&Checkpoint::open(dir).unwrap(), Dense::AsPublished, &Cpu::new(1), |_, _| {});
    let error = Model::new(config, weights.unwrap(), Cpu::new(1), Arithmetic::Fast).err().unwrap();
    assert!(error.to_string().contains("kv_lora_rank = 24 is not a multiple of 32"));
}

#[test]
fn a_cache_that_does_not_go_with_the_model_is_a_sentence() {
    use perilune_model::cache::Cache;
    use perilune_model::forward::{Segment, Workspace};
    let model = model(&goldens()[0], Arithmetic::Exact);
    let segment =
        Segment { ids: &[1], first_position: 0, blocks: &[0], phase: Phase::Prefill, wanted: Wanted::Last };
    let run = |config: &Config, form: CacheForm| {
        let mut cache = Cache::new(config, form, 1);
        let ran = model.forward(&mut cache, &[segment], &mut Workspace::default(), &mut Unobserved);
        ran.map(|_| ()).map_err(|error| error.to_string())
    };
    let own = model.config();
    let n = own.num_hidden_layers + 1;
    let deeper = run(&Config { num_hidden_layers: n, ..own.clone() }, CacheForm::Expanded);
    assert!(deeper.unwrap_err().contains(&format!("[layers, values of a token] [{n},")));
    let wider = Config { qk_rope_head_dim: own.qk_rope_head_dim + 2, ..own.clone() };
    for form in [CacheForm::Expanded, CacheForm::LatentF32] {
        assert_eq!(run(own, form), Ok(()));
        assert!(run(&wider, form).unwrap_err().contains("make it for this model's config"));
    }
    assert!(run(own, CacheForm::LatentInt8).unwrap_err().contains("the exact path caches"));
}
