//! `run`: a task, done by the agent within its policy.

mod budget;
mod last;
mod person;
mod view;
mod web;

pub(super) use view::View;

use super::data::DataArgs;
use super::open::{Chosen, RunArgs};
use super::resident::Resident;
use super::upstream;
use crate::machine::free_bytes;
use crate::signals::Signals;
use crate::terminal::bytes;
use anyhow::{Context, bail};
use budget::BudgetArgs;
use last::{End, Last};
use perilune_agent::context::{Bytes, Profile};
use perilune_agent::gate::{self, Gate, PolicyGate};
use perilune_agent::journal::{self, Entry, Event, Journal, Opened, Runs, own_folder};
use perilune_agent::policy::{self, Policy};
use perilune_agent::run::{Clock, Hands, Price, Run, SystemClock};
use perilune_agent::sandbox::{Interpreter, Layers, examine};
use perilune_agent::secrets::{SECRET_BYTES_MIN, Secrets, values_of_file};
use perilune_agent::tools::{Confined, Pdf, Python, Registry, Scope, Shell, Workspace};
use perilune_chat::message::Sampling;
use perilune_chat::model::ChatModel;
use perilune_chat::tokenizer::Tokenizer;
use perilune_engine::Settings;
use perilune_engine::request::Class;
use perilune_server::answer::served::ServedModel;
use perilune_server::store::Store;
use perilune_train::data::session::{Counter, SharedCounter};
use person::People;
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub(super) use web::SEARCH_KEY;
use web::WebArgs;

/// Contexts below this many tokens get the profile of small models.
const STANDARD_CONTEXT_TOKENS: usize = 16_384;
/// Free bytes below which a person is warned.
const WORKSPACE_ROOM: u64 = 1 << 20;
/// Highest temperature of the wire formats.
const TEMPERATURE_MAX: f64 = 2.0;

/// Do a task with tools in a folder, within a policy. Every step is journalled first.
///
/// Exit status: 0 done; 1 failed, paused or stuck; 2 wrong use; 3 stopped by a limit; 4 gave up where its last
/// calls were denied; 5 a question needs a person; 130 interrupted. A run that is not over goes on with --resume. With --json
/// the last line is {"event":"final","status":S,"answer":A,"text":T,"run":R,"resume":COMMAND}, where S is done,
/// budget, stuck, denied, unanswered, paused, interrupted or failed, and COMMAND is there while the run is not over.
/// A run that a limit stopped goes on with --resume and a larger limit.
/// Where standard input is no terminal, nothing waits for a person unless --ask-in-console is given: policy says
/// what holds then.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The task in words
    #[arg(required_unless_present = "resume", conflicts_with = "resume", value_parser = parse_task)]
    task: Option<String>,
    /// Take up the run of this name again, instead of a new task; one that a limit stopped needs a larger limit
    #[arg(long, value_name = "RUN")]
    resume: Option<String>,
    /// Name of the new run [default: made of the time]
    #[arg(long, value_name = "RUN", conflicts_with = "resume")]
    name: Option<String>,
    /// Folder that the run works in; a resumed run keeps its own
    #[arg(long, value_name = "DIR", default_value = ".")]
    workspace: PathBuf,
    /// Folder of a checkpoint to run in this process [default: the setting `model`, else the embedded model]
    #[arg(long, value_name = "DIR", conflicts_with = "upstream")]
    model: Option<PathBuf>,
    /// An OpenAI-shaped endpoint and its model's name there; `anthropic+` before the address says that it is
    /// Anthropic-shaped. Its key is read from PERILUNE_UPSTREAM_KEY
    #[arg(long, value_name = "[anthropic+]URL#MODEL")]
    upstream: Option<String>,
    /// Tokens that the conversation may take, answer included; the model may hold less
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = clap::value_parser!(u32).range(2_048..))]
    context: u32,
    /// Sampling temperature, 0 to 2; 0 takes the likeliest token each time [default: 1, as K2 Thinking is made for;
    /// 0 where the context is that of a small model, as the embedded one's]
    #[arg(long, value_name = "T", value_parser = parse_temperature)]
    temperature: Option<f64>,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    web: WebArgs,
    /// Rules of what may happen; answers for always are written there [default: the policy that `policy default` shows]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Wait for answers given in the console, too; without it a run that has no terminal never waits
    #[arg(long)]
    ask_in_console: bool,
    /// Folder of the journals [default: runs in the data folder]
    #[arg(long, value_name = "DIR")]
    runs: Option<PathBuf>,
    /// Events as JSON lines; the last is {"event":"final",...}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    data: DataArgs,
}

/// An end with an exit status of its own, already told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Exit(pub(crate) u8);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the run ended with status {}", self.0)
    }
}

impl std::error::Error for Exit {}

fn parse_task(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("expected a task in words".to_owned()) } else { Ok(text.to_owned()) }
}

fn parse_temperature(text: &str) -> Result<f64, String> {
    let temperature = text.parse().ok().filter(|it| (0.0..=TEMPERATURE_MAX).contains(it));
    temperature.ok_or_else(|| format!("expected a number from 0 to {TEMPERATURE_MAX}"))
}

/// Who thinks, how its tokens are counted, and what they cost.
struct Thinker {
    model: Arc<dyn ChatModel>,
    counter: SharedCounter,
    tokenizer: Option<Arc<Tokenizer>>,
    context_tokens: usize,
    price: Option<Price>,
    resident: Option<Resident>,
    /// Where an endpoint's seals are kept.
    store: Option<Store>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let last = Last::default();
    let ended = begin(args, &last);
    last.say(args, ended)
}

fn begin(args: &Args, last: &Last) -> anyhow::Result<End> {
    let mut thinker = thinker(args)?;
    thinker.price = args.budget.price(thinker.model.name(), &args.data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(work(args, &thinker, last));
    // A seal that is still on its way would end with the process.
    let kept = thinker.store.as_ref().map_or(Ok(()), |store| runtime.block_on(store.flush()));
    // A question that nobody answered any more holds a thread.
    runtime.shutdown_background();
    if let Some(resident) = thinker.resident {
        resident.engine.stop();
    }
    let end = ended?;
    kept?;
    Ok(end)
}

fn thinker(args: &Args) -> anyhow::Result<Thinker> {
    let asked = args.context as usize;
    if let Some(place) = &args.upstream {
        let (model, store) = upstream::one(place, &args.data)?;
        return Ok(Thinker {
            model: Arc::new(model),
            counter: Arc::new(Bytes),
            // The vocabulary there is unknown, its markers are not.
            tokenizer: Some(Arc::new(Tokenizer::of_bytes())),
            context_tokens: asked,
            price: None,
            resident: None,
            store,
        });
    }
    let chosen = Chosen::new(args.model.as_deref(), &args.run)?;
    let resident = Resident::start(&chosen.args, asked, Settings::default())?;
    let local = resident.model.clone();
    let context_tokens = asked.min(local.context_tokens_max());
    let tokenizer = Arc::clone(local.tokenizer());
    let counter: SharedCounter = Arc::new(Counter::new(Arc::clone(&tokenizer)));
    let served = ServedModel { name: chosen.name, model: local, class: Class::Latency };
    Ok(Thinker {
        model: Arc::new(served),
        counter,
        tokenizer: Some(tokenizer),
        context_tokens,
        price: None,
        resident: Some(resident),
        store: None,
    })
}

async fn work(args: &Args, thinker: &Thinker, last: &Last) -> anyhow::Result<End> {
    let runs = match &args.runs {
        Some(runs) => runs.clone(),
        None => args.data.folder()?.join("runs"),
    };
    std::fs::create_dir_all(&runs).with_context(|| format!("{} cannot be made", runs.display()))?;
    let runs = runs.canonicalize()?;
    let given = args.resume.clone().or_else(|| args.name.clone());
    let name = given.unwrap_or_else(|| journal::fresh_name(SystemClock.now_ms()));
    let folder = Runs::new(&runs).folder(&name)?;
    let taken = args.resume.as_ref().map(|_| journal::resume(&folder)).transpose()?;
    let root = taken.as_ref().and_then(|(_, entries)| workspace_of(entries));
    let root = root.unwrap_or_else(|| args.workspace.clone());
    let place = || {
        format!(
            "the workspace {} cannot be opened; make the folder, or name another with --workspace",
            root.display()
        )
    };
    let root = root.canonicalize().with_context(place)?;
    if !root.is_dir() {
        bail!("the workspace {} is a file; name the folder that the run works in", root.display());
    }
    warn_of_a_full_disk(&root);
    // Before the first folder of the run is made: what is wrong here leaves nothing behind.
    let policy = args.policy.as_deref().map_or_else(|| Ok(Policy::standard()), Policy::load)?;
    let secrets = Arc::new(secrets(&policy)?);
    let policy_gate = policy_gate(args, policy, &root, &runs, &secrets)?;
    let held = Held::new(args, &policy_gate, &root, &folder);
    let workspace = Workspace::open(&root).and_then(|it| it.with_own_folder(&own_folder(&folder)));
    let workspace = workspace.with_context(place)?;
    let (profile, pdf) = profile(args, thinker.context_tokens, &held, &folder, &secrets).await?;
    // Whoever answered in the console did not know what this run keeps secret.
    journal::redact_answers(&folder, &secrets)?;
    let people = People::new(args, policy_gate.policy(), &folder, &secrets);
    let gate: Arc<dyn Gate> = Arc::new(policy_gate);
    let mut scope = Scope::new(workspace, profile.limits);
    (scope.secrets, scope.pdf) = (secrets, pdf.map(Arc::new));
    scope.may_read = Some(gate::may_read(Arc::clone(&gate), &name));
    scope.person = Some(people.person());
    let (journal, entries) = match taken {
        Some(taken) => taken,
        None => open(args, thinker, &name, &root, &folder, &profile, &scope.secrets)?,
    };
    journal::forget_stop(&folder)?;
    last.opened(&name, &runs);
    let listener = Arc::new(view::View::new(args.json));
    // Before the first event is printed: whoever reads it may already interrupt.
    let signals = Signals::listen()?;
    listener.begin(&name, &entries);
    let temperature = Some(args.temperature.unwrap_or(profile.temperature));
    let hands = Hands {
        model: Arc::clone(&thinker.model),
        profile,
        scope,
        gate,
        approver: people.approver(),
        counter: Arc::clone(&thinker.counter),
        tokenizer: thinker.tokenizer.clone(),
        clock: Arc::new(SystemClock),
        listener: Arc::clone(&listener) as Arc<_>,
        sampling: Sampling { temperature, ..Sampling::default() },
        budget: args.budget.budget(),
        price: thinker.price.unwrap_or_default(),
    };
    let run = Run::new(hands, journal, &entries)?;
    // The run keeps what it needs of them.
    drop(entries);
    drive(run, &listener, &folder, signals).await
}

async fn drive(run: Run, listener: &view::View, folder: &Path, mut signals: Signals) -> anyhow::Result<End> {
    let ended = tokio::select! {
        ended = run.finish() => ended,
        () = signals.next() => return Ok(End::Interrupted),
        () = journal::stop_asked(folder) => return Ok(End::Interrupted),
    };
    let (how, text) = ended?;
    Ok(End::Over { how, text, was_denied: listener.was_denied() })
}

/// A model that is told of a full disk may not understand it; a person does.
fn warn_of_a_full_disk(root: &Path) {
    if let Some(free) = free_bytes(root).filter(|free| *free < WORKSPACE_ROOM) {
        let (root, free) = (root.display(), bytes(free));
        eprintln!("the disk of the workspace {root} has {free} free: what the run writes there may fail");
    }
}

fn workspace_of(entries: &[Entry]) -> Option<PathBuf> {
    entries.iter().find_map(|entry| match &entry.event {
        Event::Opened(opened) => Some(PathBuf::from(&opened.workspace)),
        _ => None,
    })
}

fn open(
    args: &Args,
    thinker: &Thinker,
    name: &str,
    root: &Path,
    folder: &Path,
    profile: &Profile,
    secrets: &Secrets,
) -> anyhow::Result<(Journal, Vec<Entry>)> {
    let opened = Opened {
        run: name.to_owned(),
        task: args.task.clone().unwrap_or_default(),
        model: thinker.model.name().to_owned(),
        workspace: root.display().to_string(),
        tools: profile.tools.names().into_iter().map(str::to_owned).collect(),
        policy: Some(profile.policy),
        price: thinker.price,
        forked_from: None,
    };
    let (journal, entry) = journal::create(folder, SystemClock.now_ms(), opened.redacted(secrets))?;
    Ok((journal, vec![entry]))
}

/// How the model is used: small contexts keep to the tools that small models learn. Beside it, what reads PDFs.
async fn profile(
    args: &Args,
    context_tokens: usize,
    held: &Held,
    folder: &Path,
    secrets: &Secrets,
) -> anyhow::Result<(Profile, Option<Pdf>)> {
    if context_tokens < STANDARD_CONTEXT_TOKENS {
        let profile = Profile::embedded();
        let needed = profile.policy.budget_tokens + profile.policy.reply_tokens_max;
        if context_tokens < needed {
            bail!("the model holds {context_tokens} tokens, a run needs {needed}");
        }
        if args.web.is_given() {
            bail!(
                "--search and --corpus need a context of {STANDARD_CONTEXT_TOKENS} tokens, not {context_tokens}"
            );
        }
        return Ok((profile, None));
    }
    let mut profile = Profile::standard(context_tokens, args.budget.reply_tokens(context_tokens));
    args.web.add_to(&mut profile.tools, folder, secrets)?;
    let pdf = add_confined(&mut profile.tools, held, folder).await?;
    Ok((profile, pdf))
}

/// What the workspace holds that no program in it may have.
struct Held {
    root: PathBuf,
    /// What it is, and the flag that names another place: with it a program could give itself the answers to what
    /// policy asks.
    rules: Option<(String, &'static str)>,
    /// Files of secret values.
    secrets: Vec<PathBuf>,
}

impl Held {
    fn new(args: &Args, gate: &PolicyGate, root: &Path, folder: &Path) -> Self {
        let within = |path: &Path| path.canonicalize().ok().filter(|path| path.starts_with(root));
        let journal = || Some((format!("the folder of this run's journal, {}", folder.display()), "--runs"));
        let policy =
            || Some((format!("the policy, {}", within(args.policy.as_ref()?)?.display()), "--policy"));
        let rules = if folder.starts_with(root) { journal() } else { policy() };
        let files = &gate.policy().secrets().files;
        let secrets = files.iter().filter_map(|file| within(Path::new(file))).collect();
        Self { root: root.to_owned(), rules, secrets }
    }
}

/// `shell` and `python`, and what reads PDFs, where every layer that they need stands.
async fn add_confined(tools: &mut Registry, held: &Held, folder: &Path) -> anyhow::Result<Option<Pdf>> {
    if let Some((what, flag)) = &held.rules {
        eprintln!("shell and python are left out: the workspace holds {what}; name another with {flag}");
        return Ok(None);
    }
    let findings = match examine(&held.root).await {
        Ok(findings) => findings,
        Err(error) => {
            eprintln!("shell and python are left out: {error}");
            return Ok(None);
        }
    };
    let layers = Layers::default();
    let missing = findings.iter().find_map(|it| {
        it.refused.as_ref().filter(|_| !layers.tolerates(it.layer)).map(|why| (it.layer, why))
    });
    if let Some((layer, why)) = missing {
        eprintln!("shell and python are left out: the sandbox lacks {layer}: {why}");
        return Ok(None);
    }
    let confined = Confined { hidden: held.secrets.clone(), ..Confined::default() };
    tools.add(Arc::new(Shell { confined: confined.clone() }))?;
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    match Interpreter::find(&search_path) {
        Ok(found) => tools.add(Arc::new(Python::new(confined, found, &own_folder(folder))?))?,
        Err(error) => eprintln!("python is left out: {error}"),
    }
    Ok(Pdf::find(&search_path, Confined::default()))
}

fn policy_gate(
    args: &Args,
    policy: Policy,
    root: &Path,
    runs: &Path,
    secrets: &Arc<Secrets>,
) -> anyhow::Result<PolicyGate> {
    let secrets = Arc::clone(secrets);
    let workspace = policy::Workspace::open(root)?;
    let gate = match &args.policy {
        Some(file) => PolicyGate::of_file(&file.canonicalize()?, workspace, secrets)?,
        None => PolicyGate::new(policy, workspace, secrets),
    };
    // Keys and settings of whoever runs it, where the workspace is as wide as to hold them.
    let own = [args.data.place(), crate::settings::file()].into_iter().flatten();
    let own = own.filter_map(|path| std::path::absolute(path).ok()).filter(|path| !root.starts_with(path));
    Ok(own.fold(gate.guard(runs), |gate, path| gate.guard(&path)))
}

/// The values that the policy calls secret, and the keys that this process itself was given.
fn secrets(policy: &Policy) -> anyhow::Result<Secrets> {
    let named = &policy.secrets().names;
    let mut values: Vec<(String, String)> =
        named.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect();
    let keys = [upstream::ONE_KEY, SEARCH_KEY].into_iter().filter(|name| !named.iter().any(|it| it == name));
    let keys = keys.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
    values.extend(keys.filter(|(_, value)| value.trim().len() >= SECRET_BYTES_MIN));
    for file in &policy.secrets().files {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("the file of secrets {file} cannot be read"))?;
        values.extend(values_of_file(file, &text));
    }
    Ok(Secrets::new(values)?)
}
