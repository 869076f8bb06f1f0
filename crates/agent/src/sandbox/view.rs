//! What of the file system can be seen from inside.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Path of the workspace inside.
pub const WORKSPACE: &str = "/workspace";

/// System directories and files that programs need, read-only. A link is made again as a link.
pub(super) const SYSTEM: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
];

/// Device files: path, and whether it may be written.
pub(super) const DEVICES: [(&str, bool); 5] = [
    ("/dev/null", true),
    ("/dev/zero", true),
    ("/dev/full", true),
    ("/dev/random", false),
    ("/dev/urandom", false),
];

/// Files that exist inside only: path and content. No account of the host is told.
pub(super) const WRITTEN: [(&str, &str); 4] = [
    ("/etc/passwd", "root:x:0:0::/:/bin/false\nsandbox:x:1000:1000::/tmp:/bin/sh\n"),
    ("/etc/group", "root:x:0:\nsandbox:x:1000:\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// What may be done with a bound path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Reading and executing.
    ReadOnly,
    /// Reading, executing and writing.
    ReadWrite,
}

/// One path of the host, at its place inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Absolute path outside.
    pub host: PathBuf,
    /// Absolute path inside.
    pub inside: PathBuf,
    /// What may be done with it.
    pub access: Access,
}

/// Everything visible beside the system directories: the workspace first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    binds: Vec<Bind>,
    hidden: Vec<PathBuf>,
}

impl View {
    /// The workspace at [`WORKSPACE`].
    pub fn new(workspace: &Path, access: Access) -> Self {
        let bind = Bind { host: workspace.to_owned(), inside: WORKSPACE.into(), access };
        Self { binds: vec![bind], hidden: Vec::new() }
    }

    /// The same with one more path of the host, visible at `inside`; both absolute and without `..`, or nothing runs.
    #[must_use]
    pub fn with(mut self, host: &Path, inside: &Path, access: Access) -> Self {
        self.binds.push(Bind { host: host.to_owned(), inside: inside.to_owned(), access });
        self
    }

    /// The same with a file of the host that can be neither read nor written inside, where a bound path shows it.
    #[must_use]
    pub fn hide(mut self, host: &Path) -> Self {
        self.hidden.push(host.to_owned());
        self
    }

    /// The paths inside of hidden files.
    pub(super) fn hidden(&self) -> Vec<PathBuf> {
        let places = |host: &PathBuf| -> Vec<PathBuf> {
            let inside = |bind: &Bind| Some(bind.inside.join(host.strip_prefix(&bind.host).ok()?));
            self.binds.iter().filter_map(inside).collect()
        };
        self.hidden.iter().flat_map(places).collect()
    }

    /// All bound paths, the workspace first.
    pub fn binds(&self) -> &[Bind] {
        &self.binds
    }

    /// Path inside of a host path under one of the bound paths; `None` where it cannot be seen.
    pub fn inside(&self, host: &Path) -> Option<PathBuf> {
        self.binds.iter().find_map(|bind| Some(bind.inside.join(host.strip_prefix(&bind.host).ok()?)))
    }

    /// The same with every link in the host's paths followed, as far as they exist.
    pub(super) fn resolved(&self) -> Self {
        let binds = self.binds.iter().cloned().map(|bind| {
            let host = bind.host.canonicalize().unwrap_or(bind.host);
            Bind { host, ..bind }
        });
        let hidden = self.hidden.iter().map(|host| host.canonicalize().unwrap_or_else(|_| host.clone()));
        Self { binds: binds.collect(), hidden: hidden.collect() }
    }

    /// The first bound path that cannot be one: relative, with `..`, the root itself, or over a system path.
    pub(super) fn fault(&self) -> Option<String> {
        self.binds.iter().find_map(|bind| {
            let plain = |path: &Path| {
                path.is_absolute()
                    && !path.components().any(|c| c.as_os_str() == "..")
                    && path != Path::new("/")
            };
            if !plain(&bind.host) || !plain(&bind.inside) {
                return Some(format!("{} is no absolute path below the root", bind.host.display()));
            }
            let mut reserved = SYSTEM.iter().copied().chain(["/dev", "/proc", "/tmp", "/etc"]);
            let covers = reserved.find(|path| Path::new(path).starts_with(&bind.inside));
            covers.map(|path| format!("{} inside would hide {path}", bind.inside.display()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_translate_and_faults_are_named() {
        let view = View::new(Path::new("/srv/job"), Access::ReadWrite);
        assert_eq!(view.inside(Path::new("/srv/job/a/b")), Some("/workspace/a/b".into()));
        assert_eq!(view.inside(Path::new("/srv/jobs")), None);
        let hiding = view.clone().hide(Path::new("/srv/job/.env")).hide(Path::new("/srv/jobs/.env"));
        assert_eq!(hiding.hidden(), [Path::new("/workspace/.env")]);
        assert_eq!(view.fault(), None);
        for (host, inside) in [("job", "/x"), ("/a/../b", "/x"), ("/", "/x"), ("/a", "/usr"), ("/a", "/etc")]
        {
            let view = view.clone().with(Path::new(host), Path::new(inside), Access::ReadOnly);
            assert!(view.fault().is_some(), "{host} at {inside}");
        }
    }
}
