//! A model behind HTTP that misbehaves from a seed: what it says, and how it says it.
//!
//! It has no memory of its own worth the name: where it stands it reads from its own thoughts in the request, as a
//! real one does, so a killed agent that asks again gets on.

use super::plan::{Plan, Random};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// The answer after the last step.
pub(crate) const ANSWER: &str = "all steps are done";

/// Everything that goes wrong, each in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    NotJson,
    NotAnObject,
    NoSuchTool,
    NoToolName,
    WrongType,
    UnknownField,
    Leaked,
    LeakedBare,
    Empty,
    Blank,
    OnlyThought,
    CutByLength,
    SameIds,
    Busy,
    BusyLong,
    Broken,
    PageOfHtml,
    Hangup,
    CutStream,
    ShortBody,
    Garbage,
    ErrorInStream,
}

use Fault::*;

impl Fault {
    pub(crate) const ALL: [Self; 22] = [
        NotJson,
        Busy,
        Leaked,
        CutStream,
        Empty,
        NoSuchTool,
        SameIds,
        Broken,
        WrongType,
        Blank,
        Garbage,
        NoToolName,
        BusyLong,
        OnlyThought,
        ShortBody,
        NotAnObject,
        LeakedBare,
        Hangup,
        CutByLength,
        ErrorInStream,
        UnknownField,
        PageOfHtml,
    ];

    /// The agent has to ask again.
    fn is_failure(self) -> bool {
        matches!(
            self,
            Busy | BusyLong | Broken | PageOfHtml | Hangup | CutStream | ShortBody | Garbage | ErrorInStream
        )
    }
}

/// What the model has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// Steps whose results came back.
    pub(crate) n_done: usize,
    pub(crate) n_requests: usize,
    pub(crate) faults: BTreeMap<Fault, usize>,
    /// Results that were not as expected, thoughts that did not come back.
    pub(crate) wrong: Vec<String>,
    random: Option<Random>,
    after_failure: bool,
}

/// The model and its plan.
pub(crate) struct Model {
    plan: Plan,
    seen: Mutex<Seen>,
    n_allowed: AtomicUsize,
}

/// One answer of the model.
struct Turn {
    thought: String,
    content: &'static str,
    /// Id, name and argument text.
    calls: Vec<(String, String, String)>,
    finish: &'static str,
}

impl Model {
    /// Starts to answer; its `--upstream`.
    pub(crate) fn start(plan: Plan) -> (Arc<Self>, String) {
        let random = Some(Random::new(plan.seed));
        let model = Arc::new(Self {
            plan,
            seen: Mutex::new(Seen { random, ..Seen::default() }),
            n_allowed: AtomicUsize::new(usize::MAX),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = format!("http://{}/v1#scripted", listener.local_addr().unwrap());
        let answering = Arc::clone(&model);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let model = Arc::clone(&answering);
                std::thread::spawn(move || model.answer(&stream.unwrap()));
            }
        });
        (model, place)
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Answers no more once this many further steps are done; how many are done.
    pub(crate) fn hold_after(&self, n_more: usize) -> usize {
        let n_done = self.seen().n_done;
        self.n_allowed.store(n_done + n_more, Ordering::Relaxed);
        n_done
    }

    /// Reads a request and answers it. An agent that was killed meanwhile reads nothing.
    fn answer(&self, stream: &TcpStream) {
        let Some(body) = crate::request(stream) else { return };
        let request: Value = serde_json::from_slice(&body).unwrap();
        let (number, fault, mut random) = self.take(&request);
        while number >= self.n_allowed.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let bytes = match fault {
            Some(fault) if fault.is_failure() => self.failure(fault, number, &mut random),
            _ => {
                let turn = self.turn(number, fault, &mut random);
                if random.below(4) == 0 { whole(&turn, &mut random) } else { stream_of(&turn, &mut random) }
            }
        };
        let is_slow = random.below(4) == 0;
        let mut stream = stream;
        for piece in bytes.chunks(if is_slow { bytes.len() / 4 + 1 } else { bytes.len().max(1) }) {
            if stream.write_all(piece).is_err() {
                return;
            }
            if is_slow {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Looks at a request: the next step, and what goes wrong this time.
    fn take(&self, request: &Value) -> (usize, Option<Fault>, Random) {
        let mut seen = self.seen();
        let messages = request["messages"].as_array().unwrap();
        let (n_done, wrong) = self.read(messages, seen.n_done);
        seen.wrong.extend(wrong);
        seen.n_done = n_done;
        seen.n_requests += 1;
        let mut random = seen.random.take().unwrap();
        let own = Random::new(random.next());
        let n_untried = Fault::ALL.len() - seen.faults.len();
        let is_bad = random.below(3) == 0 || self.plan.steps.len() - seen.n_done <= n_untried;
        seen.random = Some(random);
        let n_faults: usize = seen.faults.values().sum();
        let next = Fault::ALL[n_faults % Fault::ALL.len()];
        let fault = (is_bad && !(seen.after_failure && next.is_failure())).then_some(next);
        seen.after_failure = fault.is_some_and(Fault::is_failure);
        if let Some(fault) = fault {
            *seen.faults.entry(fault).or_default() += 1;
        }
        (seen.n_done, fault, own)
    }

    /// How many steps are done, as the model's own thoughts in the dialogue say, and what is wrong with the new ones.
    fn read(&self, messages: &[Value], mut n_done: usize) -> (usize, Vec<String>) {
        let mut wrong = Vec::new();
        for (idx, message) in messages.iter().enumerate() {
            let n_calls = message["tool_calls"].as_array().map_or(0, Vec::len);
            let thought = message["reasoning_content"].as_str().unwrap_or_default();
            if thought.contains("<|tool_call") {
                wrong.push(format!("a call that leaked into a thought was lost: {thought}"));
            }
            if n_calls == 0 || thought.starts_with("I stumble") {
                continue;
            }
            let number =
                thought.strip_prefix("step ").and_then(|it| it.split(':').next()?.parse::<usize>().ok());
            let Some(number) = number else {
                wrong.push(format!("a call came back without its thought: {message}"));
                continue;
            };
            if number + n_calls <= n_done {
                continue;
            }
            for (step, result) in self.plan.steps[number..].iter().zip(&messages[idx + 1..=idx + n_calls]) {
                let text = result["content"].as_str().unwrap_or_default();
                if result["role"] != "tool" || !text.contains(&step.expected) {
                    wrong.push(format!("{} {}: {result}", step.name, step.arguments));
                }
            }
            n_done = number + n_calls;
        }
        (n_done, wrong)
    }

    /// What the model says at a step.
    fn turn(&self, number: usize, fault: Option<Fault>, random: &mut Random) -> Turn {
        let n_left = self.plan.steps.len() - number;
        if n_left == 0 {
            return Turn { thought: String::new(), content: ANSWER, calls: Vec::new(), finish: "stop" };
        }
        let mut turn = Turn {
            thought: format!("step {number}: é, on to the next one"),
            content: "",
            calls: vec![self.call(number, "functions.next:0")],
            finish: "tool_calls",
        };
        if let Some(fault) = fault {
            self.spoil(&mut turn, fault, number, random);
        }
        turn
    }

    fn call(&self, number: usize, id: &str) -> (String, String, String) {
        let step = &self.plan.steps[number];
        (id.to_owned(), step.name.to_owned(), step.arguments.to_string())
    }

    fn spoil(&self, turn: &mut Turn, fault: Fault, number: usize, random: &mut Random) {
        let stumble = |turn: &mut Turn, name: &str, arguments: String| {
            turn.thought = format!("I stumble before step {number}");
            turn.calls = vec![("c".to_owned(), name.to_owned(), arguments)];
        };
        let odd = random.next();
        match fault {
            NotJson => stumble(turn, "edit_file", format!("{{\"path\": \"{odd}")),
            NotAnObject => stumble(turn, "write_file", format!("[{odd}]")),
            NoSuchTool => stumble(turn, &format!("open_{odd} it; rm -rf \"/\" é"), "{}".to_owned()),
            NoToolName => stumble(turn, "", "{}".to_owned()),
            WrongType => stumble(turn, "write_file", json!({"path": odd, "text": null}).to_string()),
            UnknownField => stumble(turn, "edit_file", json!({"file": "ledger.txt", "odd": odd}).to_string()),
            Leaked | LeakedBare => self.leak(turn, fault, number),
            Empty => *turn = Turn { thought: String::new(), content: "", calls: Vec::new(), finish: "stop" },
            Blank => {
                *turn = Turn { thought: String::new(), content: " \n", calls: Vec::new(), finish: "stop" }
            }
            OnlyThought => (turn.calls, turn.finish) = (Vec::new(), "stop"),
            CutByLength => {
                turn.thought = format!("I stumble before step {number}");
                turn.calls[0].2 = turn.calls[0].2[..1].to_owned();
                turn.finish = "length";
            }
            SameIds if number + 1 < self.plan.steps.len() => {
                turn.calls = vec![self.call(number, "same"), self.call(number + 1, "same")];
            }
            _ => {}
        }
    }

    /// The step's call stands in its thought, in the markers of the model's own format.
    fn leak(&self, turn: &mut Turn, fault: Fault, number: usize) {
        let (_, name, arguments) = turn.calls.remove(0);
        let call = format!(
            "<|tool_call_begin|>functions.{name}:{number}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"
        );
        let section = format!("<|tool_calls_section_begin|>{call}<|tool_calls_section_end|>");
        turn.thought.push_str(if fault == Leaked { &section } else { &call });
        turn.finish = "stop";
    }

    /// An answer that is none.
    fn failure(&self, fault: Fault, number: usize, random: &mut Random) -> Vec<u8> {
        let refused = |status: &str, header: &str, body: &str| {
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n{header}"
            );
            format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        let said = json!({"error": {"message": "not now", "type": "overloaded_error"}}).to_string();
        match fault {
            Busy => refused("429 Too Many Requests", "retry-after: 0\r\n", &said),
            BusyLong => refused("503 Service Unavailable", "retry-after-ms: 30\r\n", &said),
            Broken => refused("500 Internal Server Error", "", "null"),
            PageOfHtml => refused("502 Bad Gateway", "", "<html>a gateway's page</html>"),
            Hangup => Vec::new(),
            _ => self.broken(fault, number, random),
        }
    }

    /// An answer that begins well.
    fn broken(&self, fault: Fault, number: usize, random: &mut Random) -> Vec<u8> {
        let turn = self.turn(number, None, random);
        let mut bytes = stream_of(&turn, random);
        let head = bytes.windows(4).position(|it| it == b"\r\n\r\n").unwrap() + 4;
        // What says how the answer ended comes last, so this much of it is always missing.
        let end = String::from_utf8_lossy(&bytes).find("\"finish_reason\":\"").unwrap();
        match fault {
            CutStream => bytes.truncate(head + random.below(end - head)),
            ShortBody => {
                bytes = whole(&turn, random);
                bytes.truncate(bytes.len() - 1 - random.below(20));
            }
            _ => {
                let said =
                    if fault == Garbage { "{\"choices\": 7" } else { "{\"error\":{\"message\":\"lost\"}}" };
                bytes.truncate(head);
                bytes.extend(format!("data: {said}\n\n").bytes());
            }
        }
        bytes
    }
}

fn usage() -> Value {
    json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15})
}

/// The answer as one JSON value; some endpoints send arguments as an object.
fn whole(turn: &Turn, random: &mut Random) -> Vec<u8> {
    let is_object = random.below(2) == 0;
    let calls = turn.calls.iter().map(|(id, name, text)| {
        let object = serde_json::from_str::<Value>(text).ok().filter(|it| is_object && it.is_object());
        let arguments = object.unwrap_or_else(|| json!(text));
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    });
    let mut message =
        json!({"role": "assistant", "content": turn.content, "reasoning_content": turn.thought});
    if !turn.calls.is_empty() {
        message["tool_calls"] = calls.collect();
    }
    let body = json!({
        "id": "a", "object": "chat.completion", "created": 1, "model": "scripted", "usage": usage(),
        "choices": [{"index": 0, "message": message, "finish_reason": turn.finish}],
    })
    .to_string();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The answer as events, its texts in pieces.
fn stream_of(turn: &Turn, random: &mut Random) -> Vec<u8> {
    let mut text =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_owned();
    let mut push = |delta: Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        let chunk = json!({
            "id": "a", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [choice],
        });
        text.push_str(&format!("data: {chunk}\n\n"));
    };
    push(json!({"role": "assistant", "content": ""}), None);
    for piece in pieces(&turn.thought, random) {
        push(json!({"reasoning_content": piece}), None);
    }
    if !turn.content.is_empty() {
        push(json!({"content": turn.content}), None);
    }
    for (index, (id, name, arguments)) in turn.calls.iter().enumerate() {
        let function = json!({"name": name, "arguments": ""});
        push(
            json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}),
            None,
        );
        for piece in pieces(arguments, random) {
            push(json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}), None);
        }
    }
    push(json!({}), Some(turn.finish));
    let usage = json!({
        "id": "a", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [],
        "usage": usage(),
    });
    text.push_str(&format!(": a comment\n\ndata: {usage}\n\ndata: [DONE]\n\n"));
    text.into_bytes()
}

/// A text in two parts.
fn pieces(text: &str, random: &mut Random) -> [String; 2] {
    let middle = text.floor_char_boundary(random.below(text.len() + 1));
    [text[..middle].to_owned(), text[middle..].to_owned()]
}
