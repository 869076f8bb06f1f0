//! The folder being written: partial files, renamed at the end or removed.

use super::{ShardPlan, SynthError, values};
use crate::checkpoint::{CONFIG_FILE, INDEX_FILE, SINGLE_FILE};
use crate::watch::Watch;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What a file is called until everything is written.
const PARTIAL: &str = ".partial";

/// Bytes that a thread fills and writes at once; a multiple of the eight that one random number makes.
const PIECE_BYTES: u64 = 4 << 20;

/// A folder that this run writes; what it wrote is removed unless it finishes.
pub(super) struct Folder<'a> {
    dir: PathBuf,
    watch: &'a dyn Watch,
    /// Final names, in the order they are given at the end.
    names: Vec<String>,
    /// Whether this run made the folder.
    made_dir: bool,
    finished: bool,
}

impl<'a> Folder<'a> {
    /// Make the folder or take one that is empty but for an interrupted run's partial files, which go.
    pub(super) fn claim(dir: &Path, watch: &'a dyn Watch) -> Result<Folder<'a>, SynthError> {
        let write_error = |source| SynthError::Write { path: dir.to_path_buf(), source };
        let made_dir = !dir.exists();
        fs::create_dir_all(dir).map_err(write_error)?;
        let mut leftovers = Vec::new();
        for entry in fs::read_dir(dir).map_err(write_error)? {
            let name = entry.map_err(write_error)?.file_name();
            if !is_own_partial(&name.to_string_lossy()) {
                let file = name.to_string_lossy().into_owned();
                return Err(SynthError::NotEmpty { dir: dir.to_path_buf(), file });
            }
            leftovers.push(dir.join(name));
        }
        leftovers.iter().try_for_each(fs::remove_file).map_err(write_error)?;
        Ok(Folder { dir: dir.to_path_buf(), watch, names: Vec::new(), made_dir, finished: false })
    }

    /// Write a small file.
    pub(super) fn write_file(&mut self, name: &str, content: &[u8]) -> Result<(), SynthError> {
        let path = self.begin(name)?;
        let write = || {
            let file = File::create_new(&path)?;
            file.write_all_at(content, 0)?;
            file.sync_all()
        };
        write().map_err(|source| SynthError::Write { path: self.dir.join(name), source })
    }

    /// Write a shard, its values by `seed`, on `n_threads` threads.
    pub(super) fn write_shard(
        &mut self,
        shard: &ShardPlan,
        seed: u64,
        n_threads: usize,
    ) -> Result<(), SynthError> {
        let path = self.begin(&shard.name)?;
        let write = || {
            let file = File::create_new(&path)?;
            file.set_len(shard.n_bytes)?;
            file.write_all_at(&shard.head, 0)?;
            self.watch.advance(shard.head.len() as u64);
            write_pieces(&file, shard, seed, n_threads, self.watch)?;
            file.sync_all()
        };
        write().map_err(|source| SynthError::Write { path: self.dir.join(&shard.name), source })?;
        self.check_stopped()
    }

    /// Give every file its name, in the order they were written, so that the config comes last.
    pub(super) fn finish(mut self) -> Result<(), SynthError> {
        self.check_stopped()?;
        for name in &self.names {
            let path = self.dir.join(name);
            fs::rename(partial(&path), &path).map_err(|source| SynthError::Write { path, source })?;
        }
        self.finished = true;
        Ok(())
    }

    fn begin(&mut self, name: &str) -> Result<PathBuf, SynthError> {
        self.check_stopped()?;
        self.names.push(name.to_owned());
        Ok(partial(&self.dir.join(name)))
    }

    fn check_stopped(&self) -> Result<(), SynthError> {
        if self.watch.stopped() {
            return Err(SynthError::Interrupted { dir: self.dir.clone() });
        }
        Ok(())
    }
}

impl Drop for Folder<'_> {
    /// Remove what an unfinished run wrote, config first; what cannot be removed stays under a partial name.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for name in self.names.iter().rev() {
            let path = self.dir.join(name);
            let _absent = fs::remove_file(&path);
            let _absent = fs::remove_file(partial(&path));
        }
        if self.made_dir {
            let _not_empty = fs::remove_dir(&self.dir);
        }
    }
}

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    PathBuf::from(name)
}

/// Whether `name` is one that an interrupted run of this program leaves.
fn is_own_partial(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(PARTIAL) else { return false };
    let known = [CONFIG_FILE, INDEX_FILE, SINGLE_FILE, super::TOKENIZER_FILE];
    known.contains(&stem) || (stem.starts_with("model-") && stem.ends_with(".safetensors"))
}

/// Fill and write every tensor in pieces; a thread takes the next piece when it is free.
fn write_pieces(
    file: &File,
    shard: &ShardPlan,
    seed: u64,
    n_threads: usize,
    watch: &dyn Watch,
) -> io::Result<()> {
    let pieces: Vec<(usize, u64)> = shard
        .tensors
        .iter()
        .enumerate()
        .flat_map(|(i, (spec, _))| (0..spec.n_bytes()).step_by(PIECE_BYTES as usize).map(move |at| (i, at)))
        .collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let first_error = Mutex::new(None);
    let work = || {
        let mut buffer = Vec::new();
        while !failed.load(Ordering::Relaxed) && !watch.stopped() {
            let Some(&(i, at)) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let (spec, start) = &shard.tensors[i];
            buffer.resize(PIECE_BYTES.min(spec.n_bytes() - at) as usize, 0);
            values::fill(spec, seed, at, &mut buffer);
            if let Err(error) = file.write_all_at(&buffer, start + at) {
                failed.store(true, Ordering::Relaxed);
                *first_error.lock().expect("no thread panics while it holds this lock") = Some(error);
                return;
            }
            watch.advance(buffer.len() as u64);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..n_threads.max(1) {
            scope.spawn(work);
        }
    });
    first_error.into_inner().expect("no thread panics while it holds this lock").map_or(Ok(()), Err)
}
