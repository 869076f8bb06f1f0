//! The folder a run works in, as a handle: no path leads out of it, whatever links stand in it.
//!
//! Paths that begin with [`OWN_FOLDER`] lead to the run's own folder, which lies elsewhere: there are the
//! results that were cut, the calls that were folded, artefacts. It is not listed, and tools cannot write to it.
//!
//! The one way out is a path that the gate let a call open ([`Outside`]): that path, for that call.

use super::artefacts::{self, Clean, open_whole};
use super::near::nearest;
use super::outside;
use crate::gate::{Access, Outside};
use crate::secrets::Secrets;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use std::io::{ErrorKind, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the run's own folder is called in paths.
pub const OWN_FOLDER: &str = ".perilune";
/// Folder beneath it where programs leave files for people.
pub(crate) const ARTEFACTS: &str = "artefacts";
/// Most entries of a folder that are compared with a name that is not there.
const N_NEAR_MAX: usize = 10_000;
/// Suffix of a file that is not yet whole.
const PARTIAL_SUFFIX: &str = ".perilune-partial";

/// Why a path cannot be used. The sentence is for the model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WorkspaceError {
    /// The path leads out.
    #[error("{path} lies outside the workspace; use a path inside it")]
    Outside {
        /// As the model wrote it.
        path: String,
    },
    /// Something else is there than when the path was allowed.
    #[error("{path} leads elsewhere now than when it was allowed; make the call again")]
    Moved {
        /// As the model wrote it.
        path: String,
    },
    /// Nothing is there.
    #[error("{path} does not exist; see {}", near.as_ref().map_or("list_files".to_owned(), |it| format!("{it}, the nearest name")))]
    Missing {
        /// As the model wrote it.
        path: String,
        /// The path beside it that was probably meant.
        near: Option<String>,
    },
    /// A folder where a file is needed.
    #[error("{path} is a folder; name a file in it")]
    IsFolder {
        /// As the model wrote it.
        path: String,
    },
    /// A file where a folder is needed.
    #[error("{path} is a file, not a folder")]
    IsFile {
        /// As the model wrote it.
        path: String,
    },
    /// The run's own folder.
    #[error("{path} belongs to the run and cannot be changed; use another path")]
    Own {
        /// As the model wrote it.
        path: String,
    },
    /// Not text.
    #[error("{path} is not UTF-8 text; it cannot be read as lines")]
    NotText {
        /// As the model wrote it.
        path: String,
    },
    /// Too large.
    #[error("{path} has {bytes} bytes, more than the {limit} that can be read at once")]
    TooLarge {
        /// As the model wrote it.
        path: String,
        /// Size of the file, bytes.
        bytes: u64,
        /// Bytes that may be read.
        limit: u64,
    },
    /// Everything else.
    #[error("{path}: {problem}")]
    Io {
        /// As the model wrote it.
        path: String,
        /// The system's words.
        problem: String,
    },
}

/// The folder a run works in. Clones are the same folder.
#[derive(Clone)]
pub struct Workspace {
    root: Arc<Dir>,
    root_path: PathBuf,
    own: Option<Arc<Dir>>,
    outside: Arc<[Outside]>,
}

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) is_folder: bool,
}

/// A path inside: which handle, and the way beneath it.
struct Place<'a> {
    dir: &'a Dir,
    beneath: PathBuf,
    is_own: bool,
}

impl Workspace {
    /// Opens a folder; relative paths are taken from the process's own folder.
    ///
    /// # Errors
    /// The system's, where the folder cannot be opened.
    pub fn open(root: &Path) -> std::io::Result<Self> {
        let dir = Dir::open_ambient_dir(root, ambient_authority())?;
        Ok(Self {
            root: Arc::new(dir),
            root_path: std::path::absolute(root)?,
            own: None,
            outside: Arc::default(),
        })
    }

    /// The same workspace with the run's own folder, made where it is missing.
    ///
    /// # Errors
    /// The system's, where the folder cannot be made or opened.
    pub fn with_own_folder(mut self, own: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(own)?;
        self.own = Some(Arc::new(Dir::open_ambient_dir(own, ambient_authority())?));
        Ok(self)
    }

    /// The same workspace for one call, which may open these paths outside.
    #[must_use]
    pub(super) fn with_outside(&self, outside: &[Outside]) -> Self {
        Self { outside: outside.into(), ..self.clone() }
    }

    /// Whether a path, as it was written or as it leads, is one outside that may be opened. What may be written may
    /// be read too: a change needs the content.
    pub(super) fn outside(&self, path: &str, access: Access) -> Option<&Outside> {
        let is_it = |it: &&Outside| it.path == path || it.real == path;
        let may = |it: &&Outside| access == Access::Read || it.access == Access::Write;
        self.outside.iter().filter(is_it).find(may)
    }

    /// Absolute path of the folder; links in it are kept.
    #[must_use]
    pub fn root_path(&self) -> &Path {
        &self.root_path
    }

    /// A path's short form: relative, without `.` and detours; outside, where it leads. It is how [`super::Seen`] knows files.
    ///
    /// # Errors
    /// [`WorkspaceError::Outside`]: the path leads out by its own words.
    pub fn relative(&self, path: &str) -> Result<String, WorkspaceError> {
        if let Some(outside) = self.outside(path, Access::Read) {
            return Ok(outside.real.clone());
        }
        let outside = || WorkspaceError::Outside { path: path.to_owned() };
        let given = Path::new(path);
        let given = match given.strip_prefix(&self.root_path) {
            Ok(beneath) => beneath,
            Err(_) => given,
        };
        let mut parts: Vec<&str> = Vec::new();
        for component in given.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(part) => parts.push(part.to_str().ok_or_else(outside)?),
                Component::ParentDir => drop(parts.pop().ok_or_else(outside)?),
                Component::RootDir | Component::Prefix(_) => return Err(outside()),
            }
        }
        Ok(if parts.is_empty() { ".".to_owned() } else { parts.join("/") })
    }

    /// A file's bytes.
    ///
    /// # Errors
    /// [`WorkspaceError`]: no such file inside, no ordinary file, or one of more than `bytes_max` bytes.
    pub fn read(&self, path: &str, bytes_max: u64) -> Result<Vec<u8>, WorkspaceError> {
        let failed = |error| explain(path, &error);
        let mut file = match self.outside(path, Access::Read) {
            Some(outside) => outside::file(&outside.real).map_err(|error| explain_outside(path, &error))?,
            None => {
                let place = self.place(path)?;
                // A pipe would keep whoever opens it waiting for a writer.
                let options = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).clone();
                place.dir.open_with(&place.beneath, &options).map_err(failed)?
            }
        };
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(WorkspaceError::IsFolder { path: path.to_owned() });
        }
        if !metadata.is_file() {
            let problem = "is not an ordinary file".to_owned();
            return Err(WorkspaceError::Io { path: path.to_owned(), problem });
        }
        let mut bytes = Vec::new();
        let n_read =
            Read::by_ref(&mut file).take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)? as u64;
        if n_read > bytes_max {
            let bytes = metadata.len().max(n_read);
            return Err(WorkspaceError::TooLarge { path: path.to_owned(), bytes, limit: bytes_max });
        }
        Ok(bytes)
    }

    /// A file's text.
    ///
    /// # Errors
    /// As [`Workspace::read`], or [`WorkspaceError::NotText`] where the file is not UTF-8.
    pub fn read_text(&self, path: &str, bytes_max: u64) -> Result<String, WorkspaceError> {
        let bytes = self.read(path, bytes_max)?;
        String::from_utf8(bytes).map_err(|_| WorkspaceError::NotText { path: path.to_owned() })
    }

    /// Replaces a file as a whole, folders made on the way: a reader sees the old content or the new one.
    ///
    /// # Errors
    /// [`WorkspaceError`]: the path leads out, is the run's own, or cannot be written; the old content stays.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<(), WorkspaceError> {
        if let Some(outside) = self.outside(path, Access::Write) {
            let opened = outside::parent(&outside.real, true);
            let written = opened.and_then(|(dir, name)| replace(&dir, &name, content));
            return written.map_err(|error| explain_outside(path, &error));
        }
        let place = self.place(path)?;
        if place.is_own {
            return Err(WorkspaceError::Own { path: path.to_owned() });
        }
        replace(place.dir, &place.beneath, content).map_err(|error| explain(path, &error))
    }

    /// Removes what processes left half written of a file when they died. What it cannot remove stays.
    pub(crate) fn sweep(&self, path: &str) {
        if let Some(outside) = self.outside(path, Access::Write) {
            if let Ok((dir, name)) = outside::parent(&outside.real, false) {
                sweep_beside(&dir, &name);
            }
        } else if let Ok(place) = self.place(path) {
            sweep_beside(place.dir, &place.beneath);
        }
    }

    /// Replaces a file of the run's own folder; `path` is beneath [`OWN_FOLDER`]. Without such a folder nothing is kept.
    ///
    /// # Errors
    /// The system's, where it cannot be written.
    pub fn write_own(&self, path: &str, content: &[u8]) -> std::io::Result<()> {
        match &self.own {
            Some(own) => replace(own, Path::new(path), content),
            None => Ok(()),
        }
    }

    /// Appends to a file of the run's own folder, as [`Workspace::write_own`].
    ///
    /// # Errors
    /// The system's, where it cannot be written.
    pub fn append_own(&self, path: &str, content: &[u8]) -> std::io::Result<()> {
        let Some(own) = &self.own else { return Ok(()) };
        let mut file = own.open_with(path, OpenOptions::new().create(true).append(true))?;
        file.write_all(content)
    }

    /// Takes secret values out of the files of a folder of the run's own, and files away whose names hold one; those
    /// that are `clean` are passed over.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub(crate) fn redact_own(
        &self,
        folder: &str,
        secrets: &Secrets,
        clean: &mut Clean,
    ) -> std::io::Result<()> {
        let Some(own) = self.own.as_deref().filter(|_| !secrets.is_empty()) else { return Ok(()) };
        match open_whole(own, Path::new(folder)) {
            Ok(dir) => artefacts::redact(&dir, secrets, clean).map(drop),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Entries of a folder, by name.
    ///
    /// # Errors
    /// No such folder inside.
    pub(super) fn entries(&self, path: &str) -> Result<Vec<Entry>, WorkspaceError> {
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::NotADirectory => WorkspaceError::IsFile { path: path.to_owned() },
            _ => explain(path, &error),
        };
        let found = match self.outside(path, Access::Read) {
            Some(outside) => outside::folder(&outside.real).and_then(|dir| dir.entries()),
            None => {
                let place = self.place(path)?;
                place.dir.read_dir(&place.beneath)
            }
        };
        let mut entries = Vec::new();
        for entry in found.map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(PARTIAL_SUFFIX) {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                entries.push(Entry { name, is_folder });
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// The path whose every part is there, or is the nearest of what stands in its folder; `None`: there is no such one.
    pub(super) fn near(&self, path: &str) -> Option<String> {
        let place = self.place(path).ok().filter(|place| !place.is_own)?;
        let mut near = PathBuf::new();
        for part in place.beneath.iter() {
            if place.dir.symlink_metadata(near.join(part)).is_ok() {
                near.push(part);
                continue;
            }
            let folder = if near.as_os_str().is_empty() { Path::new(".") } else { &near };
            let found = place.dir.read_dir(folder).ok()?.flatten().take(N_NEAR_MAX);
            let names: Vec<String> = found.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            let names = names.iter().map(String::as_str).filter(|name| !name.ends_with(PARTIAL_SUFFIX));
            near.push(nearest(part.to_str()?, names)?);
        }
        near.to_str().map(str::to_owned)
    }

    fn place(&self, path: &str) -> Result<Place<'_>, WorkspaceError> {
        let relative = self.relative(path)?;
        let beneath = Path::new(&relative);
        match beneath.strip_prefix(OWN_FOLDER) {
            Ok(own) => {
                let missing = || WorkspaceError::Missing { path: path.to_owned(), near: None };
                let dir = self.own.as_deref().ok_or_else(missing)?;
                let own = if own.as_os_str().is_empty() { Path::new(".") } else { own };
                Ok(Place { dir, beneath: own.to_owned(), is_own: true })
            }
            Err(_) => Ok(Place { dir: &self.root, beneath: beneath.to_owned(), is_own: false }),
        }
    }
}

/// Removes what dead processes left half written of the file at a path.
fn sweep_beside(dir: &Dir, path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    for entry in dir.read_dir(parent).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let writer = found.to_str().and_then(|found| writer_of(found, name));
        if writer.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            let _ = dir.remove_file(parent.join(&found));
        }
    }
}

/// Puts a whole file in the place of another, or of none.
pub(super) fn replace(dir: &Dir, path: &Path, content: &[u8]) -> std::io::Result<()> {
    static N_WRITTEN: AtomicU64 = AtomicU64::new(0);
    if dir.metadata(path).is_ok_and(|found| found.is_dir()) {
        return Err(ErrorKind::IsADirectory.into());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        dir.create_dir_all(parent)?;
    }
    let number = N_WRITTEN.fetch_add(1, Ordering::Relaxed);
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}-{number}{PARTIAL_SUFFIX}", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = write_whole(dir, &partial, path, content).and_then(|()| dir.rename(&partial, dir, path));
    if written.is_err() {
        let _ = dir.remove_file(&partial);
    }
    written
}

/// The process that began a partial file of `name`, where `found` is one.
fn writer_of(found: &str, name: &str) -> Option<u32> {
    let numbers = found.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(PARTIAL_SUFFIX)?;
    numbers.split_once('-')?.0.parse().ok()
}

/// Writes the partial file with the permissions of the one that it replaces.
fn write_whole(dir: &Dir, partial: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = dir.open_with(partial, OpenOptions::new().write(true).create_new(true))?;
    if let Ok(old) = dir.metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(content)
}

/// What is wrong with a path outside that may be opened.
fn explain_outside(path: &str, error: &std::io::Error) -> WorkspaceError {
    if outside::has_moved(error) {
        return WorkspaceError::Moved { path: path.to_owned() };
    }
    explain(path, error)
}

fn explain(path: &str, error: &std::io::Error) -> WorkspaceError {
    let path = path.to_owned();
    match error.kind() {
        ErrorKind::NotFound => WorkspaceError::Missing { path, near: None },
        ErrorKind::IsADirectory => WorkspaceError::IsFolder { path },
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            WorkspaceError::Io { path, problem: "a file stands where a folder is needed".to_owned() }
        }
        // cap-std refuses a path that leaves the folder through a link with this kind.
        ErrorKind::PermissionDenied if error.to_string().contains("outside of the filesystem") => {
            WorkspaceError::Outside { path }
        }
        _ => WorkspaceError::Io { path, problem: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, Workspace) {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
        let workspace = Workspace::open(&inside).unwrap().with_own_folder(&dir.path().join("own")).unwrap();
        (dir, workspace)
    }

    #[test]
    fn no_path_leads_out() {
        let (dir, workspace) = open();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("inside/link")).unwrap();
        std::os::unix::fs::symlink("../secret.txt", dir.path().join("inside/leaf")).unwrap();
        let absolute = dir.path().join("secret.txt");
        for path in
            ["../secret.txt", "a/../../secret.txt", "link/secret.txt", "leaf", absolute.to_str().unwrap()]
        {
            let error = workspace.read(path, 100).unwrap_err();
            assert_eq!(error, WorkspaceError::Outside { path: path.to_owned() });
            assert!(workspace.write(path, b"x").is_err() || path == "leaf", "{path} was written");
        }
        assert_eq!(std::fs::read(dir.path().join("secret.txt")).unwrap(), b"secret");
    }

    #[test]
    fn absolute_paths_inside_are_inside() {
        let (dir, workspace) = open();
        workspace.write("a/b.txt", b"text").unwrap();
        let absolute = dir.path().join("inside/a/b.txt");
        assert_eq!(workspace.read_text(absolute.to_str().unwrap(), 100).unwrap(), "text");
        assert_eq!(workspace.relative("./a/../a//b.txt").unwrap(), "a/b.txt");
    }

    #[test]
    fn the_own_folder_can_be_read_and_not_written() {
        let (_dir, workspace) = open();
        workspace.write_own("calls.txt", b"one\n").unwrap();
        workspace.append_own("calls.txt", b"two\n").unwrap();
        assert_eq!(workspace.read_text(".perilune/calls.txt", 100).unwrap(), "one\ntwo\n");
        let error = workspace.write(".perilune/calls.txt", b"x").unwrap_err();
        assert_eq!(error, WorkspaceError::Own { path: ".perilune/calls.txt".to_owned() });
        assert_eq!(workspace.entries(".").unwrap(), []);
    }

    #[test]
    fn sentences_say_what_is_wrong() {
        let (dir, workspace) = open();
        std::fs::create_dir(dir.path().join("inside/folder")).unwrap();
        workspace.write("long.txt", &[b'a'; 11]).unwrap();
        workspace.write("bytes", &[0xff, 0xfe]).unwrap();
        let sentence = |path| workspace.read_text(path, 10).unwrap_err().to_string();
        assert_eq!(sentence("none.txt"), "none.txt does not exist; see list_files");
        assert_eq!(sentence("folder"), "folder is a folder; name a file in it");
        assert_eq!(sentence("bytes"), "bytes is not UTF-8 text; it cannot be read as lines");
        assert_eq!(sentence("long.txt"), "long.txt has 11 bytes, more than the 10 that can be read at once");
        assert_eq!(
            workspace.entries("long.txt").unwrap_err().to_string(),
            "long.txt is a file, not a folder"
        );
    }

    #[test]
    fn the_path_that_was_probably_meant_is_inside_and_there() {
        let (dir, workspace) = open();
        workspace.write("reports/march.txt", b"").unwrap();
        workspace.write("reports/.march.txt.1-1.perilune-partial", b"").unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("inside/outward")).unwrap();
        workspace.write_own("calls.txt", b"").unwrap();
        let near = |path| workspace.near(path);
        assert_eq!(near("report/marhc.txt").as_deref(), Some("reports/march.txt"));
        assert_eq!(near("./reports/match.txt").as_deref(), Some("reports/march.txt"));
        for path in
            ["reports/april.txt", "../secrett.txt", "outward/secrett.txt", ".perilune/callss.txt", "x/y.txt"]
        {
            assert_eq!(near(path), None, "{path}");
        }
    }

    #[test]
    fn a_pipe_keeps_nobody_waiting() {
        let (dir, workspace) = open();
        nix::unistd::mkfifo(&dir.path().join("inside/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = workspace.read("pipe", 10).unwrap_err().to_string();
        assert_eq!(error, "pipe: is not an ordinary file");
    }

    #[test]
    fn what_the_dead_left_half_written_is_swept() {
        let (dir, workspace) = open();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let partial = |name: &str, process: u32| format!("{name}.{process}-3{PARTIAL_SUFFIX}");
        let (gone, kept) = (partial("a.txt", dead.id()), partial("a.txt", std::process::id()));
        let other = partial("b.txt", dead.id());
        for name in [&gone, &kept, &other] {
            std::fs::write(dir.path().join("inside").join(name), "half").unwrap();
        }
        workspace.sweep("a.txt");
        let is_there = |name: &String| dir.path().join("inside").join(name).exists();
        assert_eq!([&gone, &kept, &other].map(is_there), [false, true, true]);
    }

    #[test]
    fn a_replaced_file_keeps_its_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, workspace) = open();
        let path = dir.path().join("inside/run.sh");
        std::fs::write(&path, "a").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
        workspace.write("run.sh", b"b").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o750);
        assert_eq!(std::fs::read(&path).unwrap(), b"b");
    }
}
