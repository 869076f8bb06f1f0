//! What several integration tests share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // Each test uses its part.

// The reader of documents that run is the one of `chat`.
#[path = "../../../chat/tests/support/document.rs"]
pub mod document;

use perilune_agent::gate::BoxFuture;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// Folder of the tests.
pub fn tests_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// The value of a future that never waits.
pub fn now<T>(future: BoxFuture<'_, T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the future waits"),
    }
}
