//! A place to run what a model wrote: namespaces, Landlock, seccomp and limits, made of our own binary executed again.
//!
//! The host starts the outer stage, which unshares; that starts the inner stage, the first process of the new
//! process namespace, which builds a root of its own, gives up everything, and starts the program. No layer is
//! trusted alone: `tests/sandbox` takes each away and shows what holds. Where the kernel refuses a layer nothing
//! runs, unless [`Layers`] names that layer among those that may be missing. Network is not offered.
//! What is promised and what is not stands in `docs/sandbox.md`.

mod cgroup;
mod confine;
mod doctor;
mod enter;
mod filter;
mod host;
mod init;
mod interpreter;
mod layers;
pub mod limits;
mod output;
mod root;
mod view;
mod wire;

pub use doctor::{Finding, examine};
pub use enter::enter_if_asked;
pub use host::{End, Outcome, Running, Sandbox, SandboxError, Streams};
pub use interpreter::{Interpreter, InterpreterError};
pub use layers::{Layer, Layers};
pub use limits::Limits;
pub use output::Captured;
pub use view::{Access, Bind, View, WORKSPACE};
pub use wire::Program;
