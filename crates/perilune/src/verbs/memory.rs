//! Resident memory of this process, as the system counts it.

/// Bytes resident; zero where the system does not say.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Memory {
    /// Anonymous memory now.
    pub(crate) anonymous_bytes: u64,
    /// Mapped files now.
    pub(crate) mapped_bytes: u64,
    /// Peak of all resident memory.
    pub(crate) peak_bytes: u64,
}

/// Let the peak start again from what is resident now, where the system allows it.
pub(crate) fn forget_peak() {
    // Without it the peak only reads high.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

impl Memory {
    /// Take the larger of each figure.
    pub(crate) fn raise(&mut self, other: Memory) {
        self.anonymous_bytes = self.anonymous_bytes.max(other.anonymous_bytes);
        self.mapped_bytes = self.mapped_bytes.max(other.mapped_bytes);
        self.peak_bytes = self.peak_bytes.max(other.peak_bytes);
    }

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
