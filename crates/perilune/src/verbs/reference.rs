//! `docs/reference`: pages that are made from the command line and the table of settings, and held to them here.

use crate::settings::{FILE_VARIABLE, TABLE};
use clap::{Arg, Command};
use std::path::Path;

const HEAD: &str = "# Command line\n\nMade from the program's own help, which `perilune VERB --help` prints; a test \
                    holds this page to it. Settings that several verbs share stand in [settings.md](settings.md). Every \
                    verb ends with 0 when it did what was asked, 1 when it did not (one sentence on standard error says \
                    why), 2 when the call itself was wrong, and 130 after Ctrl-C; what `run` and `doctor` add stands with \
                    them.\n";

#[test]
fn the_page_on_the_command_line_is_up_to_date() {
    let mut root = super::command();
    root.build();
    let mut page = HEAD.to_owned();
    for verb in listed(&root) {
        page += &section(verb, 2);
        for inner in listed(verb) {
            page += &section(inner, 3);
        }
    }
    hold("cli.md", |_| page.clone());
}

#[test]
fn the_table_of_settings_is_up_to_date() {
    let mut table =
        "| setting | environment | flag | default | what it is |\n|---|---|---|---|---|\n".to_owned();
    for entry in TABLE {
        let flag = if entry.flag.is_empty() { "none".to_owned() } else { format!("`{}`", entry.flag) };
        let (name, variable, default, help) = (entry.name, entry.variable, entry.default, entry.help);
        table += &format!("| `{name}` | `{variable}` | {flag} | {default} | {help} |\n");
    }
    hold("settings.md", |page| {
        assert!(page.contains(FILE_VARIABLE), "the page names the variable of the file");
        let (head, rest) = page.split_once("<!-- table -->\n").expect("the page has a place for the table");
        let (_, tail) = rest.split_once("<!-- end of table -->").expect("and its end");
        format!("{head}<!-- table -->\n{table}<!-- end of table -->{tail}")
    });
}

/// The page is as it has to be, or is made so where `PERILUNE_BLESS` asks for it.
fn hold(name: &str, expect: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference").join(name);
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let expect = expect(&page);
    if std::env::var_os("PERILUNE_BLESS").is_some() {
        std::fs::write(&path, &expect).unwrap();
    } else {
        assert!(page == expect, "docs/reference/{name} is out of date: run this test with PERILUNE_BLESS=1");
    }
}

fn listed(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|inner| inner.get_name() != "help" && !inner.is_hide_set())
}

fn section(command: &Command, level: usize) -> String {
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string);
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = format!("\n{} `{}`\n\n", "#".repeat(level), command.get_bin_name().unwrap_or_default());
    text += &format!("{}\n\n```text\n{usage}\n```\n", about.unwrap_or_default().trim());
    let args: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version") && !arg.is_hide_set())
        .collect();
    if !args.is_empty() {
        text.push('\n');
    }
    args.iter().for_each(|arg| text += &line(arg));
    text
}

fn line(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = format!("- {short}`{arg}`: {help}");
    if arg.get_action().takes_values() {
        let values: Vec<String> = arg
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| match value.get_help() {
                Some(help) => format!("`{}` ({help})", value.get_name()),
                None => format!("`{}`", value.get_name()),
            })
            .collect();
        if !values.is_empty() {
            text += &format!(" [one of {}]", values.join(", "));
        }
        let defaults: Vec<String> =
            arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        if !defaults.is_empty() {
            text += &format!(" [default: {}]", defaults.join(", "));
        }
    }
    text + "\n"
}
