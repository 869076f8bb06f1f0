//! A collection of documents in one file, searched by words: what `web_search` and `fetch_url` read where there
//! is no network. SQLite's full-text index (FTS5), ranked by BM25.

use super::{Fetched, Hit, to_markdown};
use crate::secrets::Secrets;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::io::{Error, Read};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Words of a query that are searched for.
const N_WORDS_MAX: usize = 32;

/// Endings of names of files that a collection is made of.
const TEXT_KINDS: [&str; 6] = ["md", "markdown", "txt", "html", "htm", "csv"];
/// Bytes of one document at most; the rest of a longer one is not found.
const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// Bytes of all documents of a collection, which are in memory while it is made.
const COLLECTION_BYTES_MAX: u64 = 512 << 20;

/// Why a collection cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the collection of documents {file} cannot be used: {cause}")]
pub struct CorpusError {
    file: String,
    cause: String,
}

/// A collection of documents.
pub struct Corpus {
    connection: Mutex<Connection>,
    file: String,
}

impl Corpus {
    /// Opens a collection for reading.
    ///
    /// # Errors
    /// [`CorpusError`]: the file is not there, or is no collection.
    pub fn open(file: &Path) -> Result<Self, CorpusError> {
        let name = file.display().to_string();
        let opened = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let checked = opened.and_then(|connection| {
            connection.query_row("SELECT count(*) FROM documents", [], |row| row.get::<_, i64>(0))?;
            Ok(connection)
        });
        let connection =
            checked.map_err(|error| CorpusError { file: name.clone(), cause: error.to_string() })?;
        Ok(Self { connection: Mutex::new(connection), file: name })
    }

    /// Makes a collection of documents, or adds to one: address, title, text. An address that is there already gets
    /// the new text.
    ///
    /// # Errors
    /// [`CorpusError`]: the file cannot be written.
    pub fn build<'a>(
        file: &Path,
        documents: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>,
    ) -> Result<Self, CorpusError> {
        let fill = || -> rusqlite::Result<()> {
            let mut connection = Connection::open(file)?;
            connection.execute_batch(
                "CREATE VIRTUAL TABLE IF NOT EXISTS documents
                 USING fts5(url UNINDEXED, title, text, tokenize = 'porter unicode61 remove_diacritics 2')",
            )?;
            let transaction = connection.transaction()?;
            for (url, title, text) in documents {
                transaction.execute("DELETE FROM documents WHERE url = ?1", [url])?;
                transaction.execute(
                    "INSERT INTO documents (url, title, text) VALUES (?1, ?2, ?3)",
                    params![url, title, text],
                )?;
            }
            transaction.commit()
        };
        fill().map_err(|error| CorpusError { file: file.display().to_string(), cause: error.to_string() })?;
        Self::open(file)
    }

    /// Makes a collection of the texts in a folder and beneath, in place of an older file: Markdown, HTML and plain
    /// text, each under `doc:` and its path. What is no text, and what hides behind a dot or a link, is passed over; of
    /// a document 8 MiB are taken, of all together 512 MiB. Secret values are redacted.
    ///
    /// # Errors
    /// [`CorpusError`]: the folder cannot be read, holds no text or too much, or the file cannot be written.
    pub fn of_folder(file: &Path, folder: &Path, secrets: &Secrets) -> Result<Self, CorpusError> {
        let broken = |cause: String| CorpusError { file: folder.display().to_string(), cause };
        let mut texts = Texts::new(COLLECTION_BYTES_MAX);
        texts.gather(folder, folder).map_err(|error| broken(error.to_string()))?;
        let mut texts = texts.found;
        if texts.is_empty() {
            let kinds = TEXT_KINDS.join(", ");
            return Err(broken(format!("it holds no text; put files there that end in {kinds}")));
        }
        texts.sort();
        for text in texts.iter_mut().flat_map(|(url, title, text)| [url, title, text]) {
            secrets.redact_text(text);
        }
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(broken(error.to_string()));
            }
            _ => {}
        }
        let texts = texts.iter().map(|(url, title, text)| (url.as_str(), title.as_str(), text.as_str()));
        Self::build(file, texts)
    }

    /// The best documents for a query, at most `n_max`: those with all of its first 32 words, or else with any. A query
    /// without words finds none.
    ///
    /// # Errors
    /// [`CorpusError`]: the file cannot be read.
    pub fn search(&self, query: &str, n_max: usize) -> Result<Vec<Hit>, CorpusError> {
        // Quoted, no word is an operator of the index's own language.
        let words = query.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        let words: Vec<_> = words.take(N_WORDS_MAX).map(|word| format!("\"{word}\"")).collect();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.matching(&words.join(" AND "), n_max)?;
        if all.is_empty() { self.matching(&words.join(" OR "), n_max) } else { Ok(all) }
    }

    /// A document by its address; `None` where there is none.
    ///
    /// # Errors
    /// [`CorpusError`]: the file cannot be read.
    pub fn page(&self, url: &str) -> Result<Option<Fetched>, CorpusError> {
        let connection = self.lock();
        let found = connection
            .query_row("SELECT text FROM documents WHERE url = ?1", [url], |row| row.get(0))
            .optional();
        found
            .map(|text| text.map(|text| Fetched { url: url.to_owned(), text }))
            .map_err(|error| self.broken(&error))
    }

    fn matching(&self, expression: &str, n_max: usize) -> Result<Vec<Hit>, CorpusError> {
        const SELECT: &str = "SELECT url, title, snippet(documents, 2, '', '', '…', 40) FROM documents
            WHERE documents MATCH ?1 ORDER BY bm25(documents, 0.0, 4.0, 1.0), rowid LIMIT ?2";
        let connection = self.lock();
        let found = || -> rusqlite::Result<Vec<Hit>> {
            let mut select = connection.prepare_cached(SELECT)?;
            let rows = select.query_map(params![expression, n_max as i64], |row| {
                Ok(Hit { url: row.get(0)?, title: row.get(1)?, extract: row.get(2)? })
            })?;
            rows.collect()
        };
        found().map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &rusqlite::Error) -> CorpusError {
        CorpusError { file: self.file.clone(), cause: error.to_string() }
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Address, title and text of documents, up to a limit.
struct Texts {
    found: Vec<(String, String, String)>,
    n_bytes: u64,
    bytes_max: u64,
}

impl Texts {
    fn new(bytes_max: u64) -> Self {
        Self { found: Vec::new(), n_bytes: 0, bytes_max }
    }

    /// Adds every document beneath `folder`.
    fn gather(&mut self, root: &Path, folder: &Path) -> std::io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let (entry, path) = entry.map(|entry| (entry.file_type(), entry.path()))?;
            let (kind, name) = (entry?, path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            if name.starts_with('.') {
                continue;
            }
            let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if kind.is_dir() {
                self.gather(root, &path)?;
            } else if kind.is_file() && TEXT_KINDS.contains(&ending.as_str()) {
                let mut bytes = Vec::new();
                std::fs::File::open(&path)?.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes)?;
                self.n_bytes += bytes.len() as u64;
                if self.n_bytes > self.bytes_max {
                    let limit = self.bytes_max;
                    return Err(Error::other(format!(
                        "it holds more than {limit} bytes of text; name a smaller one"
                    )));
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let text = if ending.starts_with("htm") { to_markdown(&text)? } else { text };
                let heading = text.lines().find_map(|line| line.strip_prefix("# ")).map(str::trim);
                let title =
                    heading.filter(|_| ending != "txt" && ending != "csv").unwrap_or(&name).to_owned();
                let beneath = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                self.found.push((format!("doc:{beneath}"), title, text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_more_text_than_memory_should_hold_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("deep")).unwrap();
        for (name, n_bytes) in [("a.txt", 60), ("deep/b.md", 40), ("picture.png", 1_000)] {
            std::fs::write(folder.path().join(name), "x".repeat(n_bytes)).unwrap();
        }
        let gathered = |bytes_max| {
            let mut texts = Texts::new(bytes_max);
            texts.gather(folder.path(), folder.path()).map(|()| texts.found.len())
        };
        assert_eq!(gathered(100).unwrap(), 2);
        let error = gathered(99).unwrap_err().to_string();
        assert_eq!(error, "it holds more than 99 bytes of text; name a smaller one");
    }
}
