//! Which tokens may come next: the one thing a grammar tells the engine.

/// Why a mask gave up; its text goes to whoever sent the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MaskError(pub String);

/// A rule over token ids that follows one sequence.
pub trait TokenMask: Send {
    /// Set bit `id % 32` of word `id / 32` for each id that may come next; `mask` comes zeroed, [`n_words`] of V
    /// words long.
    ///
    /// # Errors
    /// When the rule cannot go on; the request fails with the text.
    fn fill(&mut self, mask: &mut [u32]) -> Result<(), MaskError>;

    /// Go on by one token.
    ///
    /// # Errors
    /// When the token is not allowed; the request fails with the text.
    fn accept(&mut self, id: u32) -> Result<(), MaskError>;

    /// Whether nothing more may follow; the request ends then.
    fn is_complete(&self) -> bool;
}

/// Words of 32 bits of a mask over `vocab_size` ids: V / 32, rounded up.
pub fn n_words(vocab_size: usize) -> usize {
    vocab_size.div_ceil(32)
}

/// Whether `mask` allows `id`; ids beyond its words are not allowed.
pub fn allows(mask: &[u32], id: u32) -> bool {
    mask.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
}
