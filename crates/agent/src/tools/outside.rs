//! Paths outside the workspace that the gate let a call open.
//!
//! Each is reached name by name from the root. It had no link on its way when it was decided, so a link that is met
//! now came there since: what lies behind it was not decided, and is not opened.

use cap_std::fs::{Dir, File};
use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// A folder on the way, or at its end.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Something to be read. A pipe would keep whoever opens it waiting for a writer.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The file at a place, to be read.
pub(super) fn file(real: &str) -> Result<File> {
    let (folder, name) = apart(real, false)?;
    Ok(File::from_std(openat(&folder, name, READ, Mode::empty())?.into()))
}

/// The folder at a place, to be listed.
pub(super) fn folder(real: &str) -> Result<Dir> {
    let opened = match Path::new(real).file_name() {
        Some(_) => {
            let (folder, name) = apart(real, false)?;
            openat(&folder, name, READ.union(OFlags::DIRECTORY), Mode::empty())?
        }
        None => open("/", READ.union(OFlags::DIRECTORY), Mode::empty())?,
    };
    Ok(Dir::from_std_file(opened.into()))
}

/// The folder that a place lies in, and its name there; `makes`: folders that are not there are made.
pub(super) fn parent(real: &str, makes: bool) -> Result<(Dir, PathBuf)> {
    let (folder, name) = apart(real, makes)?;
    Ok((Dir::from_std_file(folder.into()), PathBuf::from(name)))
}

fn apart(real: &str, makes: bool) -> Result<(OwnedFd, &OsStr)> {
    let real = Path::new(real);
    let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
        return Err(ErrorKind::IsADirectory.into());
    };
    let mut folder = open("/", FOLDER, Mode::empty())?;
    for part in parent.components() {
        let Component::Normal(name) = part else { continue };
        folder = match openat(&folder, name, FOLDER, Mode::empty()) {
            Err(Errno::NOENT) if makes => {
                match mkdirat(&folder, name, Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO)) {
                    Ok(()) | Err(Errno::EXIST) => openat(&folder, name, FOLDER, Mode::empty()),
                    Err(error) => Err(error),
                }
            }
            opened => opened,
        }
        .map_err(Error::from)?;
    }
    Ok((folder, name))
}

/// Whether an error means that something else stands there than when the place was decided.
pub(super) fn has_moved(error: &Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_on_the_way_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path).display().to_string();
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/b/c.txt"), "c").unwrap();
        symlink(at("a"), at("link")).unwrap();
        symlink("c.txt", at("a/b/leaf")).unwrap();
        assert_eq!(std::io::read_to_string(file(&at("a/b/c.txt")).unwrap()).unwrap(), "c");
        assert_eq!(folder(&at("a/b")).unwrap().entries().unwrap().count(), 2);
        for moved in [file(&at("link/b/c.txt")), file(&at("a/b/leaf"))] {
            assert!(moved.is_err_and(|error| has_moved(&error)));
        }
        assert!(folder(&at("link")).is_err_and(|error| has_moved(&error)));
        assert!(parent(&at("link/new/x"), true).is_err_and(|error| has_moved(&error)));
        assert!(!root.join("a/new").exists(), "a folder was made behind a link");
        parent(&at("new/deep/x"), true).unwrap();
        assert!(root.join("new/deep").is_dir());
        assert!(folder("/").is_ok() && file("/").is_err());
    }
}
