//! PDF to text, by poppler's `pdftotext` in the sandbox: what comes from outside is not parsed in this process.

use super::Confined;
use super::scope::hash;
use crate::sandbox::{Access, End, Program, Sandbox, View};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// What a PDF begins with.
const MAGIC: &[u8] = b"%PDF-";
/// Bytes of text that one PDF may come to.
const TEXT_BYTES_MAX: usize = 32 << 20;
/// Bytes of texts that are kept, so that a later page of one is not converted anew.
const KEPT_BYTES_MAX: usize = TEXT_BYTES_MAX;
/// Time for one PDF.
const WALL_MS: u64 = 60_000;

/// The program of this machine, and how it is confined.
#[derive(Debug, Clone)]
pub struct Pdf {
    confined: Confined,
    program: PathBuf,
    kept: Arc<Mutex<Kept>>,
}

/// Texts by the hash of their PDF, the one that was asked for last at the end.
#[derive(Debug, Default)]
struct Kept(Vec<(String, String)>);

impl Kept {
    fn get(&mut self, hash: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == hash)?;
        let found = self.0.remove(at);
        self.0.push(found.clone());
        Some(found.1)
    }

    fn put(&mut self, hash: String, text: &str) {
        self.0.push((hash, text.to_owned()));
        while self.0.iter().map(|(_, text)| text.len()).sum::<usize>() > KEPT_BYTES_MAX {
            self.0.remove(0);
        }
    }
}

impl Pdf {
    /// The first `pdftotext` on `search_path` (the form of `PATH`).
    #[must_use]
    pub fn find(search_path: &OsStr, confined: Confined) -> Option<Self> {
        let mut found = std::env::split_paths(search_path).map(|dir| dir.join("pdftotext"));
        let program = found.find(|path| path.is_absolute() && path.is_file())?;
        Some(Self { confined, program, kept: Arc::default() })
    }

    /// Whether bytes begin as a PDF does.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Its text, pages apart by an empty line.
    ///
    /// # Errors
    /// One sentence for the model.
    pub(super) async fn text(pdf: Option<&Self>, bytes: &[u8]) -> Result<String, String> {
        let missing =
            "this is a PDF, and poppler's pdftotext cannot be run here; ask the user for a text of it";
        let pdf = pdf.ok_or_else(|| missing.to_owned())?;
        let (kept, hash) = (|| pdf.kept.lock().unwrap_or_else(PoisonError::into_inner), hash(bytes));
        let known = kept().get(&hash);
        if let Some(text) = known {
            return Ok(text);
        }
        let text = pdf.convert(bytes).await?;
        kept().put(hash, &text);
        Ok(text)
    }

    async fn convert(&self, bytes: &[u8]) -> Result<String, String> {
        let empty = tempfile::tempdir().map_err(|error| format!("the PDF cannot be read: {error}"))?;
        let mut limits = self.confined.limits.clone();
        (limits.wall_ms, limits.output_bytes) = (WALL_MS, TEXT_BYTES_MAX);
        let sandbox = Sandbox {
            binary: self.confined.binary.clone(),
            layers: self.confined.layers.clone(),
            limits,
            view: View::new(empty.path(), Access::ReadOnly),
        };
        let executable = self.program.to_str().ok_or("the path of pdftotext is not UTF-8")?;
        // It takes all of its input before it writes anything.
        let quiet = r#"exec "$0" "$@" 2>/dev/null"#;
        let mut program = Program::new(["/bin/sh", "-c", quiet, executable, "-enc", "UTF-8", "-q", "-", "-"]);
        program.takes_input = true;
        let ran = sandbox.run(&program, bytes, &mut |_| ()).await.map_err(|error| error.to_string())?;
        let text = ran.output.text().replace('\u{c}', "\n\n");
        match ran.end {
            End::Exited(0) if text.trim().is_empty() => {
                Err("the PDF holds no text, only pictures of it; there is nothing to read".to_owned())
            }
            End::Exited(0) => Ok(text.trim_end().to_owned()),
            _ => Err("the PDF cannot be read: it is damaged, locked or too large".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_up_to_a_limit() {
        let mut kept = Kept::default();
        let third = "x".repeat(KEPT_BYTES_MAX / 3);
        for name in ["a", "b", "c"] {
            kept.put(name.to_owned(), &third);
        }
        assert!(kept.get("a").is_some());
        kept.put("d".to_owned(), "short, and yet one too many");
        let is_there = ["a", "b", "c", "d"].map(|name| kept.get(name).is_some());
        assert_eq!(is_there, [true, false, true, true], "the one that was asked for longest ago goes");
    }
}
