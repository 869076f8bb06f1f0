//! Here are buffers, give me the result.

pub mod map;
