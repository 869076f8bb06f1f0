//! Runs started from the console: a process each, which outlives the server.

use super::run;
use anyhow::{Context, bail};
use clap::Parser;
use perilune_agent::console::{Pending, Starter};
use perilune_agent::journal::{JOURNAL_FILE, fresh_name};
use perilune_agent::run::{Clock, SystemClock};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The profile that is there where none is given: the embedded model with the usual limits.
const USUAL: &str = "embedded";
/// Runs at a time that were started here and are at work.
const N_AT_WORK_MAX: usize = 16;
/// Failures that are shown.
const N_FAILED_MAX: usize = 20;
/// Bytes of what a process says of its failure that are kept.
const FAILURE_BYTES_MAX: u64 = 4 << 10;
/// How long a page waits for the journal of a run that it started.
const PATIENCE: Duration = Duration::from_secs(3);

/// The flags.
#[derive(clap::Args, Clone)]
pub(super) struct StarterArgs {
    /// Let runs be started from the console, each in a folder of this one
    #[arg(long, value_name = "DIR")]
    run_root: Option<PathBuf>,
    /// A way to do the console's runs, beside the embedded model: its name and the flags of `run`, apart by blanks.
    /// The first one is the usual one
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
    let flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
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
            let line = processes.line("a task", &processes.root, profile, "name");
            Line::try_parse_from(line).map_err(|error| {
                let why = error.to_string();
                let why = why.lines().next().unwrap_or_default().trim_start_matches("error: ");
                anyhow::anyhow!("--run-profile {}: {why}", profile.name)
            })?;
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
    /// What it said when it failed; `None` while it is at work.
    failure: Option<String>,
}

impl Processes {
    fn line(&self, task: &str, workspace: &Path, profile: &Profile, run: &str) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let mut line = profile.flags.clone();
        line.extend(["--workspace".to_owned(), text(workspace), "--runs".to_owned(), text(&self.runs)]);
        line.extend(self.data.iter().cloned());
        line.extend(["--name", run, "--ask-in-console", "--", task].map(str::to_owned));
        line
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Started>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_journal(&self, run: &str) -> bool {
        self.runs.join(run).join(JOURNAL_FILE).exists()
    }

    fn is_at_work(&self, run: &str) -> bool {
        self.lock().iter().any(|it| it.run == run && it.failure.is_none())
    }

    /// Waits for the process, so that it leaves nothing behind, and keeps why it failed where it has no journal to say so.
    fn watch(&self, mut child: Child, errors: File, run: String) {
        let (started, journal) = (Arc::clone(&self.started), self.runs.join(&run).join(JOURNAL_FILE));
        std::thread::spawn(move || {
            let ended = child.wait();
            let said = last_words(errors);
            let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
            if journal.exists() {
                return started.retain(|it| it.run != run);
            }
            let said = said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            if let Some(it) = started.iter_mut().find(|it| it.run == run) {
                it.failure = Some(if said.is_empty() { how } else { said });
            }
            let n_failed = started.iter().filter(|it| it.failure.is_some()).count();
            if n_failed > N_FAILED_MAX {
                let oldest = started.iter().position(|it| it.failure.is_some());
                oldest.map(|at| started.remove(at));
            }
        });
    }
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
        let profile = self.profiles.iter().find(|it| it.name == profile).ok_or("there is no such profile")?;
        let mut started = self.lock();
        let at_work = started.iter().filter(|it| it.failure.is_none()).count();
        if at_work >= N_AT_WORK_MAX {
            return Err(format!(
                "{N_AT_WORK_MAX} runs that were started here are at work; wait for one to end"
            ));
        }
        let mut name = fresh_name(SystemClock.now_ms());
        name.push_str(&format!("-{}", started.len()));
        // A folder that is there belongs to a run that another process began in the same moment.
        if self.runs.join(&name).exists() {
            return Err("another run began in this moment; send it again".to_owned());
        }
        let failed = |error: std::io::Error| format!("the run cannot be started: {error}");
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("run").args(self.line(task, workspace, profile, &name));
        // Of its own group: what stops the server at a terminal does not stop the run.
        // A pipe would break when the server ends; a file without a name is gone with the last who holds it.
        let errors = tempfile::tempfile().map_err(failed)?;
        let stderr = errors.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).process_group(0);
        let child = command.spawn().map_err(failed)?;
        started.push(Started { run: name.clone(), task: task.to_owned(), failure: None });
        drop(started);
        self.watch(child, errors, name.clone());
        let since = Instant::now();
        while !self.has_journal(&name) && self.is_at_work(&name) && since.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(name)
    }

    fn pending(&self) -> Vec<Pending> {
        let without = |it: &&Started| it.failure.is_some() || !self.has_journal(&it.run);
        let started = self.lock();
        let pending = started.iter().filter(without).map(|it| Pending {
            run: it.run.clone(),
            task: it.task.clone(),
            failure: it.failure.clone(),
        });
        pending.collect()
    }
}
