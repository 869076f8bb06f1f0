//! Runs: resumed to the bit, safe on a full disk, refused where they do not fit.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::{Notebook, leg, recipe};
use perilune_model::checkpoint::Checkpoint;
use perilune_model::train::Parameters;
use perilune_train::run::{self, Ended, RunError, Trainer};
use perilune_train::{checkpoint, export};
use safetensors::SafeTensors;
use std::path::Path;

const TWO_STAGES: &str = r#"
[[stage]]
name = "first"
feed = "copies"
tokens = 1_536
batch_tokens = 256
micro_tokens = 100
sequence_tokens = 32
lr = 1e-2
clip_tau = 0.5
eval_sequences = 2
eval_every = 2
checkpoint_every = 2

[[stage]]
name = "second"
feed = "copies"
tokens = 1_024
batch_tokens = 256
sequence_tokens = 32
lr = 5e-3
decay = 0.5
quant = "int4"
eval_sequences = 2
"#;

/// Every tensor of the run's last checkpoint, as bits.
fn bits(run: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(checkpoint::list(run).pop().unwrap()).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> =
        file.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect();
    all.sort();
    all
}

#[test]
fn a_run_cut_into_legs_ends_with_the_bits_of_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), TWO_STAGES);
    let whole = folder.path().join("whole");
    let mut notebook = Notebook::default();
    assert_eq!(run::run(&recipe, &leg(&whole, false, 2), &mut notebook).unwrap(), Ended::Complete);
    let expected: Vec<(u64, f64)> = notebook.records.iter().map(|r| (r.total_step, r.loss)).collect();
    assert_eq!(expected.len(), 10);
    let cut = folder.path().join("cut");
    let mut losses = Vec::new();
    for (stop_at, n_threads) in [(1, 1), (5, 2), (6, 1), (7, 3), (99, 1)] {
        let mut notebook = Notebook { stop_at: Some(stop_at), ..Notebook::default() };
        let ended = run::run(&recipe, &leg(&cut, true, n_threads), &mut notebook).unwrap();
        assert_eq!(ended == Ended::Complete, stop_at == 99);
        losses.extend(notebook.records.iter().map(|r| (r.total_step, r.loss)));
    }
    assert_eq!(losses, expected);
    assert!(bits(&whole) == bits(&cut), "weights and optimizer are the same bits");
    assert_eq!(checkpoint::list(&cut).len(), checkpoint::KEPT);
    let logged = perilune_train::log::read(&cut.join("log.jsonl")).unwrap();
    for (record, (total_step, loss)) in logged.iter().zip(&expected) {
        assert_eq!(record.total_step, *total_step);
        // Reading a decimal may move its last bit.
        assert!((record.loss - loss).abs() < 1e-12, "{} {loss}", record.loss);
    }
    assert_eq!(logged.len(), expected.len());
}

/// A kill leaves log lines behind the last checkpoint; the steps are done again and logged once.
#[test]
fn steps_behind_the_last_checkpoint_are_done_again_and_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), TWO_STAGES);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    run::run(&recipe, &leg(&whole, false, 1), &mut Notebook::default()).unwrap();
    let mut notebook = Notebook { stop_at: Some(3), ..Notebook::default() };
    run::run(&recipe, &leg(&killed, false, 1), &mut notebook).unwrap();
    let last = checkpoint::list(&killed).pop().unwrap();
    std::fs::remove_file(&last).unwrap();
    std::fs::write(last.with_extension("partial"), b"half a checkpoint").unwrap();
    let mut log = std::fs::read_to_string(killed.join("log.jsonl")).unwrap();
    log.push_str("{\"stage\":\"first\",\"st");
    std::fs::write(killed.join("log.jsonl"), log).unwrap();
    run::run(&recipe, &leg(&killed, true, 1), &mut Notebook::default()).unwrap();
    assert!(bits(&whole) == bits(&killed));
    let logged = perilune_train::log::read(&killed.join("log.jsonl")).unwrap();
    assert_eq!(logged.iter().map(|r| r.total_step).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_keeps_the_checkpoint_before_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe(folder.path(), TWO_STAGES);
    let out = folder.path().join("run");
    run::run(&recipe, &leg(&out, false, 1), &mut Notebook { stop_at: Some(2), ..Notebook::default() })
        .unwrap();
    let kept = checkpoint::list(&out);
    let before = bits(&out);
    // A device that is always full stands where the next two checkpoints would be written first.
    for step in [3, 4] {
        let partial = out.join(format!("checkpoints/step-{step:08}.partial"));
        std::os::unix::fs::symlink("/dev/full", partial).unwrap();
    }
    let mut notebook = Notebook { stop_at: Some(3), ..Notebook::default() };
    let error = run::run(&recipe, &leg(&out, true, 1), &mut notebook).unwrap_err().to_string();
    assert!(
        error.contains("No space left") && error.contains("step-00000002.safetensors is kept"),
        "{error}"
    );
    assert_eq!(checkpoint::list(&out), kept);
    assert!(bits(&out) == before);
    // In the middle of a leg the run goes on, with a note, and the next checkpoint holds what it did.
    let mut notebook = Notebook::default();
    assert_eq!(run::run(&recipe, &leg(&out, true, 1), &mut notebook).unwrap(), Ended::Complete);
    assert!(notebook.notes.iter().any(|note| note.contains("No space left")), "{:?}", notebook.notes);
    assert_eq!(checkpoint::list(&out).len(), checkpoint::KEPT);
}

fn refused(stages: &str, out: &Path, folder: &Path, resume: bool) -> String {
    let error =
        run::run(&recipe(folder, stages), &leg(out, resume, 1), &mut Notebook::default()).unwrap_err();
    assert!(matches!(error, RunError::Checkpoint(_) | RunError::OtherStage { .. } | RunError::Taken { .. }));
    let error = error.to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn what_does_not_fit_the_checkpoint_is_one_sentence_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut notebook = Notebook { stop_at: Some(1), ..Notebook::default() };
    run::run(&recipe(folder.path(), TWO_STAGES), &leg(&out, false, 1), &mut notebook).unwrap();
    let before = bits(&out);
    let error = refused(TWO_STAGES, &out, folder.path(), false);
    assert!(error.contains("--resume") && error.contains("step 1"), "{error}");
    let error = refused(&TWO_STAGES.replace("\"first\"", "\"other\""), &out, folder.path(), true);
    assert!(error.contains("`first`") && error.contains("short.toml"), "{error}");
    let adamw = format!("optimizer = \"adamw\"\n{TWO_STAGES}");
    let error = refused(&adamw, &out, folder.path(), true);
    assert!(error.contains("muonclip") && error.contains("adamw"), "{error}");
    let mut other = recipe(folder.path(), TWO_STAGES);
    other.config_text = other.config_text.replace("\"hidden_size\": 64", "\"hidden_size\": 96");
    other.config = perilune_model::config::Config::from_json(&other.config_text).unwrap();
    let error = run::run(&other, &leg(&out, true, 1), &mut Notebook::default()).unwrap_err().to_string();
    assert!(error.contains("`hidden_size` is 64 and the recipe's 96"), "{error}");
    let path = checkpoint::list(&out).pop().unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert!(bits(&out) == before);
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = refused(TWO_STAGES, &out, folder.path(), true);
    assert!(error.contains("is not a whole training checkpoint"), "{error}");
}

#[test]
fn a_recipe_goes_on_behind_the_last_step_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let (first, second) = TWO_STAGES.split_at(TWO_STAGES.rfind("[[stage]]").unwrap());
    run::run(&recipe(folder.path(), first), &leg(&out, false, 1), &mut Notebook::default()).unwrap();
    let mut notebook = Notebook::default();
    let ended = run::run(&recipe(folder.path(), second), &leg(&out, true, 1), &mut notebook).unwrap();
    assert_eq!(ended, Ended::Complete);
    let whole = folder.path().join("whole");
    run::run(&recipe(folder.path(), TWO_STAGES), &leg(&whole, false, 1), &mut Notebook::default()).unwrap();
    assert!(bits(&whole) == bits(&out));
    assert_eq!(
        notebook.records.first().map(|r| (r.stage.as_str(), r.step, r.total_step)),
        Some(("second", 1, 7))
    );
}

/// A packed checkpoint's weights, rounded as a stage with `quant` rounds them, are themselves: the first step sees what the
/// file holds, and what does not fit is told before anything is written.
#[test]
fn a_recipe_begins_with_the_weights_of_a_published_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (out, base) = (folder.path().join("run"), folder.path().join("base"));
    run::run(&recipe(folder.path(), TWO_STAGES), &leg(&out, false, 1), &mut Notebook::default()).unwrap();
    export::export(&out, &base, true).unwrap();
    let (_, second) = TWO_STAGES.split_at(TWO_STAGES.rfind("[[stage]]").unwrap());
    let from = format!("from = \"base\"\n{second}");
    let trainer = Trainer::new(recipe(folder.path(), &from), 1).unwrap();
    let held = Parameters::from_checkpoint(&Checkpoint::open(&base).unwrap()).unwrap();
    assert!(trainer.params().flat() == held.flat());
    let again = folder.path().join("again");
    let run = |stages: &str| {
        let ended = run::run(&recipe(folder.path(), stages), &leg(&again, true, 1), &mut Notebook::default());
        ended.map(|_| ()).map_err(|error| error.to_string())
    };
    run(&from).unwrap();
    let exported = folder.path().join("exported");
    export::export(&again, &exported, true).unwrap();
    let after = Parameters::from_checkpoint(&Checkpoint::open(&exported).unwrap()).unwrap();
    assert!(after.flat() != held.flat(), "it learns on");

    std::fs::remove_dir_all(&again).unwrap();
    let config = base.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.contains("\"rope_theta\": 50000.0"));
    std::fs::write(&config, text.replace("\"rope_theta\": 50000.0", "\"rope_theta\": 10000.0")).unwrap();
    let error = run(&from).unwrap_err();
    assert!(error.contains("base") && error.contains("another shape") && !error.contains('\n'), "{error}");
    let error = run(&from.replace("base", "nowhere")).unwrap_err();
    assert!(error.contains("`from`") && error.contains("nowhere") && !error.contains('\n'), "{error}");
    assert!(checkpoint::list(&again).is_empty());
}
