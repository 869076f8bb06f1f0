//! What this machine offers: memory, disk space, the user's folders.

use anyhow::Context;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Memory that this process may use, bytes: the machine's (`MemTotal` of proc_meminfo(5)), or less where a control group
/// of version 2 says so (`memory.max`).
///
/// # Errors
/// The system does not say.
pub(crate) fn ram_bytes() -> anyhow::Result<u64> {
    let total = read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| parse_meminfo(&text))
        .context("this machine's memory is not known; say it with --ram SIZE")?;
    Ok(group_limits().into_iter().fold(total, u64::min))
}

/// Memory that this process could take now, bytes: what the machine has to give (`MemAvailable`), or less where a control
/// group says so; `None` where the system does not say.
pub(crate) fn available_bytes() -> Option<u64> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let free = field(&text, "MemAvailable:")?;
    Some(group_limits().into_iter().fold(free, u64::min))
}

/// `MemTotal` of `/proc/meminfo`, bytes.
fn parse_meminfo(text: &str) -> Option<u64> {
    field(text, "MemTotal:")
}

/// A line of `/proc/meminfo`, bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// `memory.max` of this process's control group (version 2) and of every group around it, bytes.
fn group_limits() -> Vec<u64> {
    let Ok(text) = read_to_string("/proc/self/cgroup") else { return Vec::new() };
    let Some(group) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return Vec::new() };
    let folder = PathBuf::from("/sys/fs/cgroup").join(group);
    folder
        .ancestors()
        .take_while(|folder| folder.starts_with("/sys/fs/cgroup"))
        .filter_map(|folder| read_to_string(folder.join("memory.max")).ok()?.trim().parse().ok())
        .collect()
}

/// Bytes that can be written under `path`, which need not exist yet; `None` where the system does not say.
pub(crate) fn free_bytes(path: &Path) -> Option<u64> {
    let absolute = std::path::absolute(path).ok()?;
    let existing = absolute.ancestors().find(|ancestor| ancestor.is_dir())?;
    let stats = rustix::fs::statvfs(existing).ok()?;
    stats.f_bavail.checked_mul(stats.f_frsize)
}

/// Perilune's folder beneath the one that an environment variable names by its whole path, else beneath a folder of the
/// user's home (XDG Base Directory Specification); `None` where neither is known.
pub(crate) fn user_folder(variable: &str, in_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute(variable).or_else(|| Some(absolute("HOME")?.join(in_home)))?;
    Some(base.join("perilune"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_kibibytes() {
        assert_eq!(parse_meminfo("MemTotal:       24028192 kB\nMemFree: 1 kB\n"), Some(24_028_192 * 1024));
        assert_eq!(parse_meminfo("MemFree: 1 kB\n"), None);
        assert_eq!(parse_meminfo("MemTotal: many kB\n"), None);
    }

    #[test]
    fn a_folder_to_be_made_has_its_parents_space() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_bytes(&dir.path().join("not/yet")).is_some_and(|free| free > 0));
    }
}
