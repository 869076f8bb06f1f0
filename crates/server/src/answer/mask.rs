//! Where a grammar becomes the engine's token mask.

use perilune_chat::grammar::Constraint;
use perilune_engine::mask::{MaskError, TokenMask};

/// A constraint of words, as the engine sees it.
pub struct GrammarMask(pub Constraint);

impl TokenMask for GrammarMask {
    fn fill(&mut self, mask: &mut [u32]) -> Result<(), MaskError> {
        self.0.fill_mask(mask).map_err(|error| MaskError(error.to_string()))
    }

    fn accept(&mut self, id: u32) -> Result<(), MaskError> {
        self.0.accept(id).map_err(|error| MaskError(error.to_string()))
    }

    fn is_complete(&self) -> bool {
        self.0.is_complete()
    }
}
