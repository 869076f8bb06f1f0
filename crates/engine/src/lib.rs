//! Here are sequences, who goes next?
//!
//! One [`Engine`] serves many requests over one paged cache. Its [`step`](Engine::step) is three calls:
//! *schedule* admits, reserves blocks and says which tokens run; *forward* runs them; *settle* checks the logits,
//! shares full blocks, samples and tells each request's sink. [`EngineThread`] is the same behind channels, asleep
//! when there is nothing to do. Token ids go in and out: the crate knows no text, tools or HTTP, and has no clock
//! and no randomness (a clock is handed to [`Engine::new`], a seed comes with each request).
//!
//! **What never depends on load.** A token is always computed by the phase it was first computed by (prompt:
//! prefill; generated: decode), chunks end at fixed positions, a draw depends on the request's seed and the index of
//! the token alone. So tokens and log-probabilities are the same bits whatever else runs, preempted or not;
//! [`plain`] is the definition that says which.
//!
//! **Prefix reuse.** Full blocks stay in a tree keyed by their token ids and by the phase each was written in. On the
//! exact path the phases write the same bits, so the cache changes nothing. Over a cache of latents they round
//! differently; blocks written by decode are shared all the same (an agent's next request repeats what was just
//! generated), so there a warm cache may differ from a cold one in the last bits of a log-probability.
//!
//! Reading order: [`request`] (what goes in and comes out), [`plain`] (the definition), the engine with its blocks,
//! schedule and settlement, [`thread`].

pub mod request;

pub mod mask;
pub mod nucleus;
pub mod sampler;

pub mod forward;
pub mod plain;

pub mod stats;

mod blocks;
mod engine;
mod schedule;
mod sequence;
mod settle;

pub mod thread;

pub use engine::{Clock, Engine, Limits, Move, Settings, StepReport, Work};
pub use thread::{EngineHandle, EngineThread, Ticket};
