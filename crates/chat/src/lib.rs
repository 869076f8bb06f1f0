//! Here are messages, give me tokens; here are tokens, give me messages.

pub mod tokenizer;
