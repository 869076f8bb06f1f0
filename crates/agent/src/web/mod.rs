//! The network, as far as a run may see it: pages, searches, and a collection of documents that needs neither.
//!
//! Only tools reach it, after the gate has let their host through. What comes back is data for the model.

mod corpus;
mod fetch;
mod page;
mod search;

pub use corpus::{Corpus, CorpusError};
pub use fetch::{Body, FetchError, Fetched, Fetcher, Resolve, SystemResolver};
pub use page::to_markdown;
pub use search::{Engine, Hit, SearchError, Searcher};
