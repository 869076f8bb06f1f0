//! Ctrl-C as a flag that long work looks at.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static SET: AtomicBool = AtomicBool::new(false);
static INSTALLED: OnceLock<()> = OnceLock::new();

/// What a shell reports of a program that Ctrl-C ended.
pub(crate) const EXIT_CODE: u8 = 130;

/// The end of a run that was asked to stop and has shown what it had.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Whether the person at the terminal has asked to stop.
#[derive(Clone, Copy)]
pub(crate) struct Interrupt;

/// Catch Ctrl-C (and SIGTERM) from now on: the first sets the flag, a second ends the process.
pub(crate) fn flag() -> Interrupt {
    INSTALLED.get_or_init(|| {
        let handler = || {
            if SET.swap(true, Ordering::Relaxed) {
                std::process::exit(EXIT_CODE.into());
            }
        };
        // Without a handler the signal ends the process as it always does, which is safe too.
        let _ = ctrlc::set_handler(handler);
    });
    Interrupt
}

impl Interrupt {
    /// Whether to stop.
    pub(crate) fn is_set(self) -> bool {
        SET.load(Ordering::Relaxed)
    }
}
