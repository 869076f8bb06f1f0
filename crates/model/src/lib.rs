//! Here are token ids and a cache, give me logits.

pub mod checkpoint;
pub mod config;
pub mod layout;

pub mod cache;
pub mod chunk;
pub mod forward;
pub mod solo;
pub mod weights;

pub mod plan;
pub mod synth;
pub mod touched;
pub mod train;
pub mod verify;
pub mod watch;
