//! The books: what the engine has done and holds.

/// Counters since the start, and gauges as of the last step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Steps settled, those without work counted.
    pub steps: u64,
    /// Requests taken, by class (latency, throughput).
    pub submitted: [u64; 2],
    /// Requests ended by a stop id, a complete mask or their length.
    pub completed: u64,
    /// Requests cancelled.
    pub cancelled: u64,
    /// Requests failed.
    pub failed: u64,
    /// Admissions, returns after preemption counted.
    pub admissions: u64,
    /// Preemptions of sequences, by class (latency, throughput).
    pub preemptions: [u64; 2],
    /// Prompt tokens of first admissions.
    pub prompt_tokens: u64,
    /// Of these, found cached.
    pub cached_tokens: u64,
    /// Prompt tokens computed for the first time.
    pub prefill_tokens: u64,
    /// Tokens computed again after a preemption.
    pub recomputed_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Blocks taken from the prefix cache for other use.
    pub evictions: u64,
    /// Bytes of weights that forward passes read, each matrix counted once a pass.
    pub weight_bytes: u64,
    /// Seconds in forward passes, by the clock handed in.
    pub forward_s: f64,
    /// Requests waiting, by class (latency, throughput).
    pub waiting: [usize; 2],
    /// Sequences running, by class (latency, throughput).
    pub running: [usize; 2],
    /// Rows (tokens) of the last step.
    pub batch_rows: usize,
    /// Sequences of the last step.
    pub batch_sequences: usize,
    /// Blocks of 64 tokens in all.
    pub blocks: usize,
    /// Blocks that hold nothing.
    pub blocks_free: usize,
    /// Blocks of the prefix cache that no sequence uses now.
    pub blocks_cached: usize,
    /// Blocks in use by sequences.
    pub blocks_used: usize,
}
