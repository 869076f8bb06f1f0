//! Can the model do it? Episodes it never saw, with real tools, judged by the files it leaves.
//!
//! [`closed_loop`] lets a model act through the agent's own context and tools; [`turns`] asks, while training, how
//! many whole turns it would have written as the expert did.

pub mod closed_loop;
pub mod turns;
