//! The same with the model that the binary carries: it follows a trail of files, one call a file, while the agent is
//! killed by SIGKILL again and again. Files and journal judge the end.
//!
//! `PERILUNE_TRAIL_FILES=290 PERILUNE_TRAIL_KILLS=30 cargo test --release -p perilune --test run_verb soak::embedded --
//! --nocapture` is the whole of it. `PERILUNE_SOAK_SEED` repeats its kills, `PERILUNE_TRAIL_WORLD` names another trail, and
//! `PERILUNE_TRAIL_BINARY` another binary than the one that was built for the tests.

use super::plan::Random;
use super::{Life, Watch, judge, number};
use crate::finish;
use perilune_agent::journal::{self, Entry, Event};
use perilune_train::data::Family;
use perilune_train::data::episode::{Episode, Files};
use perilune_train::data::forms::Split;
use perilune_train::eval::closed_loop::Question;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// Files of the trail where nothing else is asked for.
const N_FILES: usize = 8;
/// Times that the agent is killed.
const N_KILLS: usize = 4;
/// Longest time after a call was settled at which a kill may come, ms: an answer of the model takes longer.
const ANSWER_MS: usize = 20;
/// Longest time after an intent, µs: an attempt takes about as long.
const ATTEMPT_US: usize = 1_000;
/// Longest time after the start at which an agent that has done nothing yet may be killed, ms.
const START_MS: usize = 500;
/// Time for one step, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(300);
/// Name of the run.
const RUN: &str = "trail";

/// Whether a path stands in a text by itself, and not as a part of another one.
fn is_named(path: &str, text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_-/.".contains(c);
    text.match_indices(path).any(|(at, _)| {
        let after = text[at + path.len()..].chars().next();
        !text[..at].ends_with(is_part) && !after.is_some_and(|c| c.is_ascii_alphanumeric())
    })
}

/// The trail's files in order, found by their words alone.
fn trail(episode: &Episode) -> Vec<String> {
    let next = |text: &str| episode.files.keys().find(|path| is_named(path, text)).cloned();
    let mut paths: Vec<String> = next(&episode.sentence).into_iter().collect();
    while let Some(path) = paths.last().and_then(|path| next(&episode.files[path])) {
        assert!(!paths.contains(&path), "the trail comes back to {path}");
        paths.push(path);
    }
    paths
}

fn lay_out(work: &Path, files: &Files) {
    for (path, text) in files {
        let path = work.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// All files beneath a folder as text, whatever they are called.
fn found(folder: &Path) -> Files {
    let (mut files, mut folders) = (Files::new(), vec![folder.to_owned()]);
    while let Some(inner) = folders.pop() {
        for entry in std::fs::read_dir(inner).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).unwrap().display().to_string();
                files.insert(name, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    files
}

fn run_folder(folder: &Path) -> std::path::PathBuf {
    folder.join("runs").join(RUN)
}

/// The agent on the embedded model: a new run, or the run that is there.
fn agent(folder: &Path, sentence: &str) -> std::process::Child {
    let binary = std::env::var_os("PERILUNE_TRAIL_BINARY");
    let mut command = Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_perilune").into()));
    command.args(["run", "--json", "--steps", "100000"]);
    match run_folder(folder).join("journal.sqlite").exists() {
        true => command.args(["--resume", RUN]),
        false => command.args(["--name", RUN, sentence]),
    };
    command.args(["--workspace".as_ref(), folder.join("work").as_os_str()]);
    command.args(["--runs".as_ref(), folder.join("runs").as_os_str()]);
    command.env("XDG_CACHE_HOME", folder.join("cache")).env("PERILUNE_DATA", folder.join("data"));
    command.env_remove("PERILUNE_MODEL").env_remove("PERILUNE_CONFIG");
    command.env("XDG_CONFIG_HOME", folder.join("config"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Waits for a line that holds both; `false`: the agent ended before.
fn wait_for(life: &Life, event: &str, word: &str) -> bool {
    loop {
        match life.lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(event) && line.contains(word) => return true,
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("the agent came no further in {PATIENCE:?}"),
        }
    }
}

const OUTCOME: &str = r#""event":"outcome""#;
const INTENT: &str = r#""event":"intent""#;

/// Lives one life of about `n_more` calls and ends it at a moment of `random`'s choice; says whether it was alive.
fn live_and_die(folder: &Path, sentence: &str, n_more: usize, random: &mut Random) -> bool {
    let is_new = !run_folder(folder).exists();
    let life = Life::of(agent(folder, sentence));
    let wait_us = match random.below(6) {
        0 if !is_new => 1_000 * random.below(START_MS),
        kind => {
            let n_calls = random.below(2 * n_more + 1).max(1);
            let is_going = (1..n_calls).all(|_| wait_for(&life, OUTCOME, ""));
            let longest_us = if kind < 3 { ATTEMPT_US } else { 1_000 * ANSWER_MS };
            let event = if kind < 3 { INTENT } else { OUTCOME };
            if is_going && wait_for(&life, event, "") { random.below(longest_us) } else { 0 }
        }
    };
    std::thread::sleep(Duration::from_micros(wait_us as u64));
    life.kill()
}

/// How many calls were settled, as the journal has it.
fn n_settled(folder: &Path) -> usize {
    let entries = journal::read(&run_folder(folder)).unwrap_or_default();
    entries.iter().filter(|entry| matches!(entry.event, Event::Outcome { .. } | Event::Told { .. })).count()
}

/// The calls in order as name and arguments, each with what came of it.
fn settled(entries: &[Entry]) -> Vec<(String, Value, String)> {
    let (mut calls, mut settled) = (Vec::new(), Vec::new());
    for entry in entries {
        match &entry.event {
            Event::Answered { calls: more, .. } => calls.extend(more),
            Event::Outcome { call, shown: text, .. } | Event::Told { call, text } => {
                let made = calls[*call as usize - 1];
                let arguments = serde_json::from_str(&made.arguments).unwrap_or(Value::Null);
                settled.push((made.name.clone(), arguments, text.clone()));
            }
            _ => {}
        }
    }
    settled
}

/// Each file of the trail was read once and in order, with what stands in it; then the code was written, and no more.
fn steps(episode: &Episode, trail: &[String], entries: &[Entry]) -> Result<(), String> {
    let (out, code) = episode.goal.files.first_key_value().ok_or("the task asks for no file")?;
    let reads = trail.iter().map(|path| ("read_file", json!({"path": path}), episode.files[path].as_str()));
    let write = ("write_file", json!({"path": out, "text": code}), "wrote");
    let wanted: Vec<_> = reads.chain([write]).collect();
    let made = settled(entries);
    for (idx, (wanted, made)) in wanted.iter().zip(&made).enumerate() {
        if (wanted.0, &wanted.1) != (made.0.as_str(), &made.1) {
            let (name, arguments) = (&made.0, &made.1);
            return Err(format!(
                "the model went astray at call {}: {name} {arguments}, not {}",
                idx + 1,
                wanted.1
            ));
        }
        if let Some(line) = wanted.2.lines().find(|line| !made.2.contains(line)) {
            return Err(format!("the result of call {} does not hold {line:?}: {:?}", idx + 1, made.2));
        }
    }
    if made.len() == wanted.len() {
        Ok(())
    } else {
        Err(format!("{} calls, not {}", made.len(), wanted.len()))
    }
}

/// An attempt is repeated only where the process died in it, and only the write changes anything.
fn effects(entries: &[Entry], n_replaced: usize) -> Result<(), String> {
    let is_write =
        |entry: &&Entry| matches!(&entry.event, Event::Intent { tool, .. } if tool == "write_file");
    let n_attempts = entries.iter().filter(is_write).count();
    if !(1..=n_attempts.max(1)).contains(&n_replaced) {
        return Err(format!("the file was replaced {n_replaced} times in {n_attempts} attempts"));
    }
    let is_intent = |entry: &Entry| matches!(entry.event, Event::Intent { .. });
    let n_intents = entries.iter().filter(|entry| is_intent(entry)).count();
    let n_outcomes = entries.iter().filter(|entry| matches!(entry.event, Event::Outcome { .. })).count();
    let torn = |pair: &&[Entry]| is_intent(&pair[0]) && pair[1].event == Event::Resumed;
    let n_torn = entries.windows(2).filter(torn).count();
    let n_lives = entries.iter().filter(|entry| entry.event == Event::Resumed).count() + 1;
    println!(
        "{n_lives} lives opened the journal, {n_torn} died between intent and outcome; {n_outcomes} calls in {n_intents} attempts, the file replaced {n_replaced} times"
    );
    if n_intents == n_outcomes + n_torn {
        Ok(())
    } else {
        Err("an attempt was repeated without need".to_owned())
    }
}

#[test]
fn a_trail_is_followed_whenever_the_agent_dies() {
    let n_files = number("PERILUNE_TRAIL_FILES", N_FILES);
    let n_kills = number("PERILUNE_TRAIL_KILLS", N_KILLS);
    let seed = number("PERILUNE_SOAK_SEED", std::process::id() as usize) as u64;
    println!("PERILUNE_SOAK_SEED={seed}");
    let question = Question { family: Family::Trail, n_episodes: 1, n_calls: Some(n_files), seed: 1 };
    let episode = question.episode(Split::Train, number("PERILUNE_TRAIL_WORLD", 0) as u64);
    let trail = trail(&episode);
    assert_eq!(trail.len(), n_files, "the trail is another than its files say");
    let dir = tempfile::tempdir().unwrap();
    let (folder, work) = (dir.path(), dir.path().join("work"));
    lay_out(&work, &episode.files);
    let watch = Watch::new(&work);
    let mut random = Random::new(seed ^ 0x6b69_6c6c);
    let mut n_alive = 0;
    // The last kill comes right after the intent of the only effect.
    for n_left in (1..n_kills).rev() {
        let n_more = (n_files - n_settled(folder).min(n_files)) / (n_left + 1);
        n_alive += usize::from(live_and_die(folder, &episode.sentence, n_more, &mut random));
    }
    if n_kills > 0 {
        let life = Life::of(agent(folder, &episode.sentence));
        let _ = wait_for(&life, INTENT, "write_file");
        n_alive += usize::from(life.kill());
    }
    let (code, lines) = finish(agent(folder, &episode.sentence));
    let run = run_folder(folder);
    let entries = journal::read(&run).unwrap();
    println!("{n_alive} of {n_kills} kills met a living agent");
    let judged = steps(&episode, &trail, &entries).and_then(|()| judge::calls(&entries));
    let judged = judged.and_then(|()| episode.goal.judge(&episode.files, &found(&work)));
    let (out, _) = episode.goal.files.first_key_value().unwrap();
    let judged = judged.and_then(|()| effects(&entries, watch.n_replaced(out)));
    judged.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    assert_eq!((code, &lines.last().unwrap()["status"]), (Some(0), &json!("done")), "seed {seed}");
    assert!(n_alive * 2 >= n_kills, "seed {seed}: only {n_alive} of {n_kills} kills met a living agent");
}
