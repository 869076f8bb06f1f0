//! What holds for any policy: order means nothing, deny beats ask beats allow, a stricter rule never allows
//! more, an answer reaches exactly what was asked. Judged by a second, naive reading of the same rules.

use crate::support::{Random, call};
use perilune_agent::gate::{Approval, Decision, Gate, PolicyGate, ProposedCall};
use perilune_agent::policy::{Policy, Workspace};
use perilune_agent::secrets::Secrets;
use std::sync::Arc;

const N_POLICIES: u64 = 400;
const TOOLS: [&str; 3] = ["red", "green", "blue"];
const TOUCHES: [&str; 12] = [
    "-",
    "read a/1",
    "write a/1",
    "read a/b/2",
    "write b/x.csv",
    "read b/y.csv",
    "read ../up",
    "write /away/z",
    "host one.example.org",
    "host two.example.net",
    "run ls -l",
    "run rm x",
];

/// A condition: its TOML, an example that it matches, one that it does not, and what it means.
type Kind = (&'static str, &'static str, &'static str, fn(&str) -> bool);
const KINDS: [Kind; 9] = [
    (r#"paths = ["a/**"]"#, r#"read = "a/q""#, r#"read = "b/q""#, |touch| touch.contains(" a/")),
    (r#"paths = ["b/*.csv"]"#, r#"write = "b/q.csv""#, r#"write = "b/q""#, |touch| touch.contains(" b/")),
    (
        r#"access = "write"
paths = ["**"]"#,
        r#"write = "q""#,
        r#"read = "q""#,
        |touch| touch.starts_with("write a") || touch.starts_with("write b"),
    ),
    ("outside = true", r#"read = "/q""#, r#"read = "q""#, |touch| {
        touch.contains("../up") || touch.contains("/away")
    }),
    (r#"paths = ["/away/*"]"#, r#"read = "/away/q""#, r#"read = "away/q""#, |touch| touch.contains("/away")),
    (r#"hosts = ["*.example.org"]"#, r#"host = "q.example.org""#, r#"host = "q.org""#, |touch| {
        touch.ends_with(".org")
    }),
    (r#"hosts = ["*"]"#, r#"host = "q.org""#, r#"read = "q""#, |touch| touch.starts_with("host")),
    (r#"commands = ["ls ..."]"#, r#"command = "ls""#, r#"command = "rm q""#, |touch| touch.contains("ls")),
    (r#"with_words = ["x"]"#, r#"command = "q x""#, r#"command = "q y""#, |touch| touch.contains("rm x")),
];

#[derive(Clone)]
struct Rule {
    name: String,
    says: &'static str,
    tools: Vec<&'static str>,
    kind: Kind,
}

impl Rule {
    fn random(random: &mut Random, at: usize, says: &'static str) -> Self {
        let n = 1 + random.below(2);
        let tools = (0..n).map(|_| *random.pick(&TOOLS)).collect();
        Self { name: format!("r{at}-{}", random.below(1000)), says, tools, kind: *random.pick(&KINDS) }
    }

    fn text(&self) -> String {
        let Self { name, says, tools, kind: (condition, yes, no, _) } = self;
        let reason = if *says == "allow" { "" } else { "reason = \"because\"\n" };
        let tool = tools[0];
        format!(
            "[[rule]]\nname = {name:?}\ndecision = {says:?}\n{reason}tools = {tools:?}\n{condition}\n\
             match = [{{ tool = {tool:?}, {yes} }}]\nno_match = [{{ tool = {tool:?}, {no} }}]\n"
        )
    }

    fn means(&self, tool: &str, touch: &str) -> bool {
        self.tools.contains(&tool) && (self.kind.3)(touch)
    }
}

fn read(rules: &[Rule]) -> Policy {
    let text = rules.iter().map(Rule::text).collect::<String>();
    Policy::parse(&format!("version = 1\n{text}"), "random").unwrap()
}

fn random_rules(random: &mut Random) -> Vec<Rule> {
    let n = random.below(7);
    (0..n)
        .map(|at| {
            let says = *random.pick(&["allow", "allow", "ask", "deny"]);
            Rule::random(random, at, says)
        })
        .collect()
}

/// 0 allow, 1 ask, 2 deny.
fn rank(decision: &Decision) -> usize {
    match decision {
        Decision::Allow { .. } => 0,
        Decision::Ask { .. } => 1,
        Decision::Deny { .. } => 2,
    }
}

fn every_call() -> impl Iterator<Item = (&'static str, &'static str, ProposedCall)> {
    TOOLS.into_iter().flat_map(|tool| TOUCHES.into_iter().map(move |touch| (tool, touch, call(tool, touch))))
}

#[test]
fn deny_beats_ask_beats_allow_whatever_the_order() {
    let workspace = Workspace::imagined();
    for seed in 0..N_POLICIES {
        let mut random = Random(seed);
        let rules = random_rules(&mut random);
        let policy = read(&rules);
        let mut mixed = rules.clone();
        random.shuffle(&mut mixed);
        let mixed = read(&mixed);
        for (tool, touch, call) in every_call() {
            let has = |says| rules.iter().any(|rule| rule.says == says && rule.means(tool, touch));
            let expected = if has("deny") { 2 } else { usize::from(has("ask") || !has("allow")) };
            let decision = policy.decide(&call, &workspace);
            assert_eq!(rank(&decision), expected, "seed {seed}, {tool} {touch}: {decision:?}");
            assert_eq!(
                decision,
                mixed.decide(&call, &workspace),
                "seed {seed}, {tool} {touch}, in another order"
            );
        }
    }
}

#[test]
fn a_stricter_rule_never_allows_more() {
    let workspace = Workspace::imagined();
    for seed in 0..N_POLICIES {
        let mut random = Random(seed ^ 0xdead);
        let mut rules = random_rules(&mut random);
        let before = read(&rules);
        let says = *random.pick(&["deny", "ask"]);
        let added = Rule::random(&mut random, 99, says);
        rules.push(added.clone());
        let after = read(&rules);
        for (tool, touch, call) in every_call() {
            let (old, new) =
                (rank(&before.decide(&call, &workspace)), rank(&after.decide(&call, &workspace)));
            assert!(new >= old, "seed {seed}, {tool} {touch}: adding {says} went from {old} to {new}");
            assert!(!(says == "deny" && added.means(tool, touch)) || new == 2, "seed {seed}, {tool} {touch}");
        }
    }
}

#[test]
fn an_answer_reaches_exactly_what_was_asked() {
    for seed in 0..N_POLICIES {
        let mut random = Random(seed ^ 0xbeef);
        let policy = read(&random_rules(&mut random));
        let gate = PolicyGate::new(policy, Workspace::imagined(), Arc::new(Secrets::none()));
        let before: Vec<_> = every_call().map(|(.., call)| gate.decide(&call)).collect();
        let (tool, touch) = (*random.pick(&TOOLS), *random.pick(&TOUCHES));
        let approval = if seed % 2 == 0 { Approval::AllowForRun } else { Approval::AllowAlways };
        gate.remember(&call(tool, touch), &approval).unwrap();
        for ((other_tool, other_touch, other), old) in every_call().zip(before) {
            let new = gate.decide(&other);
            let is_it = (other_tool, other_touch) == (tool, touch);
            let expected = if is_it && rank(&old) == 1 { 0 } else { rank(&old) };
            assert_eq!(
                rank(&new),
                expected,
                "seed {seed}: {tool} {touch} was answered, {other_tool} {other_touch} is {new:?}"
            );
            let elsewhere = ProposedCall { run: "another".to_owned(), ..other };
            let expected = if approval == Approval::AllowAlways { expected } else { rank(&old) };
            assert_eq!(
                rank(&gate.decide(&elsewhere)),
                expected,
                "seed {seed}: {other_tool} {other_touch} in another run"
            );
        }
    }
}
