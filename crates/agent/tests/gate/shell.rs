//! Command lines: a table, and bash itself as the judge of random ones.

use crate::support::Random;
use perilune_agent::policy::shell::{COMMAND_BYTES_MAX, parse};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn plain_lines_become_words() {
    let table: [(&str, &[&[&str]]); 8] = [
        ("ls", &[&["ls"]]),
        ("  a  'b c' \"d \\\" e\" f\\ g ", &[&["a", "b c", "d \" e", "f g"]]),
        ("a|b;c&&d||e&f\ng", &[&["a"], &["b"], &["c"], &["d"], &["e"], &["f"], &["g"]]),
        ("a # b ; c\nd", &[&["a"], &["d"]]),
        ("a b#c ''", &[&["a", "b#c", ""]]),
        ("a 2>&1 >/dev/null", &[&["a"]]),
        ("a \\\nb", &[&["a", "b"]]),
        ("a'b'\"c\"d", &[&["abcd"]]),
    ];
    for (text, expected) in table {
        let line = parse(text);
        assert_eq!(line.opaque, None, "{text}");
        let found: Vec<Vec<_>> =
            line.commands.iter().map(|c| c.words.iter().map(|w| w.text.as_str()).collect()).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn what_must_be_run_to_be_read_is_opaque() {
    let long = "a".repeat(COMMAND_BYTES_MAX + 1);
    let lines = [
        "a $b",
        "a \"$b\"",
        "a `b`",
        "a $(b)",
        "(a)",
        "a <(b)",
        "{ a; }",
        "if a; then b; fi",
        "while a; do b; done",
        "! a",
        "a() { b; }",
        "A=1 b",
        "A+=1 b",
        "A[0]=1 b",
        "a << b",
        "a <<< b",
        "a 'b",
        "a \"b",
        "a \\",
        "*",
        "~/a",
        "a > *.txt",
        "a > $b",
        "a >",
        "eval a",
        "source a",
        ". a",
        "env a",
        "sudo a",
        "sh -c a",
        "/bin/bash a",
        "xargs a",
        "chrt 1 a",
        "csh a",
        "find . -exec a ;",
        "export A=1",
        "cd / && a > b",
        "a >&2x",
        "function a",
        "[[ a ]]",
        "case a in",
        "",
        "  ",
        "# a",
        "a $'b'",
        "printf -v PATH x",
        "a \0",
        long.as_str(),
    ];
    for line in lines {
        assert!(parse(line).opaque.is_some(), "{line:?} is {:?}", parse(line));
    }
}

/// What random lines are made of.
const PIECES: [&str; 34] = [
    "c0",
    "c1",
    "c2",
    " ",
    " ",
    " ",
    "\t",
    "'",
    "'",
    "\"",
    "\"",
    "\\",
    "|",
    ";",
    "&&",
    "&",
    "\n",
    "#",
    ">",
    ">>",
    "<>",
    "2>",
    "&>",
    "a",
    "b7",
    "3",
    "=",
    "x=y",
    "é",
    "!",
    "*",
    "[",
    "'q w'",
    "\"r \\\" s\"",
];

/// Each plain line runs in bash (a call is recorded by one write, since `&` lets two happen at once) with functions for its commands: what they were called with, and the files
/// that redirections made, must be what was parsed.
#[test]
fn bash_runs_exactly_the_words_that_were_parsed() {
    const N_LINES: usize = 800;
    if Command::new("bash").arg("--version").output().is_err() {
        println!("skipped: there is no bash to judge by");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let seed = 11;
    let mut random = Random(seed);
    let lines: Vec<String> = std::iter::repeat_with(|| {
        let n = 1 + random.below(9);
        format!("c0 {}", (0..n).map(|_| *random.pick(&PIECES)).collect::<String>())
    })
    .filter(|line| parse(line).opaque.is_none())
    .take(N_LINES)
    .collect();
    let ran = run_in_bash(folder.path(), &lines);
    let mut n_equal = 0;
    for (line, (calls, files, is_sound)) in lines.iter().zip(ran) {
        let parsed = parse(line);
        let mut expected: Vec<Vec<String>> =
            parsed.commands.iter().map(|c| c.words.iter().map(|w| w.text.clone()).collect()).collect();
        let mut expected_files: Vec<_> = parsed.redirects.iter().map(|(_, path)| path.clone()).collect();
        expected.sort();
        expected_files.sort();
        expected_files.dedup();
        // What stands behind `||` does not run, for every command here succeeds; a target without a name fails.
        let is_cut_short = line.contains("||") || expected_files.iter().any(String::is_empty);
        if !is_sound || is_cut_short {
            // Bash refuses the line as a whole, or a command of it is not there: nothing more than parsed runs.
            assert!(
                count(&calls).iter().all(|(call, n)| count(&expected).get(call) >= Some(n)),
                "seed {seed}: {line:?} ran {calls:?}"
            );
            assert!(
                files.iter().all(|file| expected_files.contains(file)),
                "seed {seed}: {line:?} made {files:?}"
            );
            continue;
        }
        n_equal += 1;
        assert_eq!(calls, expected, "seed {seed}: {line:?}");
        assert_eq!(files, expected_files, "seed {seed}: {line:?}");
    }
    assert!(n_equal > N_LINES / 3, "only {n_equal} of {N_LINES} lines were compared in full");
}

fn count(calls: &[Vec<String>]) -> BTreeMap<&Vec<String>, usize> {
    calls.iter().fold(BTreeMap::new(), |mut map, call| {
        *map.entry(call).or_default() += 1;
        map
    })
}

type Ran = (Vec<Vec<String>>, Vec<String>, bool);

/// For each line: the calls, sorted; the files it made; whether every command was found and read.
fn run_in_bash(folder: &std::path::Path, lines: &[String]) -> Vec<Ran> {
    const SCRIPT: &str = r#"
set -f +B; exec 9>>"$1/calls" 2>>"$1/errors"; mkdir "$1/w"; n=0
record() { printf '%s\0' "$@" $'\1' >&9; }
c0() { record c0 "$@"; }; c1() { record c1 "$@"; }; c2() { record c2 "$@"; }
command_not_found_handle() { record "$@"; return 0; }
while IFS= read -r -d '' line; do
  : > "$1/errors"; mkdir "$1/w/$n"; cd "$1/w/$n"; n=$((n + 1))
  eval "$line" </dev/null; wait
  [ -s "$1/errors" ] || printf '\3\0' >&9
  printf '\2\0' >&9
done"#;
    let mut bash = Command::new("bash")
        .args(["--norc", "-c", SCRIPT, "bash"])
        .arg(folder)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = bash.stdin.take().unwrap();
    for line in lines {
        input.write_all(line.as_bytes()).and_then(|()| input.write_all(b"\0")).unwrap();
    }
    drop(input);
    assert!(bash.wait().unwrap().code().is_some());
    let text = String::from_utf8(std::fs::read(folder.join("calls")).unwrap()).unwrap();
    let mut ran = Vec::new();
    let (mut now, mut words): (Ran, Vec<String>) = Default::default();
    for word in text.split_terminator('\0') {
        match word {
            "\u{1}" => now.0.push(std::mem::take(&mut words)),
            "\u{2}" => {
                now.0.sort();
                now.1 = files_of(&folder.join("w").join(ran.len().to_string()));
                ran.push(std::mem::take(&mut now));
            }
            "\u{3}" => now.2 = true,
            word => words.push(word.to_owned()),
        }
    }
    assert_eq!(ran.len(), lines.len());
    ran
}

fn files_of(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
