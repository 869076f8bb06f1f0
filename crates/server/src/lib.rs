//! Here is an HTTP request, stream the answer.
//!
//! The walk of a request: [`routes`] reads it and its key, [`job`] passes its [`limits`] and opens its line in the
//! [`store`], [`answer`] asks the engine (words meet numbers there and nowhere else) or [`upstream`] asks another
//! endpoint, and pieces go back through the same route, written down as they come or folded. [`console`] is the pages for
//! people, and [`serve`] the listening (in [`tls`] or not) and the draining.
//!
//! This crate never knows what a tool does to the world, nor how a model is trained.

pub mod app;
pub mod routes;

pub mod console;

pub mod job;

pub mod answer;
pub mod upstream;

pub mod limits;
pub mod store;

pub mod error;
pub mod metrics;
pub mod serve;
pub mod tls;
