//! Here is a task, do it within the rules.
//!
//! This is the place of turns, tools, the gate that every effect on the world passes (policy, approval,
//! sandbox, attempt, journal) and the journal itself. It reaches a model through one trait of
//! `perilune-chat` and must never know the engine, the model, the kernels or the server behind it.

pub mod console;
pub mod context;
pub mod gate;
pub mod journal;
mod mutant;
pub mod policy;
pub mod run;
pub mod sandbox;
pub mod secrets;
pub mod tools;
pub mod web;
