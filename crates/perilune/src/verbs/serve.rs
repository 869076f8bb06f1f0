//! `serve`: the door.

use super::data::DataArgs;
use super::open::{ModelArgs, RunArgs};
use super::resident::Resident;
use crate::terminal::print;
use anyhow::{Context, anyhow, bail};
use perilune_server::app::{App, STANDARD_ID};
use perilune_server::console::{Console, ModelCard, first_admin_key};
use perilune_server::routes;
use perilune_server::serve::serve;
use perilune_server::store::{KeyKind, NewKey, Store};
use perilune_server::upstream::{Endpoint, Upstream};
use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serve a model over HTTP, in the shapes of the OpenAI and Anthropic APIs.
///
/// Without API keys it answers this machine only. Ctrl-C or SIGTERM stops it: running answers may end first.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder of the checkpoint: config.json, safetensors and tiktoken.model, as published
    model: Option<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Tokens that the cache holds, of all requests together
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = clap::value_parser!(u32).range(64..))]
    cache_tokens: u32,
    /// Forward ID to another OpenAI-shaped endpoint, where the model is called MODEL (its key: PERILUNE_UPSTREAM_KEY)
    #[arg(long, value_name = "ID=URL[#MODEL]", value_parser = parse_upstream)]
    upstream: Vec<(String, String, String)>,
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
    #[command(flatten)]
    data: DataArgs,
}

fn parse_upstream(text: &str) -> Result<(String, String, String), String> {
    let (id, place) = text.split_once('=').ok_or("write it as ID=https://host/v1#MODEL")?;
    let (url, model) = place.split_once('#').unwrap_or((place, id));
    Ok((id.to_owned(), url.to_owned(), model.to_owned()))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.model.is_none() && args.upstream.is_empty() {
        bail!("name the folder of a model, or an endpoint with --upstream");
    }
    start_log(args.log_json);
    let folder = args.data.folder()?;
    let _lock = lock(&folder)?;
    let store = args.data.store()?;
    let model = args.model.clone().map(|dir| ModelArgs { dir, run: args.run.clone() });
    if let Some(plan) = model.as_ref().map(|model| super::plan::summary(model, u64::from(args.cache_tokens)))
    {
        print(&plan.unwrap_or_else(|error| format!("plan     not made: {error:#}\n")))?;
    }
    let resident =
        model.as_ref().map(|model| Resident::start(model, args.cache_tokens as usize)).transpose()?;
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
    let path = folder.join("serve.lock");
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
    let is_loopback = args.listen.ip().is_loopback();
    if n_keys == 0 && !is_loopback {
        bail!(
            "no API key exists, so {} would be open to everyone: make one with `perilune keys create NAME`, or listen on 127.0.0.1",
            args.listen.ip()
        );
    }
    let admin_key = first_admin_key(&store).await?;
    let mut app = App::new(store, is_loopback)?;
    if let Some(resident) = resident {
        app = app.with_local(resident.model.clone());
    }
    for (id, base_url, model) in &args.upstream {
        let api_key = std::env::var("PERILUNE_UPSTREAM_KEY").ok();
        let endpoint = Endpoint { base_url: base_url.clone(), api_key, model: model.clone() };
        app = app.with_upstream(id, Upstream::new(endpoint).map_err(|message| anyhow!(message))?);
    }
    let listener =
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    print(&greeting(&app, listener.local_addr()?, n_keys, admin_key.as_ref()))?;
    let console = Console::new(card(args, resident)?, false);
    let router = routes::router(app.clone(), console.routes(&app));
    let stop = stop_signal()?;
    Ok(serve(listener, app, router, stop, Duration::from_secs(args.drain)).await)
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

fn greeting(app: &App, address: SocketAddr, n_keys: usize, admin_key: Option<&NewKey>) -> String {
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
            format!(
                "console  http://{address}/console/ opens with this admin key, shown once: {}",
                new.secret
            )
        }
        None => format!("console  http://{address}/console/ opens with an admin key"),
    };
    format!(
        "models   {ids}\n{keys}\n{console}\naddress  http://{address}\ntry      curl http://{address}/v1/chat/completions{header} \
         -H 'Content-Type: application/json' -d '{{\"model\":\"{id}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n"
    )
}

/// Ready at the first Ctrl-C or SIGTERM; the second ends the process at once.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        let mut next = async move || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        next().await;
        tokio::spawn(async move {
            next().await;
            std::process::exit(130);
        });
    })
}
