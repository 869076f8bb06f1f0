//! Reading ahead: a thread that asks the system for parts of mapped files before others come to them.
//!
//! A page that is read before it is in memory stops its reader, and what Linux reads with it on its own is little
//! (128 KiB where nobody set more), so a disk that wants many requests at once idles. Asked for in order and early,
//! the same bytes come at the disk's speed while earlier ones are multiplied. The thread is there because asking is
//! work too (pages are found and listed), and waits where the disk has all the requests it takes.

use crate::map::Advice;
use crate::matrix::{MappedPart, Matrix};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// Bytes asked for in one call: of more Linux reads only the start, as much as the device takes in one request or its
/// read-ahead says (`force_page_cache_ra`), which is seldom less than this.
pub const ASK_BYTES: usize = 128 << 10;

/// A queue of parts to ask for or to let go, and the thread that does.
pub struct ReadAhead {
    parts: Option<Sender<(MappedPart, Advice)>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// A thread of its own; where the system gives none, nothing is asked for.
    pub fn start() -> Self {
        let (sender, receiver) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("perilune-ahead".to_owned());
        let thread = builder.spawn(move || work(&receiver, &seen)).ok();
        ReadAhead { parts: thread.is_some().then_some(sender), stop, thread }
    }

    /// Ask for `part` after what was asked for before.
    pub fn ask(&self, part: &MappedPart) {
        self.queue(part, Advice::WillNeed);
    }

    /// Let go of `part`, which was read: unmapping its pages takes a while, too.
    pub fn let_go(&self, part: &MappedPart) {
        self.queue(part, Advice::DontNeed);
    }

    fn queue(&self, part: &MappedPart, advice: Advice) {
        if let Some(parts) = &self.parts {
            // The receiver lives as long as its sender does.
            let _ = parts.send((part.clone(), advice));
        }
    }

    /// Ask for those matrices that lie in mapped files and not in memory, in order.
    pub fn ask_for<'a>(&self, matrices: impl IntoIterator<Item = &'a Matrix>) {
        for matrix in matrices {
            // Scales come and go with the elements they belong to.
            if matrix.mapped_parts().next().is_some_and(|elements| !elements.is_resident()) {
                matrix.mapped_parts().for_each(|part| self.ask(part));
            }
        }
    }
}

impl Drop for ReadAhead {
    /// What is still to be asked for is forgotten, what is to be let go is.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.parts = None;
        if let Some(thread) = self.thread.take() {
            // It only gives advice; there is nothing to save where it failed.
            let _ = thread.join();
        }
    }
}

fn work(parts: &Receiver<(MappedPart, Advice)>, stop: &AtomicBool) {
    for (part, advice) in parts {
        match advice {
            Advice::WillNeed => ask_for(&part, stop),
            advice => part.file().advise(part.range(), advice),
        }
    }
}

fn ask_for(part: &MappedPart, stop: &AtomicBool) {
    let range = part.range();
    for start in range.clone().step_by(ASK_BYTES) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        part.file().advise(start..range.end.min(start + ASK_BYTES), Advice::WillNeed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::MappedFile;
    use crate::matrix::{Buffer, MatrixData};
    use std::path::Path;

    /// A BF16 matrix in a mapped file of its own.
    fn mapped(path: &Path, n_rows: usize, n_cols: usize) -> Matrix {
        std::fs::write(path, vec![63u8; 2 * n_rows * n_cols]).unwrap();
        let file = MappedFile::open(path).unwrap();
        Matrix::new(n_rows, n_cols, MatrixData::Bf16(Buffer::mapped(&file, 0..2 * n_rows * n_cols)))
    }

    #[test]
    fn what_was_asked_for_reads_the_same_and_a_full_queue_does_not_hold_up_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let matrix = mapped(&dir.path().join("file"), 64, 4_096);
        let mut before = vec![0.0; 4_096];
        matrix.row(63, &mut before);
        let part = matrix.mapped_parts().next().unwrap();
        assert_eq!(part.range(), 0..2 * 64 * 4_096);
        part.file().advise(part.range(), Advice::DontNeed);
        let ahead = ReadAhead::start();
        (0..1_000).for_each(|_| ahead.ask(part));
        ahead.let_go(part);
        ahead.ask_for([&matrix, &Matrix::from_f32(1, 1, vec![1.0])]);
        drop(ahead);
        let mut after = vec![1.0; 4_096];
        matrix.row(63, &mut after);
        assert_eq!(before, after);
    }
}
