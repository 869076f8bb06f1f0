//! The gate from outside: policies, approvals, secrets.
#![allow(clippy::unwrap_used)]

mod approvals;
mod decisions;
mod paths;
mod properties;
mod refusals;
mod secrets;
mod shell;
mod support;
