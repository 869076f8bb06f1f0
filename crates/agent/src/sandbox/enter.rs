//! Our own binary, executed again: the outer stage unshares, the inner stage is the first process inside.

use super::layers::{Layer, Layers};
use super::wire::{Outer, Plan, RESERVED, Report, kind, read_message, send_report};
use super::{confine, init, root};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use rustix::thread as caps;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio, exit};

/// Id of user and group inside.
const ID_INSIDE: u32 = 1000;
/// Exit status of a stage that could not do its part; its report says why.
const EXIT_FAILED: i32 = 125;

/// If this process was executed as a sandbox, be one and never return; otherwise do nothing.
///
/// The first line of `main` in every binary that starts sandboxes: before any thread, runtime or parser of flags.
pub fn enter_if_asked() {
    let args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).map(OsString::as_os_str) != Some(OsStr::new(RESERVED)) {
        return;
    }
    match args.get(2).and_then(|stage| stage.to_str()) {
        Some("outer") => outer(),
        Some("inner") => inner(args.get(3).and_then(|list| list.to_str()).unwrap_or_default()),
        _ => exit(EXIT_FAILED),
    }
}

/// The layers that stand, and the socket over which the host hears of those that do not.
pub(super) struct Standing {
    layers: Layers,
    missing: Vec<Layer>,
    control: UnixStream,
}

impl Standing {
    /// Whether `layer` is wanted and has not been refused.
    pub(super) fn has(&self, layer: Layer) -> bool {
        self.layers.wants(layer) && !self.missing.contains(&layer)
    }

    /// Put up `layer` if it is wanted. Where that fails the host is told, and unless the layer may be missing
    /// this process ends.
    pub(super) fn raise(&mut self, layer: Layer, work: impl FnOnce() -> Result<(), String>) {
        if !self.has(layer) {
            return;
        }
        let Err(why) = work() else { return };
        if self.layers.tolerates(layer) {
            send_report(&mut self.control, &Report::Missing { layer, why });
            self.missing.push(layer);
        } else {
            send_report(&mut self.control, &Report::Refused { layer, why });
            exit(EXIT_FAILED);
        }
    }

    /// Tell the host that nothing will run, and end.
    pub(super) fn give_up(&mut self, why: String) -> ! {
        send_report(&mut self.control, &Report::NotStarted { why });
        exit(EXIT_FAILED)
    }
}

/// Standard input is the socket to the host, in both stages.
fn control() -> UnixStream {
    match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(_) => exit(EXIT_FAILED),
    }
}

fn outer() -> ! {
    let mut control = control();
    let Ok(outer) = read_message::<Outer>(&mut control, kind::OUTER) else { exit(EXIT_FAILED) };
    let mut standing = Standing { layers: outer.layers.clone(), missing: Vec::new(), control };
    standing.raise(Layer::CleanStart, confine::clean_start);
    standing.raise(Layer::ControlGroup, || join(&outer));
    standing.raise(Layer::UserNamespace, unshare_user);
    // Mounts of the host must never hear of ours, so private propagation comes with the namespace itself.
    standing
        .raise(Layer::MountNamespace, || unshare_one(CloneFlags::CLONE_NEWNS).and_then(|()| root::private()));
    for (layer, flag) in [
        (Layer::PidNamespace, CloneFlags::CLONE_NEWPID),
        (Layer::NetworkNamespace, CloneFlags::CLONE_NEWNET),
        (Layer::IpcNamespace, CloneFlags::CLONE_NEWIPC),
        (Layer::UtsNamespace, CloneFlags::CLONE_NEWUTS),
        (Layer::CgroupNamespace, CloneFlags::CLONE_NEWCGROUP),
    ] {
        standing.raise(layer, || unshare_one(flag));
    }
    start_inner(standing)
}

fn join(outer: &Outer) -> Result<(), String> {
    if outer.cgroup_procs.is_empty() {
        return Err("this user may make no control group for processes".into());
    }
    outer.cgroup_procs.iter().try_for_each(|path| {
        fs::write(path, "0").map_err(|error| format!("writing {}: {error}", path.display()))
    })
}

fn unshare_one(flag: CloneFlags) -> Result<(), String> {
    unshare(flag).map_err(|errno| match errno {
        // Of a disk, its own words would say.
        Errno::ENOSPC => "unshare: the system's limit on such namespaces is reached".to_owned(),
        other => format!("unshare: {}", other.desc()),
    })
}

/// Become an ordinary user of a new user namespace, with all capabilities in it and none outside.
fn unshare_user() -> Result<(), String> {
    let (uid, gid) = (geteuid(), getegid());
    unshare_one(CloneFlags::CLONE_NEWUSER).map_err(|why| format!("{why}; {}", user_namespace_hint()))?;
    let write = |path: &str, text: String| fs::write(path, text).map_err(|error| format!("{path}: {error}"));
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("{ID_INSIDE} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{ID_INSIDE} {gid} 1"))?;
    keep_capabilities_over_exec().map_err(|errno| format!("ambient capabilities: {errno}"))
}

fn user_namespace_hint() -> &'static str {
    "see sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns"
}

/// The inner stage mounts, so it needs what this stage holds; it drops everything before the program starts.
fn keep_capabilities_over_exec() -> rustix::io::Result<()> {
    let mut sets = caps::capabilities(None)?;
    sets.inheritable = sets.permitted;
    caps::set_capabilities(None, sets)?;
    sets.permitted.iter().try_for_each(|one| caps::configure_capability_in_ambient_set(one, true))
}

/// Execute the inner stage as the first process of the new process namespace, and wait for its end.
fn start_inner(mut standing: Standing) -> ! {
    let missing: Vec<_> = standing.missing.iter().map(|layer| layer.name()).collect();
    let socket = standing.control.try_clone();
    let child = socket.and_then(|socket| {
        let mut command = Command::new("/proc/self/exe");
        command.args([RESERVED, "inner", &missing.join(",")]);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(socket))).spawn()
    });
    match child.and_then(|mut child| child.wait()) {
        Ok(_) => exit(0),
        Err(error) => standing.give_up(format!("the first process inside cannot be started: {error}")),
    }
}

fn inner(missing: &str) -> ! {
    let mut control = control();
    if confine::die_with_parent().is_err() {
        exit(EXIT_FAILED);
    }
    let Ok(plan) = read_message::<Plan>(&mut control, kind::PLAN) else { exit(EXIT_FAILED) };
    let missing =
        Layer::ALL.into_iter().filter(|l| missing.split(',').any(|name| name == l.name())).collect();
    let mut standing = Standing { layers: plan.layers.clone(), missing, control };
    standing.raise(Layer::UtsNamespace, confine::set_host_name);
    if let Some(why) = process_bound_fault(&plan, &standing) {
        standing.raise(Layer::ResourceLimits, || Err(why));
    }
    let bound_by_pid_max = bounds_by_pid_max(&plan, &standing);
    standing.raise(Layer::MountNamespace, || root::build(&plan, bound_by_pid_max));
    standing.raise(Layer::ResourceLimits, || confine::limit_resources(&plan.limits));
    standing.raise(Layer::Capabilities, confine::drop_capabilities);
    let rooted = standing.has(Layer::MountNamespace);
    standing.raise(Layer::Landlock, || confine::landlock(&plan.view, rooted));
    standing.raise(Layer::Seccomp, super::filter::install);
    init::run(plan, standing)
}

/// Root's processes escape RLIMIT_NPROC, so without a control group the process namespace's `pid_max` bounds them.
/// Only a namespace that has a `pid_max` of its own is touched.
fn bounds_by_pid_max(plan: &Plan, standing: &Standing) -> bool {
    process_limit_is_open(plan, standing) && namespaces_for_pid_max(standing)
}

fn process_limit_is_open(plan: &Plan, standing: &Standing) -> bool {
    plan.root_outside
        && standing.has(Layer::ResourceLimits)
        && !(plan.in_cgroup && standing.has(Layer::ControlGroup))
}

fn namespaces_for_pid_max(standing: &Standing) -> bool {
    standing.has(Layer::PidNamespace)
        && standing.has(Layer::MountNamespace)
        && confine::pid_max_is_per_namespace()
}

/// Why the number of processes cannot be held, unless the caller gave up the namespaces that would hold it.
fn process_bound_fault(plan: &Plan, standing: &Standing) -> Option<String> {
    let wanted = plan.layers.wants(Layer::PidNamespace) && plan.layers.wants(Layer::MountNamespace);
    (wanted && process_limit_is_open(plan, standing) && !namespaces_for_pid_max(standing)).then(|| {
        "the kernel exempts root from the process limit; run as another user or where control groups can be made"
            .to_owned()
    })
}

impl Standing {
    /// Part with the socket, for the first process inside to serve.
    pub(super) fn into_control(self) -> UnixStream {
        self.control
    }
}
