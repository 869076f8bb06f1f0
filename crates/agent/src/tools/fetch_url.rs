//! `fetch_url`: a page of the web, or of the documents on this machine, as text in pages.

use super::arguments::{parse, text};
use super::{Arguments, Declaration, Origin, Output, Parameter, Pdf, Scope, Tool};
use crate::gate::{BoxFuture, Effect, Resource};
use crate::web::{Corpus, Fetched, Fetcher};
use std::sync::{Arc, Mutex, PoisonError};
use url::Url;

/// Bytes of one page of text.
const PAGE_BYTES_MAX: usize = 16 << 10;
/// Texts that are kept for their next pages.
const N_KEPT_MAX: usize = 8;
/// Bytes of them together; the newest is kept whatever its size.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Fetches pages. Where a collection of documents is given, its addresses are read from there.
pub struct FetchUrl {
    fetcher: Fetcher,
    corpus: Option<Arc<Corpus>>,
    kept: Mutex<Vec<Fetched>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Args {
    url: String,
    #[serde(default = "one")]
    page: usize,
}

fn one() -> usize {
    1
}

impl FetchUrl {
    /// Fetches through `fetcher`.
    #[must_use]
    pub fn new(fetcher: Fetcher, corpus: Option<Arc<Corpus>>) -> Self {
        Self { fetcher, corpus, kept: Mutex::default() }
    }

    fn is_own(&self, url: &str) -> bool {
        self.corpus.as_ref().is_some_and(|corpus| matches!(corpus.page(url), Ok(Some(_))))
    }

    async fn fetch(&self, args: &Args, scope: &Scope) -> Result<Fetched, String> {
        if let Some(corpus) = &self.corpus
            && let Some(found) = corpus.page(&args.url).map_err(|error| error.to_string())?
        {
            return Ok(found);
        }
        // A later page is of the text whose first page the model has seen.
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let again = kept().iter().find(|kept| args.page > 1 && kept.url == args.url).cloned();
        if let Some(again) = again {
            return Ok(again);
        }
        let body = self.fetcher.body(&args.url).await.map_err(|error| error.to_string())?;
        let fetched = match Pdf::is_one(&body.bytes) {
            true => Fetched { text: Pdf::text(scope.pdf.as_deref(), &body.bytes).await?, url: body.url },
            false => body.to_text().map_err(|error| error.to_string())?,
        };
        let mut kept = kept();
        kept.retain(|kept| kept.url != args.url);
        kept.push(Fetched { url: args.url.clone(), text: fetched.text.clone() });
        let n_bytes = |kept: &[Fetched]| kept.iter().map(|it| it.text.len()).sum::<usize>();
        while kept.len() > N_KEPT_MAX || kept.len() > 1 && n_bytes(&kept) > KEPT_BYTES_MAX {
            kept.remove(0);
        }
        Ok(fetched)
    }
}

impl Tool for FetchUrl {
    fn declaration(&self) -> Declaration {
        let parameters = [
            Parameter::required("url", "string", "address"),
            Parameter::optional("page", "integer", "page of the text, 1 if left out"),
        ];
        Declaration::flat("fetch_url", "Reads a page of the web.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Read
    }

    /// The host; a text that is no address stands for itself, and the gate refuses it.
    fn resources(&self, arguments: &Arguments) -> Vec<Resource> {
        let Some(url) = text(arguments, "url").filter(|url| !self.is_own(url)) else { return Vec::new() };
        let parsed = Url::parse(url).ok();
        let host = parsed.as_ref().and_then(|url| url.host_str().map(str::to_owned));
        let port = parsed.and_then(|url| url.port());
        vec![Resource::Host { host: host.unwrap_or_else(|| format!("no host in {url}")), port }]
    }

    fn run<'a>(&'a self, arguments: &'a Arguments, scope: &'a Scope) -> BoxFuture<'a, Output> {
        Box::pin(async move {
            let args = match parse::<Args>(&self.declaration(), arguments) {
                Ok(args) => args,
                Err(error) => return error.into(),
            };
            match self.fetch(&args, scope).await {
                Ok(mut fetched) => {
                    // Before it is cut into pages: half a value would not be recognised any more.
                    scope.secrets.redact_text(&mut fetched.text);
                    page(&fetched, args.page)
                }
                Err(told) => Output::failed(told),
            }
        })
    }
}

fn page(fetched: &Fetched, number: usize) -> Output {
    let pages = pages(&fetched.text);
    let Some(page) = number.checked_sub(1).and_then(|at| pages.get(at)) else {
        return Output::failed(format!("the text has pages 1 to {}; ask for one of these", pages.len()));
    };
    let more = if number < pages.len() {
        format!("\n(page {number} of {}; go on with page {})", pages.len(), number + 1)
    } else {
        String::new()
    };
    Output { origin: Origin::Web { url: fetched.url.clone() }, ..Output::done(format!("{page}{more}")) }
}

/// Cut at line ends where there is one in the second half of a page.
fn pages(text: &str) -> Vec<&str> {
    let mut pages = Vec::new();
    let mut rest = text;
    while rest.len() > PAGE_BYTES_MAX {
        let most = &rest[..rest.floor_char_boundary(PAGE_BYTES_MAX)];
        let end = most.rfind('\n').filter(|end| *end >= PAGE_BYTES_MAX / 2).map_or(most.len(), |end| end + 1);
        pages.push(&rest[..end]);
        rest = &rest[end..];
    }
    pages.push(rest);
    pages
}
