//! Here is data, make better weights.
//!
//! Nothing stands here yet. This is the place of recipes, optimisers, quantisation-aware training and
//! reinforcement learning, on the one definition of the model that also serves. It must never know HTTP; of
//! `perilune-agent` it may use tool declarations, context, data, evaluation and rollouts, nothing else.
