//! Runs started from the console: a process each, which outlives the server.

use super::run;
use anyhow::{Context, bail};
use clap::Parser;
use perilune_agent::console::{Pending, Starter};
use perilune_agent::journal::{JOURNAL_FILE, Summary, fresh_name, is_worked_on, read};
use perilune_agent::run::{Clock, SystemClock};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The profile that is there where none is given: the embedded model with the usual limits.
const USUAL: &str = "embedded";
/// Name of the file in a run's folder that says by which profile it was started.
const PROFILE_FILE: &str = "profile";
/// The flag that a larger limit replaces.
const STEPS: &str = "--steps";
/// Exit statuses of `run` that may mean that its journal does not tell why.
const FAILED: [i32; 2] = [1, 2];
/// Runs at a time that were started here and are at work.
const N_AT_WORK_MAX: usize = 16;
/// Failures that are shown.
const N_FAILED_MAX: usize = 20;
/// Bytes of what a process says of its failure that are kept.
const FAILURE_BYTES_MAX: u64 = 4 << 10;
/// How long a page waits for the journal of a run that it started.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

/// The flags.
#[derive(clap::Args, Clone)]
pub(super) struct StarterArgs {
    /// Let runs be started from the console, each in a folder of this one
    #[arg(long, value_name = "DIR")]
    run_root: Option<PathBuf>,
    /// A way to do the console's runs, beside the embedded model: its name and the flags of `run`, as a
    /// shell reads them: apart by blanks, values with blanks in quotation marks. The first one is the usual one
    #[arg(long, value_name = "NAME=FLAGS", requires = "run_root", value_parser = parse_profile)]
    run_profile: Vec<Profile>,
}

/// A name and flags of `run`.
#[derive(Clone)]
struct Profile {
    name: String,
    flags: Vec<String>,
}

fn parse_profile(text: &str) -> Result<Profile, String> {
    let (name, flags) = text.split_once('=').ok_or("write it as NAME=FLAGS")?;
    let flags = shlex::split(flags).ok_or("a quotation mark or a backslash at its end is left open")?;
    if name.trim().is_empty() || name == USUAL {
        return Err(format!("{name:?} cannot be a profile's name; give it another"));
    }
    Ok(Profile { name: name.to_owned(), flags })
}

/// The command line of a run, to be read before it is needed.
#[derive(Parser)]
#[command(name = "run", no_binary_name = true)]
struct Line {
    #[command(flatten)]
    _args: run::Args,
}

impl StarterArgs {
    /// What starts runs into the folder `runs`, with `data` as flags of the data folder; nothing where it is not asked for.
    pub(super) fn starter(&self, runs: &Path, data: &[String]) -> anyhow::Result<Option<Arc<dyn Starter>>> {
        let Some(root) = &self.run_root else { return Ok(None) };
        let root = root.canonicalize().with_context(|| format!("--run-root {}", root.display()))?;
        if !root.is_dir() {
            bail!("--run-root {} is no folder", root.display());
        }
        let mut profiles = self.run_profile.clone();
        profiles.push(Profile { name: USUAL.to_owned(), flags: Vec::new() });
        let (runs, data, started) = (std::path::absolute(runs)?, data.to_vec(), Arc::default());
        let processes = Processes { root, profiles, runs, data, started };
        for profile in &processes.profiles {
            for line in [
                processes.start_line("a task", &processes.root, profile, "name"),
                processes.resume_line(profile, "name", Some(1)),
            ] {
                Line::try_parse_from(line).map_err(|error| {
                    let why = error.to_string();
                    let why = why.lines().next().unwrap_or_default().trim_start_matches("error: ");
                    anyhow::anyhow!("--run-profile {}: {why}", profile.name)
                })?;
            }
        }
        Ok(Some(Arc::new(processes)))
    }
}

struct Processes {
    root: PathBuf,
    profiles: Vec<Profile>,
    runs: PathBuf,
    data: Vec<String>,
    started: Arc<Mutex<Vec<Started>>>,
}

struct Started {
    run: String,
    task: String,
    /// What it said when it failed; `None` while its process is there.
    failure: Option<String>,
    /// Whether its process was seen at work on the journal.
    has_begun: bool,
}

impl Processes {
    /// The words after `run` that start one.
    fn start_line(&self, task: &str, workspace: &Path, profile: &Profile, run: &str) -> Vec<String> {
        let mut line = profile.flags.clone();
        line.extend(["--workspace".to_owned(), workspace.display().to_string()]);
        line.extend(["--name", run].map(str::to_owned));
        line.extend(self.places());
        line.extend(["--", task].map(str::to_owned));
        line
    }

    /// The words after `run` that take one up again.
    fn resume_line(&self, profile: &Profile, run: &str, n_steps_max: Option<u64>) -> Vec<String> {
        let mut line = profile.flags.clone();
        if let Some(n_steps_max) = n_steps_max {
            remove_flag(&mut line, STEPS);
            line.extend([STEPS.to_owned(), n_steps_max.to_string()]);
        }
        line.extend(["--resume", run].map(str::to_owned));
        line.extend(self.places());
        line
    }

    /// What every run here is told.
    fn places(&self) -> Vec<String> {
        let mut words = vec!["--runs".to_owned(), self.runs.display().to_string()];
        words.extend(self.data.iter().cloned());
        words.push("--ask-in-console".to_owned());
        words
    }

    fn profile(&self, name: &str) -> Result<&Profile, String> {
        let found = self.profiles.iter().find(|it| it.name == name);
        found.ok_or_else(|| "there is no such profile".to_owned())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Started>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a process works on the journal of a run.
    fn is_worked_on(&self, run: &str) -> bool {
        let folder = self.runs.join(run);
        folder.join(JOURNAL_FILE).exists() && is_worked_on(&folder)
    }

    fn is_at_work(&self, run: &str) -> bool {
        self.lock().iter().any(|it| it.run == run && it.failure.is_none())
    }

    /// Starts a process for a run, and waits a while for it to begin.
    fn spawn(&self, run: &str, task: &str, line: &[String]) -> Result<(), String> {
        let mut started = self.lock();
        let at_work = |it: &&Started| it.failure.is_none();
        if started.iter().filter(at_work).any(|it| it.run == run) {
            return Err("a process that was started here works on this run already".to_owned());
        }
        if started.iter().filter(at_work).count() >= N_AT_WORK_MAX {
            return Err(format!(
                "{N_AT_WORK_MAX} runs that were started here are at work; wait for one to end"
            ));
        }
        let failed = |error: std::io::Error| format!("the run cannot be started: {error}");
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("run").args(line);
        // Of its own group: what stops the server at a terminal does not stop the run.
        // A pipe would break when the server ends; a file without a name is gone with the last who holds it.
        let errors = tempfile::tempfile().map_err(failed)?;
        let stderr = errors.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
        let child = command.spawn().map_err(failed)?;
        started.retain(|it| it.run != run);
        let (run_name, task) = (run.to_owned(), task.to_owned());
        started.push(Started { run: run_name, task, failure: None, has_begun: false });
        drop(started);
        self.watch(child, errors, run.to_owned());
        let since = Instant::now();
        while !self.is_worked_on(run) && self.is_at_work(run) && since.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
        }
        drop(self.see());
        Ok(())
    }

    /// Looks which processes have begun.
    fn see(&self) -> MutexGuard<'_, Vec<Started>> {
        let mut started = self.lock();
        for it in started.iter_mut() {
            it.has_begun |= self.is_worked_on(&it.run);
        }
        started
    }

    /// Waits for the process, so that it leaves nothing behind, and keeps why it failed where no journal says so.
    fn watch(&self, mut child: Child, errors: File, run: String) {
        let (started, folder) = (Arc::clone(&self.started), self.runs.join(&run));
        std::thread::spawn(move || {
            let failure = failure(child.wait(), errors, &folder);
            let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
            forget(&folder);
            let Some(failure) = failure else {
                return started.retain(|it| it.run != run);
            };
            if let Some(it) = started.iter_mut().find(|it| it.run == run) {
                it.failure = Some(failure);
            }
            let n_failed = started.iter().filter(|it| it.failure.is_some()).count();
            if n_failed > N_FAILED_MAX {
                let oldest = started.iter().position(|it| it.failure.is_some());
                oldest.map(|at| started.remove(at));
            }
        });
    }
}

/// Removes the folder of a run that never began.
fn forget(folder: &Path) {
    if !folder.join(JOURNAL_FILE).exists() {
        // Where something else stands in it, it stays.
        let _ = std::fs::remove_file(folder.join(PROFILE_FILE)).and_then(|()| std::fs::remove_dir(folder));
    }
}

/// Why a process failed, where it ended otherwise than a run does whose journal tells its end.
fn failure(ended: std::io::Result<ExitStatus>, errors: File, folder: &Path) -> Option<String> {
    let has_journal = folder.join(JOURNAL_FILE).exists();
    let is_told = |status: &ExitStatus| status.code().is_some_and(|code| !FAILED.contains(&code));
    let said = last_words(errors);
    let error = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
    match ended {
        Ok(status) if has_journal && (is_told(&status) || status.code().is_some() && error.is_none()) => None,
        ended => {
            let how = || ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            Some(error.map_or_else(how, str::to_owned))
        }
    }
}

/// Takes a flag with a value out of a line, however it is written.
fn remove_flag(line: &mut Vec<String>, flag: &str) {
    while let Some(at) = line.iter().position(|word| word == flag) {
        line.drain(at..(at + 2).min(line.len()));
    }
    line.retain(|word| word.strip_prefix(flag).is_none_or(|rest| !rest.starts_with('=')));
}

/// The end of what a process said.
fn last_words(mut errors: File) -> String {
    let mut kept = Vec::new();
    let n_bytes = errors.metadata().map_or(0, |it| it.len());
    let from = SeekFrom::Start(n_bytes.saturating_sub(FAILURE_BYTES_MAX));
    // What cannot be read is not said.
    let _ = errors.seek(from).and_then(|_| errors.read_to_end(&mut kept));
    String::from_utf8_lossy(&kept).into_owned()
}

impl Starter for Processes {
    fn profiles(&self) -> Vec<String> {
        self.profiles.iter().map(|profile| profile.name.clone()).collect()
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn start(&self, task: &str, workspace: &Path, profile: &str) -> Result<String, String> {
        let profile = self.profile(profile)?;
        let run = format!("{}-{}", fresh_name(SystemClock.now_ms()), self.lock().len());
        let failed = |error: std::io::Error| format!("the run cannot be started: {error}");
        std::fs::create_dir_all(&self.runs).map_err(failed)?;
        let folder = self.runs.join(&run);
        match std::fs::create_dir(&folder) {
            // It belongs to a run that another process began in the same moment.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err("another run began in this moment; send it again".to_owned());
            }
            made => made
                .and_then(|()| std::fs::write(folder.join(PROFILE_FILE), &profile.name))
                .map_err(failed)?,
        }
        let spawned = self.spawn(&run, task, &self.start_line(task, workspace, profile, &run));
        spawned.inspect_err(|_| forget(&folder)).map(|()| run)
    }

    fn resume(&self, run: &str, profile: &str, n_steps_max: Option<u64>) -> Result<(), String> {
        let profile = self.profile(profile)?;
        // A run that is at work was refused before: its process is ending, or has ended and the watcher does not know yet.
        let since = Instant::now();
        while self.is_at_work(run) && since.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
        }
        let task = read(&self.runs.join(run)).map(|entries| Summary::of(&entries).opened.task);
        self.spawn(run, &task.unwrap_or_default(), &self.resume_line(profile, run, n_steps_max))
    }

    fn profile_of(&self, run: &str) -> Option<String> {
        std::fs::read_to_string(self.runs.join(run).join(PROFILE_FILE)).ok()
    }

    fn pending(&self) -> Vec<Pending> {
        let is_untold = |it: &&Started| it.failure.is_some() || !it.has_begun;
        let started = self.see();
        let pending = started.iter().filter(is_untold).map(|it| Pending {
            run: it.run.clone(),
            task: it.task.clone(),
            failure: it.failure.clone(),
        });
        pending.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_as_a_shell_reads_it() {
        let flags = |text: &str| parse_profile(text).map(|it| it.flags);
        let read = flags("a=--policy 'my rules.toml' --steps=3 --upstream http://h/v1#m").unwrap();
        assert_eq!(read, ["--policy", "my rules.toml", "--steps=3", "--upstream", "http://h/v1#m"]);
        for wrong in ["a", "=--steps 1", "embedded=--steps 1", "a=--policy 'x", "a=x\\"] {
            assert!(flags(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_replaced_however_it_is_written() {
        for text in ["--json --steps 3", "--steps=3 --json", "--steps 3 --json --steps=4 --steps"] {
            let mut line = text.split(' ').map(str::to_owned).collect();
            remove_flag(&mut line, STEPS);
            assert_eq!(line, ["--json"], "{text}");
        }
    }
}
