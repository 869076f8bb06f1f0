//! The first process inside: starts the program, feeds it, reaps orphans, and takes everything with it when it ends.

use super::enter::Standing;
use super::layers::Layer;
use super::limits::DISK_POLL_MS;
use super::view::{View, WORKSPACE};
use super::wire::{Plan, Program, Report, kind, read_frame, send_report};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio, exit};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The fixed few variables that every program inside gets.
pub(super) const ENVIRONMENT: [(&str, &str); 6] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/tmp"),
    ("TMPDIR", "/tmp"),
    ("USER", "sandbox"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
];

/// The way back to the host, shared by the threads of this process.
#[derive(Clone)]
struct Host(Arc<Mutex<UnixStream>>);

impl Host {
    fn tell(&self, report: &Report) {
        send_report(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), report);
    }
}

/// What is left of the program when this process ends.
#[derive(Clone, Copy)]
struct Ending {
    payload: Pid,
    in_namespace: bool,
}

impl Ending {
    /// End this process. The kernel kills all others of its namespace; without one the program's group is killed.
    fn end(self) -> ! {
        if !self.in_namespace {
            let _ = killpg(self.payload, Signal::SIGKILL);
        }
        exit(0)
    }
}

/// Start the program of `plan` and serve it until it, the host or a limit says stop.
pub(super) fn run(plan: Plan, mut standing: Standing) -> ! {
    let own_io = File::open("/proc/self/io").ok();
    let _ = prctl::set_dumpable(false);
    let mut child = match start(&plan, &standing) {
        Ok(child) => child,
        Err(why) => standing.give_up(why),
    };
    let payload = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit i32"));
    let ending = Ending { payload, in_namespace: standing.has(Layer::PidNamespace) };
    let counts_disk = standing.has(Layer::ResourceLimits)
        && standing.has(Layer::PidNamespace)
        && standing.has(Layer::MountNamespace);
    let control = standing.into_control();
    let Ok(writer) = control.try_clone() else { ending.end() };
    let host = Host(Arc::new(Mutex::new(writer)));
    host.tell(&Report::Started);
    let (to_stdin, pieces) = channel();
    let stdin = child.stdin.take();
    thread::spawn(move || feed(stdin, &pieces));
    thread::spawn(move || listen(control, &to_stdin, ending));
    if let Some(own_io) = own_io.filter(|_| counts_disk) {
        let (host, most) = (host.clone(), plan.limits.disk_bytes);
        thread::spawn(move || watch_disk(own_io, most, &host, ending));
    }
    reap(ending, &host)
}

fn start(plan: &Plan, standing: &Standing) -> Result<Child, String> {
    let program = &plan.program;
    let (path, args) = program.argv.split_first().ok_or("the program has no path")?;
    let mut command = Command::new(path);
    command.args(args).current_dir(working_dir(program, &plan.view, standing.has(Layer::MountNamespace)));
    if standing.has(Layer::CleanStart) {
        command.env_clear();
    }
    command.envs(ENVIRONMENT).envs(program.env.iter().map(|(name, value)| (name, value)));
    command.stdin(if program.takes_input { Stdio::piped() } else { Stdio::null() });
    command.process_group(0).spawn().map_err(|error| format!("{path} cannot be started: {error}"))
}

fn working_dir(program: &Program, view: &View, rooted: bool) -> PathBuf {
    let workspace = view.binds().first().map(|bind| bind.host.clone()).filter(|_| !rooted);
    workspace.unwrap_or_else(|| WORKSPACE.into()).join(&program.cwd)
}

/// Write pieces of input as the program takes them; a program that closed its input loses them.
fn feed(stdin: Option<ChildStdin>, pieces: &Receiver<Vec<u8>>) {
    let Some(mut stdin) = stdin else { return };
    while let Ok(piece) = pieces.recv() {
        if piece.is_empty() || stdin.write_all(&piece).is_err() {
            return;
        }
    }
}

/// Take frames from the host. Its silence for ever is its death, and ours.
fn listen(mut control: UnixStream, to_stdin: &Sender<Vec<u8>>, ending: Ending) {
    while let Ok((kind, body)) = read_frame(&mut control) {
        match kind {
            kind::INPUT if !body.is_empty() => drop(to_stdin.send(body)),
            kind::END_OF_INPUT => drop(to_stdin.send(Vec::new())),
            kind::INTERRUPT => drop(kill(ending.payload, Signal::SIGINT)),
            _ => {}
        }
    }
    ending.end()
}

/// Wait for every child, ours or orphaned, until the program itself has ended.
fn reap(ending: Ending, host: &Host) -> ! {
    let (code, signal) = loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == ending.payload => break (Some(code), None),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == ending.payload => {
                break (None, Some(signal as i32));
            }
            Err(Errno::ECHILD) => break (None, None),
            _ => {}
        }
    };
    let (cpu_ms, peak_rss_bytes) = usage();
    host.tell(&Report::Ended { code, signal, cpu_ms, peak_rss_bytes });
    ending.end()
}

/// Processor time of everything reaped, and the largest resident size of one process.
fn usage() -> (u64, u64) {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return (0, 0) };
    let ms =
        [usage.user_time(), usage.system_time()].map(|time| time.tv_sec() * 1000 + time.tv_usec() / 1000);
    let unsigned = |value: i64| u64::try_from(value).unwrap_or(0);
    (ms.map(unsigned).iter().sum(), unsigned(usage.max_rss()) << 10)
}

/// Add up what all processes have written to storage, and end everything when it is too much.
fn watch_disk(mut own_io: File, most: u64, host: &Host, ending: Ending) {
    loop {
        let written_bytes = written_by_all(&mut own_io);
        if written_bytes > most {
            host.tell(&Report::OverDisk { written_bytes });
            ending.end();
        }
        thread::sleep(Duration::from_millis(DISK_POLL_MS));
    }
}

/// The kernel adds a reaped child's account to its parent's, so the living and this process hold the sum.
fn written_by_all(own_io: &mut File) -> u64 {
    let mut own = String::new();
    let own = own_io.rewind().and_then(|()| own_io.read_to_string(&mut own)).map_or(0, |_| written(&own));
    let Ok(processes) = fs::read_dir("/proc") else { return own };
    let others = processes.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("io")).ok());
    own + others.map(|text| written(&text)).sum::<u64>()
}

fn written(account: &str) -> u64 {
    let line = account.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|text| text.parse().ok()).unwrap_or(0)
}
