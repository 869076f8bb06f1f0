//! A model that says what it is told to, and a client that speaks to the router without a socket.

#![allow(dead_code, clippy::unwrap_used)]

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use http_body_util::BodyExt;
use perilune_chat::template::Template;
use perilune_chat::tokenizer::{SpecialText, Tokenizer};
use perilune_engine::forward::{ForwardModel, Forwarded, Segment};
use perilune_engine::{Engine, EngineHandle, EngineThread, Settings};
use perilune_server::answer::local::{LocalModel, Parts};
use perilune_server::app::App;
use perilune_server::routes;
use perilune_server::serve::serve;
use perilune_server::store::Store;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tower::ServiceExt;

const BLOCK: usize = 64;
/// Blocks of the parrot's cache.
const N_BLOCKS: usize = 2048;

pub(crate) fn tokenizer() -> Arc<Tokenizer> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../chat/tests/data/small.tiktoken");
    Arc::new(Tokenizer::from_ranks(&std::fs::read(path).unwrap(), None).unwrap())
}

/// Tokens before the answer in which the parrot looks for what it is to say.
const ASK_TOKENS: usize = 64;
/// Positions of the parrot.
const N_POSITIONS: usize = 16_384;

/// Scripts by the text that asks for them.
pub(crate) type Scripts = Arc<Mutex<HashMap<u64, Vec<u32>>>>;

/// Reads `@N@` in the prompt's text and says script N, token by token, then ends the message; without one it says
/// noise. Its likes are so weak that a grammar or a temperature leads it elsewhere.
struct Parrot {
    slots: Vec<u32>,
    tokenizer: Arc<Tokenizer>,
    pub(crate) scripts: Scripts,
    step: Duration,
    n_positions: usize,
}

impl Parrot {
    fn wanted(&self, ids: &[u32]) -> Option<u32> {
        let markers = self.tokenizer.markers();
        let head = ids.iter().rposition(|id| *id == markers.im_middle)? + 1;
        let text = self.tokenizer.decode(&ids[head.saturating_sub(ASK_TOKENS)..head]);
        let number = text.rsplit('@').nth(1)?.parse().ok()?;
        let scripts = self.scripts.lock().unwrap();
        Some(scripts.get(&number)?.get(ids.len() - head).copied().unwrap_or(markers.im_end))
    }

    fn logits(&mut self, segment: &Segment<'_>) -> Vec<f32> {
        let slot = |at: usize| segment.blocks[at / BLOCK] as usize * BLOCK + at % BLOCK;
        for (i, id) in segment.ids.iter().enumerate() {
            self.slots[slot(segment.first_position + i)] = *id;
        }
        let n = segment.first_position + segment.ids.len();
        let ids: Vec<u32> = (0..n).map(|at| self.slots[slot(at)]).collect();
        let mut state =
            ids.iter().fold(n as u64, |sum, id| (sum ^ u64::from(*id)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut logits: Vec<f32> = (0..self.vocab_size())
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / 1e7
            })
            .collect();
        if let Some(id) = self.wanted(&ids) {
            logits[id as usize] += 30.0;
        }
        logits
    }
}

impl ForwardModel for Parrot {
    fn vocab_size(&self) -> usize {
        self.tokenizer.n_vocab()
    }

    fn n_positions_max(&self) -> usize {
        self.n_positions
    }

    fn n_blocks(&self) -> usize {
        N_BLOCKS
    }

    fn phases_differ(&self) -> bool {
        false
    }

    fn forward(&mut self, segments: &[Segment<'_>]) -> Result<Forwarded, String> {
        std::thread::sleep(self.step);
        let logits = segments.iter().flat_map(|segment| self.logits(segment)).collect();
        Ok(Forwarded { logits, weight_bytes: 1 })
    }
}

/// A server without a socket.
pub(crate) struct House {
    pub(crate) app: App,
    pub(crate) router: Router,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) engine: EngineHandle,
    pub(crate) scripts: Scripts,
}

impl House {
    pub(crate) fn new() -> Self {
        Self::with(Duration::ZERO, Store::in_memory().unwrap())
    }

    /// One whose steps take `step`, with a store of its own.
    pub(crate) fn with(step: Duration, store: Store) -> Self {
        Self::build(step, store, N_POSITIONS)
    }

    /// One whose context holds `n_positions` tokens.
    pub(crate) fn roomy(n_positions: usize) -> Self {
        Self::build(Duration::ZERO, Store::in_memory().unwrap(), n_positions)
    }

    fn build(step: Duration, store: Store, n_positions: usize) -> Self {
        let (tokenizer, scripts) = (tokenizer(), Scripts::default());
        let parrot = Parrot {
            slots: vec![0; N_BLOCKS * BLOCK],
            tokenizer: Arc::clone(&tokenizer),
            scripts: Arc::clone(&scripts),
            step,
            n_positions,
        };
        let since = Instant::now();
        let engine = Engine::new(parrot, Settings::default(), Box::new(move || since.elapsed()));
        let engine = EngineThread::start(engine).unwrap().handle();
        let parts = Parts {
            engine: engine.clone(),
            tokenizer: Arc::clone(&tokenizer),
            template: Template::default(),
            eos_ids: Vec::new(),
        };
        let app = App::new(store, true).unwrap().with_local(LocalModel::new(parts).unwrap());
        let router = routes::router(app.clone(), routes::Pages::new());
        Self { app, router, tokenizer, engine, scripts }
    }

    /// Listens on a socket; its address.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (app, router) = (self.app.clone(), self.router.clone());
        tokio::spawn(serve(listener, app, router, std::future::pending(), Duration::ZERO));
        address
    }

    /// Text that makes the model say `script`, whose special tokens are read by name.
    pub(crate) fn script(&self, script: &str) -> String {
        let ids = self.tokenizer.encode(script, SpecialText::AsTokens);
        let mut scripts = self.scripts.lock().unwrap();
        let number = scripts.len() as u64;
        scripts.insert(number, ids);
        format!("say @{number}@")
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_as(path, None, body).await
    }

    pub(crate) async fn post_as(&self, path: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
        let response = self.send(request(path, key, body.to_string())).await;
        let status = response.status().as_u16();
        let text = text(response).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The data of a stream's events.
    pub(crate) async fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let response = self.send(request(path, None, body.to_string())).await;
        assert_eq!(response.status(), 200);
        let text = text(response).await;
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }
}

pub(crate) fn request(path: &str, key: Option<&str>, body: impl Into<Body>) -> Request<Body> {
    let mut builder = Request::post(path).header("content-type", "application/json");
    if let Some(key) = key {
        builder = builder.header("authorization", format!("Bearer {key}"));
    }
    builder.body(body.into()).unwrap()
}

pub(crate) async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap()
}

pub(crate) fn user(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

/// A chat request at temperature 0.
pub(crate) fn chat(text: &str, more: &Value) -> Value {
    let mut body = json!({ "model": "kimi-k2-thinking", "messages": user(text), "temperature": 0 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// SplitMix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) % n as u64) as usize
    }
}
