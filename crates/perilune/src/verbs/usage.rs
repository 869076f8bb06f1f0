//! `usage`: what was asked of the server, and what it cost.

use super::data::{DataArgs, wait};
use crate::table::{Table, figures, words};
use crate::terminal::{count, print, print_json};
use anyhow::Context;
use perilune_server::store::{Period, Totals, Usd, now_ms};
use serde_json::{Value, json};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Sum the ledger by day, key and model.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Days back from now
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(i64).range(1..=36_500))]
    days: i64,
    /// Id of one key
    #[arg(long, value_name = "ID")]
    key: Option<i64>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let period = Period { from_ms: Some(now_ms() - args.days * DAY_MS), until_ms: None, key_id: args.key };
    let store = args.data.store()?;
    let totals = wait(store.totals(period))?.context("the ledger cannot be read")?;
    if args.json {
        return print_json(&totals.iter().map(row).collect::<Vec<_>>());
    }
    if totals.is_empty() {
        return print("Nothing was asked in this time.\n");
    }
    print(&table(&totals))
}

fn row(total: &Totals) -> Value {
    json!({
        "day": total.day,
        "key_id": total.key_id,
        "model": total.model,
        "requests": total.n_requests,
        "prompt_tokens": total.usage.prompt_tokens,
        "cached_tokens": total.usage.cached_tokens,
        "completion_tokens": total.usage.completion_tokens,
        "reasoning_tokens": total.usage.reasoning_tokens,
        "cost_usd": total.cost.dollars(),
    })
}

fn table(totals: &[Totals]) -> String {
    let mut table = Table::new([
        words("day"),
        figures("key"),
        words("model"),
        figures("requests"),
        figures("prompt"),
        figures("cached"),
        figures("generated"),
        figures("cost USD"),
    ]);
    for total in totals {
        let usage = total.usage;
        table.push([
            total.day.clone(),
            total.key_id.map_or_else(|| "none".to_owned(), |id| id.to_string()),
            total.model.clone(),
            count(total.n_requests),
            count(usage.prompt_tokens),
            count(usage.cached_tokens),
            count(usage.completion_tokens),
            total.cost.to_string(),
        ]);
    }
    let sum = totals.iter().fold(Usd::default(), |sum, total| Usd { nano: sum.nano + total.cost.nano });
    format!("{}sum of costs: {sum} USD\n", table.text())
}
