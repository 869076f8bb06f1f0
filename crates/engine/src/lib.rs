//! Here are sequences, who goes next?
//!
//! Nothing stands here yet. This is the place of the scheduler, the blocks of latent cache, the prefix cache
//! and the sampler: one thread that is spoken to over channels, whose step is three calls (schedule, forward,
//! settle). It must never know text, tools or HTTP, and owns neither clock nor randomness: both are handed in.
