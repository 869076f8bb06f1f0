//! What the tests of runs share.

#![allow(dead_code)]

use perilune_train::log::Record;
use perilune_train::recipe::Recipe;
use perilune_train::run::{Leg, Watcher};
use std::path::{Path, PathBuf};

/// Keeps what a run says; stops it after `stop_at` steps in all.
#[derive(Default)]
pub(crate) struct Notebook {
    pub(crate) records: Vec<Record>,
    pub(crate) notes: Vec<String>,
    pub(crate) stop_at: Option<u64>,
}

impl Watcher for Notebook {
    fn step(&mut self, record: &Record) {
        self.records.push(record.clone());
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }

    fn stopped(&self) -> bool {
        let done = self.records.last().map_or(0, |record| record.total_step);
        self.stop_at.is_some_and(|stop_at| done >= stop_at)
    }
}

pub(crate) fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")
}

pub(crate) fn leg(out: &Path, resume: bool, n_threads: usize) -> Leg {
    Leg { out: out.to_owned(), resume, limit: None, n_threads }
}

/// A recipe over the smoke model, as a file in `folder`; `stages` is TOML.
pub(crate) fn recipe(folder: &Path, stages: &str) -> Recipe {
    Recipe::from_file(&write(folder, "short.toml", stages)).unwrap()
}

pub(crate) fn write(folder: &Path, name: &str, stages: &str) -> PathBuf {
    std::fs::copy(recipes().join("smoke.json"), folder.join("smoke.json")).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, format!("model = \"smoke.json\"\nseed = 5\n{stages}")).unwrap();
    path
}
