//! `serve`: the door.

use super::data::DataArgs;
use super::open::{Chosen, RunArgs};
use super::resident::Resident;
use super::starter::StarterArgs;
use super::upstream::UpstreamArgs;
use crate::settings;
use crate::signals::Signals;
use crate::terminal::print;
use anyhow::{Context, anyhow, bail};
use perilune_engine::Settings;
use perilune_server::app::{App, STANDARD_ID};
use perilune_server::console::{Console, ModelCard, first_admin_key};
use perilune_server::routes;
use perilune_server::serve::{Door, serve};
use perilune_server::store::{KeyKind, NewKey, Store};
use perilune_server::tls::Tls;
use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;

/// Held while a server works on a data folder.
pub(super) const LOCK_FILE: &str = "serve.lock";

/// Serve a model over HTTP, in the shapes of the OpenAI and Anthropic APIs.
///
/// Without API keys it answers this machine only. Ctrl-C or SIGTERM stops it: running answers may end first.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of the checkpoint: config.json, safetensors and tiktoken.model, as published [default, where no --upstream
    /// is given either: the setting `model`, else the embedded model]
    model: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Address and port to listen on [default: the setting `listen`, else 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT", value_parser = settings::parse_listen)]
    listen: Option<SocketAddr>,
    /// Tokens that the cache holds, of all requests together
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = clap::value_parser!(u32).range(64..))]
    cache_tokens: u32,
    /// Compute every prompt whole: no request reuses what another computed, and none can tell by its speed what others
    /// asked
    #[arg(long)]
    no_prefix_cache: bool,
    #[command(flatten)]
    upstreams: UpstreamArgs,
    /// Speak TLS with the certificate chain in this PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, in a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Seconds that running answers get to end when the server stops
    #[arg(long, value_name = "S", default_value_t = 30)]
    drain: u64,
    /// Measure first what this machine's memory gives, for the console's model page: it takes a second or two and,
    /// for that time, 256 MiB
    #[arg(long)]
    measure_memory: bool,
    /// Log as JSON, one object a line
    #[arg(long)]
    log_json: bool,
    /// Folder of the journals that the console's pages on runs show [default: runs in the data folder]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    #[command(flatten)]
    starter: StarterArgs,
    #[command(flatten)]
    data: DataArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    start_log(args.log_json);
    let folder = args.data.folder()?;
    let _lock = lock(&folder)?;
    let store = args.data.store()?;
    let is_local = args.model.is_some() || args.upstreams.is_empty();
    let chosen = is_local.then(|| Chosen::new(args.model.as_deref(), &args.run)).transpose()?;
    let model = chosen.as_ref().map(|chosen| &chosen.args);
    if let Some(plan) = model.map(|model| super::plan::summary(model, u64::from(args.cache_tokens))) {
        print(&plan.unwrap_or_else(|error| format!("plan     not made: {}\n", super::sentence(&error))))?;
    }
    let settings = Settings { prefix_cache: !args.no_prefix_cache, ..Settings::default() };
    let start = |model| Resident::start(model, args.cache_tokens as usize, settings);
    let resident = model.map(start).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let is_clean = runtime.block_on(listen(args, store, resident.as_ref()))?;
    if let Some(resident) = resident {
        resident.engine.stop();
    }
    if !is_clean {
        bail!("some answers were still running after {} s and were cut off", args.drain);
    }
    Ok(())
}

fn start_log(as_json: bool) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false);
    if as_json { log.json().init() } else { log.with_ansi(false).init() }
}

/// Two servers on one ledger would each take the other's open requests for lost ones.
fn lock(folder: &std::path::Path) -> anyhow::Result<File> {
    let path = folder.join(LOCK_FILE);
    let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another server uses {}; stop it, or name another folder with --data", folder.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", path.display()))
        }
    }
}

async fn listen(args: &Args, store: Store, resident: Option<&Resident>) -> anyhow::Result<bool> {
    let n_lost = store.recover().await?;
    if n_lost > 0 {
        tracing::warn!(
            n_lost,
            "requests of an earlier process were left open; they are marked lost and not charged"
        );
    }
    let n_keys = store.keys().await?.iter().filter(|key| key.kind == KeyKind::Api).count();
    let asked = settings::get().listen.or_flag(args.listen).value;
    let is_loopback = asked.ip().is_loopback();
    if n_keys == 0 && !is_loopback {
        bail!(
            "no API key exists, so {} would be open to everyone: make one with `perilune keys create NAME`, or listen on 127.0.0.1",
            asked.ip()
        );
    }
    let tls = args.tls_cert.as_deref().zip(args.tls_key.as_deref());
    let tls = tls.map(|(certificate, key)| Tls::open(certificate, key)).transpose()?;
    let mut app = App::new(store.clone(), is_loopback)?;
    if let Some(resident) = resident {
        app = app.with_local(resident.model.clone());
    }
    for (id, upstream) in args.upstreams.clients()? {
        app = app.with_upstream(&id, upstream.with_store(&store).await?);
    }
    let listener = TcpListener::bind(asked).await.map_err(|error| cannot_listen(asked, &error))?;
    let place = Place { is_tls: tls.is_some(), address: listener.local_addr()? };
    let runs = args.runs.clone().map_or_else(|| args.data.folder().map(|data| data.join("runs")), Ok)?;
    let starter = args.starter.starter(&runs, &args.data.given())?;
    let console = super::pages::with_runs(Console::new(card(args, resident)?, tls.is_some()), &runs, starter);
    let router = routes::router(app.clone(), console.routes(&app));
    let stop = stop_signal()?;
    // Shown once, so it is made when nothing can fail any more.
    let admin_key = first_admin_key(&store).await?;
    print(&greeting(&app, &place, n_keys, admin_key.as_ref()))?;
    Ok(serve(Door::new(listener, tls), app, router, stop, Duration::from_secs(args.drain)).await)
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    anyhow!(
        "cannot listen on {address}: {error}; name another address with --listen, such as 127.0.0.1:0 for a free port"
    )
}

/// What the console says of the model, with the memory's speed where it was asked for.
fn card(args: &Args, resident: Option<&Resident>) -> anyhow::Result<Option<ModelCard>> {
    let Some(resident) = resident else { return Ok(None) };
    let mut card = resident.card.clone();
    if args.measure_memory {
        card.possible_gb_per_s = Some(super::card::read_gb_per_s(&args.run.cpu_on(args.run.n_threads())?));
    }
    Ok(Some(card))
}

/// Where the server is reached.
struct Place {
    is_tls: bool,
    address: SocketAddr,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.is_tls { "https" } else { "http" }, self.address)
    }
}

fn greeting(app: &App, address: &Place, n_keys: usize, admin_key: Option<&NewKey>) -> String {
    let ids = app.models().keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let id = if app.models().contains_key(STANDARD_ID) {
        STANDARD_ID
    } else {
        ids.split(',').next().unwrap_or("")
    };
    let keys = match n_keys {
        0 => "keys     none: only this machine is answered; `perilune keys create NAME` makes one".to_owned(),
        n => format!("keys     {n}: every request must carry one"),
    };
    let header = if n_keys == 0 { "" } else { " -H \"Authorization: Bearer $PERILUNE_KEY\"" };
    let console = match admin_key {
        Some(new) => {
            format!("console  {address}/console/ opens with this admin key, shown once: {}", new.secret)
        }
        None => format!("console  {address}/console/ opens with an admin key"),
    };
    format!(
        "models   {ids}\n{keys}\n{console}\naddress  {address}\ntry      curl {address}/v1/chat/completions{header} \
         -H 'Content-Type: application/json' -d '{{\"model\":\"{id}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n"
    )
}

/// Ready at the first Ctrl-C or SIGTERM; the second ends the process at once.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut signals = Signals::listen()?;
    Ok(async move {
        signals.next().await;
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(130);
        });
    })
}
