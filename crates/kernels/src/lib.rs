//! Here are buffers, give me the result.
