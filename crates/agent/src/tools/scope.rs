//! What a tool may reach.

use super::workspace::WorkspaceError;
use super::{Pdf, Workspace};
use crate::gate::{BoxFuture, Elsewhere, Outside, Unattended};
use crate::secrets::Secrets;
use sha2::{Digest, Sha256};
use std::sync::{Arc, Mutex, PoisonError};

/// Files at most whose content counts as seen; what was seen before that is read again before it is changed.
pub(crate) const N_SEEN_MAX: usize = 1_000;

/// How much a tool answers at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lines of one page of a file, matches of a search, entries of a listing: at most so many each.
    pub n_lines_max: usize,
    /// Bytes of one line; the rest of a longer line is left out, with a mark.
    pub line_bytes_max: usize,
    /// Bytes of a file that is read or searched at most.
    pub file_bytes_max: u64,
}

impl Default for Limits {
    /// For models with a long context.
    fn default() -> Self {
        Self { n_lines_max: 400, line_bytes_max: 2_000, file_bytes_max: 64 << 20 }
    }
}

/// Somebody who can be asked.
pub trait Person: Send + Sync {
    /// The answer, or `None` where nobody is there.
    fn ask<'a>(&'a self, question: &'a str) -> BoxFuture<'a, Option<String>>;
}

impl Person for Elsewhere {
    fn ask<'a>(&'a self, _question: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(std::future::pending())
    }
}

impl Person for Unattended {
    fn ask<'a>(&'a self, _question: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(std::future::ready(None))
    }
}

/// Whether a file inside the workspace may be read: for tools that come upon files which no argument names.
pub type MayRead = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Everything that a tool may reach during one call.
pub struct Scope {
    /// The folder that the run works in.
    pub workspace: Workspace,
    /// How much to answer.
    pub limits: Limits,
    /// Which contents of files the model has seen in this run.
    pub seen: Seen,
    /// Which files a tool that comes upon them may read; `None`: all. See [`crate::gate::may_read`].
    pub may_read: Option<MayRead>,
    /// Values that are neither shown nor kept: the loop redacts by them, and so do tools before they cut a text.
    pub secrets: Arc<Secrets>,
    /// Reads PDFs, where that can be done.
    pub pdf: Option<Arc<Pdf>>,
    /// Who answers questions.
    pub person: Option<Arc<dyn Person>>,
    /// The same for every attempt of one call, and for no other call: for services that take such a key.
    pub key: String,
}

impl Scope {
    /// The scope of a workspace, without secrets, PDFs and anybody to ask.
    #[must_use]
    pub fn new(workspace: Workspace, limits: Limits) -> Self {
        Self {
            workspace,
            limits,
            seen: Seen::default(),
            may_read: None,
            secrets: Arc::new(Secrets::none()),
            pdf: None,
            person: None,
            key: String::new(),
        }
    }

    /// What a tool says of an error; where nothing is at a path, also which path was probably meant, if that may be read.
    pub(super) fn told(&self, error: WorkspaceError) -> String {
        match error {
            WorkspaceError::Missing { path, near: None } => {
                let may_read = |near: &String| self.may_read.as_ref().is_none_or(|may_read| may_read(near));
                let near = self.workspace.near(&path).filter(may_read);
                WorkspaceError::Missing { path, near }.to_string()
            }
            error => error.to_string(),
        }
    }

    /// The same scope for a call with its own key, which may open these paths outside the workspace.
    #[must_use]
    pub fn for_call(&self, key: &str, outside: &[Outside]) -> Self {
        Self {
            workspace: self.workspace.with_outside(outside),
            limits: self.limits,
            seen: self.seen.clone(),
            may_read: self.may_read.clone(),
            secrets: Arc::clone(&self.secrets),
            pdf: self.pdf.clone(),
            person: self.person.clone(),
            key: key.to_owned(),
        }
    }
}

/// Contents of files that the model has seen, by path: what a change must be based on.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<(String, String)>>>);

impl Seen {
    /// Keeps the SHA-256 (hexadecimal) of a file's content as seen; the oldest beyond a thousand are forgotten.
    pub fn put(&self, path: &str, hash: &str) {
        see(&mut self.lock(), path, hash);
    }

    /// The hash of the content that was seen last.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<String> {
        self.lock().iter().find(|(known, _)| known == path).map(|(_, hash)| hash.clone())
    }

    /// Keeps what an output says was seen; a resumed run hands in all of its journal's.
    pub fn learn(&self, seen: &[(String, String)]) {
        for (path, hash) in seen {
            self.put(path, hash);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts what was seen last at the end, and lets go of what is over the limit.
pub(crate) fn see(seen: &mut Vec<(String, String)>, path: &str, hash: &str) {
    seen.retain(|(known, _)| known != path);
    seen.push((path.to_owned(), hash.to_owned()));
    if seen.len() > N_SEEN_MAX {
        seen.remove(0);
    }
}

/// SHA-256 of a content, hexadecimal.
pub(super) fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_may_not_be_read_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret.txt"), "").unwrap();
        let mut scope = Scope::new(Workspace::open(dir.path()).unwrap(), Limits::default());
        let told = |scope: &Scope| {
            scope.told(WorkspaceError::Missing { path: "secrett.txt".to_owned(), near: None })
        };
        assert_eq!(told(&scope), "secrett.txt does not exist; see secret.txt, the nearest name");
        scope.may_read = Some(Arc::new(|path| path != "secret.txt"));
        assert_eq!(told(&scope), "secrett.txt does not exist; see list_files");
    }

    #[test]
    fn what_was_seen_last_is_known() {
        let seen = Seen::default();
        seen.put("first", "a");
        for n in 0..N_SEEN_MAX {
            seen.put("again", &n.to_string());
        }
        assert_eq!((seen.get("first").as_deref(), seen.get("again").as_deref()), (Some("a"), Some("999")));
        for n in 0..N_SEEN_MAX {
            seen.put(&n.to_string(), "b");
        }
        assert_eq!((seen.get("first"), seen.get("0").as_deref()), (None, Some("b")));
        assert_eq!(seen.lock().len(), N_SEEN_MAX);
    }
}
