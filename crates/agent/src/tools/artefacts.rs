//! Secret values in the files that programs leave for people: taken out after each effect. A file that is as it was
//! when it was looked through is not read again.

use super::workspace::replace;
use crate::secrets::Secrets;
use cap_std::fs::{Dir, Metadata, MetadataExt, Permissions, PermissionsExt};
use std::collections::HashMap;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Files at most of which is known that they are clean; those over it are read each time.
const N_CLEAN_MAX: usize = 4_096;
/// Age of a change below which a file is read again, s: the system's stamps tell no two changes of one moment apart.
const RECENT_S: i64 = 2;

/// Files that hold no secret value, as they were when they were looked through. What a program changes without the
/// system's knowledge (through a mapping) is found by a look without it, which the end of a run takes.
#[derive(Default)]
pub(crate) struct Clean(HashMap<PathBuf, Stamp>);

#[cfg(test)]
impl Clean {
    /// As if the files in a folder had been looked through as they are.
    pub(crate) fn knowing(folder: &Path) -> Result<Self> {
        let dir = Dir::open_ambient_dir(folder, cap_std::ambient_authority())?;
        let stamp = |name: PathBuf| -> Result<(PathBuf, Stamp)> {
            let metadata = dir.metadata(&name)?;
            Ok((name, Stamp::of(&metadata)))
        };
        let names = dir.entries()?.map(|entry| entry.map(|entry| PathBuf::from(entry.file_name())));
        names.map(|name| name.and_then(stamp)).collect::<Result<_>>().map(Self)
    }
}

/// What tells a file's state from another one. No program in a sandbox can set the time of change.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    n_bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self { inode: metadata.ino(), n_bytes: metadata.size(), changed }
    }

    fn is_recent(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs().cast_signed());
        self.changed.0 > now - RECENT_S
    }
}

/// Looks through a folder; returns how many files were read.
pub(super) fn redact(dir: &Dir, secrets: &Secrets, clean: &mut Clean) -> Result<usize> {
    let mut look = Look { secrets, before: std::mem::take(&mut clean.0), after: HashMap::new(), n_read: 0 };
    look.folder(dir, Path::new(""))?;
    clean.0 = look.after;
    Ok(look.n_read)
}

struct Look<'a> {
    secrets: &'a Secrets,
    before: HashMap<PathBuf, Stamp>,
    after: HashMap<PathBuf, Stamp>,
    n_read: usize,
}

impl Look<'_> {
    fn folder(&mut self, dir: &Dir, at: &Path) -> Result<()> {
        for entry in dir.entries()? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            if self.secrets.is_in(name.as_encoded_bytes()) {
                if kind.is_dir() {
                    dir.remove_dir_all(&name)?
                } else {
                    dir.remove_file(&name)?
                };
            } else if kind.is_dir() {
                self.folder(&open_whole(dir, Path::new(&name))?, &at.join(&name))?;
            } else if kind.is_file() {
                self.file(dir, Path::new(&name), at.join(&name), Stamp::of(&entry.metadata()?))?;
            }
        }
        Ok(())
    }

    fn file(&mut self, dir: &Dir, name: &Path, path: PathBuf, stamp: Stamp) -> Result<()> {
        if self.before.get(&path) != Some(&stamp) {
            self.n_read += 1;
            match dir.read(name).map(|bytes| self.secrets.redact_bytes(&bytes)) {
                Ok(None) => {}
                Ok(Some(clean)) => return replace(dir, name, &clean),
                // What a program made unreadable cannot be looked through, so it does not stay.
                Err(_) => return dir.remove_file(name),
            }
        }
        if !stamp.is_recent() && self.after.len() < N_CLEAN_MAX {
            self.after.insert(path, stamp);
        }
        Ok(())
    }
}

/// Opens a folder to look through and to change: one that a program has closed must not end the run.
pub(super) fn open_whole(dir: &Dir, name: &Path) -> Result<Dir> {
    if dir.metadata(name)?.permissions().mode() & 0o700 != 0o700 {
        dir.set_permissions(name, Permissions::from_mode(0o700))?;
    }
    dir.open_dir(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_std::ambient_authority;

    #[test]
    fn a_file_is_read_again_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        let secrets = Secrets::new([("TOKEN", "tok-0123456789")]).unwrap();
        let mut clean = Clean::default();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        for name in ["a", "b", "deep/c"] {
            std::fs::write(folder.path().join(name), "plain").unwrap();
        }
        let look = |clean: &mut Clean| redact(&dir, &secrets, clean).unwrap();
        assert_eq!((look(&mut clean), look(&mut clean)), (3, 3), "what changed just now is read again");
        // As if it had been long ago: the time of change cannot be set.
        let known = |name: &str| Stamp::of(&dir.metadata(name).unwrap());
        let all = ["a", "b", "deep/c"].map(|name| (PathBuf::from(name), known(name)));
        clean.0 = all.into_iter().collect();
        let before = clean.0.clone();
        assert_eq!(look(&mut clean), 0);
        clean.0 = before;
        std::fs::write(folder.path().join("deep/c"), "it is tok-0123456789").unwrap();
        assert_eq!(look(&mut clean), 1);
        let left = std::fs::read_to_string(folder.path().join("deep/c")).unwrap();
        assert_eq!(left, "it is [secret TOKEN]");
        assert_eq!(look(&mut Clean::default()), 3);
    }
}
