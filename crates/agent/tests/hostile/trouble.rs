//! Calls off the schema, tools that hang or break, and what a crash leaves open, in the loop.

use crate::loops::{self, Shared, ready};
use perilune_agent::gate::{
    Approval, Approver, BoxFuture, Decision, Effect, Gate, GateError, GateEvent, ProposedCall, Question,
    Resource, Unattended,
};
use perilune_agent::journal::{self, CallText, Event, How, Opened, TokenUse};
use perilune_agent::run::{Budget, Clock, Hands, Run, SystemClock};
use perilune_agent::tools::{
    Arguments, AskUser, Declaration, Limits, Output, Parameter, Person, Registry, Scope, Tool, Workspace,
};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// How a tool behaves.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Answers,
    Blocks,
    Waits,
    Panics,
}

/// Counts its attempts, and how many were dropped while they waited.
struct Odd {
    way: Way,
    n_attempts: AtomicUsize,
    n_dropped: Arc<AtomicUsize>,
    is_over: AtomicBool,
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Odd {
    fn new(way: Way) -> Arc<Self> {
        Arc::new(Self {
            way,
            n_attempts: AtomicUsize::new(0),
            n_dropped: Arc::default(),
            is_over: AtomicBool::new(false),
        })
    }
}

impl Tool for Odd {
    fn declaration(&self) -> Declaration {
        let parameters =
            [Parameter::required("to", "string", "whom"), Parameter::optional("n", "integer", "times")];
        Declaration::flat("send", "Sends it.", &parameters)
    }

    fn effect(&self) -> Effect {
        Effect::Irreversible
    }

    fn resources(&self, _: &Arguments) -> Vec<Resource> {
        Vec::new()
    }

    fn run<'a>(&'a self, _: &'a Arguments, _: &'a Scope) -> BoxFuture<'a, Output> {
        self.n_attempts.fetch_add(1, Ordering::SeqCst);
        match self.way {
            Way::Answers => ready(Output::done("sent")),
            Way::Panics => panic!("as a broken tool does"),
            Way::Waits => {
                let dropped = CountDrop(Arc::clone(&self.n_dropped));
                Box::pin(async move {
                    let _dropped = dropped;
                    std::future::pending().await
                })
            }
            // Until the test is over: its runtime waits for its threads.
            Way::Blocks => {
                while !self.is_over.load(Ordering::SeqCst) {
                    std::thread::park_timeout(std::time::Duration::from_millis(5));
                }
                ready(Output::done("too late"))
            }
        }
    }
}

/// Allows all, and keeps what it was asked about.
#[derive(Default)]
struct Open(Mutex<Vec<Arguments>>);

impl Gate for Open {
    fn decide(&self, call: &ProposedCall) -> Decision {
        self.0.lock().unwrap().push(call.arguments.clone());
        Decision::Allow { rule: "all".to_owned() }
    }

    fn remember(&self, _: &ProposedCall, _: &Approval) -> Result<(), GateError> {
        Ok(())
    }
}

/// A clock on which the longest wait is short.
struct Impatient;

impl Clock for Impatient {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms()
    }

    fn sleep_ms(&self, ms: u64) -> BoxFuture<'static, ()> {
        SystemClock.sleep_ms(ms.min(50))
    }

    fn apart(&self, work: BoxFuture<'static, Output>) -> BoxFuture<'static, Output> {
        SystemClock.apart(work)
    }
}

fn hands(mind: &Shared, tool: &Arc<Odd>, gate: &Arc<Open>, folder: &Path) -> Hands {
    let scope = Scope::new(
        Workspace::open(folder).unwrap().with_own_folder(&folder.join("own")).unwrap(),
        Limits::default(),
    );
    let tools = Registry::new(vec![Arc::clone(tool) as Arc<dyn Tool>]).unwrap();
    loops::hands(mind, tools, Arc::clone(gate) as Arc<dyn Gate>, scope)
}

fn mind(calls: &[Value]) -> Shared {
    let mind = Shared::default();
    let calls = calls.iter().map(|call| ("send".to_owned(), call.as_object().unwrap().clone()));
    mind.0.lock().unwrap().calls = calls.collect();
    mind
}

fn shown(mind: &Shared) -> Vec<String> {
    mind.0.lock().unwrap().shown.clone()
}

#[tokio::test]
async fn calls_off_the_schema_reach_neither_gate_nor_tool() {
    let folder = tempfile::tempdir().unwrap();
    let mind = mind(&[
        json!({}),
        json!({"to": 7}),
        json!({"to": "a", "cc": "b"}),
        json!({"to": "a", "n": "two"}),
        json!({"to": "a", "n": 2}),
    ]);
    let (tool, gate) = (Odd::new(Way::Answers), Arc::new(Open::default()));
    let (journal, first) = journal::create(&folder.path().join("run"), 0, Opened::default()).unwrap();
    let run = Run::new(hands(&mind, &tool, &gate, folder.path()), journal, &[first]).unwrap();
    assert_eq!(run.finish().await.unwrap().0, How::Answer);
    let takes = "; send takes to, n (optional)";
    assert_eq!(
        shown(&mind),
        [
            format!("error: missing field `to`{takes}"),
            format!("error: invalid type: integer `7`, expected a string{takes}"),
            format!("error: unknown field `cc`, expected `to` or `n`{takes}"),
            format!("error: invalid type: string \"two\", expected a whole number{takes}"),
            "sent".to_owned()
        ]
    );
    assert_eq!(tool.n_attempts.load(Ordering::SeqCst), 1);
    assert_eq!(gate.0.lock().unwrap().as_slice(), [json!({"to": "a", "n": 2}).as_object().unwrap().clone()]);
}

#[tokio::test]
async fn the_model_is_told_how_much_it_may_think() {
    for (step_reasoning_tokens_max, expected) in [(100, 100), (48_000, 875)] {
        let folder = tempfile::tempdir().unwrap();
        let (tool, gate) = (Odd::new(Way::Answers), Arc::new(Open::default()));
        let (journal, first) = journal::create(&folder.path().join("run"), 0, Opened::default()).unwrap();
        let mind = mind(&[]);
        let mut hands = hands(&mind, &tool, &gate, folder.path());
        hands.budget = Budget { step_reasoning_tokens_max, ..Budget::STEPS_120 };
        Run::new(hands, journal, &[first]).unwrap().finish().await.unwrap();
        assert_eq!(mind.0.lock().unwrap().limits, [(Some(expected), Some(1_000))]);
    }
}

#[tokio::test]
async fn no_tool_holds_up_the_run() {
    for way in [Way::Blocks, Way::Waits, Way::Panics] {
        let folder = tempfile::tempdir().unwrap();
        let mind = mind(&[json!({"to": "a"})]);
        let (tool, gate) = (Odd::new(way), Arc::new(Open::default()));
        let (journal, first) = journal::create(&folder.path().join("run"), 0, Opened::default()).unwrap();
        let mut hands = hands(&mind, &tool, &gate, folder.path());
        if way != Way::Panics {
            hands.clock = Arc::new(Impatient);
        }
        let ended = Run::new(hands, journal, &[first]).unwrap().finish().await.unwrap();
        assert_eq!(ended.0, How::Answer);
        let told = if way == Way::Panics { "the tool broke off" } else { "the tool did not return in time" };
        assert!(shown(&mind)[0].starts_with(&format!("error: {told}")), "{:?}", shown(&mind));
        tool.is_over.store(true, Ordering::SeqCst);
        while way == Way::Waits && tool.n_dropped.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

/// Says yes, once.
struct Yes(AtomicUsize);

impl Approver for Yes {
    fn ask<'a>(&'a self, _: &'a Question) -> BoxFuture<'a, Approval> {
        self.0.fetch_add(1, Ordering::SeqCst);
        ready(Approval::AllowOnce)
    }
}

/// Wants other arguments.
struct Other;

impl Approver for Other {
    fn ask<'a>(&'a self, _: &'a Question) -> BoxFuture<'a, Approval> {
        ready(Approval::Edited { arguments: json!({"to": "b"}).as_object().unwrap().clone() })
    }
}

/// A process died between the intent of a call and its outcome.
fn die_within(run: &Path, effect: Effect) {
    let (mut journal, _) = journal::create(run, 0, Opened::default()).unwrap();
    let arguments = json!({"to": "a"}).as_object().unwrap().clone();
    let text = CallText { name: "send".to_owned(), arguments: json!({"to": "a"}).to_string() };
    let (reasoning, tokens) = (String::new(), TokenUse::default());
    let answered =
        Event::Answered { reasoning, content: String::new(), calls: vec![text], tokens, is_cut: false };
    let intent = Event::Intent {
        call: 1,
        tool: "send".to_owned(),
        arguments,
        effect,
        key: "k".to_owned(),
        note: None,
        outside: Vec::new(),
    };
    for event in [answered, intent] {
        journal.append(1, event, true).unwrap();
    }
}

#[tokio::test]
async fn edited_arguments_repeat_no_attempt_that_nobody_knows_of() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    die_within(&run, Effect::Irreversible);
    let (tool, gate) = (Odd::new(Way::Answers), Arc::new(Open::default()));
    let (journal, entries) = journal::resume(&run).unwrap();
    let mut hands = hands(&mind(&[]), &tool, &gate, folder.path());
    hands.approver = Arc::new(Other);
    let ended = Run::new(hands, journal, &entries).unwrap().finish().await.unwrap();
    assert_eq!((ended.0, tool.n_attempts.load(Ordering::SeqCst)), (How::Answer, 0));
}

#[tokio::test]
async fn what_nobody_knows_stops_a_run_that_nobody_watches() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    die_within(&run, Effect::Irreversible);
    let (tool, gate) = (Odd::new(Way::Answers), Arc::new(Open::default()));
    // However often nobody is there, the question stays open.
    for _ in 0..2 {
        let (journal, entries) = journal::resume(&run).unwrap();
        let mut hands = hands(&mind(&[]), &tool, &gate, folder.path());
        hands.approver = Arc::new(Unattended);
        let error = Run::new(hands, journal, &entries).unwrap().finish().await.unwrap_err().to_string();
        assert!(
            error.starts_with("nobody is there to answer, and the call of send needs an answer")
                && error.ends_with("resume the run where somebody can give it"),
            "{error}"
        );
        assert_eq!(tool.n_attempts.load(Ordering::SeqCst), 0);
    }
    let (journal, entries) = journal::resume(&run).unwrap();
    let yes = Arc::new(Yes(AtomicUsize::new(0)));
    let mut hands = hands(&mind(&[]), &tool, &gate, folder.path());
    hands.approver = Arc::clone(&yes) as Arc<dyn Approver>;
    let ended = Run::new(hands, journal, &entries).unwrap().finish().await.unwrap();
    assert_eq!(ended.0, How::Answer);
    assert_eq!((tool.n_attempts.load(Ordering::SeqCst), yes.0.load(Ordering::SeqCst)), (1, 1));
}

/// Denies all.
struct Closed;

impl Closed {
    fn says() -> Decision {
        Decision::Deny { rule: "closed".to_owned(), reason: "not any more".to_owned() }
    }
}

impl Gate for Closed {
    fn decide(&self, _: &ProposedCall) -> Decision {
        Self::says()
    }

    fn remember(&self, _: &ProposedCall, _: &Approval) -> Result<(), GateError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_policy_denies_by_now_is_not_attempted_again() {
    for effect in [Effect::Idempotent, Effect::Irreversible] {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path().join("run");
        die_within(&run, effect);
        let (tool, mind) = (Odd::new(Way::Answers), mind(&[]));
        let (journal, entries) = journal::resume(&run).unwrap();
        let mut hands = hands(&mind, &tool, &Arc::new(Open::default()), folder.path());
        hands.gate = Arc::new(Closed);
        hands.approver = Arc::new(Yes(AtomicUsize::new(0)));
        let ended = Run::new(hands, journal, &entries).unwrap().finish().await.unwrap();
        assert_eq!((ended.0, tool.n_attempts.load(Ordering::SeqCst)), (How::Answer, 0), "{effect:?}");
        assert!(shown(&mind)[0].ends_with("nobody knows whether it happened: not any more"), "{effect:?}");
        let entries = journal::read(&run).unwrap();
        let denied = Event::Gate { call: 1, gate: GateEvent::Decided { decision: Closed::says() } };
        assert!(entries.iter().any(|entry| entry.event == denied), "{entries:?}");
    }
}

#[tokio::test]
async fn a_call_whose_tool_is_gone_is_not_told_as_one_that_never_was() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    die_within(&run, Effect::Irreversible);
    let mind = mind(&[]);
    let (journal, entries) = journal::resume(&run).unwrap();
    let mut hands = hands(&mind, &Odd::new(Way::Answers), &Arc::new(Open::default()), folder.path());
    hands.profile.tools = Registry::default();
    Run::new(hands, journal, &entries).unwrap().finish().await.unwrap();
    let told = "nobody knows whether it happened: there is no tool send any more";
    assert!(shown(&mind)[0].ends_with(told), "{:?}", shown(&mind));
}

/// Answers after a while that is longer than an attempt may take on the impatient clock.
struct Slow(std::time::Duration);

impl Person for Slow {
    fn ask<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<String>> {
        Box::pin(async {
            tokio::time::sleep(self.0).await;
            Some("the red one".to_owned())
        })
    }
}

#[tokio::test]
async fn a_person_takes_as_long_as_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let mind = Shared::default();
    let question = json!({"question": "Which?"}).as_object().unwrap().clone();
    mind.0.lock().unwrap().calls.push_back(("ask_user".to_owned(), question));
    let (journal, first) = journal::create(&folder.path().join("run"), 0, Opened::default()).unwrap();
    let mut hands = hands(&mind, &Odd::new(Way::Answers), &Arc::new(Open::default()), folder.path());
    hands.profile.tools.add(Arc::new(AskUser)).unwrap();
    hands.scope.person = Some(Arc::new(Slow(std::time::Duration::from_millis(300))));
    hands.clock = Arc::new(Impatient);
    Run::new(hands, journal, &[first]).unwrap().finish().await.unwrap();
    assert_eq!(shown(&mind), ["the red one"]);
}

#[tokio::test]
async fn the_time_before_a_run_was_taken_up_again_is_nobodys_work() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    // Opened in 1970, and killed before the first answer.
    drop(journal::create(&run, 0, Opened::default()).unwrap());
    let (journal, entries) = journal::resume(&run).unwrap();
    let (tool, gate) = (Odd::new(Way::Answers), Arc::new(Open::default()));
    let hands = hands(&mind(&[]), &tool, &gate, folder.path());
    Run::new(hands, journal, &entries).unwrap().finish().await.unwrap();
    let entries = journal::read(&run).unwrap();
    assert!(matches!(entries[1].event, Event::Resumed), "{entries:?}");
    let year_ms = 365 * 24 * 3_600_000;
    assert!(journal::Summary::of(&entries).ledger.wall_ms < year_ms, "{entries:?}");
}

#[tokio::test]
async fn a_larger_limit_takes_up_what_a_limit_ended() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (tool, gate) = (Odd::new(Way::Answers), Arc::new(Open::default()));
    let mind = mind(&[json!({"to": "a"}), json!({"to": "b"})]);
    let (journal, first) = journal::create(&run, 0, Opened::default()).unwrap();
    let (mut taken, mut hows) = (Some((journal, vec![first])), Vec::new());
    for n_steps_max in [1, 1, 2, 9, 1] {
        let (journal, entries) = taken.take().unwrap_or_else(|| journal::resume(&run).unwrap());
        let mut hands = hands(&mind, &tool, &gate, folder.path());
        hands.budget = Budget { n_steps_max, ..Budget::STEPS_120 };
        let ended = Run::new(hands, journal, &entries).unwrap().finish().await.unwrap();
        hows.push((ended.0, journal::read(&run).unwrap().len() - entries.len()));
    }
    // The second process found nothing to do, and the last one a run that is over.
    assert_eq!(
        hows.iter().map(|it| it.0).collect::<Vec<_>>(),
        [How::Budget, How::Budget, How::Budget, How::Answer, How::Answer]
    );
    assert_eq!((hows[1].1, hows[4].1), (0, 0), "{hows:?}");
    assert_eq!(tool.n_attempts.load(Ordering::SeqCst), 2);
    let ledger = journal::Summary::of(&journal::read(&run).unwrap()).ledger;
    assert_eq!(ledger.n_steps, 3);
}

#[tokio::test]
async fn a_limit_of_tokens_holds_where_nobody_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (tool, gate) = (Odd::new(Way::Answers), Arc::new(Open::default()));
    let (journal, first) = journal::create(&run, 0, Opened::default()).unwrap();
    let mut hands = hands(&mind(&[json!({"to": "a"}), json!({"to": "b"})]), &tool, &gate, folder.path());
    hands.budget = Budget { tokens_max: Some(50), ..Budget::STEPS_120 };
    let ended = Run::new(hands, journal, &[first]).unwrap().finish().await.unwrap();
    assert_eq!((ended.0, tool.n_attempts.load(Ordering::SeqCst)), (How::Budget, 1), "{ended:?}");
    let tokens = journal::Summary::of(&journal::read(&run).unwrap()).ledger.tokens;
    assert!(tokens.prompt > 50 && tokens.completion > tokens.reasoning && tokens.reasoning > 0, "{tokens:?}");
}
