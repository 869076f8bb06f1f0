//! `config`: which settings hold, and where each comes from.

use super::open::parse_threads;
use crate::settings::{self, COLOUR, DATA, Entry, Found, LISTEN, MODEL, Origin, THREADS};
use crate::terminal::{print, print_json};
use clap::Subcommand;
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Show the settings that verbs share.
///
/// A flag beats the environment, the environment beats the file, the file beats the default. The file is
/// $XDG_CONFIG_HOME/perilune/config.toml, else ~/.config/perilune/config.toml, or the one that PERILUNE_CONFIG names.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print every setting that holds; flags that are given here count as they would for a verb
    Show(Show),
}

#[derive(clap::Args)]
struct Show {
    /// Say where each value comes from: default, file, environment or flag
    #[arg(long)]
    origin: bool,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT", value_parser = settings::parse_listen)]
    listen: Option<SocketAddr>,
    /// Folder of keys, usage and runs
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of a checkpoint
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Threads to compute on
    #[arg(long, value_name = "N", value_parser = parse_threads)]
    threads: Option<usize>,
    /// Answer in JSON, origins included
    #[arg(long)]
    json: bool,
}

/// One setting as it is shown.
struct Row {
    entry: &'static Entry,
    /// `None` where nobody set it: the default's words stand for it.
    value: Option<String>,
    origin: Origin,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let What::Show(args) = &args.what;
    let rows = rows(args);
    let file = settings::file();
    let is_there = file.as_ref().is_some_and(|file| file.exists());
    if args.json {
        let settings: Vec<Value> = rows.iter().map(Row::value).collect();
        return print_json(&json!({"file": file, "is_there": is_there, "settings": settings}));
    }
    let shown: Vec<String> = rows.iter().map(Row::shown).collect();
    let width = shown.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (row, shown) in rows.iter().zip(&shown) {
        let origin = if args.origin { row.origin_in_words(file.as_deref()) } else { String::new() };
        let line = format!("{:<8} {shown:<width$}  {origin}", row.entry.name);
        writeln!(out, "{}", line.trim_end())?;
    }
    if args.origin && !is_there {
        let place = file.map_or_else(
            || "none: HOME is not set".to_owned(),
            |file| format!("{} is not there", file.display()),
        );
        writeln!(out, "\nfile     {place}")?;
    }
    print(&out)
}

fn rows(args: &Show) -> Vec<Row> {
    let settings = settings::get();
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let row = |entry, value, origin| Row { entry, value, origin };
    let Found { value, origin } = settings.listen.or_flag(args.listen);
    let listen = row(&LISTEN, Some(value.to_string()), origin);
    let Found { value, origin } = settings.data.or_flag(args.data.clone().map(Some));
    let data = row(&DATA, path(&value), origin);
    let Found { value, origin } = settings.model.or_flag(args.model.clone().map(Some));
    let model = row(&MODEL, path(&value), origin);
    let Found { value, origin } = settings.threads.or_flag(args.threads.map(Some));
    let threads = row(&THREADS, value.map(|n| n.to_string()), origin);
    let Found { value, origin } = settings.colour.clone();
    let colour = row(&COLOUR, Some(format!("{value:?}").to_lowercase()), origin);
    vec![listen, data, model, threads, colour]
}

impl Row {
    fn shown(&self) -> String {
        self.value.clone().unwrap_or_else(|| self.entry.default.to_owned())
    }

    fn origin_in_words(&self, file: Option<&std::path::Path>) -> String {
        match self.origin {
            Origin::Default => "default".to_owned(),
            Origin::File(line) => {
                format!("file {}:{line}", file.map(|file| file.display().to_string()).unwrap_or_default())
            }
            Origin::Environment => format!("environment {}", self.entry.variable),
            Origin::Flag => format!("flag {}", self.entry.flag),
        }
    }

    fn value(&self) -> Value {
        let (origin, line) = match self.origin {
            Origin::Default => ("default", None),
            Origin::File(line) => ("file", Some(line)),
            Origin::Environment => ("environment", None),
            Origin::Flag => ("flag", None),
        };
        json!({
            "name": self.entry.name,
            "value": self.value,
            "origin": origin,
            "line": line,
            "what": self.entry.help,
            "variable": self.entry.variable,
            "flag": Some(self.entry.flag).filter(|flag| !flag.is_empty()),
        })
    }
}
