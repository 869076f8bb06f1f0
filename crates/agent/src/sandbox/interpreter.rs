//! CPython of this machine: which binary it really is, and which directories it needs to see.

use super::view::{Access, SYSTEM, View};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Prints the real executable, then the directories that hold the library and what is installed, one a line.
const ASK: &str = "import os, sys\nprint(os.path.realpath(sys.executable))\n\
                   for p in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}: print(p)";

/// Why there is no interpreter.
#[derive(Debug, thiserror::Error)]
pub enum InterpreterError {
    /// No `python3` on the path that was searched.
    #[error("no python3 on the search path: install CPython 3, or leave the tool `python` out")]
    NotFound,
    /// There is one, but it does not say where it lives.
    #[error("{path} is no CPython that can be used: {why}")]
    Unusable {
        /// What was found on the path.
        path: PathBuf,
        /// What it said.
        why: String,
    },
}

/// A CPython interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The binary as it is named: a virtual environment recognises itself by this name.
    pub executable: PathBuf,
    /// Absolute directories outside the system's that it needs.
    pub prefixes: Vec<PathBuf>,
}

impl Interpreter {
    /// The first `python3` on `search_path` (the form of `PATH`). A shim that is a script is followed by asking it.
    ///
    /// # Errors
    /// [`InterpreterError`]: none is found, or it does not say where it lives.
    pub fn find(search_path: &OsStr) -> Result<Self, InterpreterError> {
        let path = std::env::split_paths(search_path)
            .map(|dir| dir.join("python3"))
            .find(|path| path.is_absolute() && is_executable(path))
            .ok_or(InterpreterError::NotFound)?;
        let unusable = |why: String| InterpreterError::Unusable { path: path.clone(), why };
        let asked = Command::new(&path).args(["-I", "-S", "-c", ASK]).stdin(Stdio::null()).output();
        let answer = asked.map_err(|error| unusable(error.to_string()))?;
        if !answer.status.success() {
            return Err(unusable(String::from_utf8_lossy(&answer.stderr).trim().to_owned()));
        }
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        let mut lines = answer.lines().map(PathBuf::from);
        let real =
            lines.next().filter(|path| path.is_absolute()).ok_or_else(|| unusable("no path".into()))?;
        let mut prefixes: Vec<_> = lines.collect();
        if let Some(dir) = real.parent().and_then(Path::parent) {
            prefixes.push(dir.to_owned());
        }
        prefixes.retain(|prefix| !SYSTEM.iter().any(|dir| prefix.starts_with(dir)));
        prefixes.sort();
        prefixes.dedup();
        let outer = prefixes.clone();
        prefixes.retain(|prefix| !outer.iter().any(|other| other != prefix && prefix.starts_with(other)));
        // A link of a virtual environment keeps its name; a shim is replaced by what it stands for.
        let is_venv = path.canonicalize().is_ok_and(|found| found == real) && under(&path, &prefixes);
        Ok(Self { executable: if is_venv { path } else { real }, prefixes })
    }

    /// `view` with the interpreter's directories, read-only at the places where they are outside.
    #[must_use]
    pub fn add_to(&self, view: View) -> View {
        self.prefixes.iter().fold(view, |view, prefix| view.with(prefix, prefix, Access::ReadOnly))
    }
}

fn under(path: &Path, prefixes: &[PathBuf]) -> bool {
    prefixes.iter().any(|prefix| path.starts_with(prefix))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
