//! `prices`: what a model's tokens cost.

use super::data::{DataArgs, wait};
use crate::table::{Table, figures, words};
use crate::terminal::{print, print_json};
use anyhow::bail;
use clap::Subcommand;
use perilune_server::store::{PRICE_DOLLARS_MAX, Price};
use serde_json::{Value, json};

/// List and change what a model's tokens cost, in US dollars per million tokens.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// List all prices; a model without one costs nothing
    List(List),
    /// Set a model's prices; a running server charges them from its next settled request on
    Set(Set),
    /// Take a model's prices away: its tokens cost nothing from then on
    Remove(Remove),
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
struct Set {
    /// Id of the model, as clients name it
    model: String,
    /// A million prompt tokens that had to be computed
    #[arg(long, value_name = "USD", value_parser = parse_price)]
    input: Option<f64>,
    /// A million prompt tokens read from the prefix cache [default for a new model: as --input]
    #[arg(long, value_name = "USD", value_parser = parse_price)]
    cached: Option<f64>,
    /// A million generated tokens, reasoning included
    #[arg(long, value_name = "USD", value_parser = parse_price)]
    output: Option<f64>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataArgs,
}

#[derive(clap::Args)]
struct Remove {
    /// Id of the model
    model: String,
    #[command(flatten)]
    data: DataArgs,
}

fn parse_price(text: &str) -> Result<f64, String> {
    let price = text.parse().ok().filter(|price| (0.0..=PRICE_DOLLARS_MAX).contains(price));
    price.ok_or_else(|| "expected dollars per million tokens, such as 0.15, from 0 to 1000000".to_owned())
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.verb {
        Verb::List(args) => list(args),
        Verb::Set(args) => set(args),
        Verb::Remove(args) => {
            wait(args.data.store()?.remove_price(&args.model))??;
            print(&format!("Tokens of {} cost nothing from now on.\n", args.model))
        }
    }
}

fn shown(model: &str, price: &Price) -> Value {
    let [input, cached, output] = price.dollars_per_million();
    json!({ "model": model, "input_usd": input, "cached_usd": cached, "output_usd": output })
}

fn list(args: &List) -> anyhow::Result<()> {
    let prices = wait(args.data.store()?.prices())??;
    if args.json {
        return print_json(&prices.iter().map(|(model, price)| shown(model, price)).collect::<Vec<_>>());
    }
    let mut table = Table::new([words("model"), figures("input"), figures("cached"), figures("output")]);
    for (model, price) in &prices {
        let [input, cached, output] = price.dollars_per_million().map(|dollars| format!("{dollars:.3}"));
        table.push([model.clone(), input, cached, output]);
    }
    print(&format!("{}in US dollars per million tokens\n", table.text()))
}

fn set(args: &Set) -> anyhow::Result<()> {
    if args.model.is_empty() || args.model.len() > 200 {
        bail!("name the model by its id, of 1 to 200 bytes, as clients name it");
    }
    let store = args.data.store()?;
    let kept = wait(store.price(&args.model))??.map(|price| price.dollars_per_million());
    let price = match (kept, args.input, args.output) {
        (Some([input, cached, output]), ..) => Price::per_million(
            args.input.unwrap_or(input),
            args.cached.unwrap_or(cached),
            args.output.unwrap_or(output),
        ),
        (None, Some(input), Some(output)) => Price::per_million(input, args.cached.unwrap_or(input), output),
        (None, ..) => bail!("{} has no price yet: give both --input and --output", args.model),
    };
    if (args.input, args.cached, args.output) == (None, None, None) {
        bail!("say what to change: --input, --cached or --output");
    }
    wait(store.set_price(&args.model, price))??;
    if args.json {
        return print_json(&shown(&args.model, &price));
    }
    let [input, cached, output] = price.dollars_per_million();
    print(&format!(
        "{}: input {input:.3}, cached {cached:.3}, output {output:.3} USD per million tokens.\n",
        args.model
    ))
}
