//! The front door from outside: the pages and their commands, settings, the doctor, completions, the manual, the service.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // Helpers outside the test functions; what was skipped is said.

mod doctor;
#[path = "../common/folder.rs"]
mod folder;
mod links;
mod page;
mod pages;
mod service;
mod settings;
mod shells;
#[path = "../common/signal.rs"]
mod signal;
mod stumbles;
mod world;
