//! The statuses that the document lists for an operation are those that its handler gives, each of them provoked here.

use crate::common::{House, user};
use axum::Router;
use axum::body::Body;
use http::Request;
use perilune_server::app::App;
use perilune_server::routes::{self, Pages, document};
use perilune_server::store::{KeyKind, KeyLimits, Store, Usd};
use perilune_server::upstream::{Dialect, Endpoint, Upstream};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tower::ServiceExt;

const MODEL: &str = "kimi-k2-thinking";
const JSON: &str = "application/json";

/// A server in some state, and what is asked of each of its operations.
struct Situation {
    router: Router,
    model: &'static str,
    kind: &'static str,
    header: Option<(&'static str, String)>,
    /// What is sent instead of a good body.
    body: Option<&'static str>,
}

impl Situation {
    fn new(router: Router) -> Self {
        Self { router, model: MODEL, kind: JSON, header: None, body: None }
    }

    fn with_header(self, name: &'static str, value: &str) -> Self {
        Self { header: Some((name, value.to_owned())), ..self }
    }

    fn good_body(&self) -> Body {
        let body = json!({ "model": self.model, "messages": user("x"), "prompt": "x", "max_tokens": 1 });
        body.to_string().into()
    }

    async fn ask(&self, method: &str, path: &str) -> u16 {
        let body = self.body.map_or_else(|| self.good_body(), Body::from);
        self.send(method, path, body).await
    }

    async fn send(&self, method: &str, path: &str, body: Body) -> u16 {
        let path = path.replace("{id}", self.model);
        let mut request = Request::builder().method(method).uri(path).header("content-type", self.kind);
        if let Some((name, value)) = &self.header {
            request = request.header(*name, value);
        }
        let request = request.body(body).unwrap();
        self.router.clone().oneshot(request).await.unwrap().status().as_u16()
    }
}

/// A server whose only model is at an address where nobody listens.
fn alone() -> Router {
    let endpoint = Endpoint {
        base_url: "http://127.0.0.1:9/v1".to_owned(),
        api_key: None,
        model: MODEL.to_owned(),
        dialect: Dialect::OpenAi,
    };
    let app = App::new(Store::in_memory().unwrap(), true).unwrap();
    routes::router(app.with_upstream(MODEL, Upstream::new(endpoint).unwrap()), Pages::new())
}

/// A server that wants a key, and a key of it that has nothing left to spend.
async fn keyed() -> (Router, String) {
    let store = Store::in_memory().unwrap();
    let key = store.create_key("k", KeyKind::Api, KeyLimits::default(), Some(Usd::default())).await;
    (House::with(Duration::ZERO, store).router, key.unwrap().secret)
}

/// A server whose keys can no longer be read.
fn damaged(folder: &std::path::Path) -> Router {
    let path = folder.join("perilune.db");
    let store = Store::open(&path).unwrap();
    rusqlite::Connection::open(&path).unwrap().execute_batch("DROP TABLE keys").unwrap();
    House::with(Duration::ZERO, store).router
}

fn stopping() -> Router {
    let house = House::new();
    house.app.drain();
    house.router
}

/// Each operation's method, its path and the statuses that the document lists for it.
fn operations() -> Vec<(String, String, BTreeSet<u16>)> {
    let document = document();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let statuses = operation["responses"].as_object().unwrap().keys();
            let statuses = statuses.map(|status| status.parse().unwrap()).collect();
            found.push((method.to_uppercase(), path.clone(), statuses));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_lists_the_statuses_that_it_gives() {
    let folder = tempfile::tempdir().unwrap();
    let (good, (keyed, spent)) = (House::new().router, keyed().await);
    let good = || Situation::new(good.clone());
    let situations = [
        good(),
        good().with_header("origin", "https://example.com"),
        good().with_header("content-length", "99999999999"),
        Situation { kind: "text/plain", ..good() },
        Situation { body: Some("{"), ..good() },
        Situation { model: "none", ..good() },
        Situation { model: "%FF", ..good() },
        Situation::new(keyed.clone()),
        Situation::new(keyed).with_header("authorization", &format!("Bearer {spent}")),
        Situation::new(damaged(folder.path())),
        Situation::new(alone()),
        Situation::new(stopping()),
    ];
    for (method, path, mut listed) in operations() {
        let mut given = BTreeSet::new();
        for situation in &situations {
            given.insert(situation.ask(&method, &path).await);
        }
        // A body that stays out takes a clock of its own, below.
        listed.remove(&408);
        assert_eq!(given, listed, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn operations_that_wait_for_a_body_list_that_they_give_it_up() {
    let situation = Situation::new(House::new().router);
    for (method, path, listed) in operations() {
        let body = Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>());
        let status = situation.send(&method, &path, body).await;
        assert_eq!(status == 408, listed.contains(&408), "{method} {path}: {status}");
    }
}
