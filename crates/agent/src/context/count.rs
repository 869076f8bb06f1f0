//! How many tokens is that?

use perilune_chat::message::Conversation;

/// Counts tokens as the model will.
pub trait TokenCounter {
    /// Tokens of the prompt of a conversation: its messages, its tools and what the template adds.
    fn conversation(&self, conversation: &Conversation) -> usize;

    /// Tokens of a text inside a message.
    fn text(&self, text: &str) -> usize;
}

/// Bytes of text that a token stands for where the model's tokenizer is not at hand; low, so that the estimate is high.
const BYTES_PER_TOKEN: usize = 3;
/// Tokens around each message.
const MESSAGE_TOKENS: usize = 8;

/// Estimates from bytes, for models whose tokenizer is not at hand: three bytes a token and eight tokens a message,
/// so that the estimate is rather too high.
pub struct Bytes;

impl TokenCounter for Bytes {
    fn conversation(&self, conversation: &Conversation) -> usize {
        use perilune_chat::message::{Arguments, Message};
        let bytes = |message: &Message| match message {
            Message::System { text, .. } | Message::User { text, .. } => text.len(),
            Message::ToolResult(result) => result.text.len(),
            Message::Assistant(assistant) => {
                let calls = assistant.tool_calls.iter().map(|call| match &call.arguments {
                    Arguments::Text(text) => call.name.len() + text.len(),
                    Arguments::Object(object) => {
                        call.name.len() + serde_json::to_string(object).map_or(0, |it| it.len())
                    }
                });
                assistant.reasoning.len() + assistant.content.len() + calls.sum::<usize>()
            }
        };
        let messages =
            conversation.messages().iter().map(|it| bytes(it).div_ceil(BYTES_PER_TOKEN) + MESSAGE_TOKENS);
        let declared = conversation.tools().iter().map(|tool| {
            serde_json::to_string(tool.declaration()).map_or(0, |it| it.len()).div_ceil(BYTES_PER_TOKEN)
        });
        messages.sum::<usize>() + declared.sum::<usize>()
    }

    fn text(&self, text: &str) -> usize {
        text.len().div_ceil(BYTES_PER_TOKEN)
    }
}
