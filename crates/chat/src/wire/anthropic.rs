//! The Anthropic-shaped messages API: request, response, stream events, token count, errors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

// ---- request ----

/// Body of `POST /v1/messages`, and (without `max_tokens`) of `POST /v1/messages/count_tokens`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessagesRequest {
    /// Model id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Content>,
    /// User and assistant messages, oldest first; a trailing assistant message is a prefill.
    pub messages: Vec<Message>,
    /// Most tokens of the whole reply, at least 1; required by the format except when only counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<i64>,
    /// Tools the model may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Tool>>,
    /// Whether, and which, tool must be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<ToolChoice>,
    /// Switch for thinking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Thinking>,
    /// Divides the logits, 0 to 2; 0 picks the most probable token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus size: the probability mass kept, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Most probable tokens kept, at least 1; 0 and -1 mean no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// At most 5 strings of 1 to 32 bytes that end the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_sequences: Option<Vec<String>>,
    /// Answer as server-sent events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// About the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// Fields this API does not know, kept as sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// About the caller.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Metadata {
    /// Caller's stable id of its end user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// One message as sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// `user` or `assistant`.
    #[schemars(extend("enum" = ["user", "assistant"]))]
    pub role: String,
    /// Text or blocks.
    pub content: Content,
}

/// Content of a message, of the system prompt, or of a tool result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a string or a list of content blocks, each with its `type` and that type's fields"
)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Blocks.
    Blocks(Vec<Block>),
}

/// One block of a request or a response; which fields a type needs is checked later.
///
/// One struct for all types, because each block of a stream starts with some fields empty.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Block {
    /// What it is; images and other kinds are refused.
    #[schemars(extend("enum" = ["text", "thinking", "redacted_thinking", "tool_use", "tool_result"]))]
    #[serde(rename = "type")]
    pub kind: String,
    /// Of `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Of `thinking`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// Of `thinking`: the provider's seal; empty here, ignored when sent back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Of `tool_use`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Of `tool_use`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of `tool_use`: the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// Of `tool_result`: which call it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_use_id: Option<String>,
    /// Of `tool_result`: text, or blocks of text.
    #[schemars(with = "Option<ResultContent>")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Box<Content>>,
    /// Of `tool_result`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// Everything else (`cache_control`, `source`, `citations`, ...), kept as sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Content of a tool result as it is described: blocks of text hold no further blocks, so the description ends.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it stands for a schema, never for a value")]
enum ResultContent {
    /// Plain text.
    Text(String),
    /// Blocks of text.
    Blocks(Vec<TextBlock>),
}

/// A block that can only be text.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "it stands for a schema, never for a value")]
struct TextBlock {
    /// `text`.
    #[schemars(extend("enum" = ["text"]))]
    #[serde(rename = "type")]
    kind: String,
    /// The text.
    text: String,
}

impl Block {
    /// A `text` block.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: "text".to_owned(), text: Some(text.into()), ..Self::default() }
    }

    /// A `thinking` block with an empty signature.
    #[must_use]
    pub fn thinking(text: impl Into<String>) -> Self {
        Self {
            kind: "thinking".to_owned(),
            thinking: Some(text.into()),
            signature: Some(String::new()),
            ..Self::default()
        }
    }

    /// A `tool_use` block.
    #[must_use]
    pub fn tool_use(id: impl Into<String>, name: impl Into<String>, input: Value) -> Self {
        Self {
            kind: "tool_use".to_owned(),
            id: Some(id.into()),
            name: Some(name.into()),
            input: Some(input),
            ..Self::default()
        }
    }
}

/// A declared tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Provider-side tools carry a type of their own; `custom` or missing means ours.
    #[schemars(extend("enum" = ["custom", null]))]
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Tool name.
    pub name: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema of its arguments, key order kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Value>,
    /// Everything else, kept as sent.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `tool_choice`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolChoice {
    /// `auto`, `any`, `tool` or `none`.
    #[schemars(extend("enum" = ["auto", "any", "tool", "none"]))]
    #[serde(rename = "type")]
    pub kind: String,
    /// With `tool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// At most one call per reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_parallel_tool_use: Option<bool>,
}

/// Switch for thinking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Thinking {
    /// `enabled`, `adaptive` or `disabled`.
    #[schemars(extend("enum" = ["enabled", "adaptive", "disabled"]))]
    #[serde(rename = "type")]
    pub kind: String,
    /// Most tokens to think, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<i64>,
}

// ---- response ----

/// The unstreamed answer, and (with no content yet) the `message` of `message_start`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MessagesResponse {
    /// Id of this message.
    pub id: String,
    /// `message`.
    #[schemars(extend("enum" = ["message"]))]
    #[serde(rename = "type")]
    pub kind: String,
    /// `assistant`.
    #[schemars(extend("enum" = ["assistant"]))]
    pub role: String,
    /// Model id.
    pub model: String,
    /// Thinking, text and calls in order.
    pub content: Vec<Block>,
    /// Null in `message_start`.
    pub stop_reason: Option<StopReason>,
    /// Which stop sequence ended it.
    pub stop_sequence: Option<String>,
    /// Token counts.
    pub usage: Usage,
}

/// Why a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended it.
    EndTurn,
    /// The token limit ended it.
    MaxTokens,
    /// A stop sequence ended it.
    StopSequence,
    /// The model asks for tools.
    ToolUse,
    /// The provider paused a long turn.
    PauseTurn,
    /// The provider's filter ended it.
    Refusal,
}

/// Token counts; cached prompt tokens are counted apart from `input_tokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Prompt tokens computed for this request.
    #[serde(default)]
    pub input_tokens: u64,
    /// Tokens generated, thinking included.
    #[serde(default)]
    pub output_tokens: u64,
    /// Prompt tokens read from the prefix cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_input_tokens: Option<u64>,
    /// Prompt tokens written to the prefix cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_creation_input_tokens: Option<u64>,
}

/// Reply of `POST /v1/messages/count_tokens`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CountTokensResponse {
    /// Tokens of the rendered prompt.
    pub input_tokens: u64,
}

/// One server-sent event; its SSE event name equals its `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StreamEvent {
    /// First event.
    MessageStart {
        /// The message with empty content.
        message: MessagesResponse,
    },
    /// A block opens.
    ContentBlockStart {
        /// Position in `content`.
        index: u32,
        /// The block with its text, thinking or input empty.
        content_block: Block,
    },
    /// A block grows.
    ContentBlockDelta {
        /// Position in `content`.
        index: u32,
        /// What is added.
        delta: BlockDelta,
    },
    /// A block closes.
    ContentBlockStop {
        /// Position in `content`.
        index: u32,
    },
    /// Stop reason and final counts.
    MessageDelta {
        /// How it ended.
        delta: MessageEnd,
        /// Cumulative counts.
        usage: Usage,
    },
    /// Last event.
    MessageStop,
    /// Keep-alive.
    Ping,
    /// The stream failed.
    Error {
        /// Why.
        error: ErrorDetail,
    },
}

/// Growth of a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BlockDelta {
    /// Added answer text.
    TextDelta {
        /// The text.
        text: String,
    },
    /// Added thinking.
    ThinkingDelta {
        /// The text.
        thinking: String,
    },
    /// The seal of a thinking block.
    SignatureDelta {
        /// Empty here.
        signature: String,
    },
    /// Added argument text of a call.
    InputJsonDelta {
        /// A fragment of the JSON.
        partial_json: String,
    },
}

/// How a streamed message ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessageEnd {
    /// Why.
    pub stop_reason: Option<StopReason>,
    /// Which stop sequence.
    pub stop_sequence: Option<String>,
}

/// Body of every failed request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// `error`.
    #[schemars(extend("enum" = ["error"]))]
    #[serde(rename = "type")]
    pub kind: String,
    /// What went wrong.
    pub error: ErrorDetail,
    /// Id of the failed request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDetail {
    /// Class, for example `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One sentence for the caller.
    pub message: String,
}
