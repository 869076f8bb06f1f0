//! The pages on runs: a trace of 300 steps, its search and folds, and a run that waits for its reader.

use super::scripted::{ASK_WRITES, call, endpoint, words};
use super::{Browser, Process};
use base64::Engine;
use perilune_agent::context::Folds;
use perilune_agent::gate::{Decision, GateEvent};
use perilune_agent::journal::{self, CallText, Event, Journal, Opened, TokenUse, own_folder};
use perilune_agent::run::Price;
use perilune_agent::tools::Output;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};

/// Pages beneath `/console/` that [`long_run`] fills.
pub(crate) const PAGES: [&str; 5] =
    ["runs", "runs/inbox", "runs/cost", "runs/run/long", "runs/run/long/files"];
const N_STEPS: u64 = 300;
/// Width and height of README's picture: the run's head and three of its steps.
const README_SIZE: (u32, u32) = (1000, 1160);
/// One pixel.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// A journal of 300 steps that goes on as long as it is held.
pub(crate) fn long_run(runs: &Path) -> Journal {
    let folder = runs.join("long");
    let opened = Opened {
        run: "long".to_owned(),
        task: "Read every report in <reports>, and write the sums into totals.csv".to_owned(),
        model: "kimi-k2-thinking".to_owned(),
        workspace: "/home/someone/work".to_owned(),
        price: Some(Price { prompt_micros: 600_000, cached_micros: 150_000, completion_micros: 2_500_000 }),
        ..Opened::default()
    };
    let (mut journal, _) = journal::create(&folder, 1_764_000_000_000, opened).unwrap();
    let artefacts = own_folder(&folder).join("artefacts");
    std::fs::create_dir_all(&artefacts).unwrap();
    std::fs::write(artefacts.join("figure.png"), base64::prelude::BASE64_STANDARD.decode(PNG).unwrap())
        .unwrap();
    for step in 1..=N_STEPS {
        append_step(&mut journal, step);
    }
    journal
}

/// One step with one call.
pub(crate) fn append_step(journal: &mut Journal, step: u64) {
    let at_ms = 1_764_000_000_000 + step * 9_000;
    let mut keep = |event| journal.append(at_ms, event, false).map(drop).unwrap();
    if step.is_multiple_of(100) {
        let n_hidden = usize::try_from(step - 20).unwrap();
        keep(Event::Folded { folds: Folds { n_hidden, n_folded: n_hidden / 2, ..Folds::default() } });
    }
    let tokens = TokenUse { prompt: 4_000 + 20 * step, cached: 3_000, completion: 180, reasoning: 120 };
    let (name, arguments, output) = match step % 3 {
        0 => (
            "read_file",
            json!({"path": format!("reports/{step}.txt")}),
            Output::files(format!("1: <script>document.title = 'run'</script>\n2: sum {step}\n")),
        ),
        1 => (
            "write_file",
            json!({"path": "totals.csv", "text": format!("report,sum\n{step},{}\n", 7 * step)}),
            Output::done("written"),
        ),
        _ => (
            "shell",
            json!({"command": format!("grep -c needle-{step} reports/*.txt")}),
            Output::failed("no line holds it"),
        ),
    };
    let reasoning = format!(
        "Report {step} comes next. Its sum stands in the second line, so I take it from there and check it against needle-{step}."
    );
    let calls = vec![CallText { name: name.to_owned(), arguments: arguments.to_string() }];
    keep(Event::Answered { reasoning, content: String::new(), calls, tokens, is_cut: false });
    let gate = |decision| Event::Gate { call: step, gate: GateEvent::Decided { decision } };
    if step.is_multiple_of(50) {
        let (rule, reason) =
            ("dangerous".to_owned(), "it touches what is outside of the workspace".to_owned());
        keep(gate(Decision::Deny { rule, reason: reason.clone() }));
        keep(Event::Told { call: step, text: format!("denied: {reason}") });
    } else {
        keep(gate(Decision::Allow { rule: "inside-workspace".to_owned() }));
        let made = if step == 7 { vec!["artefacts/figure.png".to_owned()] } else { Vec::new() };
        let shown = output.text.clone();
        keep(Event::Outcome { call: step, output: Output { artefacts: made, ..output }, shown, took_ms: 3 });
    }
    keep(Event::TurnEnded { remark: None });
}

/// Searches, folds, and sees the trace grow.
pub(crate) fn read(browser: &Browser, address: &str, journal: &mut Journal) {
    browser.open(&format!("{address}/console/runs/run/long"));
    browser.wait("!document.getElementById('fold').hidden");
    let visible = "[...document.querySelectorAll('.step')].filter((step) => step.checkVisibility()).length";
    assert_eq!(browser.script(&format!("return {visible}")), json!(N_STEPS));
    assert_ne!(browser.script("return document.title"), json!("run"), "a result's script ran");
    browser.script("document.getElementById('q').focus()");
    browser.keys("needle-251");
    browser.wait(&format!("{visible} === 1"));
    browser.wait("document.getElementById('found').textContent.startsWith('1 step holds')");
    browser.shot("runs-search");
    append_step(journal, N_STEPS + 1);
    browser.wait(&format!("document.querySelectorAll('.step').length === {}", N_STEPS + 1));
    assert_eq!(browser.script(&format!("return {visible}")), json!(1), "what came later was not searched");
    browser.script("document.getElementById('q').value = ''; document.getElementById('unfold').focus()");
    browser.keys("\u{E007}");
    let open = "document.querySelectorAll('#trace details[open]').length";
    browser.wait(&format!("{open} > {N_STEPS}"));
    browser.script("document.getElementById('q').dispatchEvent(new Event('input'))");
    assert_eq!(browser.script(&format!("return {visible}")), json!(N_STEPS + 1));
    let shown = "[...document.querySelectorAll('#step-3 .result pre')].some((pre) => pre.textContent.includes('<script>'))";
    assert_eq!(browser.script(&format!("return {shown}")), json!(true));
    browser.script("document.querySelector('#step-7 img').scrollIntoView()");
    browser.wait("document.querySelector('#step-7 img').naturalWidth === 1");
    browser.shot("runs-unfolded");
    append_step(journal, N_STEPS + 2);
    browser.wait(&format!("document.querySelectorAll('.step').length === {}", N_STEPS + 2));
    browser.wait(&format!("{open} > {N_STEPS}"));
    // What is typed into the form of a fork stays while the run goes on.
    browser.script("document.getElementById('fork').open = true; document.getElementById('step').value = ''; document.getElementById('step').focus()");
    browser.keys("17");
    browser.script("document.getElementById('q').focus()");
    append_step(journal, N_STEPS + 3);
    browser.wait(&format!("document.querySelectorAll('.step').length === {}", N_STEPS + 3));
    browser.wait(&format!("document.getElementById('step').max === '{}'", N_STEPS + 3));
    assert_eq!(browser.script("return document.getElementById('step').value"), "17");
    // A search in the address is the server's, and the script goes on from it.
    browser.open(&format!("{address}/console/runs/run/long?q=needle-250"));
    browser.wait("document.getElementById('found').textContent.startsWith('1 step holds')");
}

/// A run of another process that asks twice: the reader allows by keyboard, then denies with a reason.
pub(crate) fn answer(browser: &Browser, address: &str, dir: &Path) {
    let work = dir.join("work");
    std::fs::create_dir_all(&work).unwrap();
    std::fs::write(dir.join("policy.toml"), ASK_WRITES).unwrap();
    let text = "<b>line one</b>\nline two\n";
    let write = |path: &str| call("write_file", &json!({"path": path, "text": text}));
    let upstream = endpoint(vec![write("allowed.txt"), write("denied.txt"), words("one of two")]);
    let mut run = Process(
        Command::new(env!("CARGO_BIN_EXE_perilune"))
            .current_dir(dir)
            .args(["run", "write two files", "--json", "--ask-in-console", "--upstream", &upstream])
            .args(["--workspace", "work", "--runs", "data/runs", "--policy", "policy.toml"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    browser.open(&format!("{address}/console/runs/inbox"));
    browser.wait("document.querySelector('.question')?.textContent.includes('allowed.txt')");
    browser.shot("runs-question-1280");
    browser.width(360);
    browser.shot("runs-question-360");
    browser.width(1280);
    assert_eq!(browser.script("return document.querySelectorAll('.question b').length"), json!(0));
    browser.script("document.querySelector('button[value=once]').focus()");
    browser.keys("\u{E007}");
    browser.wait("document.querySelector('.question')?.textContent.includes('denied.txt')");
    browser.script("document.querySelectorAll('.question summary')[0].focus()");
    browser.keys("\u{E007}");
    browser.script("document.querySelector('input[name=reason]').focus()");
    browser.keys("not <this> one\u{E007}");
    browser.wait("document.body.textContent.includes('No run waits for an answer.')");
    let path =
        "[...document.querySelectorAll('td.name a')].find((a) => a.textContent.includes('two files')).href";
    browser.open(&format!("{address}/console/runs"));
    let path = browser.script(&format!("return {path}"));
    browser.open(path.as_str().unwrap());
    browser.wait("document.querySelector('#head .stand')?.textContent === 'done'");
    browser.wait("document.getElementById('end').textContent.includes('one of two')");
    browser.wait("document.getElementById('trace').textContent.includes('denied, not <this> one')");
    browser.shot("runs-answered");
    assert!(run.0.wait().unwrap().success());
    assert!(work.join("allowed.txt").exists() && !work.join("denied.txt").exists());
}

/// A run of the embedded model on the files of the tutorial, read from the task to the answer at both widths.
pub(crate) fn embedded(browser: &Browser, address: &str, dir: &Path) {
    let garden = dir.join("garden");
    std::fs::create_dir(&garden).unwrap();
    for (name, text) in [
        ("start.txt", "next: gate34.txt\n"),
        ("gate34.txt", "The trail goes on in harbour.md\n"),
        ("harbour.md", "The code is LM-207\n"),
    ] {
        std::fs::write(garden.join(name), text).unwrap();
    }
    let task = "Where does start.txt lead? Follow it file by file and note the code at the end in code.txt.";
    let ran = Command::new(env!("CARGO_BIN_EXE_perilune"))
        .current_dir(dir)
        .args(["run", task, "--name", "trail", "--workspace", "garden", "--runs", "data/runs"])
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for width in [1280, 360] {
        browser.width(width);
        browser.open(&format!("{address}/console/runs/run/trail"));
        browser.wait("document.querySelector('#head .stand')?.textContent === 'done'");
        browser.wait("document.getElementById('trace').textContent.includes('LM-207')");
        let overflow = browser.script("return document.documentElement.scrollWidth - innerWidth");
        assert!(overflow.as_i64().unwrap() <= 0, "the run's page is {overflow} wider than {width}");
        browser.shot(&format!("runs-embedded-{width}"));
    }
    browser.width(README_SIZE.0);
    browser.shot_above("readme", README_SIZE.1);
}

/// The profile of [`control`]'s run: its model writes a file, does not answer the next time, and then does.
pub(crate) fn profile() -> String {
    let write = call("write_file", &json!({"path": "first.txt", "text": "x"}));
    format!("scripted=--upstream {}", endpoint(vec![write, json!(null), words("taken up again")]))
}

/// A run is started, stopped and taken up again by keyboard, and its page follows.
pub(crate) fn control(browser: &Browser, address: &str, dir: &Path) {
    std::fs::create_dir_all(dir.join("started")).unwrap();
    browser.open(&format!("{address}/console/runs"));
    browser.script("document.getElementById('start').open = true; document.getElementById('task').focus()");
    browser.keys("Write a <file>");
    browser.script("document.getElementById('workspace').value = 'started'");
    browser.script("document.querySelector('#start button').focus()");
    browser.keys("\u{E007}");
    // A slow machine shows the list first.
    let link = "[...document.querySelectorAll('td.name a')].find((a) => a.textContent === 'Write a <file>')";
    browser.wait(&format!("location.pathname.includes('/run/') || {link}"));
    browser.script(&format!("if (!location.pathname.includes('/run/')) location = {link}.href"));
    browser.wait("document.querySelector('#trace')?.textContent.includes('first.txt')");
    let stand = |name: &str| format!("document.querySelector('#head .stand')?.textContent === '{name}'");
    let press = |name: &str| {
        browser.wait(&format!("document.querySelector('#control button')?.textContent === '{name}'"));
        browser.script("document.querySelector('#control button').focus()");
        browser.keys("\u{E007}");
    };
    press("Stop");
    browser.wait(&stand("paused"));
    browser.shot("runs-stopped");
    press("Resume");
    browser.wait(&stand("done"));
    browser.wait("document.getElementById('end').textContent.includes('taken up again')");
    browser.wait("document.getElementById('control').children.length === 0");
    assert!(dir.join("started/first.txt").exists());
}
