//! Every byte of a checkpoint read once: values that cannot be right, files whose sum is not the expected one.
//!
//! Files are read, not mapped: a disk that fails is then a named error and not the end of the process.

mod findings;
mod sums;

pub use findings::{Finding, Report, Scanned};
pub use sums::{Sum, SumsError, compare_sums, parse_sums, small_file_sums, write_sums};

use crate::checkpoint::values::{self, Scan};
use crate::checkpoint::{Checkpoint, CheckpointError, Dtype};
use crate::watch::Watch;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes read at once; a multiple of every element's size.
const PIECE_BYTES: usize = 8 << 20;

/// Bytes of one thread's task where no sum binds a file to one thread.
const TASK_BYTES: usize = 256 << 20;

/// Read every shard of `checkpoint` on `n_threads` threads (at least 1) and report what is wrong; `damage` is what
/// opening it found. With `with_sums` each shard's SHA-256 is taken on the way.
///
/// Returns `None` when the watcher stopped it. A file that cannot be read is a finding.
pub fn verify(
    checkpoint: &Checkpoint,
    damage: Vec<CheckpointError>,
    with_sums: bool,
    n_threads: usize,
    watch: &dyn Watch,
) -> Option<Report> {
    let tasks = tasks(checkpoint, with_sums);
    let (next, report) = (AtomicUsize::new(0), Mutex::new(Report::new(damage)));
    let work = || {
        let mut buffer = vec![0; PIECE_BYTES];
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            if watch.stopped() {
                return;
            }
            let part = Reader { checkpoint, task, watch, hash: with_sums.then(Sha256::new) }.run(&mut buffer);
            report.lock().expect("no thread panics while it holds this lock").merge(part);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..n_threads.max(1) {
            scope.spawn(work);
        }
    });
    let report = report.into_inner().expect("no thread panics while it holds this lock");
    (!watch.stopped()).then(|| report.sorted())
}

/// A stretch of a shard that one thread reads.
struct Task<'a> {
    path: &'a Path,
    segments: Vec<Segment<'a>>,
}

/// A tensor's bytes, or (without a tensor) bytes between them: the header.
struct Segment<'a> {
    tensor: Option<(&'a str, Dtype, &'a [usize])>,
    range: Range<usize>,
}

fn tasks(checkpoint: &Checkpoint, whole_files: bool) -> Vec<Task<'_>> {
    let mut tasks = Vec::new();
    for (shard_idx, shard) in checkpoint.shards().iter().enumerate() {
        let limit = if whole_files { usize::MAX } else { TASK_BYTES };
        let mut room = 0;
        for segment in segments(checkpoint, shard_idx) {
            if room == 0 {
                tasks.push(Task { path: shard.path(), segments: Vec::new() });
                room = limit;
            }
            room = room.saturating_sub(segment.range.len());
            tasks.last_mut().expect("one was pushed above").segments.push(segment);
        }
    }
    tasks
}

/// The whole of a shard in file order.
fn segments(checkpoint: &Checkpoint, shard_idx: usize) -> Vec<Segment<'_>> {
    let (mut segments, mut end) = (Vec::new(), 0);
    let gap = |segments: &mut Vec<_>, range: Range<usize>| {
        if !range.is_empty() {
            segments.push(Segment { tensor: None, range });
        }
    };
    for (name, tensor) in checkpoint.tensors_of(shard_idx) {
        gap(&mut segments, end..tensor.range.start);
        end = tensor.range.end;
        segments.push(Segment { tensor: Some((name, tensor.dtype, tensor.shape)), range: tensor.range });
    }
    gap(&mut segments, end..checkpoint.shards()[shard_idx].file().bytes().len());
    segments
}

/// One task at work.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    task: &'a Task<'a>,
    watch: &'a dyn Watch,
    hash: Option<Sha256>,
}

impl Reader<'_> {
    fn run(mut self, buffer: &mut [u8]) -> Report {
        let mut report = Report::default();
        let path = self.task.path;
        let file = match File::open(path) {
            Ok(file) => file,
            Err(source) => {
                return Report::new(vec![CheckpointError::Read { path: path.to_path_buf(), source }]);
            }
        };
        for segment in &self.task.segments {
            match self.scan_segment(&file, segment, buffer) {
                Ok(scanned) => self.judge(segment, &scanned, buffer, &mut report),
                Err(source) => {
                    self.hash = None;
                    report.add_unreadable(path, segment.tensor.map(|(name, ..)| name), &source);
                }
            }
            if self.watch.stopped() {
                return report;
            }
        }
        if let Some(hash) = self.hash {
            report.sums.push(Sum::of_digest(path, &hash.finalize()));
        }
        report
    }

    /// Read one segment in pieces, feed the sum, scan the values.
    fn scan_segment(
        &mut self,
        file: &File,
        segment: &Segment<'_>,
        buffer: &mut [u8],
    ) -> std::io::Result<Scanned> {
        let mut scanned = Scanned::default();
        let mut at = segment.range.start;
        while at < segment.range.end && !self.watch.stopped() {
            let piece = &mut buffer[..PIECE_BYTES.min(segment.range.end - at)];
            file.read_exact_at(piece, at as u64)?;
            if let Some(hash) = &mut self.hash {
                hash.update(&*piece);
            }
            if let Some((_, dtype, _)) = segment.tensor {
                let before = (at - segment.range.start) * 8 / dtype.bitsize();
                scanned.add(values::scan(dtype, piece), before, piece);
            }
            self.watch.advance(piece.len() as u64);
            at += piece.len();
        }
        Ok(scanned)
    }

    /// Turn what a scan saw into findings; `buffer` holds what was read last.
    fn judge(&self, segment: &Segment<'_>, scanned: &Scanned, buffer: &[u8], report: &mut Report) {
        report.n_bytes += segment.range.len() as u64;
        let Some((name, _, shape)) = segment.tensor else { return };
        report.n_tensors += 1;
        report.add_scan(self.task.path, name, shape, scanned);
        let stem = name.strip_suffix(".weight_shape");
        let has_matrix = |stem: &str| self.checkpoint.tensor(&format!("{stem}.weight_packed")).is_some();
        let bytes = buffer.get(..segment.range.len()).unwrap_or_default();
        if stem.is_some_and(has_matrix)
            && let Err(error) = self.checkpoint.check_stored_shape_in(name, bytes)
        {
            report.damage.push(error.into());
        }
    }
}

impl Scanned {
    /// Add a piece that begins `before` elements after the tensor's first.
    fn add(&mut self, scan: Scan, before: usize, piece: &[u8]) {
        let first = scan.first.map(|first| before + first);
        self.scan.first = self.scan.first.or(first);
        self.scan.n_not_finite += scan.n_not_finite;
        self.scan.n_negative += scan.n_negative;
        let blocks = piece.as_chunks::<{ findings::BLOCK_BYTES }>().0;
        self.n_blocks += blocks.len();
        self.n_zero_blocks += blocks.iter().filter(|block| block.iter().all(|byte| *byte == 0)).count();
    }
}
