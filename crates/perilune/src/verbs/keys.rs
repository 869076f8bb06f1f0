//! `keys`: who may ask the server, and how much.

use super::data::{DataArgs, wait};
use crate::table::{Table, figures, words};
use crate::terminal::{print, print_json};
use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use perilune_server::store::{BalanceChange, Key, KeyChange, KeyKind, KeyLimits, Usd};
use serde_json::{Value, json};

/// Dollars that a balance may have.
const DOLLARS_MAX: f64 = 1e9;

/// Make, list, change and revoke the server's API keys.
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
    /// Change a key's limits or balance; a running server follows with its next request
    Change(Change),
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
    #[arg(long, value_name = "USD", value_parser = parse_dollars)]
    balance: Option<f64>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(clap::Args)]
struct Change {
    /// Id, shown prefix, or the key itself
    key: String,
    /// Requests a minute at most, or `none`
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    requests_per_min: Option<Limit>,
    /// Tokens a minute at most, prompt and generated, or `none`
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    tokens_per_min: Option<Limit>,
    /// Requests at once at most, or `none`
    #[arg(long, value_name = "N|none", value_parser = parse_limit)]
    concurrency: Option<Limit>,
    /// US dollars that it may spend from now on, or `none` for no end
    #[arg(long, value_name = "USD|none", value_parser = parse_balance)]
    balance: Option<Balance>,
    /// US dollars to add to what it may still spend; below zero takes them away
    #[arg(long, value_name = "USD", value_parser = parse_dollars, conflicts_with = "balance", allow_hyphen_values = true)]
    add: Option<f64>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

/// A limit, or none.
#[derive(Clone, Copy)]
struct Limit(Option<u32>);

/// A balance, or none.
#[derive(Clone, Copy)]
struct Balance(Option<f64>);

fn parse_limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        _ => match text.parse() {
            Ok(n) if n > 0 => Ok(Limit(Some(n))),
            _ => Err("expected a whole number from 1, or `none`".to_owned()),
        },
    }
}

fn parse_balance(text: &str) -> Result<Balance, String> {
    if text == "none" { Ok(Balance(None)) } else { parse_dollars(text).map(|dollars| Balance(Some(dollars))) }
}

fn parse_dollars(text: &str) -> Result<f64, String> {
    let dollars = text.parse().ok().filter(|dollars: &f64| dollars.abs() <= DOLLARS_MAX);
    dollars.ok_or_else(|| "expected an amount in dollars, such as 25 or 0.5".to_owned())
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
        Verb::Change(args) => change(args),
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
    let mut table = Table::new([
        figures("id"),
        words("prefix"),
        words("kind"),
        words("state"),
        figures("balance USD"),
        words("name"),
    ]);
    for key in &keys {
        let state = if key.revoked_ms.is_some() { "revoked" } else { "in force" };
        let balance = key.balance.map_or_else(|| "no limit".to_owned(), |balance| balance.to_string());
        let (id, prefix, kind) = (key.id.to_string(), key.prefix.clone(), key.kind.name().to_owned());
        table.push([id, prefix, kind, state.to_owned(), balance, key.name.clone()]);
    }
    print(&table.text())
}

fn revoke(args: &Revoke) -> anyhow::Result<()> {
    let key = wait(args.data.store()?.revoke_key(&args.key))??;
    print(&format!("Key {} ({}, {}) is revoked.\n", key.id, key.prefix, key.name))
}

fn change(args: &Change) -> anyhow::Result<()> {
    let set = |Balance(dollars): Balance| BalanceChange::Set(dollars.map(Usd::from_dollars));
    let add = args.add.map(|dollars| BalanceChange::Add(Usd::from_dollars(dollars)));
    let limit = |limit: Option<Limit>| limit.map(|Limit(n)| n);
    let change = KeyChange {
        requests_per_min: limit(args.requests_per_min),
        tokens_per_min: limit(args.tokens_per_min),
        concurrency: limit(args.concurrency),
        balance: args.balance.map(set).or(add),
    };
    if change == KeyChange::default() {
        bail!("say what to change: --requests-per-min, --tokens-per-min, --concurrency, --balance or --add");
    }
    let key = wait(args.data.store()?.change_key(&args.key, change))??;
    if args.json {
        return print_json(&shown(&key));
    }
    let or_none = |n: Option<u32>| n.map_or_else(|| "no limit".to_owned(), |n| n.to_string());
    let balance = key.balance.map_or_else(|| "no limit".to_owned(), |balance| balance.to_string());
    print(&format!(
        "Key {} ({}, {}): requests a minute {}, tokens a minute {}, at once {}, balance USD {balance}.\n",
        key.id,
        key.prefix,
        key.name,
        or_none(key.limits.requests_per_min),
        or_none(key.limits.tokens_per_min),
        or_none(key.limits.concurrency)
    ))
}
