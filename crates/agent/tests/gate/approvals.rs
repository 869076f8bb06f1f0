//! Questions, answers, and what is kept of them.

use crate::support::{call, told};
use perilune_agent::gate::{
    Access, Answered, Approval, Approver, BoxFuture, Decision, Gate, GateEvent, Outside, PolicyGate,
    ProposedCall, Question, Record, Resource, Settlement, Timed, Unattended, Verdict, settle,
};
use perilune_agent::policy::{Policy, Workspace};
use perilune_agent::secrets::Secrets;
use perilune_agent::tools::Person;
use serde_json::{Map, Value, json};
use std::error::Error;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Answers from a list; panics where it is asked more often.
struct Script(Mutex<Vec<Approval>>);

impl Script {
    fn new(answers: &[Approval]) -> Self {
        Self(Mutex::new(answers.iter().rev().cloned().collect()))
    }
}

impl Approver for Script {
    fn ask<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Approval> {
        let answer = self.0.lock().unwrap().pop();
        Box::pin(async move { answer.unwrap_or_else(|| panic!("asked once too often: {question:?}")) })
    }
}

/// Keeps events; takes no more than `room`.
struct Journal {
    events: Vec<GateEvent>,
    room: usize,
}

impl Record for Journal {
    fn record(&mut self, event: &GateEvent) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.events.len() == self.room {
            return Err("the disk is full".into());
        }
        // What is kept survives being written down.
        let text = serde_json::to_string(event)?;
        self.events.push(serde_json::from_str(&text)?);
        Ok(())
    }
}

/// As a file tool reads its arguments.
fn prepare(arguments: &Map<String, Value>) -> Result<Vec<Resource>, String> {
    let path = arguments.get("input").and_then(Value::as_str).ok_or("`input` is missing")?;
    Ok(vec![Resource::Path { access: Access::Write, path: path.to_owned() }])
}

fn gate() -> PolicyGate {
    PolicyGate::new(Policy::standard(), Workspace::imagined(), Arc::new(Secrets::none()))
}

async fn try_settle(
    gate: &dyn Gate,
    approver: &dyn Approver,
    call: ProposedCall,
    journal: &mut Journal,
    answered: Vec<Answered>,
) -> Result<Verdict, String> {
    let with = Settlement { gate, approver, prepare: &prepare, record: journal, answered };
    settle(with, call).await.map_err(|error| error.to_string())
}

/// The verdict as text, and the events by name.
async fn run(
    gate: &dyn Gate,
    approver: &dyn Approver,
    call: ProposedCall,
    answered: Vec<Answered>,
) -> (String, Vec<&'static str>) {
    let mut journal = Journal { events: Vec::new(), room: usize::MAX };
    let verdict = try_settle(gate, approver, call, &mut journal, answered).await.unwrap();
    let verdict = match verdict {
        Verdict::Go { call, rule, .. } => format!("go {} by {rule}", call.arguments["input"]),
        Verdict::Refused { told, rule } => format!("refused by {rule}: {told}"),
    };
    let name = |event: &GateEvent| match event {
        GateEvent::Decided { .. } => "decided",
        GateEvent::Asked { .. } => "asked",
        GateEvent::Answered { .. } => "answered",
    };
    (verdict, journal.events.iter().map(name).collect())
}

fn edited(path: &str) -> Approval {
    Approval::Edited { arguments: Map::from_iter([("input".to_owned(), json!(path))]) }
}

#[tokio::test]
async fn a_person_answers_in_every_way() {
    let outside = "write /away/a";
    let asked = vec!["decided", "asked", "answered"];
    let twice = [asked.clone(), vec!["decided"]].concat();
    let table: Vec<(&str, Vec<Approval>, &str, Vec<&str>)> = vec![
        ("write a", vec![], "go \"a\" by write-workspace", vec!["decided"]),
        (
            "write /etc/a",
            vec![],
            "refused by system-writes: the system's folders are not written",
            vec!["decided"],
        ),
        (outside, vec![Approval::AllowOnce], "go \"/away/a\" by outside-workspace", asked.clone()),
        (
            outside,
            vec![Approval::Denied { reason: "not now".into() }],
            "refused by outside-workspace: not now",
            asked.clone(),
        ),
        (outside, vec![edited("b")], "go \"b\" by write-workspace", twice.clone()),
        (outside, vec![edited("/away/c")], "go \"/away/c\" by outside-workspace", twice.clone()),
        (
            outside,
            vec![edited("/etc/c")],
            "refused by system-writes: the system's folders are not written",
            twice.clone(),
        ),
        (
            outside,
            vec![edited("Makefile"), Approval::AllowOnce],
            "go \"Makefile\" by settings-that-run",
            [asked.clone(), asked.clone()].concat(),
        ),
        (
            outside,
            vec![Approval::Edited { arguments: Map::new() }],
            "refused by outside-workspace: the arguments were edited, but `input` is missing",
            asked,
        ),
    ];
    for (touch, answers, verdict, events) in table {
        let found = run(&gate(), &Script::new(&answers), call("write_file", touch), Vec::new()).await;
        assert_eq!(found, (verdict.to_owned(), events), "{touch} {answers:?}");
    }
}

#[tokio::test]
async fn an_answer_for_the_run_is_not_asked_for_again() {
    let gate = gate();
    run(&gate, &Script::new(&[Approval::AllowForRun]), call("write_file", "write /away/a"), Vec::new()).await;
    let again = run(&gate, &Script::new(&[]), call("write_file", "write /away/a"), Vec::new()).await;
    assert!(again.0.starts_with("go"), "{again:?}");
    assert_eq!(told(&gate.decide(&call("write_file", "write /away/b"))), "ask outside-workspace");
    assert_eq!(told(&gate.decide(&call("edit_file", "write /away/a"))), "ask outside-workspace");
}

#[tokio::test]
async fn after_a_crash_the_journals_answer_holds() {
    let yes_to = |real: &str| {
        let (path, real) = ("/away/a".to_owned(), real.to_owned());
        let outside = vec![Outside { access: Access::Write, path, real }];
        vec![Answered { approval: Approval::AllowOnce, outside }]
    };
    let call = || call("write_file", "write /away/a");
    let (verdict, events) = run(&gate(), &Script::new(&[]), call(), yes_to("/away/a")).await;
    assert_eq!((verdict.as_str(), events), ("go \"/away/a\" by outside-workspace", vec!["decided"]));
    // An answer for another place is none.
    let no = Script::new(&[Approval::Denied { reason: "not there".to_owned() }]);
    let (verdict, events) = run(&gate(), &no, call(), yes_to("/elsewhere/a")).await;
    assert_eq!(verdict, "refused by outside-workspace: not there");
    assert_eq!(events, ["decided", "asked", "answered"]);
}

#[tokio::test]
async fn what_cannot_be_journalled_does_not_happen() {
    for room in 0..3 {
        let mut journal = Journal { events: Vec::new(), room };
        let script = Script::new(&[Approval::AllowOnce]);
        let error =
            try_settle(&gate(), &script, call("write_file", "write /away/a"), &mut journal, Vec::new()).await;
        assert!(error.as_ref().is_err_and(|error| error.contains("the disk is full")), "{room}: {error:?}");
    }
}

/// Never answers.
struct Nobody;

impl Approver for Nobody {
    fn ask<'a>(&'a self, _: &'a Question) -> BoxFuture<'a, Approval> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn where_nobody_is_there_nothing_waits_and_no_is_the_answer_unless_the_rule_says_yes() {
    let text = r#"
version = 1
[[rule]]
name = "may-go-on"
decision = "ask"
reason = "a person should look"
unattended = "allow"
tools = ["green"]
match = [{ tool = "green" }]
no_match = [{ tool = "red" }]
[[rule]]
name = "must-be-seen"
decision = "ask"
reason = "a person must look"
paths = ["a/**"]
match = [{ tool = "green", read = "a/b" }]
no_match = [{ tool = "green", read = "b" }]
"#;
    let policy = Policy::parse(text, "text").unwrap();
    let gate = PolicyGate::new(policy, Workspace::imagined(), Arc::new(Secrets::none()));
    let timed = Timed::new(Arc::new(Nobody), Duration::from_millis(20));
    for (approver, why) in [
        (&Unattended as &dyn Approver, "nobody is there to answer"),
        (&timed, "nobody answered within 0.02 s"),
    ] {
        let (verdict, _) = run(&gate, approver, call("green", "read x"), Vec::new()).await;
        assert_eq!(verdict, "go \"x\" by may-go-on");
        let (verdict, _) = run(&gate, approver, call("green", "read a/b"), Vec::new()).await;
        assert_eq!(verdict, format!("refused by must-be-seen: a person must look ({why})"));
        let (verdict, _) = run(&gate, approver, call("red", "-"), Vec::new()).await;
        assert_eq!(verdict, format!("refused by otherwise: no rule of the policy speaks of this ({why})"));
    }
}

/// Nobody to talk to.
impl Person for Nobody {
    fn ask<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_question_in_words_is_over_in_time_too() {
    let timed = Timed::new(Arc::new(Nobody), Duration::from_millis(20));
    assert_eq!(Person::ask(&timed, "Which?").await, None);
}

fn of_file(file: &Path) -> PolicyGate {
    PolicyGate::of_file(file, Workspace::imagined(), Arc::new(Secrets::none())).unwrap()
}

#[test]
fn an_answer_for_always_is_a_rule_with_examples_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new/policy.toml");
    let calls = [
        call("write_file", "write /away/a[1] b"),
        call("read_file", "read ../up"),
        call("fetch_url", "host example.org"),
        call("shell", "run git push 'origin x' \"it's\""),
        call("shell", "run make && echo $HOME | tee 'a\nb'"),
        call("shell", "run ls *.csv > /away/list"),
        call("python", "-"),
        call("unknown", "-"),
    ];
    for call in &calls {
        let gate = of_file(&file);
        assert!(matches!(gate.decide(call), Decision::Ask { .. }), "{call:?}");
        gate.remember(call, &Approval::AllowAlways).unwrap();
        assert!(matches!(gate.decide(call), Decision::Allow { .. }), "{call:?} is {:?}", gate.decide(call));
        let size = std::fs::metadata(&file).unwrap().len();
        gate.remember(call, &Approval::AllowAlways).unwrap();
        of_file(&file).remember(call, &Approval::AllowAlways).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().len(), size, "{call:?} is written twice");
    }
    // All of them hold for a later program, and nothing near them does.
    let gate = of_file(&file);
    for call in &calls {
        assert!(matches!(gate.decide(call), Decision::Allow { .. }), "{call:?} is {:?}", gate.decide(call));
    }
    for (tool, touch) in [
        ("write_file", "write /away/a1 b"),
        ("read_file", "read ../up2"),
        ("fetch_url", "host www.example.org"),
        ("shell", "run git push 'origin x'"),
        ("shell", "run git push origin x \"it's\""),
        ("shell", "run make && echo $HOME | tee 'a\nc'"),
        ("shell", "run ls *.txt > /away/list"),
    ] {
        assert!(matches!(gate.decide(&call(tool, touch)), Decision::Ask { .. }), "{tool} {touch}");
    }
}

#[test]
fn an_answer_that_was_taken_out_of_the_file_does_not_come_back_with_a_resumed_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.toml");
    let call = call("fetch_url", "host example.org");
    of_file(&file).remember(&call, &Approval::AllowAlways).unwrap();
    std::fs::write(&file, perilune_agent::policy::DEFAULT).unwrap();
    let resumed = of_file(&file);
    resumed.recall(&call, &Approval::AllowAlways).unwrap();
    assert_eq!(told(&resumed.decide(&call)), "ask network");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), perilune_agent::policy::DEFAULT);
    // For this run, and where no file could hold it, the journal's answer is all there is.
    resumed.recall(&call, &Approval::AllowForRun).unwrap();
    assert_eq!(told(&resumed.decide(&call)).split(' ').next(), Some("allow"));
    let without = gate();
    without.recall(&call, &Approval::AllowAlways).unwrap();
    assert_eq!(told(&without.decide(&call)).split(' ').next(), Some("allow"));
}

#[test]
fn a_denial_is_never_answered_away() {
    let folder = tempfile::tempdir().unwrap();
    let gate = of_file(&folder.path().join("policy.toml"));
    for approval in [Approval::AllowForRun, Approval::AllowAlways] {
        for denied in [
            call("read_file", "read .env"),
            call("shell", "run rm -rf /"),
            call("shell", "run echo $(rm -rf /)"),
        ] {
            gate.remember(&denied, &approval).unwrap();
            assert!(matches!(gate.decide(&denied), Decision::Deny { .. }), "{denied:?}");
        }
    }
}

#[test]
fn a_policy_that_cannot_be_written_says_so() {
    let gate = of_file(Path::new("/proc/nowhere/policy.toml"));
    let error = gate.remember(&call("python", "-"), &Approval::AllowAlways).unwrap_err().to_string();
    assert!(error.contains("/proc/nowhere/policy.toml"), "{error}");
}
