//! What the default policy says, as a table; and what single keys of the language mean.

use crate::support::{call, told};
use perilune_agent::policy::{Policy, Workspace};

fn check(policy: &Policy, table: &[(&str, &str, &str)]) {
    let workspace = Workspace::imagined();
    for (tool, touch, expected) in table {
        let decision = policy.decide(&call(tool, touch), &workspace);
        assert_eq!(&told(&decision), expected, "{tool}: {touch}");
    }
}

#[test]
fn the_default_policy_decides_as_its_table_says() {
    check(
        &Policy::standard(),
        &[
            ("read_file", "read a.csv", "allow read-workspace"),
            ("read_file", "read ./a/../b.csv", "allow read-workspace"),
            ("read_file", "read /workspace/a.csv", "allow read-workspace"),
            ("list_files", "read .", "allow read-workspace"),
            ("write_file", "write out/a.txt", "allow write-workspace"),
            ("python", "write out/a.txt", "ask python"),
            ("calculate", "-", "allow thinking-tools"),
            ("finish", "-", "allow thinking-tools"),
            ("an_unknown_tool", "-", "ask otherwise"),
            ("read_file", "read ../a.csv", "ask outside-workspace"),
            ("read_file", "read /workspace2/a.csv", "ask outside-workspace"),
            ("read_file", "read a/../../workspace-b/x", "ask outside-workspace"),
            ("write_file", "write /home/someone/a", "ask outside-workspace"),
            ("web_search", "-", "allow own-documents"),
            ("web_search", "host example.org", "ask network"),
            ("fetch_url", "host example.org", "ask network"),
            ("shell", "run ls -l", "ask shell"),
            ("shell", "run ls > out.txt", "ask shell"),
            ("python", "-", "ask python"),
            ("write_file", "write Makefile", "ask settings-that-run"),
            ("write_file", "write .github/workflows/a.yml", "ask settings-that-run"),
            ("read_file", "read .env", "deny secrets"),
            ("read_file", "read a/./.env", "deny secrets"),
            ("read_file", "read a/b/.ssh/id_rsa", "deny secrets"),
            ("read_file", "read /home/someone/.aws/credentials", "deny secrets"),
            ("read_file", "read /proc/self/environ", "deny kernel-files"),
            ("read_file", "read ../../../../proc/1/environ", "deny kernel-files"),
            ("write_file", "write /etc/passwd", "deny system-writes"),
            ("write_file", "write .git/hooks/post-commit", "deny version-control-internals"),
            ("write_file", "write sub/.git/config", "deny version-control-internals"),
            ("write_file", "write x\0y", "deny malformed"),
            ("fetch_url", "host 127.0.0.1", "deny private-network"),
            ("fetch_url", "host 2130706433", "deny private-network"),
            ("fetch_url", "host 0x7f.1", "deny private-network"),
            ("fetch_url", "host [::1]", "deny private-network"),
            ("fetch_url", "host [::ffff:10.0.0.1]", "deny private-network"),
            ("fetch_url", "host LOCALHOST.", "deny private-network"),
            ("fetch_url", "host metadata.google.internal", "deny private-network"),
            ("fetch_url", "host router", "deny private-network"),
            ("fetch_url", "host a b", "deny malformed"),
            ("shell", "run rm -rf /", "deny removal-of-everything"),
            ("shell", "run /bin/rm -r -f /", "deny removal-of-everything"),
            ("shell", "run 'r'm -rf \"/\"", "deny removal-of-everything"),
            ("shell", "run echo ok && rm -rf ~", "deny removal-of-everything"),
            ("shell", "run rm -rf *", "deny removal-of-everything"),
            ("shell", "run echo $(rm -rf /)", "deny removal-of-everything"),
            ("shell", "run bash -c 'rm -rf /'", "deny removal-of-everything"),
            ("shell", "run env A=1 rm -rf /", "deny removal-of-everything"),
            ("shell", "run find . -exec rm -rf / ;", "deny removal-of-everything"),
            ("shell", "run echo x > /etc/passwd", "deny system-writes"),
            ("shell", "run cat < .env", "deny secrets"),
            ("shell", "run sudo ls", "deny other-identities"),
            ("shell", "run reboot", "deny power-and-disks"),
            ("shell", "run dd if=/dev/zero of=/dev/sda", "deny overwrite-of-devices"),
            ("shell", "run echo rm -rf /", "ask shell"),
            ("shell", "run ls 2>/dev/null", "ask shell"),
        ],
    );
}

const OWN: &str = r#"
version = 1
otherwise = "deny"

[[rule]]
name = "git-reads"
decision = "allow"
tools = ["shell"]
commands = ["git {status,log,diff} ...", "wc -l *.csv"]
match = [{ tool = "shell", command = "git log -3" }, { tool = "shell", command = "git status && git diff" }]
no_match = [{ tool = "shell", command = "git push" }, { tool = "shell", command = "git log; git push" }]

[[rule]]
name = "docs"
decision = "allow"
tools = ["fetch_url"]
hosts = ["*.example.org", "printer.local"]
match = [{ tool = "fetch_url", host = "docs.example.org" }]
no_match = [{ tool = "fetch_url", host = "example.org.evil.com" }]

[[rule]]
name = "short-waits"
decision = "allow"
tools = ["wait"]
arguments.seconds = { min = 0, max = 60 }
arguments."options.unit" = { regex = "s|sec" }
match = [{ tool = "wait", arguments = '{"seconds": 5, "options": {"unit": "s"}}' }]
no_match = [
    { tool = "wait", arguments = '{"seconds": 61, "options": {"unit": "s"}}' },
    { tool = "wait", arguments = '{"seconds": "5", "options": {"unit": "s"}}' },
    { tool = "wait", arguments = '{"seconds": 5, "options": {"unit": "s or more"}}' },
    { tool = "wait", arguments = '{"options": {"unit": "s"}}' },
]

[[rule]]
name = "all-of-it"
decision = "allow"
tools = ["broad", "read_file"]
match = [{ tool = "broad" }, { tool = "read_file", read = "a" }]
no_match = [{ tool = "read_file", read = "/etc/hosts" }, { tool = "broad", host = "example.org" }]
"#;

#[test]
fn rules_reach_as_far_as_they_say_and_no_farther() {
    let policy = Policy::parse(OWN, "own.toml").unwrap();
    check(
        &policy,
        &[
            ("shell", "run git log", "allow git-reads"),
            ("shell", "run git log | git diff", "allow git-reads"),
            ("shell", "run git log > out.txt", "deny otherwise"),
            ("shell", "run git 'log'", "allow git-reads"),
            ("shell", "run ./git log", "deny otherwise"),
            ("shell", "run git -c core.pager=x log", "deny otherwise"),
            ("shell", "run git log *", "allow git-reads"),
            ("shell", "run git l*", "deny otherwise"),
            ("shell", "run wc -l a.csv", "allow git-reads"),
            ("shell", "run wc -l *.csv", "deny otherwise"),
            ("shell", "run wc -l a.csv b.csv", "deny otherwise"),
            ("shell", "run PAGER=x git log", "ask unreadable-command"),
            ("shell", "run git log $X", "ask unreadable-command"),
            ("shell", "run git log `x`", "ask unreadable-command"),
            ("shell", "run (git log)", "ask unreadable-command"),
            ("shell", "run git log <(x)", "ask unreadable-command"),
            ("fetch_url", "host docs.example.org", "allow docs"),
            ("fetch_url", "host DOCS.example.org.", "allow docs"),
            ("fetch_url", "host example.org.evil.com", "deny otherwise"),
            ("fetch_url", "host printer.local", "allow docs"),
            ("broad", "host example.org", "deny otherwise"),
            ("broad", "read ../x", "deny otherwise"),
            ("broad", "run ls", "allow all-of-it"),
            ("broad", "run ls $X", "ask unreadable-command"),
        ],
    );
}

#[test]
fn a_wide_host_pattern_reaches_no_private_host() {
    let text = r#"
version = 1
[[rule]]
name = "web"
decision = "allow"
hosts = ["*"]
match = [{ tool = "fetch_url", host = "example.org" }]
no_match = [{ tool = "fetch_url", host = "10.0.0.1" }]
"#;
    check(
        &Policy::parse(text, "web.toml").unwrap(),
        &[("fetch_url", "host 169.254.169.254", "ask otherwise")],
    );
}

#[test]
fn an_explanation_names_each_part_and_its_rules() {
    let call = call("shell", "run ls | rm -rf / > ../x");
    let explained = Policy::standard().explain(&call, &Workspace::imagined());
    let told: Vec<_> =
        explained.facets.iter().map(|facet| format!("{}: {}", facet.facet, told(&facet.decision))).collect();
    assert_eq!(
        told,
        [
            "command ls: ask shell",
            "command rm -rf /: deny removal-of-everything",
            "write /x (outside the workspace): ask outside-workspace",
        ]
    );
    assert_eq!(told_rules(&explained.facets[1].rules), ["removal-of-everything deny", "shell ask"]);
}

fn told_rules(rules: &[(String, usize, &'static str)]) -> Vec<String> {
    let mut told: Vec<_> = rules.iter().map(|(name, _, says)| format!("{name} {says}")).collect();
    told.sort();
    told
}
