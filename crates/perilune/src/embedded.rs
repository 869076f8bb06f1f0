//! The small model that the binary carries; how it was made stands in `embedded/README.md`.

use crate::machine::user_folder;
use anyhow::Context;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Name of the embedded model in outputs.
pub(crate) const NAME: &str = "perilune-nano";

/// Its folder, as `train export` wrote it.
const FILES: [(&str, &[u8]); 3] = [
    ("model.safetensors", include_bytes!("../embedded/model.safetensors")),
    ("tiktoken.model", include_bytes!("../embedded/tiktoken.model")),
    // Last, so that a folder that has it has all.
    ("config.json", include_bytes!("../embedded/config.json")),
];
/// Bytes that an unpacked copy takes, with room to spare.
pub(crate) const COPY_BYTES: u64 = 16 << 20;
/// Characters of the hash in the folder's name.
const HASH_CHARS: usize = 16;

/// The embedded model as a folder that every verb opens.
pub(crate) struct Unpacked {
    folder: PathBuf,
    /// Removes the folder at the end, where no cache could be written.
    _temporary: Option<TempDir>,
}

impl Unpacked {
    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Unpacks the embedded model into the user's cache, once for each version; without one, into a folder that lives as
/// long as what is returned.
///
/// # Errors
/// No folder can be written.
pub(crate) fn unpack() -> anyhow::Result<Unpacked> {
    if let Some(cache) = user_folder("XDG_CACHE_HOME", ".cache")
        && let Ok(folder) = unpack_into(&cache)
    {
        return Ok(Unpacked { folder, _temporary: None });
    }
    let advice = "the embedded model needs 5 MB in XDG_CACHE_HOME or in TMPDIR: make room there, or name a writable folder";
    let temporary = TempDir::with_prefix("perilune-").context(advice)?;
    let folder = unpack_into(temporary.path()).context(advice)?;
    Ok(Unpacked { folder, _temporary: Some(temporary) })
}

/// A whole copy appears under its final name or not at all, however many processes begin at once.
fn unpack_into(parent: &Path) -> std::io::Result<PathBuf> {
    let folder = parent.join(format!("{NAME}-{}", hash()));
    if is_whole(&folder) {
        return Ok(folder);
    }
    fs::create_dir_all(parent)?;
    let fresh = tempfile::Builder::new().prefix(".unpacking-").tempdir_in(parent)?;
    for (name, bytes) in FILES {
        fs::File::create_new(fresh.path().join(name))?.write_all(bytes)?;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    match fs::rename(fresh.path(), &folder) {
        Err(_) if is_whole(&folder) => Ok(folder),
        renamed => renamed.map(|()| folder),
    }
}

/// Whether every byte stands there: a damaged or foreign copy is replaced, never run.
fn is_whole(folder: &Path) -> bool {
    FILES.iter().all(|(name, bytes)| fs::read(folder.join(name)).is_ok_and(|found| found == *bytes))
}

fn hash() -> String {
    let mut hasher = Sha256::new();
    FILES.iter().for_each(|(_, bytes)| hasher.update(bytes));
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    hex[..HASH_CHARS].to_owned()
}
