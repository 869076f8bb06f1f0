//! Here are messages, give me tokens; here are tokens, give me messages.
//!
//! The walk of a request: [`wire`] is exactly what was sent, [`message`] what it may mean, [`template`]
//! what the model will see, [`tokenizer`] its ids. Back: [`scanner`] tells thought, answer and call apart
//! in the ids that the model writes, and [`grammar`] which may come next. [`model`] is the one door through which an
//! agent reaches a model.
//!
//! This crate never knows tensors or sockets, and starts no runtime. The one thread it starts compiles a schema on a
//! large stack and ends before that call returns.

pub mod grammar;
pub mod message;
pub mod model;
pub mod scanner;
pub mod template;
pub mod tokenizer;
pub mod wire;
