//! Figures for Prometheus: counted as requests pass, and read from the engine's books when asked.

use perilune_chat::model::Usage;
use perilune_engine::EngineHandle;
use perilune_engine::stats::Stats;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry,
    TextEncoder,
};
use std::time::Duration;

/// Upper bounds of latencies, seconds.
const SECONDS: &[f64] = &[
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];

/// The server's own figures.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    tokens: IntCounterVec,
    ttft: HistogramVec,
    inter_token: HistogramVec,
    prepare: Histogram,
    deliver: Histogram,
    overhead: Histogram,
    open_streams: Gauge,
    engine: GaugeVec,
}

impl Metrics {
    /// A fresh set, all zero.
    ///
    /// # Errors
    /// When two figures have one name or one is ill-named: never, as the names are fixed.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let buckets = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        let this = Self {
            requests: IntCounterVec::new(
                Opts::new("perilune_requests_total", "Requests answered, by route and HTTP status."),
                &["route", "status"],
            )?,
            tokens: IntCounterVec::new(
                Opts::new("perilune_tokens_total", "Tokens used, by model and kind."),
                &["model", "kind"],
            )?,
            ttft: HistogramVec::new(
                buckets(
                    "perilune_time_to_first_token_seconds",
                    "From the request's last byte to the first piece.",
                ),
                &["class"],
            )?,
            inter_token: HistogramVec::new(
                buckets("perilune_inter_token_seconds", "Between two pieces of one answer."),
                &["class"],
            )?,
            prepare: Histogram::with_opts(buckets(
                "perilune_prepare_seconds",
                "The server's share before the engine: from the request's last byte to the engine's channel.",
            ))?,
            deliver: Histogram::with_opts(buckets(
                "perilune_deliver_seconds",
                "The server's share after the engine: from a token to the first piece handed to the connection.",
            ))?,
            overhead: Histogram::with_opts(buckets(
                "perilune_overhead_seconds",
                "The server's share of the time to the first token: both shares of one request together.",
            ))?,
            open_streams: Gauge::new("perilune_open_answers", "Answers being written now.")?,
            engine: GaugeVec::new(
                Opts::new("perilune_engine", "The engine's books, by figure."),
                &["figure"],
            )?,
            registry,
        };
        this.register()?;
        Ok(this)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(self.requests.clone()))?;
        self.registry.register(Box::new(self.tokens.clone()))?;
        self.registry.register(Box::new(self.ttft.clone()))?;
        self.registry.register(Box::new(self.inter_token.clone()))?;
        self.registry.register(Box::new(self.prepare.clone()))?;
        self.registry.register(Box::new(self.deliver.clone()))?;
        self.registry.register(Box::new(self.overhead.clone()))?;
        self.registry.register(Box::new(self.open_streams.clone()))?;
        self.registry.register(Box::new(self.engine.clone()))
    }

    /// A request was answered with this HTTP status; `route` is the path as mounted, never a client's own words.
    pub fn request(&self, route: &str, status: u16) {
        self.requests.with_label_values(&[route, &status.to_string()]).inc();
    }

    /// An answer began: one more is open.
    pub fn begun(&self) {
        self.open_streams.inc();
    }

    /// An answer ended: one fewer is open, and its tokens count.
    pub fn ended(&self, model: &str, usage: Usage) {
        self.open_streams.dec();
        for (kind, n) in [
            ("prompt", usage.prompt_tokens),
            ("cached", usage.cached_tokens),
            ("completion", usage.completion_tokens),
            ("reasoning", usage.reasoning_tokens),
        ] {
            self.tokens.with_label_values(&[model, kind]).inc_by(n);
        }
    }

    /// The first piece of an answer came, `since` the request's last byte. `prepare` passed from that byte to the
    /// engine's channel, `delivery` from the engine's token to this piece; `None` where no engine of ours gave it.
    pub fn first_piece(&self, class: &str, since: Duration, prepare: Duration, delivery: Option<Duration>) {
        self.prepare.observe(prepare.as_secs_f64());
        if let Some(delivery) = delivery {
            self.deliver.observe(delivery.as_secs_f64());
            self.overhead.observe((prepare + delivery).as_secs_f64());
        }
        self.ttft.with_label_values(&[class]).observe(since.as_secs_f64());
    }

    /// A later piece of an answer came, `since` the one before it.
    pub fn next_piece(&self, class: &str, since: Duration) {
        self.inter_token.with_label_values(&[class]).observe(since.as_secs_f64());
    }

    /// All figures in Prometheus' text format 0.0.4, with the books of `engine` as they stand.
    ///
    /// # Errors
    /// When the encoder refuses a figure.
    pub fn text(&self, engine: Option<&EngineHandle>) -> Result<String, prometheus::Error> {
        if let Some(engine) = engine {
            self.read_engine(&engine.stats());
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn read_engine(&self, stats: &Stats) {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let used = (stats.blocks - stats.blocks_free) as f64;
        for (figure, value) in [
            ("steps", stats.steps as f64),
            ("waiting_latency", stats.waiting[0] as f64),
            ("waiting_throughput", stats.waiting[1] as f64),
            ("running_latency", stats.running[0] as f64),
            ("running_throughput", stats.running[1] as f64),
            ("batch_rows", stats.batch_rows as f64),
            ("batch_sequences", stats.batch_sequences as f64),
            ("preemptions", (stats.preemptions[0] + stats.preemptions[1]) as f64),
            ("prefill_tokens", stats.prefill_tokens as f64),
            ("cached_tokens", stats.cached_tokens as f64),
            ("generated_tokens", stats.generated_tokens as f64),
            ("cache_hit_share", share(stats.cached_tokens as f64, stats.prompt_tokens as f64)),
            ("kv_blocks", stats.blocks as f64),
            ("kv_used_share", share(used, stats.blocks as f64)),
            ("weights_gb_per_s", share(stats.weight_bytes as f64 / 1e9, stats.forward_s)),
        ] {
            self.engine.with_label_values(&[figure]).set(value);
        }
    }
}
