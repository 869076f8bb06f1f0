//! A notation for token traces that shows every boundary.
//!
//! Tokens stand side by side with `‧` between them; special tokens by name; line breaks, tabs and
//! backslashes as `\n`, `\r`, `\t`, `\\`; bytes that are no whole character as `\xE4`.

use perilune_chat::tokenizer::Tokenizer;
use std::collections::HashMap;

pub const BOUNDARY: char = '‧';

/// Ids of a trace; every piece must be a token of the vocabulary.
pub fn read(tokenizer: &Tokenizer, trace: &str) -> Vec<u32> {
    let by_bytes: HashMap<&[u8], u32> =
        (0..tokenizer.n_ranks() as u32).map(|id| (tokenizer.token_bytes(id).unwrap(), id)).collect();
    let id = |piece: &str| {
        let ordinary = || by_bytes.get(unescape(piece).as_slice()).copied();
        tokenizer.special_id(piece).or_else(ordinary).unwrap_or_else(|| panic!("no token {piece:?}"))
    };
    trace.split(BOUNDARY).filter(|piece| !piece.is_empty()).map(id).collect()
}

/// The trace of ids.
pub fn write(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let piece = |id: &u32| escape_bytes(tokenizer.token_bytes(*id).unwrap());
    ids.iter().map(piece).collect::<Vec<_>>().join(&BOUNDARY.to_string())
}

fn escape_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => escape(text),
        Err(_) => bytes.iter().map(|byte| format!("\\x{byte:02X}")).collect(),
    }
}

/// Text on one line.
pub fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        match chars.next() {
            Some('n') => bytes.push(b'\n'),
            Some('r') => bytes.push(b'\r'),
            Some('t') => bytes.push(b'\t'),
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap());
            }
            Some(other) => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            None => panic!("a trace ends in a backslash"),
        }
    }
    bytes
}
