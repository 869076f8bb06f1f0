//! Where does a path lead? Resolved as the system would, link by link, before anything is opened.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links on the way to one file (Linux: `MAXSYMLINKS`).
const N_LINKS_MAX: usize = 40;
/// Longest path in bytes (Linux: `PATH_MAX`).
const PATH_BYTES_MAX: usize = 4096;

/// The folder that a run works in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    root: PathBuf,
    /// Whether links are looked up; examples of rules have no disk.
    on_disk: bool,
}

/// A path, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Where it leads: absolute, without links and without `..`.
    pub real: PathBuf,
    /// As it was written: absolute, `.` and `..` taken away, links kept.
    pub written: PathBuf,
    /// `real` beneath the workspace; `None` outside. Empty for the workspace itself.
    pub inside: Option<PathBuf>,
    /// `written` beneath the workspace; `None` outside.
    pub written_inside: Option<PathBuf>,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Not a path of this system.
    #[error("the path {path:?} is no path: {why}")]
    NotAPath {
        /// As written.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A link or a folder on the way could not be looked at.
    #[error("the path {path:?} cannot be followed: {why}")]
    CannotFollow {
        /// As written.
        path: String,
        /// What happened.
        why: String,
    },
}

impl Workspace {
    /// The workspace at a folder that exists.
    ///
    /// # Errors
    /// The folder cannot be looked at, or is none.
    pub fn open(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        if !root.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { root, on_disk: true })
    }

    /// A workspace at `/workspace` without a disk, for examples: no path of it is a link.
    #[must_use]
    pub fn imagined() -> Self {
        Self { root: PathBuf::from("/workspace"), on_disk: false }
    }

    /// Its folder, absolute and without links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Resolves a path as written: relative to the workspace, or absolute. What does not exist yet is
    /// resolved as far as it exists. Tools take `..` away by its letters before they open a path, so one behind a
    /// link, which leads elsewhere than its letters say, is refused.
    ///
    /// # Errors
    /// [`PlaceError::NotAPath`] for what is empty, too long or holds a zero byte; [`PlaceError::CannotFollow`] where a
    /// link or folder on the way cannot be looked at, or `..` stands behind a link.
    pub fn resolve(&self, path: &str) -> Result<Place, PlaceError> {
        let not_a_path = |why| PlaceError::NotAPath { path: path.to_owned(), why };
        match path {
            "" => return Err(not_a_path("it is empty")),
            _ if path.contains('\0') => return Err(not_a_path("it holds a zero byte")),
            _ if path.len() > PATH_BYTES_MAX => return Err(not_a_path("it is too long")),
            _ => {}
        }
        let written = lexical(&self.root.join(path));
        let real = if self.on_disk { self.follow(path, &written) } else { Ok(written.clone()) };
        let real = real.map_err(|why| PlaceError::CannotFollow { path: path.to_owned(), why })?;
        let beneath = |path: &Path| path.strip_prefix(&self.root).ok().map(Path::to_path_buf);
        Ok(Place { inside: beneath(&real), written_inside: beneath(&written), real, written })
    }

    /// Where a path leads, by links and by letters alike.
    fn follow(&self, path: &str, written: &Path) -> Result<PathBuf, String> {
        let real = follow(&self.root.join(path))?;
        if real == follow(written)? { Ok(real) } else { Err("it holds `..` behind a link".to_owned()) }
    }
}

/// Takes `.` and `..` away by their letters.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            part => clean.push(part),
        }
    }
    clean
}

/// Follows every link of an absolute path; what does not exist is taken as written, but a `..` behind it is
/// refused, for nobody can say where it leads.
fn follow(path: &Path) -> Result<PathBuf, String> {
    let mut real = PathBuf::from("/");
    let mut todo = parts(path);
    let mut n_links = 0;
    let mut exists = true;
    while let Some(part) = todo.pop_front() {
        if part == ".." {
            if !exists {
                return Err("a folder before `..` does not exist".to_owned());
            }
            real.pop();
            continue;
        }
        let next = real.join(&part);
        let kind = match next.symlink_metadata() {
            Ok(data) => Some(data.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.to_string()),
        };
        exists &= kind.is_some();
        if kind.is_some_and(|kind| kind.is_symlink()) {
            n_links += 1;
            if n_links > N_LINKS_MAX {
                return Err("too many links".to_owned());
            }
            let target = next.read_link().map_err(|error| error.to_string())?;
            if target.is_absolute() {
                real = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                todo.push_front(part);
            }
        } else {
            real = next;
        }
    }
    Ok(real)
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let keep = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(keep).collect()
}
