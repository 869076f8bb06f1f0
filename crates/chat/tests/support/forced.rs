//! Completions by random choice among the allowed tokens, read back without any code of the grammar.

use perilune_chat::grammar::{Constraint, GrammarError};
use perilune_chat::tokenizer::Tokenizer;
use serde_json::Value;

/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    /// The next 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
}

/// Ids that a mask allows.
pub(crate) fn allowed(mask: &[u32]) -> Vec<u32> {
    let mut ids = Vec::new();
    for (word_idx, word) in mask.iter().enumerate() {
        let mut word = *word;
        while word != 0 {
            ids.push(word_idx as u32 * 32 + word.trailing_zeros());
            word &= word - 1;
        }
    }
    ids
}

/// One allowed id, each with the same probability: what logits of independent noise give.
pub(crate) fn choose(mask: &[u32], rng: &mut Rng) -> u32 {
    let n: u32 = mask.iter().map(|word| word.count_ones()).sum();
    assert!(n > 0, "the mask allows nothing");
    let mut nth = rng.below(n as usize) as u32;
    for (word_idx, word) in mask.iter().enumerate() {
        if nth >= word.count_ones() {
            nth -= word.count_ones();
            continue;
        }
        let mut word = *word;
        for _ in 0..nth {
            word &= word - 1;
        }
        return word_idx as u32 * 32 + word.trailing_zeros();
    }
    unreachable!("nth is below the number of set bits")
}

/// Generates until the turn ends or `n_tokens_max` is reached; `None` for the latter.
pub(crate) fn complete(
    constraint: &mut Constraint,
    rng: &mut Rng,
    n_tokens_max: usize,
) -> Result<Option<Vec<u32>>, GrammarError> {
    let mut mask = vec![0; constraint.n_mask_words()];
    let mut ids = Vec::new();
    while !constraint.is_complete() {
        if ids.len() == n_tokens_max {
            return Ok(None);
        }
        constraint.fill_mask(&mut mask)?;
        let id = choose(&mask, rng);
        constraint.accept(id)?;
        ids.push(id);
    }
    Ok(Some(ids))
}

/// A call read from ids by the published layout.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) idx: u32,
    pub(crate) arguments: String,
}

/// Reads `section_begin (call_begin id argument_begin arguments call_end)+ section_end im_end`, or says what differs.
pub(crate) fn read_section(tokenizer: &Tokenizer, ids: &[u32]) -> Result<Vec<Call>, String> {
    let markers = tokenizer.markers();
    let inner = ids
        .strip_prefix(&[markers.section_begin])
        .and_then(|rest| rest.strip_suffix(&[markers.section_end, markers.im_end]))
        .ok_or("the section's frame is wrong")?;
    let mut calls = Vec::new();
    for call in inner.split_inclusive(|id| *id == markers.call_end) {
        let body = call
            .strip_prefix(&[markers.call_begin])
            .and_then(|rest| rest.strip_suffix(&[markers.call_end]))
            .ok_or("a call's frame is wrong")?;
        let (id, arguments) = body
            .iter()
            .position(|id| *id == markers.call_argument_begin)
            .map(|at| (&body[..at], &body[at + 1..]))
            .ok_or("a call has no argument marker")?;
        if body.iter().filter(|id| tokenizer.is_special(**id)).count() != 1 {
            return Err("a special id stands inside a call".into());
        }
        let text = |ids: &[u32]| String::from_utf8(tokenizer.decode_bytes(ids)).map_err(|_| "invalid UTF-8");
        let id = text(id)?;
        let (name, idx) = id
            .strip_prefix("functions.")
            .and_then(|rest| rest.rsplit_once(':'))
            .ok_or_else(|| format!("the id {id:?} is malformed"))?;
        let idx = idx.parse().map_err(|_| format!("the id {id:?} has no index"))?;
        calls.push(Call { name: name.to_owned(), idx, arguments: text(arguments)? });
    }
    if calls.is_empty() { Err("the section is empty".into()) } else { Ok(calls) }
}

/// A validator that shares no code with the grammar.
pub(crate) struct Judge {
    schemas: boon::Schemas,
    idx: boon::SchemaIndex,
}

impl Judge {
    /// A judge of values by `schema` (draft 2020-12, formats asserted).
    pub(crate) fn new(schema: &Value) -> Self {
        let mut schemas = boon::Schemas::new();
        let mut compiler = boon::Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource("schema.json", schema.clone()).expect("the schema is JSON");
        let idx = compiler.compile("schema.json", &mut schemas).expect("the judge can read the schema");
        Self { schemas, idx }
    }

    /// What is wrong with a value.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        self.schemas.validate(value, self.idx).map_err(|error| error.to_string())
    }
}

/// Fourteen tools whose schemas are bounded: the length of every value has a limit.
pub(crate) fn bounded_tools() -> Vec<(String, Value)> {
    let tools: Vec<Value> = serde_json::from_str(include_str!("../data/bounded-tools.json")).expect("JSON");
    let pair = |tool: &Value| (tool["name"].as_str().expect("a name").to_owned(), tool["parameters"].clone());
    tools.iter().map(pair).collect()
}
