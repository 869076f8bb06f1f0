//! A root of its own: system directories read-only, the workspace, small devices and temporary files in memory.

use super::limits::{Limits, N_TMP_FILES};
use super::view::{Access, DEVICES, SYSTEM, WRITTEN};
use super::wire::Plan;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::pivot_root;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Where the new root grows before it becomes one; the host's directory is hidden under it for that while only.
const SCAFFOLD: &str = "/tmp";
/// The host's root while the new one grows.
const OLD: &str = "/old";
/// The new root while it grows.
const NEW: &str = "/new";
/// The file that stands in a hidden one's place, while it is put there.
const COVER: &str = "/.cover";
/// Size of the memory file system that holds directories, links and a few small files.
const ROOT_BYTES: u64 = 4 << 20;
/// The smallest `pid_max` that kernels accept.
const PID_MAX_MIN: u64 = 301;

const NOTHING: Option<&str> = None;

fn context(what: impl std::fmt::Display) -> impl FnOnce(nix::errno::Errno) -> String {
    move |errno| format!("{what}: {}", errno.desc())
}

fn io_context(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// Cut the propagation of mounts between the host and this namespace, in both directions.
pub(super) fn private() -> Result<(), String> {
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
        .map_err(context("private mounts"))
}

/// Build the new root and move into it; the host's root is unmounted.
pub(super) fn build(plan: &Plan, bound_by_pid_max: bool) -> Result<(), String> {
    move_to_scaffold()?;
    for path in SYSTEM {
        bind_system(Path::new(path))?;
    }
    for bind in plan.view.binds() {
        bind_path(&bind.host, &bind.inside, bind.access)?;
    }
    hide(&plan.view.hidden())?;
    write_etc()?;
    devices(&plan.limits)?;
    memory_dir("/tmp", &plan.limits)?;
    process_files(&plan.limits, bound_by_pid_max)?;
    leave_host()
}

fn tmpfs(target: &Path, flags: MsFlags, options: &str) -> Result<(), String> {
    mount(Some("tmpfs"), target, Some("tmpfs"), flags | MsFlags::MS_NOSUID, Some(options))
        .map_err(context(format!("tmpfs on {}", target.display())))
}

/// Make a memory file system the root, with the host's root under [`OLD`] and a mount point at [`NEW`].
fn move_to_scaffold() -> Result<(), String> {
    let scaffold = Path::new(SCAFFOLD);
    tmpfs(scaffold, MsFlags::MS_NODEV, &format!("mode=755,size={ROOT_BYTES}"))?;
    for dir in [OLD, NEW] {
        fs::create_dir(scaffold.join(&dir[1..])).map_err(io_context(dir))?;
    }
    pivot_root(scaffold, &scaffold.join(&OLD[1..])).map_err(context("pivot_root"))?;
    std::env::set_current_dir("/").map_err(io_context("/"))?;
    tmpfs(Path::new(NEW), MsFlags::MS_NODEV, &format!("mode=755,size={ROOT_BYTES}"))
}

fn below(base: &str, path: &Path) -> PathBuf {
    Path::new(base).join(path.strip_prefix("/").unwrap_or(path))
}

fn bind_system(path: &Path) -> Result<(), String> {
    let source = below(OLD, path);
    match fs::symlink_metadata(&source) {
        Err(_) => Ok(()),
        Ok(meta) if meta.is_symlink() => {
            let target = below(NEW, path);
            let link = fs::read_link(&source).map_err(io_context(path.display()))?;
            make_parent(&target)?;
            symlink(link, &target).map_err(io_context(path.display()))
        }
        Ok(_) => bind_path(path, path, Access::ReadOnly),
    }
}

fn make_parent(target: &Path) -> Result<(), String> {
    let parent = target.parent().unwrap_or(Path::new(NEW));
    fs::create_dir_all(parent).map_err(io_context(parent.display()))
}

/// Bind a path of the host with all that is mounted below it: no set-user-id, no devices, and read-only unless asked.
fn bind_path(host: &Path, inside: &Path, access: Access) -> Result<(), String> {
    let (source, target) = (below(OLD, host), below(NEW, inside));
    let is_dir = fs::metadata(&source).map_err(io_context(host.display()))?.is_dir();
    make_parent(&target)?;
    let made = if is_dir { fs::create_dir_all(&target) } else { fs::write(&target, "") };
    made.map_err(io_context(inside.display()))?;
    mount(Some(&source), &target, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING)
        .map_err(context(format!("binding {}", host.display())))?;
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    if access == Access::ReadOnly {
        flags |= MsFlags::MS_RDONLY;
    }
    mounts_from(&target)?.into_iter().try_for_each(|(path, kept)| remount(&path, flags | kept))
}

/// Put a file that nobody may open over each of these. What is covered cannot be renamed or removed, and a folder that
/// is renamed takes its covers along.
fn hide(files: &[PathBuf]) -> Result<(), String> {
    let cover = below(NEW, Path::new(COVER));
    for inside in files {
        let target = below(NEW, inside);
        if !target.is_file() {
            continue;
        }
        fs::write(&cover, "").map_err(io_context("hiding"))?;
        fs::set_permissions(&cover, fs::Permissions::from_mode(0o000)).map_err(io_context("hiding"))?;
        mount(Some(&cover), &target, NOTHING, MsFlags::MS_BIND, NOTHING)
            .map_err(context(format!("hiding {}", inside.display())))?;
        remount(&target, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
        fs::remove_file(&cover).map_err(io_context("hiding"))?;
    }
    Ok(())
}

fn remount(path: &Path, flags: MsFlags) -> Result<(), String> {
    mount(NOTHING, path, NOTHING, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, NOTHING)
        .map_err(context(format!("remounting {}", path.display())))
}

/// Mounts at or below `target`, each with the flags that may not be lost.
fn mounts_from(target: &Path) -> Result<Vec<(PathBuf, MsFlags)>, String> {
    let path = format!("{OLD}/proc/self/mountinfo");
    let table = fs::read(&path).map_err(io_context("mountinfo"))?;
    let rows = table.split(|&byte| byte == b'\n').filter_map(|row| {
        let mut fields = row.split(|&byte| byte == b' ').skip(4);
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&unescape(fields.next()?)));
        Some((path, kept_flags(fields.next()?)))
    });
    Ok(rows.filter(|(path, _)| path.starts_with(target)).collect())
}

fn kept_flags(options: &[u8]) -> MsFlags {
    let mut flags = MsFlags::empty();
    for option in options.split(|&byte| byte == b',') {
        flags |= match option {
            b"ro" => MsFlags::MS_RDONLY,
            b"noexec" => MsFlags::MS_NOEXEC,
            b"noatime" => MsFlags::MS_NOATIME,
            b"nodiratime" => MsFlags::MS_NODIRATIME,
            b"relatime" => MsFlags::MS_RELATIME,
            _ => MsFlags::empty(),
        };
    }
    flags
}

/// The mount table writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    bytes
}

fn write_etc() -> Result<(), String> {
    for (path, text) in WRITTEN {
        let target = below(NEW, Path::new(path));
        make_parent(&target)?;
        fs::write(&target, text).map_err(io_context(path))?;
    }
    Ok(())
}

fn devices(limits: &Limits) -> Result<(), String> {
    let dev = below(NEW, Path::new("/dev"));
    fs::create_dir_all(&dev).map_err(io_context("/dev"))?;
    for (path, _) in DEVICES {
        let (source, target) = (below(OLD, Path::new(path)), below(NEW, Path::new(path)));
        fs::write(&target, "").map_err(io_context(path))?;
        mount(Some(&source), &target, NOTHING, MsFlags::MS_BIND, NOTHING).map_err(context(path))?;
    }
    let links = [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")];
    for (name, target) in links {
        symlink(format!("/proc/self/{target}"), dev.join(name)).map_err(io_context(name))?;
    }
    memory_dir("/dev/shm", limits)
}

fn memory_dir(path: &str, limits: &Limits) -> Result<(), String> {
    let target = below(NEW, Path::new(path));
    fs::create_dir_all(&target).map_err(io_context(path))?;
    let options = format!("mode=1777,size={},nr_inodes={N_TMP_FILES}", limits.tmp_bytes);
    tmpfs(&target, MsFlags::MS_NODEV, &options)
}

/// A fresh `/proc` of this process namespace that shows processes only. Where the kernel refuses one there is none.
fn process_files(limits: &Limits, bound_by_pid_max: bool) -> Result<(), String> {
    let target = below(NEW, Path::new("/proc"));
    fs::create_dir_all(&target).map_err(io_context("/proc"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = |options| mount(Some("proc"), &target, Some("proc"), flags, options);
    if bound_by_pid_max {
        proc(NOTHING).map_err(context("/proc for pid_max"))?;
        let n = limits.n_processes.max(PID_MAX_MIN).to_string();
        let written = fs::write(target.join("sys/kernel/pid_max"), n);
        umount2(&target, MntFlags::MNT_DETACH).map_err(context("/proc for pid_max"))?;
        written.map_err(io_context("root is exempt from the process limit, and pid_max of a namespace"))?;
    }
    // Without a process namespace of its own a /proc would show the host's processes.
    if std::process::id() == 1 {
        let _ = proc(Some("subset=pid"));
    }
    Ok(())
}

/// Make [`NEW`] the root and let go of everything else.
fn leave_host() -> Result<(), String> {
    std::env::set_current_dir(NEW).map_err(io_context(NEW))?;
    pivot_root(".", ".").map_err(context("pivot_root"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(context("unmounting the host's root"))?;
    std::env::set_current_dir("/").map_err(io_context("/"))?;
    remount(Path::new("/"), MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_odd_names_are_read_back() {
        assert_eq!(unescape(br"/a\040b\134c\011"), b"/a b\\c\t");
        assert_eq!(unescape(br"/a\9z"), br"/a\9z");
    }

    #[test]
    fn flags_that_are_locked_are_kept() {
        let kept = kept_flags(b"rw,nosuid,noexec,relatime");
        assert_eq!(kept, MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME);
        assert_eq!(kept_flags(b"ro"), MsFlags::MS_RDONLY);
    }
}
