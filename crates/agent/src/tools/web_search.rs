//! `web_search`: a question to the configured search engine, or to the documents on this machine.

use super::arguments::parse;
use super::{Arguments, Declaration, Origin, Output, Parameter, Scope, Tool};
use crate::gate::{BoxFuture, Effect, Resource};
use crate::web::Searcher;
use std::fmt::Write;

/// Results of one search.
const N_HITS_MAX: usize = 8;

/// Searches the web, or the documents on this machine, by words.
pub struct WebSearch(pub Searcher);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    query: String,
}

impl Tool for WebSearch {
    fn declaration(&self) -> Declaration {
        let parameters = [Parameter::required("query", "string", "words to find")];
        Declaration::flat("web_search", "Searches the web.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Read
    }

    fn resources(&self, _: &Arguments) -> Vec<Resource> {
        self.0.host().map(|host| Resource::Host { host, port: None }).into_iter().collect()
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, _: &'a Scope) -> BoxFuture<'a, Output> {
        Box::pin(async move {
            let args = match parse::<Args>(&self.declaration(), arguments) {
                Ok(args) => args,
                Err(error) => return error.into(),
            };
            if args.query.trim().is_empty() {
                return Output::failed("query is empty; give words to find");
            }
            let hits = match self.0.search(&args.query, N_HITS_MAX).await {
                Ok(hits) => hits,
                Err(error) => return Output::failed(error.to_string()),
            };
            if hits.is_empty() {
                return Output::done(format!("nothing was found for {}", args.query));
            }
            let mut text = String::new();
            for (at, hit) in hits.iter().enumerate() {
                let extract = hit.extract.split_whitespace().collect::<Vec<_>>().join(" ");
                let _ = writeln!(text, "{}. {}\n   {}\n   {extract}", at + 1, hit.title, hit.url);
            }
            let url = self.0.host().unwrap_or_else(|| "the documents on this machine".to_owned());
            Output { origin: Origin::Web { url }, ..Output::done(text.trim_end()) }
        })
    }
}
