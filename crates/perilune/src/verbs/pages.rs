//! The agent's pages in the server's console: one login, one navigation, one style.

use http::Extensions;
use perilune_agent::console::{Frame, Pages, ROOT, Starter, routes};
use perilune_server::console::{Console, Entry, Session, bytes, count, time, token_field};
use std::path::Path;
use std::sync::Arc;

/// The server's shell around the agent's pages.
struct Shell;

impl Frame for Shell {
    fn page(&self, request: &Extensions, title: &str, body: &str) -> String {
        let (console, session) = (request.get::<Console>(), request.get::<Session>());
        // The guard in front of every page puts them there; without them the reader is nobody.
        let framed =
            console.zip(session).map(|(console, session)| console.guest_page(session, ROOT, title, body));
        framed.unwrap_or_default()
    }

    fn form_fields(&self, request: &Extensions) -> String {
        request.get::<Session>().map(|session| token_field(session).into_string()).unwrap_or_default()
    }

    fn time(&self, ms: u64) -> String {
        time(ms.cast_signed())
    }

    fn count(&self, n: u64) -> String {
        count(n)
    }

    fn bytes(&self, n: u64) -> String {
        bytes(n)
    }
}

/// The console with the pages on the runs in a folder, which start some where there is a `starter`.
pub(super) fn with_runs(console: Console, runs: &Path, starter: Option<Arc<dyn Starter>>) -> Console {
    let entry = Entry { path: ROOT.to_owned(), name: "Runs".to_owned() };
    let pages = Pages::new(runs, Arc::new(Shell));
    let pages = match starter {
        Some(starter) => pages.with_starter(starter),
        None => pages,
    };
    console.with_guests(vec![entry], routes(pages))
}
