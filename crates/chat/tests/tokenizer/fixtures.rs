//! Ids and decodings stored by `tools/oracle/make_tokenizer_fixtures.py`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use perilune_chat::tokenizer::{Detokenizer, SpecialText, Tokenizer};
use serde::Deserialize;

use super::small;

#[derive(Deserialize)]
struct Fixtures {
    texts: Vec<TextIds>,
    longs: Vec<(LongText, String, String)>,
    code_points: CodePoints,
    byte_strings: Vec<(String, String)>,
}

/// Units and how often each is repeated.
type LongText = Vec<(String, usize)>;

/// Text, its ids, and its ids with special names as tokens where they differ.
#[derive(Deserialize)]
#[serde(untagged)]
enum TextIds {
    Same(String, Vec<u32>),
    Differ(String, Vec<u32>, Vec<u32>),
}

#[derive(Deserialize)]
struct CodePoints {
    context: String,
    per_hash: u32,
    hashes: Vec<(u32, String)>,
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("../data/tokenizer.json")).unwrap()
}

/// FNV-1a, 64 bits, of the ids as little-endian u32.
fn digest(ids: &[u32]) -> String {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3);
    format!("{:016x}", ids.iter().flat_map(|id| id.to_le_bytes()).fold(0xCBF2_9CE4_8422_2325, step))
}

#[test]
fn ids_of_texts_equal_tiktoken() {
    let small = small();
    let texts = fixtures().texts;
    assert!(texts.len() > 400);
    for entry in texts {
        let (text, plain, tokens) = match entry {
            TextIds::Same(text, plain) => (text, plain.clone(), plain),
            TextIds::Differ(text, plain, tokens) => (text, plain, tokens),
        };
        assert_eq!(small.encode(&text, SpecialText::AsText), plain, "as text: {text:?}");
        assert_eq!(small.encode(&text, SpecialText::AsTokens), tokens, "as tokens: {text:?}");
        assert_eq!(small.try_decode(&plain).unwrap(), text);
        assert_eq!(small.try_decode(&tokens).unwrap(), text);
    }
}

#[test]
fn long_texts_are_cut_as_published() {
    let small = small();
    for (spec, plain, tokens) in fixtures().longs {
        let text: String = spec.iter().map(|(unit, times)| unit.repeat(*times)).collect();
        assert_eq!(digest(&small.encode(&text, SpecialText::AsText)), plain, "as text: {spec:?}");
        assert_eq!(digest(&small.encode(&text, SpecialText::AsTokens)), tokens, "as tokens: {spec:?}");
    }
}

/// With all pairs of bytes as tokens, the ids show where the pattern cuts.
#[test]
fn every_code_point_is_in_the_sets_tiktoken_has_it_in() {
    let singles = (0..=255u8).map(|a| vec![a]);
    let pairs = (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| vec![a, b]));
    let line = |(rank, token): (usize, Vec<u8>)| format!("{} {rank}\n", STANDARD.encode(token));
    let ranks: String = singles.chain(pairs).enumerate().map(line).collect();
    let tokenizer = Tokenizer::from_ranks(ranks.as_bytes(), None).unwrap();
    let CodePoints { context, per_hash, hashes } = fixtures().code_points;
    for (first, hash) in hashes {
        let chars = (first..first + per_hash).filter_map(char::from_u32);
        let text: String = chars.map(|c| context.replace("{c}", c.encode_utf8(&mut [0; 4]))).collect();
        assert_eq!(digest(&tokenizer.encode_ordinary(&text)), hash, "code points from U+{first:04X}");
    }
}

#[test]
fn broken_utf8_is_replaced_as_python_does() {
    for (hex, text) in fixtures().byte_strings {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        let mut detokenizer = Detokenizer::new();
        let mut streamed: String = bytes.iter().map(|&byte| detokenizer.push(&[byte])).collect();
        streamed += &detokenizer.finish();
        assert_eq!(streamed, text, "{hex}");
    }
}
