//! What a soak left, judged from outside: the model's own notes, the files, the count of replaced ledgers, the journal.

use super::model::{Fault, Model};
use super::plan::{LEDGER, Plan};
use perilune_agent::journal::{self, Entry, Event};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Whether everything is right, and what happened.
pub(crate) fn judge(folder: &Path, model: &Model, n_kills: usize, n_replaced: usize) -> Result<(), String> {
    let plan = model.plan();
    let run = folder.join("runs").join(super::name(folder).ok_or("there is no run")?);
    let entries = journal::read(&run).map_err(|error| error.to_string())?;
    tell(model, &entries, n_kills);
    model_is_content(model)?;
    files(&folder.join("work"), plan)?;
    if n_replaced != plan.n_effects {
        return Err(format!("the ledger was replaced {n_replaced} times for {} effects", plan.n_effects));
    }
    steps(plan, &entries)?;
    calls(&entries)?;
    if n_kills >= super::N_AIMED && torn(&entries) == 0 {
        return Err("no kill came between an intent and its outcome".to_owned());
    }
    Ok(())
}

fn model_is_content(model: &Model) -> Result<(), String> {
    let seen = model.seen();
    if let Some(wrong) = seen.wrong.first() {
        return Err(format!("{} things were wrong, the first: {wrong}", seen.wrong.len()));
    }
    if seen.n_done != model.plan().steps.len() {
        return Err(format!("the model saw {} steps done", seen.n_done));
    }
    match Fault::ALL.iter().find(|fault| !seen.faults.contains_key(fault)) {
        Some(fault) if model.plan().steps.len() >= super::N_STEPS => {
            Err(format!("{fault:?} was never tried"))
        }
        _ => Ok(()),
    }
}

/// Each file is as planned, and there is no other.
fn files(work: &Path, plan: &Plan) -> Result<(), String> {
    let mut found = BTreeMap::new();
    for folder in ["", "out"] {
        for entry in std::fs::read_dir(work.join(folder)).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                found.insert(path, std::fs::read_to_string(entry.path()).map_err(|error| error.to_string())?);
            }
        }
    }
    let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
    if names(&found) != names(&plan.files) {
        return Err(format!("the files are {:?}, not {:?}", names(&found), names(&plan.files)));
    }
    match plan.files.iter().find(|(path, text)| found[*path] != **text) {
        Some((path, _)) if path == LEDGER => {
            let effects = |text: &str| text.lines().filter(|it| it.starts_with("effect")).count();
            Err(format!("the ledger holds {} effects: {}", effects(&found[path]), plan.n_effects))
        }
        Some((path, text)) => Err(format!("{path} holds {:?} instead of {text:?}", found[path])),
        None => Ok(()),
    }
}

/// The calls that were done are the steps of the plan, each once, in order.
fn steps(plan: &Plan, entries: &[Entry]) -> Result<(), String> {
    let mut texts = Vec::new();
    let mut done = Vec::new();
    for entry in entries {
        match &entry.event {
            Event::Answered { calls, .. } => texts.extend(calls),
            Event::Outcome { call, output, .. } if output.is_done => {
                let text = texts[*call as usize - 1];
                done.push((
                    text.name.as_str(),
                    serde_json::from_str::<Value>(&text.arguments).unwrap_or_default(),
                ));
            }
            _ => {}
        }
    }
    let wanted: Vec<(&str, Value)> = plan.steps.iter().map(|it| (it.name, it.arguments.clone())).collect();
    let first = wanted.iter().zip(&done).position(|(wanted, done)| wanted != done);
    match first {
        Some(number) => Err(format!("step {number} is {:?}, not {:?}", done[number], wanted[number])),
        None if wanted.len() != done.len() => {
            Err(format!("{} steps of {} were done", done.len(), wanted.len()))
        }
        None => Ok(()),
    }
}

/// Each call is settled once, its attempts have one key, and no other call has it.
pub(crate) fn calls(entries: &[Entry]) -> Result<(), String> {
    let (mut settled, mut keys, mut owners) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
    let mut n_calls = 0;
    for entry in entries {
        match &entry.event {
            Event::Answered { calls, .. } => n_calls += calls.len() as u64,
            Event::Outcome { call, .. } | Event::Told { call, .. } if !settled.insert(*call) => {
                return Err(format!("call {call} was settled twice"));
            }
            Event::Intent { call, key, .. } => {
                if keys.insert(*call, key).is_some_and(|other| other != key) {
                    return Err(format!("call {call} was attempted with two keys"));
                }
                if owners.insert(key, *call).is_some_and(|other| other != *call) {
                    return Err(format!("call {call} has the key of another"));
                }
            }
            _ => {}
        }
    }
    if settled != (1..=n_calls).collect() {
        return Err(format!("{} of {n_calls} calls were settled", settled.len()));
    }
    Ok(())
}

/// How often an effect was cut off between its intent and its outcome, as far as the run has come.
pub(crate) fn n_torn(folder: &Path) -> usize {
    let run = super::name(folder).map(|name| folder.join("runs").join(name));
    torn(&run.and_then(|run| journal::read(&run).ok()).unwrap_or_default())
}

fn torn(entries: &[Entry]) -> usize {
    let next = entries.iter().skip(1).map(|entry| Some(&entry.event)).chain([None]);
    let is_torn = |next: Option<&Event>| next.is_none_or(|next| *next == Event::Resumed);
    entries.iter().zip(next).filter(|(entry, next)| is_effect(entry) && is_torn(*next)).count()
}

/// The intent of one.
fn is_effect(entry: &Entry) -> bool {
    matches!(&entry.event, Event::Intent { tool, .. } if tool == "edit_file")
}

/// What happened, for who reads along.
fn tell(model: &Model, entries: &[Entry], n_kills: usize) {
    let mut died_after: BTreeMap<&str, usize> = BTreeMap::new();
    for pair in entries.windows(2).filter(|pair| pair[1].event == Event::Resumed) {
        let last = match &pair[0].event {
            _ if is_effect(&pair[0]) => "the intent of an effect",
            Event::Intent { .. } => "another intent",
            Event::Outcome { .. } | Event::Told { .. } => "an outcome",
            Event::Answered { .. } | Event::Gate { .. } => "an answer",
            Event::TurnEnded { .. } | Event::Opened(_) => "a turn, so the model was asked",
            Event::ModelFailed { .. } => "a failure of the model",
            _ => "something else",
        };
        *died_after.entry(last).or_default() += 1;
    }
    let n_attempts = entries.iter().filter(|entry| is_effect(entry)).count();
    let n_failures = entries.iter().filter(|it| matches!(it.event, Event::ModelFailed { .. })).count();
    let (seen, n_effects, n_torn) = (model.seen(), model.plan().n_effects, torn(entries));
    println!("{n_kills} kills, some while it started; after these events of the journal: {died_after:?}");
    println!("{n_torn} attempts cut off, {} of them had had their effect", n_torn + n_effects - n_attempts);
    println!("{} requests, {n_failures} failures, faults: {:?}", seen.n_requests, seen.faults);
}
