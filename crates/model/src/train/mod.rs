//! Training: the forward pass once more with what its derivative needs, and the derivative, by hand.
//!
//! The forward's logits and choices of experts are those of [`crate::forward`] on the exact path, bit for bit: each
//! product, norm and softmax has the order of summation that `perilune_kernels::reference` writes down. Gradients are
//! the same for any number of threads.
//!
//! Reading order: the weights in [`parameters`], what a pass takes and gives in [`batch`], how weights are rounded
//! in `round`, the pass itself in [`pass`], and the file it all ends in in [`mod@export`].

pub mod batch;
pub mod parameters;
pub mod pass;

pub mod export;

mod attend;
mod mixture;
mod mlp;
mod places;
mod round;

pub use batch::{Batch, Evaluation, Options, Quant, Routing, Stats, TrainError};
pub use export::{ExportError, Form, export};
pub use parameters::{Gradients, ParamClass, ParamSpec, Parameters};
pub use pass::Pass;
