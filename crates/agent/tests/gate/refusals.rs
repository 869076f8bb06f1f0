//! A policy that does not hold is refused in one sentence that names the line.

use perilune_agent::policy::Policy;

const RULE: &str = r#"name = "r"
decision = "deny"
reason = "no"
paths = ["a/**"]
match = [{ tool = "read_file", read = "a/x" }]
no_match = [{ tool = "read_file", read = "b/x" }]
"#;

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let rule = |change: &dyn Fn(&str) -> String| format!("version = 1\n\n[[rule]]\n{}", change(RULE));
    let table: Vec<(String, &str)> = vec![
        ("versio = 1".into(), "p.toml line 1: unknown field `versio`"),
        ("version = 2".into(), "p.toml line 1: this is version 2 of the language; write version = 1"),
        ("version = 1\notherwise = \"allow\"".into(), "p.toml line 2: unknown variant `allow`"),
        ("version = 1\n[approvals]\ntimeout = 3".into(), "p.toml line 3: unknown field `timeout`"),
        (rule(&|r| r.replace("paths", "path")), "p.toml line 7: unknown field `path`"),
        (rule(&|r| r.replace("read = \"b/x\"", "reads = \"b/x\"")), "p.toml line 9: unknown field `reads`"),
        (
            rule(&|r| r.replace("b/x", "a/y")),
            r#"p.toml line 3: the rule "r" lies: its example {"tool":"read_file","read":"a/y"} must not match, but does;"#,
        ),
        (
            rule(&|r| r.replace("a/x", "c/x")),
            r#"p.toml line 3: the rule "r" lies: its example {"tool":"read_file","read":"c/x"} must match, but does not;"#,
        ),
        (rule(&|r| r.replace("reason = \"no\"\n", "")), "p.toml line 3: the rule \"r\" needs a `reason`"),
        (
            rule(&|r| r.replace("no_match = [{ tool = \"read_file\", read = \"b/x\" }]", "no_match = []")),
            "has no example under `no_match`",
        ),
        (rule(&|r| r.replace("paths = [\"a/**\"]", "paths = [\"a/**\"]\nhosts = [\"*\"]")), "mixes keys"),
        (rule(&|r| r.replace("a/**", "a/../b")), "with `.` or `..`"),
        (rule(&|r| r.replace("a/**", "a/[")), "has a pattern that cannot be read"),
        (
            rule(&|r| r.replace("paths = [\"a/**\"]", "arguments.x = { regex = \"a)|(b\" }")),
            "has a `regex` for \"x\" that cannot be read",
        ),
        (
            rule(&|r| r.replace("paths = [\"a/**\"]", "arguments.x = { }")),
            "says nothing about the argument \"x\"",
        ),
        (
            rule(&|r| r.replace("reason", "unattended = \"allow\"\nreason")),
            "has `unattended`, which only an ask rule may have",
        ),
        (
            rule(&|r| r.replace("\"deny\"", "\"allow\"\nanswers = \"nobody\"")),
            "answers \"nobody\", which is no ask rule",
        ),
        (rule(&|r| r.replace("\"r\"", "\"otherwise\"")), "has a name that is taken"),
        (rule(&|r| format!("{r}\n[[rule]]\n{r}")), "p.toml line 11: the rule \"r\" has a name that is taken"),
        ("version = 1\nname = ".into(), "p.toml line 2:"),
    ];
    for (text, expected) in table {
        let error = Policy::parse(&text, "p.toml").unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\nsays {error:?}\nnot  {expected:?}");
        assert!(!error.contains('\n'), "one sentence: {error:?}");
    }
}

#[test]
fn a_policy_that_is_not_there_is_named() {
    let error = Policy::load(std::path::Path::new("no/such/policy.toml")).unwrap_err().to_string();
    assert!(error.starts_with("the policy no/such/policy.toml cannot be read:"), "{error}");
}
