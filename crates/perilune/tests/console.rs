//! The console in a real browser: logged in by keyboard, every page at two widths, nothing that its policy blocks.
//!
//! Needs `chromedriver` and Chromium (Debian: chromium and chromium-driver) on the path; without them it says that it
//! skipped. `PERILUNE_SHOTS=DIR` keeps a picture of every page.

#![allow(clippy::unwrap_used)]

#[path = "console/runs.rs"]
mod runs;
#[path = "common/scripted.rs"]
mod scripted;

use base64::Engine;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time that a page may take to come to what is waited for.
const PATIENCE: Duration = Duration::from_secs(300);
const PAGES: [&str; 6] = ["chat", "keys", "prices", "usage", "api", "model"];

/// A child process, killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `perilune serve` on a random model that speaks; its address and first admin key.
fn server(dir: &Path) -> (Process, String, String) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let ranks = crates.join("chat/tests/data/small.tiktoken");
    let n_vocab = std::fs::read_to_string(&ranks).unwrap().lines().count() + 256;
    let config = crates.join("model/tests/goldens/d/int4/config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(config).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(32_768);
    config["eos_token_id"] = json!(n_vocab - 1);
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let perilune = || Command::new(env!("CARGO_BIN_EXE_perilune"));
    let made = perilune()
        .current_dir(dir)
        .args(["random", "--layers", "2", "--seed", "1", "--vocab", &n_vocab.to_string()])
        .args(["--config", "config.json", "--out", "model", "--tokenizer"])
        .arg(ranks.canonicalize().unwrap())
        .status();
    assert!(made.unwrap().success());
    let mut child = perilune()
        .current_dir(dir)
        .args(["serve", "--listen", "127.0.0.1:0", "--threads", "1", "--data", "data", "model"])
        .args(["--run-root", ".", "--run-profile", &runs::profile()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let (mut key, mut address) = (None, None);
    for line in lines {
        key =
            key.or(line.find("sk-").filter(|_| line.starts_with("console")).map(|at| line[at..].to_owned()));
        address = line.strip_prefix("address  ").map(str::to_owned);
        if address.is_some() {
            break;
        }
    }
    (Process(child), address.unwrap(), key.expect("the first start prints an admin key"))
}

/// A browser that is driven by WebDriver (W3C), over plain HTTP.
struct Browser {
    port: u16,
    session: String,
    _driver: Process,
}

impl Browser {
    /// `None` where no driver is installed.
    fn start() -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut this = Self { port, session: String::new(), _driver: Process(driver) };
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(since.elapsed() < PATIENCE, "chromedriver does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        let options = json!({
            "args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"],
        });
        let always = json!({
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        });
        let begun = this.call("POST", "/session", &json!({ "capabilities": { "alwaysMatch": always } }));
        this.session =
            begun["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {begun}")).to_owned();
        Some(this)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let (mut reader, mut length) = (BufReader::new(stream), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = n.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["value"].take()
    }

    /// One command of the session.
    fn command(&self, name: &str, body: &Value) -> Value {
        let value = self.call("POST", &format!("/session/{}/{name}", self.session), body);
        assert!(value.get("error").is_none(), "{name}: {value}");
        value
    }

    fn open(&self, url: &str) {
        self.command("url", &json!({ "url": url }));
    }

    fn script(&self, script: &str) -> Value {
        self.command("execute/sync", &json!({ "script": script, "args": [] }))
    }

    fn wait(&self, condition: &str) {
        let since = Instant::now();
        while self.script(&format!("return Boolean({condition})")) != json!(true) {
            assert!(
                since.elapsed() < PATIENCE,
                "in vain: {condition}; the page says {}",
                self.script("return document.body.innerText")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types on the keyboard, to whatever has the focus.
    fn keys(&self, text: &str) {
        let strokes: Vec<Value> = text
            .chars()
            .flat_map(|c| [json!({ "type": "keyDown", "value": c }), json!({ "type": "keyUp", "value": c })])
            .collect();
        let source = json!({ "type": "key", "id": "keyboard", "actions": strokes });
        self.command("actions", &json!({ "actions": [source] }));
    }

    /// Types into the field in focus, sends its form by the enter key, and waits for the page that answers.
    fn submit(&self, text: &str) {
        self.script("window.isBefore = true");
        self.keys(&format!("{text}\u{E007}"));
        self.wait("!window.isBefore && document.readyState === 'complete'");
    }

    fn width(&self, width: u32) {
        let metrics = json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.command("goog/cdp/execute", &command);
    }

    /// Keeps a picture where `PERILUNE_SHOTS` names a folder.
    fn shot(&self, name: &str) {
        self.keep(name, &json!({ "captureBeyondViewport": true }));
    }

    /// The same of the page's upper part.
    fn shot_above(&self, name: &str, height: u32) {
        let width = self.script("return innerWidth");
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        self.keep(name, &json!({ "captureBeyondViewport": true, "clip": clip }));
    }

    fn keep(&self, name: &str, params: &Value) {
        let Some(dir) = std::env::var_os("PERILUNE_SHOTS") else { return };
        let picture = json!({ "cmd": "Page.captureScreenshot", "params": params });
        let picture = self.command("goog/cdp/execute", &picture)["data"].as_str().unwrap().to_owned();
        let picture = base64::prelude::BASE64_STANDARD.decode(picture).unwrap();
        std::fs::write(Path::new(&dir).join(format!("{name}.png")), picture).unwrap();
    }

    /// What the browser complained about since it was last asked.
    fn complaints(&self) -> Vec<String> {
        let lines = self.command("se/log", &json!({ "type": "browser" }));
        let is_bad = |line: &&Value| matches!(line["level"].as_str(), Some("SEVERE" | "WARNING"));
        lines.as_array().unwrap().iter().filter(is_bad).map(Value::to_string).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.call("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
    }
}

#[test]
fn the_console_works_in_a_browser_by_keyboard_and_on_narrow_screens() {
    let Some(browser) = Browser::start() else {
        // Past the test harness, which keeps what passing tests print.
        let line = "skipped: chromedriver is not on the path; install chromium and chromium-driver";
        writeln!(std::io::stderr(), "{line}").unwrap();
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (_server, address, key) = server(dir.path());
    browser.width(1280);
    browser.open(&format!("{address}/console/keys"));
    // The page gives the field its focus some time after it has loaded.
    browser.wait("document.activeElement?.id === 'key'");
    browser.submit(&key);
    browser.wait("document.querySelector('nav') && location.pathname === '/console/keys'");
    token_by_keyboard(&browser);
    let key_page = changed_by_keyboard(&browser, &address);
    let mut journal = runs::long_run(&dir.path().join("data/runs"));
    for width in [1280, 360] {
        browser.width(width);
        for page in PAGES.into_iter().chain(runs::PAGES).chain([&key_page["/console/".len()..]]) {
            browser.open(&format!("{address}/console/{page}"));
            browser.script(
                "document.querySelectorAll('td details').forEach((details) => { details.open = true; })",
            );
            assert_eq!(browser.script("return innerWidth"), width);
            let overflow = browser.script("return document.documentElement.scrollWidth - innerWidth");
            assert!(overflow.as_i64().unwrap() <= 0, "{page} is {overflow} wider than {width}");
            if page == "prices" {
                prices_fit(&browser, width);
            }
            browser.shot(&format!("{}-{width}", page.replace('/', "-")));
        }
        chat(&browser, &address);
        browser.shot(&format!("chat-asked-{width}"));
    }
    runs::embedded(&browser, &address, dir.path());
    stopped(&browser, &address, &key);
    tool_result(&browser, &address);
    tried_again(&browser, &address);
    browser.width(1280);
    runs::read(&browser, &address, &mut journal);
    runs::answer(&browser, &address, dir.path());
    runs::control(&browser, &address, dir.path());
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// The table of prices is a table where there is room, a card a row where there is not, and never scrolls.
fn prices_fit(browser: &Browser, width: u32) {
    let hidden =
        "const table = document.querySelector('.scroll'); return table.scrollWidth - table.clientWidth";
    assert_eq!(browser.script(hidden), 0, "at {width}");
    let row = "return getComputedStyle(document.querySelector('.cards tbody tr')).display";
    assert_eq!(browser.script(row), if width <= 640 { "block" } else { "table-row" }, "at {width}");
}

/// Walks to the name by the tab key, makes a token, sees it once.
fn token_by_keyboard(browser: &Browser) {
    for _ in 0..40 {
        if browser.script("return document.activeElement.id") == json!("name") {
            break;
        }
        browser.keys("\u{E004}");
    }
    browser.submit("<b>reader</b>");
    browser.wait("document.querySelector('.fresh pre')?.textContent.startsWith('sk-')");
    let names =
        browser.script("return [...document.querySelectorAll('th.name')].map((cell) => cell.textContent)");
    assert_eq!(names[1], "<b>reader</b>");
    browser.command("refresh", &json!({}));
    browser.wait("document.querySelector('h1') && !document.querySelector('.fresh')");
}

/// Limits the token, gives it money and sets a price, by keyboard; the path of the token's page.
fn changed_by_keyboard(browser: &Browser, address: &str) -> String {
    let focus = |field: &str| browser.script(&format!("document.getElementById('{field}').focus()"));
    let sent = |field: &str, text: &str| {
        focus(field);
        browser.submit(text);
    };
    browser.open(&format!("{address}/console/keys"));
    browser.script("document.querySelectorAll('td a')[1].focus()");
    browser.submit("");
    browser.wait("document.querySelector('h1')?.textContent === 'Change a token'");
    let path = browser.script("return location.pathname").as_str().unwrap().to_owned();
    sent("concurrency", "7");
    browser.wait("document.getElementById('concurrency')?.value === '7'");
    sent("amount", "12.5");
    browser.wait("document.querySelector('.balance')?.textContent.startsWith('12.5')");
    sent("amount", "0.25");
    browser.wait("document.querySelector('.balance')?.textContent.startsWith('12.75')");
    browser.open(&format!("{address}/console/prices"));
    focus("model");
    browser.keys("<i>elsewhere</i>");
    focus("input");
    browser.keys("2");
    sent("output", "9");
    browser.wait(
        "[...document.querySelectorAll('th.name')].some((cell) => cell.textContent === '<i>elsewhere</i>')",
    );
    path
}

/// Asks by keyboard; the answer and its speed come.
fn chat(browser: &Browser, address: &str) {
    browser.open(&format!("{address}/console/chat"));
    browser.script(
        "document.getElementById('max_tokens').value = 40; document.getElementById('question').focus()",
    );
    browser.keys("Hello\u{E007}");
    browser.wait("document.querySelector('.assistant .speed')?.textContent.includes('tokens/s')");
    browser.wait("!document.getElementById('send').disabled");
    assert_eq!(browser.script("return document.querySelectorAll('.alert').length"), json!(0));
    assert_eq!(browser.script("return document.querySelector('.user .text').textContent"), "Hello");
}

/// Opens the chat page anew, with these settings, and asks.
fn ask(browser: &Browser, address: &str, settings: &str) {
    browser.open(&format!("{address}/console/chat"));
    browser.script(&format!(
        "const at = (id) => document.getElementById(id); {settings}; at('question').focus()"
    ));
    browser.keys("Hello\u{E007}");
}

/// The stop button ends the answer, the page says so, and the engine rests.
fn stopped(browser: &Browser, address: &str, key: &str) {
    // Ids that end a message are ruled out, so that the answer is as long as it may be.
    let endless = r#"
        const plain = window.fetch;
        window.fetch = (url, options) => {
            const body = JSON.parse(options.body);
            body.logit_bias = Object.fromEntries(Array.from({ length: 256 }, (_, i) => [1792 + i, -100]));
            return plain(url, { ...options, body: JSON.stringify(body) });
        };
        at("max_tokens").value = 30000"#;
    ask(browser, address, endless);
    browser.wait("document.querySelector('.assistant .speed')?.textContent.includes('tokens/s')");
    browser.script("document.getElementById('stop').focus()");
    browser.keys("\u{E007}");
    browser.wait("document.querySelector('.assistant .speed').textContent.includes('stopped')");
    assert_eq!(
        browser.script("return document.getElementById('announce').textContent"),
        "The answer was stopped."
    );
    browser.wait("document.getElementById('stop').hidden && !document.getElementById('send').disabled");
    let since = Instant::now();
    while !metrics(address, key).contains("figure=\"running_throughput\"} 0\n") {
        assert!(
            since.elapsed() < PATIENCE,
            "the engine works on for a stopped answer: {}",
            metrics(address, key)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!metrics(address, key).contains("figure=\"generated_tokens\"} 0\n"));
}

fn metrics(address: &str, key: &str) -> String {
    let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap()).unwrap();
    let head = "Host: localhost\r\nConnection: close";
    let get = format!("GET /metrics HTTP/1.1\r\n{head}\r\nAuthorization: Bearer {key}\r\n\r\n");
    stream.write_all(get.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The model is made to call; the reader writes the result, and the answer goes on from it.
fn tool_result(browser: &Browser, address: &str) {
    // The page lets the model choose, and a random one would not call: the first request is made to demand it.
    let demand = r#"
        const plain = window.fetch;
        window.sent = [];
        window.fetch = (url, options) => {
            const body = JSON.parse(options.body);
            if (window.sent.length === 0) Object.assign(body, { tool_choice: "required", parallel_tool_calls: false });
            window.sent.push(body);
            return plain(url, { ...options, body: JSON.stringify(body) });
        };
        const city = { type: "string", maxLength: 9 };
        const parameters = { type: "object", properties: { city }, required: ["city"], additionalProperties: false };
        at("tools").value = JSON.stringify([{ type: "function", function: { name: "weather", parameters } }]);
        at("thinking").checked = false;
        at("max_tokens").value = 1000"#;
    ask(browser, address, demand);
    browser.wait("document.querySelector('.calls textarea') === document.activeElement");
    let call = browser.script("return document.querySelector('.calls pre').textContent");
    let call = call.as_str().unwrap();
    assert!(call.starts_with("weather({") && call.contains("\"city\""), "{call}");
    browser.shot("chat-call");
    browser.keys("sunny\u{E004}\u{E007}");
    browser.wait("document.querySelectorAll('.assistant').length === 2");
    browser.wait("!document.getElementById('send').disabled && window.sent.length === 2");
    assert_eq!(browser.script("return document.querySelectorAll('.alert').length"), json!(0));
    let last = browser.script("return window.sent[1].messages.at(-1)");
    assert_eq!((&last["role"], &last["content"]), (&json!("tool"), &json!("sunny")));
    let id = browser.script("return window.sent[1].messages.at(-2).tool_calls[0].id");
    assert_eq!(last["tool_call_id"], id);
}

/// A request that fails says why and is sent again unchanged by one button.
fn tried_again(browser: &Browser, address: &str) {
    let busy = r#"
        const plain = window.fetch;
        window.fetch = async () => {
            window.fetch = plain;
            return new Response(JSON.stringify({ error: { message: "the house is full" } }), { status: 429 });
        };
        at("max_tokens").value = 20"#;
    ask(browser, address, busy);
    browser.wait("document.querySelector('.alert')?.textContent === 'the house is full'");
    browser.shot("chat-failed");
    browser.script("document.querySelector('.alert + button').focus()");
    browser.keys("\u{E007}");
    browser.wait("document.querySelector('.assistant .speed')?.textContent.includes('tokens')");
    browser.wait("!document.getElementById('send').disabled");
    assert_eq!(browser.script("return document.querySelectorAll('.alert').length"), json!(0));
    assert_eq!(browser.script("return document.querySelectorAll('.user').length"), json!(1));
}
