//! One page from one host: the name is resolved once, every address is checked, and the connection goes to the
//! address that was checked, so that no second answer of a name server leads elsewhere.
//!
//! A redirect to another host is not followed: the gate decided on a host, so it is told to the model, which may
//! ask for it.

use super::page;
use crate::gate::BoxFuture;
use crate::policy::host;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioExecutor;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Longest body in bytes.
const BODY_BYTES_MAX: usize = 8 << 20;
/// Most redirects within one host.
const N_REDIRECTS_MAX: usize = 5;
/// Longest time for one page, redirects included.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Finds the addresses of a name.
pub trait Resolve: Send + Sync {
    /// All addresses of a name; fails as the system's resolver does.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>>;
}

/// The machine's own resolver.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
        })
    }
}

/// Why there is no page. The sentence is for the model.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What was written is no address that is fetched.
    #[error("{url:?} cannot be fetched: {why}")]
    Address {
        /// As written.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// The host is in this machine or its network.
    #[error("{host} is {address}, which is no address of the public internet; it is not fetched")]
    Private {
        /// The host.
        host: String,
        /// Its address.
        address: IpAddr,
    },
    /// The page has moved to another host.
    #[error("the page has moved to {url}; fetch that address if it is wanted")]
    Moved {
        /// Its new address.
        url: String,
    },
    /// More than five redirects within the host.
    #[error("the page was redirected more than {N_REDIRECTS_MAX} times")]
    Redirects,
    /// Another status than success.
    #[error("the host answered {status}")]
    Status {
        /// The HTTP status.
        status: http::StatusCode,
    },
    /// A body of more than 8 MiB.
    #[error("the page has more than {BODY_BYTES_MAX} bytes")]
    TooLong,
    /// Not text.
    #[error("the page is {kind:?}, which cannot be read as text")]
    NotText {
        /// Its content type.
        kind: String,
    },
    /// No page within 30 s, redirects included.
    #[error("the host did not answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    /// Everything else.
    #[error("{host} cannot be reached: {cause}")]
    Network {
        /// The host.
        host: String,
        /// Why.
        cause: String,
    },
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where it was found at last.
    pub url: String,
    /// Its text; HTML as Markdown.
    pub text: String,
}

/// What a host sent, before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Where it was found at last.
    pub url: String,
    /// Its `Content-Type`, as the host says; empty where it says none.
    pub kind: String,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Body {
    /// As text; HTML as Markdown.
    ///
    /// # Errors
    /// [`FetchError::NotText`]: its content type is not one of text.
    pub fn to_text(self) -> Result<Fetched, FetchError> {
        let Self { url, kind, bytes } = self;
        let text = page::to_text(&kind, &bytes).ok_or(FetchError::NotText { kind })?;
        Ok(Fetched { url, text })
    }
}

/// Fetches pages. Clones share their resolver.
#[derive(Clone)]
pub struct Fetcher {
    resolver: Arc<dyn Resolve>,
    is_allowed: fn(IpAddr) -> bool,
}

impl Fetcher {
    /// Fetches from the public internet alone: every address of a host must be [`host::is_public`].
    #[must_use]
    pub fn new() -> Self {
        Self::with(Arc::new(SystemResolver), host::is_public)
    }

    /// With another resolver and another idea of which addresses may be reached.
    #[must_use]
    pub fn with(resolver: Arc<dyn Resolve>, is_allowed: fn(IpAddr) -> bool) -> Self {
        Self { resolver, is_allowed }
    }

    /// A page as text, by HTTP or HTTPS.
    ///
    /// # Errors
    /// [`FetchError`]: as [`Fetcher::body`], or the page is not text.
    pub async fn page(&self, url: &str) -> Result<Fetched, FetchError> {
        self.body(url).await?.to_text()
    }

    /// A page as it was sent, by HTTP or HTTPS; redirects within its host are followed.
    ///
    /// # Errors
    /// [`FetchError`]: no such address, one that may not be reached, a host that fails, or too long a body.
    pub async fn body(&self, url: &str) -> Result<Body, FetchError> {
        tokio::time::timeout(FETCH_TIMEOUT, self.follow(url)).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn follow(&self, url: &str) -> Result<Body, FetchError> {
        let mut url = parse(url)?;
        for _ in 0..=N_REDIRECTS_MAX {
            let request = Request::builder().method(Method::GET).uri(url.as_str());
            let request = request.header(
                header::ACCEPT,
                "text/html, text/*, application/json;q=0.9, application/pdf;q=0.8, */*;q=0.1",
            );
            let response = self.send(&url, request, Bytes::new()).await?;
            let status = response.status();
            if status.is_redirection() {
                url = redirected(&url, &response)?;
                continue;
            }
            if !status.is_success() {
                return Err(FetchError::Status { status });
            }
            let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let kind = kind.unwrap_or_default().to_owned();
            let bytes = read(response, url.host_str().unwrap_or_default()).await?;
            return Ok(Body { url: url.into(), kind, bytes });
        }
        Err(FetchError::Redirects)
    }

    /// Sends to the address that was checked.
    pub(super) async fn send(
        &self,
        url: &Url,
        request: http::request::Builder,
        body: Bytes,
    ) -> Result<Response<Incoming>, FetchError> {
        let name = url.host_str().unwrap_or_default().to_owned();
        let network = |cause: String| FetchError::Network { host: name.clone(), cause };
        let addresses = self.checked(url).await?;
        let resolved = move |_: Name| {
            let addresses: Vec<_> = addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect();
            std::future::ready(Ok::<_, Infallible>(addresses.into_iter()))
        };
        let mut tcp = HttpConnector::new_with_resolver(tower::service_fn(resolved));
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build::<_, Full<Bytes>>(https);
        let request = request.header(header::USER_AGENT, concat!("perilune/", env!("CARGO_PKG_VERSION")));
        let request = request.body(Full::new(body)).map_err(|error| network(error.to_string()))?;
        client.request(request).await.map_err(|error| network(chain(&error)))
    }

    /// All addresses of a URL's host; one that is not allowed spoils them all.
    async fn checked(&self, url: &Url) -> Result<Vec<IpAddr>, FetchError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let addresses = match literal {
            Ok(address) => vec![address],
            Err(_) => {
                let found = self.resolver.resolve(&host).await;
                found.map_err(|error| FetchError::Network { host: host.clone(), cause: error.to_string() })?
            }
        };
        if let Some(address) = addresses.iter().find(|address| !(self.is_allowed)(**address)) {
            return Err(FetchError::Private { host, address: *address });
        }
        if addresses.is_empty() {
            return Err(FetchError::Network { host, cause: "it has no address".to_owned() });
        }
        Ok(addresses)
    }
}

impl Default for Fetcher {
    fn default() -> Self {
        Self::new()
    }
}

/// A URL that may be fetched.
pub(super) fn parse(url: &str) -> Result<Url, FetchError> {
    let wrong = |why: &str| FetchError::Address { url: url.to_owned(), why: why.to_owned() };
    let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    match () {
        () if !matches!(parsed.scheme(), "http" | "https") => Err(wrong("only http and https are fetched")),
        () if !parsed.username().is_empty() || parsed.password().is_some() => Err(wrong("it names a user")),
        () if parsed.host_str().is_none_or(str::is_empty) => Err(wrong("it has no host")),
        () => Ok(parsed),
    }
}

/// Where a redirect leads, if to the same host and not to a weaker scheme.
fn redirected<T>(from: &Url, response: &Response<T>) -> Result<Url, FetchError> {
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let Some(location) = location else { return Err(FetchError::Status { status: response.status() }) };
    let wrong =
        |error: url::ParseError| FetchError::Address { url: location.to_owned(), why: error.to_string() };
    let to = parse(from.join(location).map_err(wrong)?.as_str())?;
    let is_weaker = from.scheme() == "https" && to.scheme() == "http";
    let same = from.host_str() == to.host_str() && (from.port() == to.port() || from.scheme() != to.scheme());
    if same && !is_weaker { Ok(to) } else { Err(FetchError::Moved { url: to.into() }) }
}

pub(super) async fn read(response: Response<Incoming>, host: &str) -> Result<Bytes, FetchError> {
    match Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(FetchError::TooLong),
        Err(error) => Err(FetchError::Network { host: host.to_owned(), cause: error.to_string() }),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}
