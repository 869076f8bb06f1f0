//! Resident memory of this process, as the system counts it.

/// Bytes resident; zero where the system does not say.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Memory {
    /// Anonymous memory now.
    pub(crate) anonymous_bytes: u64,
    /// Mapped files now.
    pub(crate) mapped_bytes: u64,
    /// Peak of both together.
    pub(crate) peak_bytes: u64,
}

impl Memory {
    /// Read `/proc/self/status`.
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            kib.unwrap_or(0) * 1024
        };
        Memory {
            anonymous_bytes: field("RssAnon"),
            mapped_bytes: field("RssFile"),
            peak_bytes: field("VmHWM"),
        }
    }
}
