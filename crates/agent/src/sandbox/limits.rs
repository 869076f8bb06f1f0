//! How much of the machine what runs in the sandbox may take.

use serde::{Deserialize, Serialize};

/// Wall-clock time of one call, milliseconds, unless its caller says otherwise.
pub const WALL_MS: u64 = 120_000;
/// Processor time of one process, seconds.
pub const CPU_S: u64 = 600;
/// Address space of one process, bytes. Interpreters reserve far more than they touch.
pub const ADDRESS_SPACE_BYTES: u64 = 8 << 30;
/// Memory of everything inside together, bytes; held where a control group can be made.
pub const MEMORY_BYTES: u64 = 4 << 30;
/// Number of processes and threads together.
pub const N_PROCESSES: u64 = 256;
/// Size of one file, bytes.
pub const FILE_BYTES: u64 = 1 << 30;
/// Bytes that one program may write to storage, all files together; looked at every [`DISK_POLL_MS`].
pub const DISK_BYTES: u64 = 4 << 30;
/// Time between two looks at the bytes written, milliseconds.
pub const DISK_POLL_MS: u64 = 50;
/// Number of open files of one process.
pub const N_FILES: u64 = 512;
/// Size of `/tmp` and of `/dev/shm`, bytes each, held in memory.
pub const TMP_BYTES: u64 = 256 << 20;
/// Number of files in `/tmp` and in `/dev/shm`, each.
pub const N_TMP_FILES: u64 = 16_384;
/// Bytes of output kept of each stream; what exceeds it is counted and dropped from the middle.
pub const OUTPUT_BYTES: usize = 1 << 20;
/// Time that the processes inside get to vanish after the word to, before their parent is killed too.
pub(super) const KILL_GRACE_MS: u64 = 2_000;
/// Time that putting up the layers may take.
pub(super) const START_MS: u64 = 30_000;
/// Part of a frame that a plan may not fill.
pub(super) const FRAME_MARGIN_BYTES: usize = 1 << 10;

/// Limits of one program. Every field is a hard limit: what runs inside can lower it and never raise it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock time, milliseconds; then everything inside is killed.
    pub wall_ms: u64,
    /// Processor time of one process, seconds (`RLIMIT_CPU`).
    pub cpu_s: u64,
    /// Address space of one process, bytes (`RLIMIT_AS`).
    pub address_space_bytes: u64,
    /// Memory of everything inside together, bytes; held where a control group can be made (`memory.max`).
    pub memory_bytes: u64,
    /// Number of processes and threads together (`RLIMIT_NPROC`, `pids.max`).
    pub n_processes: u64,
    /// Size of one file, bytes (`RLIMIT_FSIZE`).
    pub file_bytes: u64,
    /// Bytes written to storage by all processes inside, all files together.
    pub disk_bytes: u64,
    /// Number of open files of one process (`RLIMIT_NOFILE`).
    pub n_files: u64,
    /// Size of `/tmp` and of `/dev/shm`, bytes each.
    pub tmp_bytes: u64,
    /// Bytes of output kept of each stream.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_ms: WALL_MS,
            cpu_s: CPU_S,
            address_space_bytes: ADDRESS_SPACE_BYTES,
            memory_bytes: MEMORY_BYTES,
            n_processes: N_PROCESSES,
            file_bytes: FILE_BYTES,
            disk_bytes: DISK_BYTES,
            n_files: N_FILES,
            tmp_bytes: TMP_BYTES,
            output_bytes: OUTPUT_BYTES,
        }
    }
}
