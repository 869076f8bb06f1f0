//! Runs that are started, stopped and resumed in the console: their forms, a question in the inbox, their end.

use super::{call, endpoint, told, waiting, words};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest time for something to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, killed when dropped, and a reader who is logged in.
struct Console {
    child: Child,
    address: String,
    key: String,
    cookie: String,
}

impl Drop for Console {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Console {
    /// With these profiles; `key` is the admin key of a server that was there before.
    fn start(folder: &Path, profiles: &[String], key: Option<&str>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_perilune"))
            .current_dir(folder)
            .args(["serve", "--listen", "127.0.0.1:0", "--upstream", "elsewhere=http://127.0.0.1:1/v1"])
            .args(["--data", "data", "--runs", "runs", "--run-root", "work"])
            .args(profiles.iter().flat_map(|profile| ["--run-profile", profile]))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut key, mut address) = (key.map(str::to_owned), None);
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap) {
            let secret = line.find("sk-").filter(|_| line.starts_with("console"));
            key = key.or(secret.map(|at| line[at..].to_owned()));
            address = line.strip_prefix("address  http://").map(str::to_owned);
            if address.is_some() {
                break;
            }
        }
        let (key, cookie) = (key.unwrap(), String::new());
        let mut this = Self { child, address: address.unwrap(), key, cookie };
        let (_, head, _) = this.send("POST", "/console/login", &format!("key={}", this.key));
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        this.cookie = cookie.split(';').next().unwrap().to_owned();
        this
    }

    /// Status, head and body.
    fn send(&self, method: &str, path: &str, form: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncookie: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{form}",
            self.address,
            self.cookie,
            form.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    fn page(&self, path: &str) -> String {
        let (status, _, body) = self.send("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Sends a form with the token of the page that it stands on.
    fn submit(&self, page: &str, path: &str, form: &str) -> (u16, String) {
        let page = self.page(page);
        let at = page.find("name=\"form_token\"").expect("the page has a form");
        let token = page[at..].split("value=\"").nth(1).unwrap().split('"').next().unwrap();
        let (status, head, body) = self.send("POST", path, &format!("{form}&form_token={token}"));
        let location = head.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned);
        (status, location.unwrap_or(body))
    }

    fn wait_for(&self, path: &str, text: &str) {
        let since = Instant::now();
        while !self.page(path).contains(text) {
            assert!(since.elapsed() < PATIENCE, "{text:?} is not in {path}: {}", self.page(path));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_run_is_started_asked_about_and_done_in_the_console() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("work/project")).unwrap();
    let write = |path: &str| call("write_file", &json!({"path": path, "text": "x"}));
    let upstream = endpoint(vec![write("Makefile"), write("a.txt"), words("two files")]);
    // A value with blanks stands in quotation marks.
    std::fs::write(folder.path().join("my rules.toml"), perilune_agent::policy::DEFAULT).unwrap();
    let profiles = [
        format!("scripted=--upstream {upstream} --steps 9 --policy 'my rules.toml'"),
        "broken=--upstream http://127.0.0.1:1/v1#m --policy none.toml".to_owned(),
    ];
    let console = Console::start(folder.path(), &profiles, None);
    let (list, start) = ("/console/runs", "/console/runs/start");
    let form = "task=write+--two+files&workspace=project&profile=scripted";
    // Without the token of a page nothing begins, nor outside the folder that is allowed.
    assert_eq!(console.send("POST", start, form).0, 403);
    let (status, body) = console.submit(list, start, "task=t&workspace=../data&profile=scripted");
    assert!(status == 422 && body.contains("it lies outside"), "{status} {body}");
    assert!(!folder.path().join("runs").exists());
    let (status, location) = console.submit(list, start, form);
    let (run, question) = waiting(folder.path());
    let page = format!("/console/runs/run/{run}");
    // A slow machine shows the list first.
    assert!(status == 303 && [page.as_str(), list].contains(&location.as_str()), "{status} {location}");
    assert!(console.page(list).contains(&run));
    let answer = format!("id={}&answer=once&back=inbox", question.id);
    assert_eq!(console.submit("/console/runs/inbox", &format!("{page}/answer"), &answer).0, 303);
    console.wait_for(&page, "· done");
    let shown: Value = serde_json::from_str(&told(folder.path(), &["show", &run, "--json"])).unwrap();
    assert_eq!((&shown["state"], &shown["task"]), (&json!("done"), &json!("write --two files")));
    assert!(["Makefile", "a.txt"].iter().all(|it| folder.path().join("work/project").join(it).exists()));
    // A run that cannot begin says why.
    let (status, location) = console.submit(list, start, "task=t&workspace=.&profile=broken");
    assert_eq!((status, location.as_str()), (303, list));
    console.wait_for(list, "none.toml");
    assert_eq!(std::fs::read_dir(folder.path().join("runs")).unwrap().count(), 1, "it left a folder");
}

#[test]
fn a_run_is_stopped_and_taken_up_again_in_the_console() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work/project");
    std::fs::create_dir_all(&work).unwrap();
    let write = |path: &str| call("write_file", &json!({"path": path, "text": "x"}));
    let profiles = [
        format!("limited=--steps 1 --upstream {}", endpoint(vec![write("b.txt"), words("two files")])),
        format!("hangs=--upstream {}", endpoint(vec![write("a.txt"), Value::Null])),
        "away=--upstream http://127.0.0.1:1/v1#m --policy none.toml".to_owned(),
    ];
    let console = Console::start(folder.path(), &profiles, None);
    let form = "task=write&workspace=project&profile=hangs";
    let (status, page) = console.submit("/console/runs", "/console/runs/start", form);
    assert_eq!(status, 303, "{page}");
    let since = Instant::now();
    while !work.join("a.txt").exists() {
        assert!(since.elapsed() < PATIENCE, "the run does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let listed: Value = serde_json::from_str(&told(folder.path(), &["list", "--json"])).unwrap();
    let run = listed[0]["run"].as_str().unwrap().to_owned();
    let page = format!("/console/runs/run/{run}");
    let (stop, resume) = (format!("{page}/stop"), format!("{page}/resume"));
    let state = || {
        let shown = told(folder.path(), &["show", &run, "--json"]);
        serde_json::from_str::<Value>(&shown).unwrap()["state"].as_str().unwrap().to_owned()
    };
    // While a process works on it, it is stopped and nothing else, and not without the token of a page.
    assert_eq!(console.submit(&page, &resume, "profile=hangs").0, 409);
    assert_eq!(console.send("POST", &stop, "").0, 403);
    assert_eq!(state(), "running");
    // A server that did not start it stops it all the same, and knows its profile.
    let key = console.key.clone();
    drop(console);
    let console = Console::start(folder.path(), &profiles, Some(&key));
    assert_eq!(console.submit(&page, &stop, ""), (303, page.clone()));
    let since = Instant::now();
    while state() != "paused" {
        assert!(since.elapsed() < PATIENCE, "the run does not stop");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(console.page(&page).contains("<option value=\"hangs\" selected>"));
    assert_eq!(console.submit(&page, &stop, "").0, 409);
    assert_eq!(console.submit(&page, &resume, "profile=none").0, 422);
    // What cannot go on says why.
    assert_eq!(console.submit(&page, &resume, "profile=away").0, 303);
    console.wait_for(&page, "none.toml");
    // A limit that it has reached already ends it; a larger one takes it up.
    assert_eq!(console.submit(&page, &resume, "profile=limited").0, 303);
    console.wait_for(&page, "Steps at most");
    assert_eq!(state(), "stopped");
    assert_eq!(console.submit(&page, &resume, "profile=limited&steps=0").0, 422);
    let (status, told) = console.submit(&page, &resume, "profile=limited&steps=9");
    assert_eq!(status, 303, "{told}");
    console.wait_for(&page, "· done");
    assert!(work.join("b.txt").exists());
    assert_eq!(console.submit("/console/runs", &resume, "profile=limited").0, 409);
    let calls = told_calls(folder.path(), &run);
    assert_eq!(calls, ["a.txt", "b.txt"]);
}

/// The paths of a run's calls that were done.
fn told_calls(folder: &Path, run: &str) -> Vec<String> {
    let lines = told(folder, &["export", run]);
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let intents = events.filter(|event| event["event"] == "intent");
    intents.map(|event| event["arguments"]["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_profile_that_no_run_can_have_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for (flags, says) in [
        (vec!["--run-root", "none"], "--run-root none"),
        (vec!["--run-profile", "a=--steps 2"], "--run-root"),
        (vec!["--run-root", ".", "--run-profile", "a=--steps none"], "--run-profile a: invalid value"),
        (vec!["--run-root", ".", "--run-profile", "a=--runs elsewhere"], "--run-profile a:"),
        (vec!["--run-root", ".", "--run-profile", "a=--policy 'my rules.toml"], "is left open"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_perilune"))
            .current_dir(folder.path())
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--upstream",
                "a=http://127.0.0.1:1/v1",
                "--data",
                "data",
            ])
            .args(&flags)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(says), "{flags:?}: {error}");
    }
}
