//! A control group per run, where this user may make one: processes and memory of everything inside together.

use super::limits::Limits;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Prefix of the groups' directory names; the process that made one follows it.
const PREFIX: &str = "perilune-sandbox-";
/// Processes of the sandbox itself: two stages and the threads of the inner one.
const N_OWN_PROCESSES: u64 = 6;

static NEXT: AtomicU64 = AtomicU64::new(0);
/// Groups of this process that were not yet empty when they were let go.
static LEFT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The directories of one run's group, one per hierarchy; removed when dropped.
pub(super) struct ControlGroup {
    dirs: Vec<PathBuf>,
}

impl ControlGroup {
    /// Make the group; `None` where processes cannot be bounded that way by this user.
    pub(super) fn make(limits: &Limits) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let pids = make_one(&own, &mounts, "pids")?;
        let mut group = Self { dirs: vec![pids] };
        write(&group.dirs[0], "pids.max", limits.n_processes + N_OWN_PROCESSES)?;
        if group.dirs[0].join("memory.max").exists() {
            write(&group.dirs[0], "memory.max", limits.memory_bytes)?;
        } else if let Some(memory) = make_one(&own, &mounts, "memory") {
            write(&memory, "memory.limit_in_bytes", limits.memory_bytes);
            group.dirs.push(memory);
        }
        Some(group)
    }

    /// Files to which a process writes `0` to join.
    pub(super) fn procs(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.join("cgroup.procs")).collect()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let kept = self.dirs.drain(..).filter(|dir| fs::remove_dir(dir).is_err());
        LEFT.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
    }
}

fn write(dir: &Path, file: &str, value: u64) -> Option<()> {
    fs::write(dir.join(file), value.to_string()).ok()
}

/// A new directory below our own group in the hierarchy that has `controller`, version 1 or 2.
fn make_one(own: &str, mounts: &str, controller: &str) -> Option<PathBuf> {
    let parent = own_dir(own, mounts, controller)?;
    sweep(&parent);
    let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = parent.join(name);
    fs::create_dir(&dir).ok()?;
    if controller == "pids" && !dir.join("pids.max").exists() {
        let _ = fs::remove_dir(&dir);
        return None;
    }
    Some(dir)
}

/// Remove what is left of earlier runs, ours and those of processes that are gone; a group in use cannot be removed.
fn sweep(parent: &Path) {
    LEFT.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .retain(|dir| dir.exists() && fs::remove_dir(dir).is_err());
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let maker =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Directory of this process's own group in the hierarchy of `controller`.
fn own_dir(own: &str, mounts: &str, controller: &str) -> Option<PathBuf> {
    let rows = || own.lines().filter_map(|row| row.split_once(':')?.1.split_once(':'));
    let of_v1 = rows().find(|(names, _)| names.split(',').any(|name| name == controller));
    let (path, is_v1) = match of_v1 {
        Some((_, path)) => (path, true),
        None => (rows().find(|(names, _)| names.is_empty())?.1, false),
    };
    let mount = mounts.lines().find_map(|row| mount_point(row, controller, is_v1))?;
    Some(mount.join(path.trim_start_matches('/')))
}

/// Mount point of the wanted hierarchy, if this row of the mount table is its whole tree.
fn mount_point(row: &str, controller: &str, is_v1: bool) -> Option<PathBuf> {
    let (left, right) = row.split_once(" - ")?;
    let (root, point) = (left.split(' ').nth(3)?, left.split(' ').nth(4)?);
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1)?);
    let fits = if is_v1 {
        kind == "cgroup" && options.split(',').any(|o| o == controller)
    } else {
        kind == "cgroup2"
    };
    (fits && root == "/").then(|| point.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let mounts = "1 2 0:5 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      3 2 0:6 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let dir = |own, controller| own_dir(own, mounts, controller);
        assert_eq!(dir("8:pids:/a\n0::/b\n", "pids"), Some("/sys/fs/cgroup/pids/a".into()));
        assert_eq!(dir("8:cpu:/a\n0::/b\n", "pids"), Some("/sys/fs/cgroup/unified/b".into()));
        assert_eq!(dir("8:memory:/a\n", "memory"), None);
    }
}
