//! What `shell` and `python` share: how their sandbox is made, and how its endings are told to the model.

use super::Scope;
use crate::sandbox::{Access, End, Layers, Limits, Sandbox, View};
use std::path::PathBuf;
use std::time::Duration;

/// Longest time that a call may ask for, s: the loop waits little longer for any attempt.
pub(super) const TIMEOUT_S_MAX: u64 = 840;

/// How programs of a run are confined. The host decides; the model cannot change it.
#[derive(Debug, Clone)]
pub struct Confined {
    /// Binary that calls [`crate::sandbox::enter_if_asked`] first in its `main`.
    pub binary: PathBuf,
    /// Layers that are wanted, and which may be missing.
    pub layers: Layers,
    /// How much may be taken; its `wall_ms` holds for a call that asks for no time of its own.
    pub limits: Limits,
    /// Files, by their paths on the host, that programs cannot open: those that hold secret values.
    pub hidden: Vec<PathBuf>,
}

impl Default for Confined {
    /// All layers and the standard limits, entered through the binary that runs.
    fn default() -> Self {
        let (layers, limits, hidden) = (Layers::default(), Limits::default(), Vec::new());
        Self { binary: "/proc/self/exe".into(), layers, limits, hidden }
    }
}

impl Confined {
    /// A sandbox around the workspace of a scope, writable.
    pub(super) fn sandbox(&self, scope: &Scope) -> Sandbox {
        let view = View::new(scope.workspace.root_path(), Access::ReadWrite);
        Sandbox {
            binary: self.binary.clone(),
            layers: self.layers.clone(),
            limits: self.limits.clone(),
            view: self.hidden.iter().fold(view, |view, file| view.hide(file)),
        }
    }

    /// Wall-clock time of a call.
    pub(super) fn wall(&self, timeout_s: Option<u64>) -> Result<Duration, String> {
        match timeout_s {
            None => Ok(Duration::from_millis(self.limits.wall_ms)),
            Some(seconds) if (1..=TIMEOUT_S_MAX).contains(&seconds) => Ok(Duration::from_secs(seconds)),
            Some(_) => Err(format!("timeout_s is a number from 1 to {TIMEOUT_S_MAX}")),
        }
    }
}

/// One line about an ending that is not success.
pub(super) fn tell(end: End, wall: Duration) -> String {
    match end {
        End::Exited(status) => format!("(exit status {status})"),
        End::Signalled(signal) => format!("(ended by signal {signal}{})", hint(signal)),
        End::TimedOut => format!("(killed with all it started: not done after {} s)", wall.as_secs_f32()),
        End::OverDisk(bytes) => {
            format!("(killed with all it started: {bytes} bytes written to disk are too many)")
        }
        End::Killed => "(killed, most likely for taking more memory than all may take together)".to_owned(),
    }
}

/// What a signal means when a limit sent it.
fn hint(signal: i32) -> &'static str {
    match signal {
        libc::SIGXCPU => ": too much processor time",
        libc::SIGXFSZ => ": a file grew too large",
        libc::SIGKILL => ": too much memory or processor time",
        libc::SIGSYS => ": a system call that is not allowed",
        _ => "",
    }
}
