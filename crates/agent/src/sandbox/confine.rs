//! What the process gives up about itself: descriptors, capabilities, resources, files.

use super::limits::Limits;
use super::view::{Access, DEVICES, SYSTEM, View};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::utsname::uname;
use nix::unistd::{close, sethostname, setsid};
use rustix::thread as caps;
use std::fs;
use std::os::fd::RawFd;
use std::path::Path;

/// Host name inside.
const HOST_NAME: &str = "sandbox";
/// Processes of the sandbox itself: its first process with its threads.
const N_OWN_PROCESSES: u64 = 5;
/// The newest Landlock interface whose rights are asked for; older kernels give what they have.
const LANDLOCK_ABI: ABI = ABI::V9;
/// Linux version since which every process namespace has a `pid_max` of its own.
const PID_MAX_SINCE: (u32, u32) = (6, 14);

/// Close every descriptor beyond the first three, and leave the session (and so the terminal) of the host.
///
/// # Errors
/// A sentence that says what the kernel refused.
pub(super) fn clean_start() -> Result<(), String> {
    let listed = fs::read_dir("/proc/self/fd").map_err(|error| format!("/proc/self/fd: {error}"))?;
    let fds = listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok());
    for fd in fds.collect::<Vec<_>>() {
        if fd > 2 && !is_close_on_exec(fd) {
            let _ = close(fd);
        }
    }
    setsid().map(drop).map_err(|errno| format!("setsid: {}", errno.desc()))
}

/// Our own descriptors close when the program is executed; what the host let slip does not.
fn is_close_on_exec(fd: RawFd) -> bool {
    let flags = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let octal = flags.lines().find_map(|line| line.strip_prefix("flags:"));
    octal
        .and_then(|text| u32::from_str_radix(text.trim(), 8).ok())
        .is_some_and(|bits| bits & 0o2_000_000 != 0)
}

/// The kernel kills this process when its parent dies.
pub(super) fn die_with_parent() -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)
}

pub(super) fn set_host_name() -> Result<(), String> {
    sethostname(HOST_NAME).map_err(|errno| format!("sethostname: {}", errno.desc()))
}

/// Whether writing `pid_max` in a process namespace leaves the host's alone.
pub(super) fn pid_max_is_per_namespace() -> bool {
    let Ok(name) = uname() else { return false };
    let release = name.release().to_string_lossy().into_owned();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= PID_MAX_SINCE
}

/// Hard limits of every process inside.
pub(super) fn limit_resources(limits: &Limits) -> Result<(), String> {
    let table = [
        (Resource::RLIMIT_CPU, limits.cpu_s),
        (Resource::RLIMIT_AS, limits.address_space_bytes),
        (Resource::RLIMIT_NPROC, limits.n_processes + N_OWN_PROCESSES),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NOFILE, limits.n_files),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
        (Resource::RLIMIT_MEMLOCK, 64 << 10),
    ];
    table.into_iter().try_for_each(|(resource, most)| {
        let (_, hard) = nix::sys::resource::getrlimit(resource).map_err(|errno| errno.desc().to_owned())?;
        let most = most.min(hard);
        setrlimit(resource, most, most).map_err(|errno| format!("{resource:?}: {}", errno.desc()))
    })
}

/// No privilege by executing a file, no capability left, none to be had again.
pub(super) fn drop_capabilities() -> Result<(), String> {
    let work = || -> rustix::io::Result<()> {
        caps::set_no_new_privs(true)?;
        caps::clear_ambient_capability_set()?;
        for one in caps::CapabilitySet::from_bits_retain(u64::MAX).iter() {
            drop_from_bounding_set(one)?;
        }
        let none = caps::CapabilitySet::empty();
        caps::set_capabilities(
            None,
            caps::CapabilitySets { effective: none, permitted: none, inheritable: none },
        )
    };
    work().map_err(|errno| format!("capabilities: {errno}"))
}

/// A user without capabilities cannot empty the bounding set, and with `no_new_privs` need not.
fn drop_from_bounding_set(one: caps::CapabilitySet) -> rustix::io::Result<()> {
    match caps::remove_capability_from_bounding_set(one) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => Ok(()),
        other => other,
    }
}

/// Which files may be read, written and executed; no TCP port; signals and abstract sockets stay inside.
///
/// `rooted` says whether the paths are those of the sandbox's own root or, without one, the host's.
pub(super) fn landlock(view: &View, rooted: bool) -> Result<(), String> {
    let rules = || -> Result<RulesetStatus, landlock::RulesetError> {
        let ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(LANDLOCK_ABI))?
            .handle_access(AccessNet::from_all(LANDLOCK_ABI))?
            .scope(Scope::from_all(LANDLOCK_ABI))?
            .create()?;
        Ok(allow_files(ruleset, view, rooted)?.restrict_self()?.ruleset)
    };
    match rules() {
        Ok(RulesetStatus::NotEnforced) => {
            Err("this kernel has no Landlock, or it is not enabled at boot".into())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn allow_files(
    mut ruleset: RulesetCreated,
    view: &View,
    rooted: bool,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let read = AccessFs::from_read(LANDLOCK_ABI);
    let all = AccessFs::from_all(LANDLOCK_ABI) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let mut allow = |path: &Path, access: BitFlags<AccessFs>| -> Result<(), landlock::RulesetError> {
        let Ok(fd) = PathFd::new(path) else { return Ok(()) };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(LANDLOCK_ABI) };
        (&mut ruleset).add_rule(PathBeneath::new(fd, access)).map(drop)
    };
    for path in SYSTEM {
        allow(Path::new(path), read)?;
    }
    for (path, writable) in DEVICES {
        allow(
            Path::new(path),
            if writable { AccessFs::ReadFile | AccessFs::WriteFile } else { AccessFs::ReadFile.into() },
        )?;
    }
    for bind in view.binds() {
        let path = if rooted { &bind.inside } else { &bind.host };
        allow(path, if bind.access == Access::ReadWrite { all } else { read })?;
    }
    if rooted {
        // The root is the sandbox's own, so listing it and reading what it made tells nothing.
        allow(Path::new("/"), AccessFs::ReadDir.into())?;
        for path in ["/etc", "/proc"] {
            allow(Path::new(path), AccessFs::ReadFile | AccessFs::ReadDir)?;
        }
        for path in ["/tmp", "/dev/shm"] {
            allow(Path::new(path), all)?;
        }
    }
    Ok(ruleset)
}
