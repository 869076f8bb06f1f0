//! Here is an HTTP request, stream the answer.
//!
//! Nothing stands here yet. This is the place of the HTTP APIs, keys, usage and the console's shell, and the
//! one room where words meet numbers: what joins a grammar to the engine's token mask belongs here. It must
//! never know what a tool does to the world, nor how a model is trained.
