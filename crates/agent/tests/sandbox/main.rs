//! The sandbox, tried from inside and judged from outside. It has its own `main` because a sandbox is entered there.
//!
//! `cargo test -p perilune-agent --test sandbox [PART OF A NAME]`

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod behaviour;
mod escapes;
mod host;
mod judge;
mod tools;
mod world;

use escapes::CASES;
use host::{Host, INHERITED};
use judge::{Verdict, judge};
use perilune_agent::sandbox::{Layer, SandboxError, enter_if_asked};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Attempts at once.
const N_WORKERS: usize = 2;

fn main() -> ExitCode {
    enter_if_asked();
    behaviour::be_starter_if_asked();
    if std::env::var_os(INHERITED).is_none() {
        return start_with_secret();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let filter = args.into_iter().find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let begin = Instant::now();
    let runtime = runtime();
    match runtime.block_on(behaviour::refusal_or_layers()) {
        Ok(control_group) => run(&filter, &Host::find(control_group), begin),
        Err(SandboxError::Refused { layer, why }) => {
            println!("SKIPPED all {} attempts: this system refuses `{layer}`: {why}", CASES.len());
            println!("ok: the sandbox refuses to run bare");
            ExitCode::SUCCESS
        }
        Err(other) => {
            println!("FAILED: {other}");
            ExitCode::FAILURE
        }
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn nanos() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// Execute this test again with a secret in its environment, as the process that starts sandboxes has some.
fn start_with_secret() -> ExitCode {
    let mut again = Command::new("/proc/self/exe");
    again.args(std::env::args_os().skip(1)).env(INHERITED, format!("inherited{}", nanos()));
    if again.status().is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(filter: &str, host: &Host, begin: Instant) -> ExitCode {
    let failed = behaviour::run_all(filter, host) + tools::run_all(filter, host);
    let cases: Vec<_> = CASES.iter().filter(|case| case.name.contains(filter)).collect();
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..N_WORKERS {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = runtime.block_on(judge(case, host));
                    verdicts.lock().unwrap().push((case.name, verdict));
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().unwrap();
    let mut counts = [0; 3];
    for (name, verdict) in &verdicts {
        let (which, line) = match verdict {
            Verdict::Contained(by) => (0, format!("contained  {name}  (each alone: {by})")),
            Verdict::Skipped(why) => (1, format!("SKIPPED    {name}: {why}")),
            Verdict::Failed(why) => (2, format!("FAILED     {name}: {why}")),
        };
        counts[which] += 1;
        println!("{line}");
    }
    let unused = Layer::ALL.into_iter().filter(|layer| !CASES.iter().any(|case| case.stops.contains(layer)));
    let unused: Vec<_> = unused.collect();
    assert!(unused.is_empty(), "no attempt is stopped by {unused:?} alone");
    let seconds = begin.elapsed().as_secs_f64();
    println!("{} contained, {} skipped, {} failed; {seconds:.1} s", counts[0], counts[1], counts[2] + failed);
    if counts[2] + failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
