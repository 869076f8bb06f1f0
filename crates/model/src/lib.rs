//! Here are token ids and a cache, give me logits.

pub mod checkpoint;
pub mod config;
pub mod layout;
pub mod plan;
pub mod synth;
