//! The OpenAI-shaped API with the additions of the vendor (Moonshot): chat completions, completions, models, errors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

// ---- chat completions: request ----

/// Body of `POST /v1/chat/completions`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatRequest {
    /// Model id; the server decides whether it may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The dialogue so far, oldest first.
    pub messages: Vec<Message>,
    /// Tools the model may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Tool>>,
    /// Whether, and which, tool must be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// May one reply hold several calls? Missing means yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// Shape of the answer text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
    /// Divides the logits, 0 to 2; 0 picks the most probable token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus size: the probability mass kept, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Most probable tokens kept, at least 1; 0 and -1 mean no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// Smallest probability kept, relative to the most probable token's, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Taken once from the logit of a token that was generated, -2 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Taken from the logit for each time a token was generated, -2 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Multiplicative penalty on tokens that occurred, above 0 up to 2; 1 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// Seed of the sequence's own random numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// At most 5 strings of 1 to 32 bytes that end the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Token ids (as text) and what is added to their logits, -100 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Most tokens of the reply, at least 1; old name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i64>,
    /// Most tokens of reasoning and answer together, at least 1; wins over `max_tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<i64>,
    /// Number of independent choices, 1 to 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<i64>,
    /// Return log-probabilities of the chosen tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<bool>,
    /// How many alternatives per token, 0 to 20, with `logprobs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<i64>,
    /// Answer as server-sent events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Options of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// The vendor's switch for thinking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Thinking>,
    /// The open engines' switch for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template_kwargs: Option<ChatTemplateKwargs>,
    /// Caller's hint that requests with the same key share a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<String>,
    /// Caller's stable id of its end user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<String>,
    /// Older name of `safety_identifier`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Fields this API does not know, kept as sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One message as sent; which fields belong to which role is checked later.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Whose words they are; `developer` means `system`.
    #[schemars(extend("enum" = ["system", "developer", "user", "assistant", "tool"]))]
    pub role: String,
    /// Text, parts, or null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// Name printed in the header instead of the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The assistant's thinking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The assistant's calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Which call a tool message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The answer starts with this content (prefill).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<bool>,
    /// Fields this API does not know, kept as sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Message content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a string, null, or a list of parts such as {\"type\":\"text\",\"text\":\"...\"}"
)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Parts, concatenated without a separator.
    Parts(Vec<Part>),
}

/// One content part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Part {
    /// `text` is the only kind this model reads.
    #[schemars(extend("enum" = ["text"]))]
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a `text` part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Everything else, kept as sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A call in an assistant message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// Id that the tool message refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`; missing means the same.
    #[schemars(extend("enum" = ["function", null]))]
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What is called.
    pub function: FunctionCall,
}

/// Name and arguments of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionCall {
    /// Tool name.
    pub name: String,
    /// JSON text, or (some clients) the object itself.
    #[serde(default)]
    pub arguments: Value,
}

/// A declared tool: the object exactly as sent, key order kept, because the template prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Tool(pub Map<String, Value>);

/// `tool_choice`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected \"auto\", \"none\", \"required\" or {\"type\":\"function\",\"function\":{\"name\":\"...\"}}"
)]
pub enum ToolChoice {
    /// `auto`, `none` or `required`.
    Word(#[schemars(extend("enum" = ["auto", "none", "required"]))] String),
    /// One named tool.
    Named {
        /// `function`.
        #[schemars(extend("enum" = ["function"]))]
        #[serde(rename = "type")]
        kind: String,
        /// Which one.
        function: FunctionName,
    },
}

/// The name inside a named `tool_choice`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionName {
    /// Tool name.
    pub name: String,
}

/// `response_format`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[schemars(extend("enum" = ["text", "json_object", "json_schema"]))]
    #[serde(rename = "type")]
    pub kind: String,
    /// With `json_schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<JsonSchemaFormat>,
}

/// The named schema of a `json_schema` response format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JsonSchemaFormat {
    /// Name of the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Enforce it; the vendor's default is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// The JSON Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
}

/// `stream_options`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StreamOptions {
    /// Send one more chunk with empty `choices` and the usage.
    #[serde(default)]
    pub include_usage: bool,
}

/// The vendor's `thinking` object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Thinking {
    /// `enabled` or `disabled`.
    #[schemars(extend("enum" = ["enabled", "disabled"]))]
    #[serde(rename = "type")]
    pub kind: String,
    /// `all` keeps the reasoning of the whole history.
    #[schemars(extend("enum" = ["all", null]))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
}

/// The open engines' template arguments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatTemplateKwargs {
    /// Think before answering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<bool>,
    /// Keep the reasoning of the whole history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve_thinking: Option<bool>,
    /// Arguments this template does not know, kept as sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `stop`: one string or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub enum Stop {
    /// One stop string.
    One(String),
    /// Several.
    Many(Vec<String>),
}

// ---- chat completions: response ----

/// The unstreamed answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatResponse {
    /// Id of this completion.
    pub id: String,
    /// `chat.completion`.
    #[schemars(extend("enum" = ["chat.completion"]))]
    pub object: String,
    /// Unix time in seconds.
    pub created: u64,
    /// Model id.
    pub model: String,
    /// One per requested choice.
    pub choices: Vec<Choice>,
    /// Token counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Id of the weights and settings that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}

/// One finished choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// Position among the choices.
    pub index: u32,
    /// The answer.
    pub message: ResponseMessage,
    /// Log-probabilities where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChoiceLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
}

/// The assistant message of a response; `content` is null when there was none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseMessage {
    /// `assistant`.
    #[schemars(extend("enum" = ["assistant"]))]
    pub role: String,
    /// The answer.
    pub content: Option<String>,
    /// The thinking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The calls; missing when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model, or a stop string, ended it.
    Stop,
    /// The token limit ended it.
    Length,
    /// The model asks for tools.
    ToolCalls,
    /// The provider's filter ended it.
    ContentFilter,
}

/// Token counts of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Tokens generated, reasoning included.
    pub completion_tokens: u64,
    /// Sum of both.
    pub total_tokens: u64,
    /// The vendor's place for prompt tokens read from the prefix cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_tokens: Option<u64>,
    /// OpenAI's place for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptTokensDetails>,
    /// Split of the completion tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens_details: Option<CompletionTokensDetails>,
}

/// Split of the prompt tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PromptTokensDetails {
    /// Read from the prefix cache.
    #[serde(default)]
    pub cached_tokens: u64,
}

/// Split of the completion tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CompletionTokensDetails {
    /// Spent on reasoning.
    #[serde(default)]
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Counts in tokens, with the cached ones in both places that clients read.
    #[must_use]
    pub fn new(prompt: u64, cached: u64, completion: u64, reasoning: u64) -> Self {
        Self {
            prompt_tokens: prompt,
            completion_tokens: completion,
            total_tokens: prompt + completion,
            cached_tokens: Some(cached),
            prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: cached }),
            completion_tokens_details: Some(CompletionTokensDetails { reasoning_tokens: reasoning }),
        }
    }

    /// Cached prompt tokens from whichever place the provider used.
    #[must_use]
    pub fn cached(&self) -> u64 {
        let detail = self.prompt_tokens_details.map(|detail| detail.cached_tokens);
        self.cached_tokens.or(detail).unwrap_or(0)
    }
}

/// Log-probabilities of a choice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChoiceLogprobs {
    /// One entry per answer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Vec<TokenLogprob>>,
}

/// A token with its log-probability and its rivals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TokenLogprob {
    /// Text of the token.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f64,
    /// Its bytes, where the text alone would lose them.
    pub bytes: Option<Vec<u8>>,
    /// The most probable alternatives; empty inside an alternative.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top_logprobs: Vec<TokenLogprob>,
}

/// One server-sent chunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChatChunk {
    /// Id of this completion, the same in every chunk.
    pub id: String,
    /// `chat.completion.chunk`.
    #[schemars(extend("enum" = ["chat.completion.chunk"]))]
    pub object: String,
    /// Unix time in seconds.
    pub created: u64,
    /// Model id.
    pub model: String,
    /// Empty in the usage chunk.
    #[serde(default)]
    pub choices: Vec<ChunkChoice>,
    /// In the last chunk, when `stream_options.include_usage` asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Id of the weights and settings that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_fingerprint: Option<String>,
}

/// What one chunk adds to one choice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChunkChoice {
    /// Position among the choices.
    pub index: u32,
    /// What is added.
    pub delta: ChunkDelta,
    /// Log-probabilities of the tokens in this chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<ChoiceLogprobs>,
    /// Null until the last chunk of the choice.
    pub finish_reason: Option<FinishReason>,
    /// The vendor's place for usage: the last chunk of the choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// Added text or calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChunkDelta {
    /// In the first chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Added answer text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Added thinking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Added pieces of calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCallDelta>>,
}

/// A piece of a call: id, type and name come first, then fragments of the arguments.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCallDelta {
    /// Which call of this reply.
    pub index: u32,
    /// In the first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `function`, in the first piece.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Name (first piece) and arguments.
    #[serde(default)]
    pub function: FunctionDelta,
}

/// The function part of a piece.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FunctionDelta {
    /// In the first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Added argument text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
}

// ---- completions ----

/// Body of `POST /v1/completions`: raw text or token ids in, text out, no template.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompletionRequest {
    /// Model id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What to continue.
    pub prompt: Prompt,
    /// Divides the logits, 0 to 2; 0 picks the most probable token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus size: the probability mass kept, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Most probable tokens kept, at least 1; 0 and -1 mean no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// Smallest probability kept, relative to the most probable token's, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Taken once from the logit of a token that was generated, -2 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Taken from the logit for each time a token was generated, -2 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// Multiplicative penalty on tokens that occurred, above 0 up to 2; 1 is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// Seed of the sequence's own random numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// At most 5 strings of 1 to 32 bytes that end the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Token ids (as text) and what is added to their logits, -100 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Most tokens to generate per prompt, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i64>,
    /// Choices per prompt, 1 to 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<i64>,
    /// Repeat the prompt in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub echo: Option<bool>,
    /// How many alternatives per token to report, 0 to 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<i64>,
    /// Answer as server-sent events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Options of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Read special-token text in the prompt as special tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_special_tokens: Option<bool>,
    /// Caller's stable id of its end user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Fields this API does not know, kept as sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `prompt` of a completion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids, or a list of such lists"
)]
pub enum Prompt {
    /// One text.
    Text(String),
    /// One prompt as token ids.
    Ids(Vec<u32>),
    /// Several texts.
    Texts(Vec<String>),
    /// Several prompts as token ids.
    IdLists(Vec<Vec<u32>>),
}

/// The answer of completions, and (with `finish_reason` null until the end) each of its chunks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompletionResponse {
    /// Id of this completion.
    pub id: String,
    /// `text_completion`.
    pub object: String,
    /// Unix time in seconds.
    pub created: u64,
    /// Model id.
    pub model: String,
    /// One per prompt and choice; empty in the usage chunk of a stream.
    #[serde(default)]
    pub choices: Vec<CompletionChoice>,
    /// Token counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// One continuation, or in a stream what is added to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompletionChoice {
    /// Position among the choices.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Log-probabilities where they were asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why it ended.
    pub finish_reason: Option<FinishReason>,
}

/// Log-probabilities in the older, columnar form.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompletionLogprobs {
    /// The tokens' texts.
    pub tokens: Vec<String>,
    /// Their log-probabilities; the first prompt token has none.
    pub token_logprobs: Vec<Option<f64>>,
    /// Alternatives per token.
    pub top_logprobs: Option<Vec<Option<BTreeMap<String, f64>>>>,
    /// Where each token starts in the text, in characters.
    pub text_offset: Vec<u32>,
}

// ---- models, token counts, errors ----

/// Reply of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelList {
    /// `list`.
    pub object: String,
    /// The models on offer.
    pub data: Vec<Model>,
}

/// One model, with the vendor's capability fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    /// Model id.
    pub id: String,
    /// `model`.
    pub object: String,
    /// Unix time in seconds.
    #[serde(default)]
    pub created: u64,
    /// Who offers it.
    #[serde(default)]
    pub owned_by: String,
    /// Longest prompt plus completion, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// Reads images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supports_image_in: Option<bool>,
    /// Reads videos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supports_video_in: Option<bool>,
    /// Thinks before it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supports_reasoning: Option<bool>,
}

/// Reply of `POST /v1/tokenizers/estimate-token-count`; its request is a [`ChatRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCountResponse {
    /// The vendor's envelope.
    pub data: TokenCount,
}

/// The count itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenCount {
    /// Tokens of the rendered prompt.
    pub total_tokens: u64,
}

/// Body of every failed request, and of an error event inside a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The envelope's only field.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDetail {
    /// One sentence for the caller.
    pub message: String,
    /// Class, for example `invalid_request_error`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Finer class where one exists.
    #[serde(default)]
    pub code: Option<String>,
    /// The field at fault, for example `messages[1].role`.
    #[serde(default)]
    pub param: Option<String>,
}

// ---- what both request kinds share ----

/// The sampling fields of either request, as sent: see [`ChatRequest`] for their ranges.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SamplingFields {
    /// `temperature`.
    pub temperature: Option<f64>,
    /// `top_p`.
    pub top_p: Option<f64>,
    /// `top_k`.
    pub top_k: Option<i64>,
    /// `min_p`.
    pub min_p: Option<f64>,
    /// `presence_penalty`.
    pub presence_penalty: Option<f64>,
    /// `frequency_penalty`.
    pub frequency_penalty: Option<f64>,
    /// `repetition_penalty`.
    pub repetition_penalty: Option<f64>,
    /// `seed`.
    pub seed: Option<i64>,
    /// `stop`.
    pub stop: Option<Stop>,
    /// `logit_bias`.
    pub logit_bias: Option<BTreeMap<String, f64>>,
}

impl ChatRequest {
    /// A copy of the sampling fields.
    #[must_use]
    pub fn sampling_fields(&self) -> SamplingFields {
        SamplingFields {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop: self.stop.clone(),
            logit_bias: self.logit_bias.clone(),
        }
    }
}

impl CompletionRequest {
    /// A copy of the sampling fields.
    #[must_use]
    pub fn sampling_fields(&self) -> SamplingFields {
        SamplingFields {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
            stop: self.stop.clone(),
            logit_bias: self.logit_bias.clone(),
        }
    }
}
