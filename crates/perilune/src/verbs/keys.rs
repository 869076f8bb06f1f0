//! `keys`: who may ask the server, and how much.

use super::data::{DataArgs, wait};
use crate::terminal::{print, print_json};
use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use perilune_server::store::{Key, KeyKind, KeyLimits, Usd};
use serde_json::{Value, json};
use std::fmt::Write;

/// Make, list and revoke the server's API keys.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a key and show it, once
    Create(Create),
    /// List all keys, without the keys themselves
    List(List),
    /// End a key; requests with it are refused from then on
    Revoke(Revoke),
}

#[derive(clap::Args)]
struct Create {
    /// What to call it
    name: String,
    /// What it opens
    #[arg(long, value_enum, default_value_t = Kind::Api)]
    kind: Kind,
    /// Requests a minute at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests_per_min: Option<u32>,
    /// Tokens a minute at most, prompt and generated
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tokens_per_min: Option<u32>,
    /// Requests at once at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
    /// US dollars that it may spend, by the price table
    #[arg(long, value_name = "USD")]
    balance: Option<f64>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// The APIs
    Api,
    /// The console, and the APIs
    Admin,
}

#[derive(clap::Args)]
struct List {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(clap::Args)]
struct Revoke {
    /// Its id, its shown prefix, or the key itself
    key: String,
    #[command(flatten)]
    data: DataArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.verb {
        Verb::Create(args) => create(args),
        Verb::List(args) => list(args),
        Verb::Revoke(args) => revoke(args),
    }
}

fn create(args: &Create) -> anyhow::Result<()> {
    if args.balance.is_some_and(|dollars| !(0.0..=1e9).contains(&dollars)) {
        bail!("--balance must lie between 0 and 1,000,000,000 dollars");
    }
    if args.name.trim().is_empty() || args.name.len() > 200 {
        bail!("give the key a name of 1 to 200 bytes, so that it can be told from others");
    }
    let kind = match args.kind {
        Kind::Api => KeyKind::Api,
        Kind::Admin => KeyKind::Admin,
    };
    let limits = KeyLimits {
        requests_per_min: args.requests_per_min,
        tokens_per_min: args.tokens_per_min,
        concurrency: args.concurrency,
    };
    let store = args.data.store()?;
    let new = wait(store.create_key(args.name.trim(), kind, limits, args.balance.map(Usd::from_dollars)))??;
    if args.json {
        let mut value = shown(&new.key);
        value["key"] = Value::from(new.secret);
        return print_json(&value);
    }
    print(&format!("{}\n", new.secret))?;
    eprintln!("This is the only time it is shown. Its id is {}.", new.key.id);
    Ok(())
}

fn shown(key: &Key) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "kind": key.kind.name(),
        "prefix": key.prefix,
        "created_ms": key.created_ms,
        "revoked_ms": key.revoked_ms,
        "requests_per_min": key.limits.requests_per_min,
        "tokens_per_min": key.limits.tokens_per_min,
        "concurrency": key.limits.concurrency,
        "balance_usd": key.balance.map(Usd::dollars),
    })
}

fn list(args: &List) -> anyhow::Result<()> {
    let keys = wait(args.data.store()?.keys())??;
    if args.json {
        return print_json(&keys.iter().map(shown).collect::<Vec<_>>());
    }
    if keys.is_empty() {
        return print("No keys. Make one with `perilune keys create NAME`.\n");
    }
    let mut out = String::new();
    writeln!(out, "{:>4}  {:<12} {:<6} {:<8} {:>14}  name", "id", "prefix", "kind", "state", "balance USD")?;
    for key in &keys {
        let state = if key.revoked_ms.is_some() { "revoked" } else { "in force" };
        let balance = key.balance.map_or_else(|| "no limit".to_owned(), |balance| balance.to_string());
        let (id, prefix, kind) = (key.id, &key.prefix, key.kind.name());
        writeln!(out, "{id:>4}  {prefix:<12} {kind:<6} {state:<8} {balance:>14}  {}", key.name)?;
    }
    print(&out)
}

fn revoke(args: &Revoke) -> anyhow::Result<()> {
    let key = wait(args.data.store()?.revoke_key(&args.key))??;
    print(&format!("Key {} ({}, {}) is revoked.\n", key.id, key.prefix, key.name))
}
