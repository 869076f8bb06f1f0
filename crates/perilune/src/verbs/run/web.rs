//! The network and documents: which search engine, which collection, and their tools.

use anyhow::{Context, bail};
use perilune_agent::secrets::Secrets;
use perilune_agent::tools::{FetchUrl, Registry, WebSearch};
use perilune_agent::web::{Corpus, Engine, Fetcher, Searcher, SystemResolver};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Variable of the key of a search engine.
pub(in crate::verbs) const SEARCH_KEY: &str = "PERILUNE_SEARCH_KEY";
/// Where the vendors' search engines are.
const BRAVE: &str = "https://api.search.brave.com";
const TAVILY: &str = "https://api.tavily.com";
/// Name of the index of a collection in a run's folder.
const INDEX_FILE: &str = "documents.sqlite";

/// The flags.
#[derive(clap::Args, Clone)]
pub(super) struct WebArgs {
    /// Search engine of web_search; the key of Brave and Tavily is read from PERILUNE_SEARCH_KEY. Policy decides
    /// about its host as about any other
    #[arg(long, value_name = "searxng=URL|brave[=URL]|tavily[=URL]", value_parser = parse_place)]
    search: Option<Place>,
    /// Folder of documents (Markdown, HTML, text, CSV) that web_search searches in place of the network, and whose
    /// addresses fetch_url reads
    #[arg(long, value_name = "DIR", conflicts_with = "search")]
    corpus: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Searxng,
    Brave,
    Tavily,
}

/// A search engine without its key.
#[derive(Clone)]
struct Place {
    kind: Kind,
    url: String,
    text: String,
}

fn parse_place(text: &str) -> Result<Place, String> {
    let (kind, url) = text.split_once('=').map_or((text, None), |(kind, url)| (kind, Some(url)));
    let (kind, url) = match (kind, url) {
        ("searxng", Some(url)) => (Kind::Searxng, url),
        ("brave", url) => (Kind::Brave, url.unwrap_or(BRAVE)),
        ("tavily", url) => (Kind::Tavily, url.unwrap_or(TAVILY)),
        _ => return Err("write it as searxng=URL, brave or tavily".to_owned()),
    };
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(format!("{url} is no address; write it as https://host"));
    }
    Ok(Place { kind, url: url.to_owned(), text: text.to_owned() })
}

impl WebArgs {
    /// Whether anything is asked for.
    pub(super) fn is_given(&self) -> bool {
        self.search.is_some() || self.corpus.is_some()
    }

    /// Adds `fetch_url`, and `web_search` where there is something to search. The index of a collection is made
    /// anew in `folder`, which must be there.
    pub(super) fn add_to(
        &self,
        tools: &mut Registry,
        folder: &Path,
        secrets: &Secrets,
    ) -> anyhow::Result<()> {
        let corpus = self
            .corpus
            .as_ref()
            .map(|documents| Corpus::of_folder(&folder.join(INDEX_FILE), documents, secrets).map(Arc::new));
        let corpus = corpus.transpose()?;
        let engine = match (&corpus, &self.search) {
            (Some(corpus), _) => Some(Engine::Corpus(Arc::clone(corpus))),
            (None, Some(place)) => Some(place.engine()?),
            (None, None) => None,
        };
        if let Some(engine) = engine {
            // Whoever starts the run names the engine, so it may stand on this machine.
            let fetcher = Fetcher::with(Arc::new(SystemResolver), |_| true);
            tools.add(Arc::new(WebSearch(Searcher::new(engine, fetcher))))?;
        }
        Ok(tools.add(Arc::new(FetchUrl::new(Fetcher::new(), corpus)))?)
    }

    /// The flags as they were given, to be given again.
    pub(super) fn given(&self) -> Vec<String> {
        let search = self.search.iter().flat_map(|place| ["--search".to_owned(), place.text.clone()]);
        let corpus = self.corpus.iter().flat_map(|dir| ["--corpus".to_owned(), dir.display().to_string()]);
        search.chain(corpus).collect()
    }
}

impl Place {
    fn engine(&self) -> anyhow::Result<Engine> {
        let url = self.url.clone();
        if self.kind == Kind::Searxng {
            return Ok(Engine::Searxng { url });
        }
        let key = std::env::var(SEARCH_KEY)
            .with_context(|| format!("{} needs a key in {SEARCH_KEY}", self.text))?;
        if key.trim().is_empty() {
            bail!("{} needs a key in {SEARCH_KEY}, which is empty", self.text);
        }
        let key = key.trim().to_owned();
        Ok(if self.kind == Kind::Brave { Engine::Brave { url, key } } else { Engine::Tavily { url, key } })
    }
}
