//! What is prefilled: counted in `usage` and in `/metrics`, and held to the token ids that the requests share.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::House;
use perilune_chat::message::Envelope;
use perilune_chat::tokenizer::SpecialText;
use perilune_chat::wire::{self, openai};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";

/// A dialogue and what the server must know of it by now.
struct Dialogue {
    house: House,
    messages: Vec<Value>,
    /// Token ids whose cache entries the last request left: its prompt and all it generated but the last token.
    known: Vec<u32>,
}

/// What one request cost.
struct Cost {
    prompt: usize,
    cached: usize,
    /// Longest prefix of the prompt that the requests before had computed.
    shared: usize,
}

impl Cost {
    fn prefilled(&self) -> usize {
        self.prompt - self.cached
    }

    /// What no request before had computed.
    fn fresh(&self) -> usize {
        self.prompt - self.shared
    }
}

impl Dialogue {
    fn new() -> Self {
        Self { house: House::roomy(65_536), messages: Vec::new(), known: Vec::new() }
    }

    fn say(&mut self, message: Value) {
        self.messages.push(message);
    }

    /// Asks with the dialogue so far, whose last message names `script`; the answer joins the dialogue.
    async fn ask(&mut self, script: &str) -> (Value, Cost) {
        let body =
            json!({ "messages": self.messages, "tools": tools(), "temperature": 0, "max_tokens": 400 });
        let sent: openai::ChatRequest = wire::from_json(body.to_string().as_bytes()).unwrap();
        let request = Envelope::try_from(sent).unwrap().request;
        let prompt = self.house.app.local().unwrap().prompt(&request).0;
        let before = self.books("prefill_tokens").await;
        let (status, answer) = self.house.post(CHAT, &body).await;
        assert_eq!(status, 200, "{answer}");
        let usage = |field: &str| answer["usage"][field].as_u64().unwrap() as usize;
        let shared = prompt.iter().zip(&self.known).take_while(|(a, b)| a == b).count();
        let cost = Cost { prompt: usage("prompt_tokens"), cached: usage("cached_tokens"), shared };
        assert_eq!(cost.prompt, prompt.len());
        assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], cost.cached);
        assert_eq!(self.books("prefill_tokens").await - before, cost.prefilled(), "the books say the same");
        let generated = self.house.tokenizer.encode(script, SpecialText::AsTokens);
        assert_eq!(usage("completion_tokens"), generated.len() + 1, "the script and the end of the message");
        self.known = [prompt, generated].concat();
        let message = answer["choices"][0]["message"].clone();
        self.say(message);
        (answer, cost)
    }

    /// A figure of the engine's books, from `/metrics`.
    async fn books(&self, figure: &str) -> usize {
        let get = http::Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
        let text = common::text(self.house.send(get).await).await;
        let name = format!("perilune_engine{{figure=\"{figure}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }
}

fn tools() -> Value {
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    json!([{ "type": "function", "function": { "name": "weather", "parameters": parameters } }])
}

/// A thought and a call of number `call`.
fn calling(call: usize) -> String {
    format!(
        "<think>Step {call}.</think><|tool_calls_section_begin|><|tool_call_begin|>functions.weather:{call}\
         <|tool_call_argument_begin|>{{\"city\": \"Lima\"}}<|tool_call_end|><|tool_calls_section_end|>"
    )
}

/// One turn of a tool loop: the first message or a result, which asks for the next script.
async fn turn(dialogue: &mut Dialogue, said: Value, content: &str, script: &str) -> (Value, Cost) {
    let asked = dialogue.house.script(script);
    let mut said = said;
    said["content"] = json!(format!("{content} {asked}"));
    dialogue.say(said);
    dialogue.ask(script).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_tool_loop_of_300_calls_prefills_each_result_once() {
    let mut dialogue = Dialogue::new();
    let (mut said, mut n_prefilled, mut n_new) = (json!({ "role": "user" }), 0, 0);
    let mut costs = Vec::new();
    for call in 0..300 {
        let content = "sunny ".repeat(1 + call * 7 % 20);
        let known = dialogue.known.len();
        let (answer, cost) = turn(&mut dialogue, said, &content, &calling(call)).await;
        assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "call {call}: {answer}");
        assert_eq!(cost.shared, known, "call {call}: an open loop repeats all that was said, to the token");
        assert!(
            cost.prefilled() <= cost.fresh() + 63,
            "call {call}: {} for {}",
            cost.prefilled(),
            cost.fresh()
        );
        let id = &answer["choices"][0]["message"]["tool_calls"][0]["id"];
        said = json!({ "role": "tool", "tool_call_id": id });
        n_prefilled += cost.prefilled();
        n_new += cost.fresh();
        costs.push(n_prefilled);
    }
    let n_context = dialogue.known.len();
    println!("300 calls: {n_prefilled} tokens prefilled for {n_new} new ones, context {n_context}");
    assert!(n_context > 15_000, "{n_context} tokens show little");
    assert!(n_prefilled <= n_new + 300 * 63);
    // Linear: the last hundred calls cost what the second hundred did.
    let (second, third) = (costs[199] - costs[99], costs[299] - costs[199]);
    assert!(third.abs_diff(second) < second / 10, "{second} tokens, then {third}");
    let stats = dialogue.house.engine.stats();
    assert_eq!(stats.prompt_tokens - stats.cached_tokens, n_prefilled as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_final_answer_the_stripped_messages_are_prefilled_too() {
    let mut dialogue = Dialogue::new();
    let mut said = json!({ "role": "user" });
    let first = turn(&mut dialogue, said, &"Where is it warm? ".repeat(20), &calling(0)).await;
    let n_first_prompt = first.1.prompt;
    let mut answer = first.0;
    for call in 1..6 {
        said =
            json!({ "role": "tool", "tool_call_id": answer["choices"][0]["message"]["tool_calls"][0]["id"] });
        answer = turn(&mut dialogue, said, &"sunny ".repeat(30), &calling(call)).await.0;
    }
    said = json!({ "role": "tool", "tool_call_id": answer["choices"][0]["message"]["tool_calls"][0]["id"] });
    let (answer, closing) =
        turn(&mut dialogue, said, "sunny", "<think>Lima is warm.</think>In Lima, and for long.").await;
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");
    assert!(closing.prefilled() <= closing.fresh() + 63);
    let n_known = dialogue.known.len();
    let (_, next) =
        turn(&mut dialogue, json!({ "role": "user" }), "And where cold?", "<think>Hm.</think>Oslo.").await;
    // The first thought of the finished task is gone, so nothing after the first prompt is what it was.
    assert!(
        (n_first_prompt..n_first_prompt + 4).contains(&next.shared),
        "{} shared, {n_first_prompt}",
        next.shared
    );
    let n_stripped = n_known - next.shared;
    assert!(n_stripped > 300, "{n_stripped} tokens to prefill again show little");
    assert!(
        next.fresh() > 300 && next.fresh() < n_known,
        "the stripped messages come again: {} tokens",
        next.fresh()
    );
    assert!(
        next.prefilled() >= next.fresh() && next.prefilled() <= next.fresh() + 63,
        "{}",
        next.prefilled()
    );
    println!(
        "after the strip: {} of {} tokens prefilled, {} of them new",
        next.prefilled(),
        next.prompt,
        next.fresh()
    );
}
