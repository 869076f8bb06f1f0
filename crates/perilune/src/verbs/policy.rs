//! `policy`: what may an agent's run do, and why?

use crate::terminal::{print, print_json};
use anyhow::{Context, bail};
use clap::Subcommand;
use perilune_agent::gate::{Decision, ProposedCall};
use perilune_agent::policy::{Explanation, Policy, Workspace};
use perilune_agent::sandbox::Interpreter;
use perilune_agent::tools::{Confined, FetchUrl, Python, Registry, Shell};
use perilune_agent::web::Fetcher;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Check the rules that an agent's runs obey, and ask what they say of a call.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Read a policy and hold every rule to its examples.
    Check {
        /// The policy's file; `-` for the policy that holds where none is given.
        file: PathBuf,
    },
    /// Print the policy that holds where none is given, to start an own one from.
    Default,
    /// Say what a policy decides on a call, and which rules say so.
    Explain {
        /// The policy's file; `-` for the policy that holds where none is given.
        file: PathBuf,
        /// The tool's name.
        tool: String,
        /// The arguments as a JSON object.
        arguments: String,
        /// The folder that the run would work in.
        #[arg(long, value_name = "DIR", default_value = ".")]
        workspace: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Check { file } => {
            let policy = read(file)?;
            print(&format!(
                "{}: {} rules hold, and their examples tell the truth\n",
                file.display(),
                policy.n_rules()
            ))
        }
        What::Default => print(perilune_agent::policy::DEFAULT),
        What::Explain { file, tool, arguments, workspace, json } => {
            let policy = read(file)?;
            let call = call(tool, arguments)?;
            let workspace = Workspace::open(workspace)
                .with_context(|| format!("the workspace {} cannot be opened", workspace.display()))?;
            let explained = policy.explain(&call, &workspace);
            if *json { print_json(&to_json(&explained)) } else { print(&to_text(&explained)) }
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Policy> {
    if file == Path::new("-") {
        return Ok(Policy::standard());
    }
    Ok(Policy::load(file)?)
}

/// The call as the tool itself reads it.
fn call(tool: &str, arguments: &str) -> anyhow::Result<ProposedCall> {
    let arguments: Map<String, Value> = serde_json::from_str(arguments)
        .context("the arguments are no JSON object, such as {\"path\":\"a.txt\"}")?;
    let mut registry = Registry::standard();
    registry.add(Arc::new(FetchUrl::new(Fetcher::new(), None)))?;
    registry.add(Arc::new(Shell::default()))?;
    // Neither is run: a call's parts can be told on a machine without Python too.
    let scratch = tempfile::tempdir().context("no folder can be made in TMPDIR")?;
    let nobody = Interpreter { executable: PathBuf::new(), prefixes: Vec::new() };
    registry.add(Arc::new(Python::new(Confined::default(), nobody, scratch.path())?))?;
    let Some(found) = registry.get(tool) else {
        bail!("there is no tool {tool:?}; there are {}", registry.names().join(", "));
    };
    let (effect, resources) = (found.effect(), found.resources(&arguments));
    Ok(ProposedCall {
        run: "explain".to_owned(),
        step: 0,
        tool: tool.to_owned(),
        effect,
        arguments,
        resources,
    })
}

fn parts(decision: &Decision) -> (&'static str, &str, &str) {
    match decision {
        Decision::Allow { rule } => ("allow", rule, ""),
        Decision::Ask { rule, reason, .. } => ("ask", rule, reason),
        Decision::Deny { rule, reason } => ("deny", rule, reason),
    }
}

fn to_text(explained: &Explanation) -> String {
    let (says, rule, reason) = parts(&explained.decision);
    let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let mut text = format!("{says}, by the rule {rule}{because}\n");
    for facet in &explained.facets {
        let (says, rule, _) = parts(&facet.decision);
        text.push_str(&format!("  {}: {says}, by {rule}\n", facet.facet));
        for (name, line, says) in &facet.rules {
            text.push_str(&format!("    line {line}: {name} says {says}\n"));
        }
    }
    text
}

fn to_json(explained: &Explanation) -> Value {
    let facets = explained.facets.iter().map(|facet| {
        let rules = facet
            .rules
            .iter()
            .map(|(name, line, says)| json!({"rule": name, "line": line, "decision": says}));
        json!({
            "touches": facet.facet.to_string(),
            "outcome": facet.decision,
            "rules": rules.collect::<Vec<_>>(),
        })
    });
    json!({"outcome": explained.decision, "parts": facets.collect::<Vec<_>>()})
}
