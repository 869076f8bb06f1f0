//! The way in for a person who stops a run of another process: a file that the process looks for. It works whoever
//! started the process, and needs no process number, which might be another's by now.

use super::JournalError;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

/// Name of the file in a run's folder.
const STOP_FILE: &str = "stop";
/// How often a process looks for it.
const LOOK_MS: u64 = 500;

/// Asks the process that works on the run in `folder` to end; the run can be resumed.
///
/// # Errors
/// [`JournalError::Io`]: the file cannot be written.
pub fn ask_to_stop(folder: &Path) -> Result<(), JournalError> {
    let path = folder.join(STOP_FILE);
    std::fs::write(&path, "").map_err(|error| JournalError::Io { path, problem: error.to_string() })
}

/// Forgets what was asked of an earlier process; whoever takes a run up calls it once the run is its own.
///
/// # Errors
/// [`JournalError::Io`]: the file is there and cannot be removed.
pub fn forget_stop(folder: &Path) -> Result<(), JournalError> {
    let path = folder.join(STOP_FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(JournalError::Io { path, problem: error.to_string() })
        }
        _ => Ok(()),
    }
}

/// Ready once [`ask_to_stop`] was called on the run in `folder`; looks every half second.
pub async fn stop_asked(folder: &Path) {
    let path = folder.join(STOP_FILE);
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn what_was_asked_of_an_earlier_process_stops_no_later_one() {
        let folder = tempfile::tempdir().unwrap();
        forget_stop(folder.path()).unwrap();
        let soon = Duration::from_millis(3 * LOOK_MS);
        assert!(timeout(soon, stop_asked(folder.path())).await.is_err());
        ask_to_stop(folder.path()).unwrap();
        ask_to_stop(folder.path()).unwrap();
        assert!(timeout(soon, stop_asked(folder.path())).await.is_ok());
        forget_stop(folder.path()).unwrap();
        assert!(timeout(soon, stop_asked(folder.path())).await.is_err());
    }
}
