//! The memory map: a file's bytes as a slice, the one place outside arithmetic where unsafe stands.

use memmap2::{Mmap, UncheckedAdvice};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the caller will do next with a range of a mapped file; a hint, never needed for correctness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// The range is read soon: start reading it from the disk now.
    WillNeed,
    /// The range is not needed for now: its pages may go; a later read brings them back from the file.
    DontNeed,
    /// Reads jump about: no read-ahead.
    Random,
    /// Reads go from front to back: read far ahead.
    Sequential,
}

/// A file mapped read-only, shared by everything that reads tensors from it.
#[derive(Debug)]
pub struct MappedFile {
    map: Mmap,
    path: PathBuf,
}

impl MappedFile {
    /// Map the whole of `path` for reading.
    ///
    /// The file must not be shortened or rewritten while it is mapped: reading a page that is gone ends the process
    /// (SIGBUS), and bytes would change under their reader. Published checkpoints are written once.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped, or is not a regular file.
    pub fn open(path: &Path) -> io::Result<Arc<MappedFile>> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: the map is read-only and outlives every slice of it (they borrow `self`); that no one writes the
        // file meanwhile is the documented condition of this function, as with every memory map.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Arc::new(MappedFile { map, path: path.to_path_buf() }))
    }

    /// The file's bytes, from its first to its last.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The path the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tell the system how `range` (bytes from the file's start) is going to be read. A range outside the file, or a
    /// system that does not take the hint, is ignored.
    pub fn advise(&self, range: Range<usize>, advice: Advice) {
        if range.start >= range.end || range.end > self.map.len() {
            return;
        }
        let (offset, len) = (range.start, range.end - range.start);
        let _ignored_hint = match advice {
            Advice::WillNeed => self.map.advise_range(memmap2::Advice::WillNeed, offset, len),
            Advice::Random => self.map.advise_range(memmap2::Advice::Random, offset, len),
            Advice::Sequential => self.map.advise_range(memmap2::Advice::Sequential, offset, len),
            // SAFETY: the map is file-backed and never written, so a dropped page comes back with the same bytes.
            Advice::DontNeed => unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len)
            },
        };
    }
}

/// `n` zero elements of anonymous memory that Linux is asked to hold in huge pages (`madvise(2)`): long streams meet
/// fewer page borders. The hint is never needed for correctness.
pub fn huge_zeros<T: bytemuck::Zeroable + Clone>(n: usize) -> Vec<T> {
    let zeros = vec![T::zeroed(); n];
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4_096;
        let (first, len) = (zeros.as_ptr().addr(), std::mem::size_of_val(zeros.as_slice()));
        let aligned = first.next_multiple_of(PAGE);
        let end = (first + len) / PAGE * PAGE;
        if end > aligned {
            let at = zeros.as_ptr().cast::<u8>().wrapping_add(aligned - first).cast_mut().cast();
            // SAFETY: whole pages inside memory that this vector owns; the advice changes none of its contents.
            let _ignored_hint = unsafe { libc::madvise(at, end - aligned, libc::MADV_HUGEPAGE) };
        }
    }
    zeros
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_every_advice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let written: Vec<u8> = (0..40_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &written).unwrap();
        let file = MappedFile::open(&path).unwrap();
        for advice in [Advice::WillNeed, Advice::Random, Advice::DontNeed, Advice::Sequential] {
            file.advise(5_000..39_999, advice);
            assert_eq!(file.bytes(), written, "{advice:?}");
        }
        file.advise(39_999..50_000, Advice::DontNeed);
        file.advise(usize::MAX - 1..usize::MAX, Advice::WillNeed);
        assert_eq!(file.path(), path);
    }

    #[test]
    fn a_folder_and_a_missing_file_are_errors_and_an_empty_file_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert!(MappedFile::open(dir.path()).is_err());
        assert!(MappedFile::open(&dir.path().join("absent")).is_err());
        let empty = dir.path().join("empty");
        std::fs::write(&empty, b"").unwrap();
        assert!(MappedFile::open(&empty).unwrap().bytes().is_empty());
    }
}
