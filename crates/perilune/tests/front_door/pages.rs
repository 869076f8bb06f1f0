//! Every command that README and docs show is run as it stands there, or the page says why not.
//!
//! A page is one newcomer: its blocks run in order, in one folder with the repository's examples. `RUN` in a command is
//! the newest run of the agent; port 8080 is a free one.

use super::page::{Block, Remark, blocks};
use super::world::{World, is_installed, repository};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Records of what was measured on one day: nobody is to follow them.
const RECORDS: [&str; 2] = ["docs/log.md", "docs/speed.md"];
/// Longest time for a block.
const PATIENCE: Duration = Duration::from_secs(600);
/// Fewest commands that README and docs show.
const COMMANDS_MIN: usize = 25;

/// README and docs, records left out.
pub(crate) fn pages() -> Vec<PathBuf> {
    let root = repository();
    let mut found = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md")
                && RECORDS.iter().all(|record| path != root.join(record))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_command_of_readme_and_docs_does_what_the_page_says() {
    let counts: Vec<(usize, usize)> = pages().iter().map(|page| follow(page)).collect();
    let (run, left) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    println!("{run} blocks of commands run, {left} not, each with its reason");
    assert!(run >= COMMANDS_MIN, "only {run} blocks were run");
}

/// A server that a page started; killed with all that it started when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a page; how many of its blocks were run, and how many were not.
fn follow(path: &Path) -> (usize, usize) {
    let world = World::new();
    let name = path.strip_prefix(repository()).unwrap().display().to_string();
    // What the last block wrote; none where it was skipped.
    let (mut servers, mut printed, mut n_run, mut n_left) = (Vec::new(), Some(String::new()), 0, 0);
    for block in blocks(path) {
        let place = format!("{name}:{}", block.line);
        match (&block.remark, block.kind.as_str()) {
            (Remark::File(file), _) => std::fs::write(world.here().join(file), block.text + "\n").unwrap(),
            (Remark::Printed, _) => printed.iter().for_each(|printed| check_printed(&block, printed, &place)),
            (Remark::NotRun(_), _) => n_left += 1,
            (Remark::Background, "sh") => {
                servers.push(start(&world, &block.text, &place));
                n_run += 1;
            }
            (Remark::None | Remark::Exit(_), "sh") => match missing(&block.text) {
                Some(program) => {
                    println!("{place} is skipped: there is no {program} here");
                    printed = None;
                }
                None => {
                    let expect = if let Remark::Exit(code) = block.remark { code } else { 0 };
                    printed = Some(run(&world, &block.text, expect, &place));
                    n_run += 1;
                }
            },
            (Remark::None, "text" | "toml" | "json" | "ini") => {}
            (remark, kind) => panic!("{place}: a block of {kind:?} with {remark:?}; commands stand in `sh`"),
        }
    }
    (n_run, n_left)
}

/// A program that the block calls and this machine lacks.
fn missing(text: &str) -> Option<&'static str> {
    ["curl", "python3", "sqlite3"]
        .into_iter()
        .find(|program| text.contains(program) && !is_installed(program))
}

fn script(world: &World, text: &str) -> Command {
    let text = text.replace("8080", &world.port.to_string());
    let text = if names_run(&text) { replace_run(&text, &newest_run(world)) } else { text };
    let mut command = world.command("sh");
    command.args(["-eu", "-c", &text]);
    command
}

fn names_run(text: &str) -> bool {
    replace_run(text, "") != text
}

/// The text with `name` for each word `RUN`.
fn replace_run(text: &str, name: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split_inclusive(|c| !is_word(c)).map(|piece| match piece.strip_prefix("RUN") {
        Some(rest) if !rest.starts_with(is_word) => format!("{name}{rest}"),
        _ => piece.to_owned(),
    });
    words.collect()
}

/// Name of the run that was begun last; names begin with the time.
fn newest_run(world: &World) -> String {
    let runs = world.home().join(".local/share/perilune/runs");
    let names = std::fs::read_dir(&runs).unwrap_or_else(|error| panic!("{}: {error}", runs.display()));
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).max().expect("a run was begun")
}

/// What the commands wrote, output and errors together.
fn run(world: &World, text: &str, expect: i32, place: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let append = std::fs::OpenOptions::new().append(true).open(file.path()).unwrap();
    let mut command = script(world, text);
    command.stdout(append.try_clone().unwrap()).stderr(append);
    let mut child = command.spawn().unwrap();
    let since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if since.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("{place}: still running after {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let said = String::from_utf8_lossy(&std::fs::read(file.path()).unwrap()).into_owned();
    assert_eq!(status.code(), Some(expect), "{place}:\n{text}\n{said}");
    said
}

fn start(world: &World, text: &str, place: &str) -> Server {
    // The shell becomes the server, so that killing one ends the other.
    let mut command = script(world, &format!("exec {text}"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Server(command.spawn().unwrap());
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", world.port)).is_err() {
        assert!(server.0.try_wait().unwrap().is_none(), "{place}: the server ended");
        assert!(since.elapsed() < PATIENCE, "{place}: nobody listens");
        std::thread::sleep(Duration::from_millis(50));
    }
    server
}

fn check_printed(block: &Block, printed: &str, place: &str) {
    // Blanks are the terminal's matter.
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let printed: Vec<String> = printed.lines().map(words).collect();
    for line in block.text.lines().map(words).filter(|line| !line.is_empty() && line != "...") {
        assert!(
            printed.iter().any(|it| it.contains(&line)),
            "{place}: nothing printed {line:?}: {printed:#?}"
        );
    }
}
