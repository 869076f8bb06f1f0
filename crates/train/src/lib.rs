//! Here is data, make better weights.
//!
//! Recipes, optimisers and quantisation-aware training on the one definition of the model that also serves. It must
//! never know HTTP; of `perilune-agent` it may use tool declarations, context, data, evaluation and rollouts,
//! nothing else.

pub mod data;
pub mod eval;
pub mod recipe;

pub mod feed;
pub mod rng;

pub mod optim;
pub mod schedule;

pub mod checkpoint;
pub mod export;
pub mod log;
pub mod plan;
pub mod report;
pub mod run;
pub mod view;
