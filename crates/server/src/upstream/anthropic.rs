//! Anthropic's shape: a request out, events or a whole message in.

use super::body::{Out, broken};
use super::{Came, refusal};
use crate::store::{Store, StoreError, TextDigest};
use perilune_chat::message::{Request, ResponseFormat};
use perilune_chat::model::{ModelError, Usage};
use perilune_chat::scanner::{Closing, Delta, Finish};
use perilune_chat::wire::anthropic::{Block, Content, MessagesRequest};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Version of the format, which every request names.
pub(super) const VERSION: &str = "2023-06-01";
/// Seals of thinking kept for the requests that send it back.
const SEALS_MAX: usize = 4_096;

/// The first field of a request that this format has no place for, and what to say of it.
pub(super) fn check(
    request: &Request,
    n: u32,
    top_logprobs: Option<u32>,
) -> Result<(), (&'static str, String)> {
    let sampling = &request.sampling;
    let is_set = |value: Option<f64>, neutral: f64| value.is_some_and(|value| value != neutral);
    let fields = [
        ("n", n > 1),
        ("logprobs", top_logprobs.is_some()),
        ("response_format", request.response_format != ResponseFormat::Text),
        ("seed", sampling.seed.is_some()),
        ("logit_bias", !sampling.logit_bias.is_empty()),
        ("min_p", is_set(sampling.min_p, 0.0)),
        ("presence_penalty", is_set(sampling.presence_penalty, 0.0)),
        ("frequency_penalty", is_set(sampling.frequency_penalty, 0.0)),
        ("repetition_penalty", is_set(sampling.repetition_penalty, 1.0)),
    ];
    match fields.into_iter().find(|(_, is_set)| *is_set) {
        None => Ok(()),
        Some((field, _)) => {
            let message = format!(
                "this model is served by an endpoint of Anthropic's shape, which has no {field}; leave it out"
            );
            Err((field, message))
        }
    }
}

/// A request as it is sent.
pub(super) fn request(request: &Request, model: &str, seals: &Seals) -> MessagesRequest {
    let mut sent = MessagesRequest {
        model: Some(model.to_owned()),
        stream: Some(true),
        ..MessagesRequest::from(request)
    };
    for message in &mut sent.messages {
        if let Content::Blocks(blocks) = &mut message.content {
            seals.put_on(blocks);
        }
    }
    // A message whose thinking could not be sent back may have held nothing else.
    sent.messages.retain(|message| !matches!(&message.content, Content::Blocks(blocks) if blocks.is_empty()));
    sent
}

/// What an endpoint sealed its thinking with: it takes thinking back only under its own seal.
#[derive(Default)]
pub(super) struct Seals {
    kept: Mutex<Kept>,
    /// Where they outlive this process, and the endpoint's name there.
    store: Option<(Store, String)>,
}

#[derive(Default)]
struct Kept {
    by_text: HashMap<TextDigest, String>,
    /// Oldest first.
    order: VecDeque<TextDigest>,
}

impl Kept {
    /// Keeps a seal; the text whose seal had to make room for it, where one had.
    fn put(&mut self, digest: TextDigest, seal: String) -> Option<TextDigest> {
        if self.by_text.insert(digest, seal).is_none() {
            self.order.push_back(digest);
        }
        if self.order.len() <= SEALS_MAX {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.by_text.remove(&oldest);
        Some(oldest)
    }
}

fn digest(thinking: &str) -> TextDigest {
    Sha256::digest(thinking.as_bytes()).into()
}

impl Seals {
    /// Those that the store has of the endpoint; later ones go there too.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) async fn of(store: Store, endpoint: String) -> Result<Self, StoreError> {
        let mut kept = Kept::default();
        for (digest, seal) in store.seals(&endpoint, SEALS_MAX).await? {
            kept.put(digest, seal);
        }
        Ok(Self { kept: Mutex::new(kept), store: Some((store, endpoint)) })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, thinking: &str, seal: String) {
        let digest = digest(thinking);
        let oldest = self.lock().put(digest, seal.clone());
        if let Some((store, endpoint)) = &self.store {
            store.keep_seal(endpoint, digest, seal, oldest);
        }
    }

    /// Seals what is known. At an endpoint that seals, what is not known stays out: it would be refused.
    fn put_on(&self, blocks: &mut Vec<Block>) {
        let kept = self.lock();
        blocks.retain_mut(|block| {
            let Some(thinking) = &block.thinking else { return true };
            match kept.by_text.get(&digest(thinking)) {
                Some(seal) => block.signature = Some(seal.clone()),
                None => return kept.by_text.is_empty(),
            }
            true
        });
    }
}

/// What has come so far.
pub(super) struct Reader {
    seals: Arc<Seals>,
    /// By the endpoint's index.
    open: BTreeMap<u64, Open>,
    n_calls: usize,
    usage: Usage,
    end: Option<(Finish, Option<String>)>,
}

/// An open block.
enum Open {
    Text,
    Thinking { text: String, seal: String },
    Call { index: usize, is_empty: bool },
}

impl Reader {
    pub(super) fn new(seals: Arc<Seals>) -> Self {
        Self { seals, open: BTreeMap::new(), n_calls: 0, usage: Usage::default(), end: None }
    }

    /// Takes the data of one event; whether the stream is over. Kinds that are not known bring nothing, as the format
    /// asks of its readers.
    pub(super) fn event(&mut self, text: &str, out: &mut Out) -> bool {
        let event: Value = match serde_json::from_str(text) {
            Ok(event) => event,
            Err(error) => {
                let message = format!("an event is not JSON ({error})");
                out.push(Err(ModelError::Protocol { message }));
                return true;
            }
        };
        let index = event["index"].as_u64().unwrap_or(0);
        match event["type"].as_str() {
            Some("message_start") => self.count(&event["message"]["usage"]),
            Some("content_block_start") => return self.begin(index, &event["content_block"], out),
            Some("content_block_delta") => self.grow(index, &event["delta"], out),
            Some("content_block_stop") => self.stop(index, out),
            Some("message_delta") => {
                self.count(&event["usage"]);
                self.ended(&event["delta"]);
            }
            Some("message_stop") => return self.close(out),
            Some("error") => {
                out.push(Err(refusal::in_stream(&event["error"])));
                return true;
            }
            Some(_) => {}
            None => {
                let message = "an event names no type".to_owned();
                out.push(Err(ModelError::Protocol { message }));
                return true;
            }
        }
        false
    }

    /// Takes a message that came whole.
    pub(super) fn whole(&mut self, body: &[u8], out: &mut Out) {
        let message: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(blocks) = message["content"].as_array() else {
            out.push(Err(match message.get("error") {
                Some(error) => refusal::in_stream(error),
                None => {
                    let message = "the answer is not a message of the published shape".to_owned();
                    ModelError::Protocol { message }
                }
            }));
            return;
        };
        for (index, block) in (0..).zip(blocks) {
            if self.begin(index, block, out) {
                return;
            }
            self.stop(index, out);
        }
        self.count(&message["usage"]);
        self.ended(&message);
        self.close(out);
    }

    /// The stream ended; without a reason it broke off.
    pub(super) fn close(&mut self, out: &mut Out) -> bool {
        let Some((finish, stop_string)) = self.end.take() else {
            out.push(Err(broken("the endpoint's stream broke off")));
            return true;
        };
        let left: Vec<u64> = self.open.keys().copied().collect();
        left.into_iter().for_each(|index| self.stop(index, out));
        out.push(Ok(Came::Usage(self.usage)));
        out.push(Ok(Came::Finish { choice: 0, finish, stop_string, usage: Some(self.usage) }));
        true
    }

    /// Opens a block with what it brings already; whether that broke the format.
    fn begin(&mut self, index: u64, block: &Value, out: &mut Out) -> bool {
        let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
        match block["type"].as_str() {
            Some("text") => {
                self.open.insert(index, Open::Text);
                push(out, Delta::Content(text("text")));
            }
            Some("thinking") => {
                let (text, seal) = (text("thinking"), text("signature"));
                self.open.insert(index, Open::Thinking { text: text.clone(), seal });
                push(out, Delta::Reasoning(text));
            }
            Some("tool_use") => return self.call(index, block, out),
            _ => {}
        }
        false
    }

    fn call(&mut self, at: u64, block: &Value, out: &mut Out) -> bool {
        let Some(name) = block["name"].as_str().map(str::to_owned) else {
            let message = "a tool call began without a name".to_owned();
            out.push(Err(ModelError::Protocol { message }));
            return true;
        };
        let index = self.n_calls;
        self.n_calls += 1;
        let id = block["id"].as_str().map_or_else(|| format!("functions.{name}:{index}"), str::to_owned);
        push(out, Delta::ToolCallBegin { index, id, name });
        let input = block["input"].as_object().filter(|input| !input.is_empty());
        if input.is_some() {
            push(out, Delta::ToolCallArguments { index, text: block["input"].to_string() });
        }
        self.open.insert(at, Open::Call { index, is_empty: input.is_none() });
        false
    }

    fn grow(&mut self, at: u64, delta: &Value, out: &mut Out) {
        let field = |key: &str| delta[key].as_str().filter(|text| !text.is_empty());
        match (self.open.get_mut(&at), delta["type"].as_str()) {
            (Some(Open::Text), Some("text_delta")) => {
                push(out, Delta::Content(field("text").unwrap_or_default().to_owned()));
            }
            (Some(Open::Thinking { text, .. }), Some("thinking_delta")) => {
                let more = field("thinking").unwrap_or_default();
                text.push_str(more);
                push(out, Delta::Reasoning(more.to_owned()));
            }
            (Some(Open::Thinking { seal, .. }), Some("signature_delta")) => {
                seal.push_str(field("signature").unwrap_or_default());
            }
            (Some(Open::Call { index, is_empty }), Some("input_json_delta")) => {
                let Some(text) = field("partial_json") else { return };
                *is_empty = false;
                push(out, Delta::ToolCallArguments { index: *index, text: text.to_owned() });
            }
            _ => {}
        }
    }

    fn stop(&mut self, at: u64, out: &mut Out) {
        match self.open.remove(&at) {
            Some(Open::Call { index, is_empty }) => {
                if is_empty {
                    push(out, Delta::ToolCallArguments { index, text: "{}".to_owned() });
                }
                push(out, Delta::ToolCallEnd { index, closing: Closing::Marker });
            }
            Some(Open::Thinking { text, seal }) if !seal.is_empty() => self.seals.keep(&text, seal),
            _ => {}
        }
    }

    fn ended(&mut self, said: &Value) {
        let Some(reason) = said["stop_reason"].as_str() else { return };
        let finish = match reason {
            "tool_use" => Finish::ToolCalls,
            "max_tokens" | "model_context_window_exceeded" => Finish::Length,
            _ => Finish::Stop,
        };
        self.end = Some((finish, said["stop_sequence"].as_str().map(str::to_owned)));
    }

    /// Counts are cumulative; what an event leaves out stands as it was. The format counts no thinking of its own.
    fn count(&mut self, usage: &Value) {
        let number = |key: &str| usage[key].as_u64();
        let cached = number("cache_read_input_tokens");
        if let Some(input) = number("input_tokens").filter(|n| *n > 0 || cached.is_some_and(|n| n > 0)) {
            let kept = cached.unwrap_or(0);
            let prompt_tokens = input + kept + number("cache_creation_input_tokens").unwrap_or(0);
            self.usage = Usage { prompt_tokens, cached_tokens: kept, ..self.usage };
        }
        if let Some(output) = number("output_tokens") {
            self.usage.completion_tokens = output;
        }
    }
}

/// Adds a delta of the one choice; empty text is none.
fn push(out: &mut Out, delta: Delta) {
    match &delta {
        Delta::Content(text) | Delta::Reasoning(text) if text.is_empty() => {}
        _ => out.push(Ok(Came::Delta(0, delta))),
    }
}
