//! Long work is watched: told of its progress to someone, and asked by someone to stop.

/// Who watches long work over files; threads call it, several at once.
pub trait Watch: Sync {
    /// `n_bytes` more are done.
    fn advance(&self, n_bytes: u64);
    /// Whether to stop now.
    fn stopped(&self) -> bool;
}

/// The watcher who neither looks nor stops anything.
pub struct Unwatched;

impl Watch for Unwatched {
    fn advance(&self, _n_bytes: u64) {}
    fn stopped(&self) -> bool {
        false
    }
}
