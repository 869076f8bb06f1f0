//! Listening, slow and half-open connections, and a stop that lets running answers end.

use crate::app::App;
use crate::tls::Tls;
use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

/// Connections at once; later ones wait in the system's queue until one ends.
pub const CONNECTIONS_MAX: usize = 8_192;
/// Time that a request's head may take to come.
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that a request's head may have.
const HEADER_BYTES_MAX: usize = 64 << 10;
/// Time that a reader may take nothing before its connection, and the work behind it, is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after the system refused a connection, so that a lack of file handles does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come in.
pub struct Door {
    listener: TcpListener,
    tls: Option<Tls>,
}

impl Door {
    /// A door that speaks TLS where it has a certificate.
    #[must_use]
    pub fn new(listener: TcpListener, tls: Option<Tls>) -> Self {
        Self { listener, tls }
    }
}

impl From<TcpListener> for Door {
    fn from(listener: TcpListener) -> Self {
        Self::new(listener, None)
    }
}

/// Serves HTTP/1 until `stop` is ready, then takes no more and gives running answers `drain` to end; returns whether
/// all did. The ledger is written to its end before it returns.
pub async fn serve(
    door: impl Into<Door>,
    app: App,
    router: Router,
    stop: impl Future<Output = ()>,
    drain: Duration,
) -> bool {
    let Door { listener, tls } = door.into();
    let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    tokio::pin!(stop);
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = tokio::select! {
            accepted = async { (place.await, listener.accept().await) } => accepted,
            () = &mut stop => break,
        };
        match accepted {
            (Ok(place), Ok((stream, _))) => {
                let connection = connection(stream, tls.clone(), router.clone(), graceful.watcher());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => break,
        }
    }
    app.drain();
    drop(listener);
    tracing::info!(drain_s = drain.as_secs(), "stopping: running answers may end");
    let is_clean = tokio::time::timeout(drain, graceful.shutdown()).await.is_ok();
    if let Err(error) = app.store().flush().await {
        tracing::error!(%error, "the ledger could not be written to its end");
    }
    is_clean
}

/// One connection until it ends, or until a stop has let its answers end.
async fn connection(stream: TcpStream, tls: Option<Tls>, router: Router, watcher: Watcher) {
    // Without it a token could wait for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_TIMEOUT));
    let stream = Box::pin(stream);
    match tls {
        None => answer(stream, router, watcher).await,
        Some(tls) => match tokio::time::timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => answer(stream, router, watcher).await,
            Ok(Err(error)) => tracing::debug!(%error, "a connection did not come to speak TLS"),
            Err(_) => tracing::debug!("a connection took too long to speak TLS"),
        },
    }
}

async fn answer<S>(stream: S, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(|request: http::Request<Incoming>| request.map(Body::new));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    // A connection that fails has lost its client: nobody is left to be told.
    let _ = watcher.watch(connection).await;
}
