//! The listener in TLS, with a certificate made here; and files that are none.

#![allow(clippy::unwrap_used)]

mod common;

use common::House;
use perilune_server::serve::{Door, serve};
use perilune_server::tls::{Tls, TlsError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Writes a self-signed certificate and its key; their paths and the certificate.
fn made(dir: &Path, name: &str) -> (PathBuf, PathBuf, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key, made.cert.der().clone())
}

fn connector(root: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

const GET: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_the_certificate_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key, root) = made(dir.path(), "own");
    let house = House::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::new(listener, Some(Tls::open(&certificate, &key).unwrap()));
    let (app, router) = (house.app.clone(), house.router.clone());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async {
        // Stops when the test says so, or ends without saying.
        let _ = stopped.await;
    };
    let served = tokio::spawn(serve(door, app, router, stopped, Duration::from_secs(20)));
    // A client that says nothing, and one that does not speak TLS, keep nobody waiting.
    let _silent = TcpStream::connect(address).await.unwrap();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(GET).await.unwrap();
    let mut answer = Vec::new();
    // The server may close before all was read, which some systems report.
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1"), "nothing is said in the clear");

    let name = || ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let mut stream = connector(root).connect(name(), tcp).await.unwrap();
    stream.write_all(GET).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{\"status\":\"ok\"}"), "{answer}");

    let (_, _, stranger) = made(dir.path(), "stranger");
    let tcp = TcpStream::connect(address).await.unwrap();
    assert!(connector(stranger).connect(name(), tcp).await.is_err(), "another root does not know it");
    drop(_silent);
    stop.send(()).unwrap();
    assert!(served.await.unwrap(), "the drain is clean");
}

#[test]
fn files_that_do_not_fit_are_told_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key, _) = made(dir.path(), "own");
    let (_, other, _) = made(dir.path(), "other");
    let (empty, missing) = (dir.path().join("empty"), dir.path().join("missing"));
    std::fs::write(&empty, "nothing").unwrap();
    let error = |certificate: &Path, key: &Path| Tls::open(certificate, key).err().unwrap();
    assert!(matches!(error(&missing, &key), TlsError::Unreadable { .. }));
    assert!(matches!(error(&certificate, &missing), TlsError::Unreadable { .. }));
    assert!(matches!(error(&empty, &key), TlsError::NoCertificate { .. }));
    assert!(matches!(error(&certificate, &empty), TlsError::NoKey { .. }));
    assert!(matches!(error(&key, &certificate), TlsError::NoCertificate { .. }), "the two exchanged");
    let mismatch = error(&certificate, &other);
    assert!(matches!(mismatch, TlsError::Mismatch { .. }), "{mismatch}");
    assert!(mismatch.to_string().contains("other.key") && !mismatch.to_string().contains('\n'), "{mismatch}");
}
