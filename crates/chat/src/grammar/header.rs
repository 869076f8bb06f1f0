//! The id of a tool call, `functions.NAME:IDX`, one token at a time.

use toktrie::{TokTrie, TrieNode};

use super::compile::Vocab;
use super::error::GrammarError;
use super::guard::set;
use super::schema::shorten;

/// Longest tool name that can stand in a call id, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Refuses names that could not be read back from an id.
pub(super) fn check_name(name: &str) -> Result<(), GrammarError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte);
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(GrammarError::ToolName { name: shorten(name), limit: NAME_BYTES_MAX })
}

/// The ids that may still be meant, and what is written of them.
#[derive(Clone)]
pub(super) struct Header {
    /// Sorted by text, with the index of each tool.
    ids: Vec<(String, usize)>,
    written: Vec<u8>,
    tokens: Vec<u32>,
}

impl Header {
    /// A header for call number `call_idx` of one of `names` (name, tool index).
    pub(super) fn new<'n>(names: impl Iterator<Item = (&'n str, usize)>, call_idx: u32) -> Self {
        let mut ids: Vec<_> =
            names.map(|(name, tool_idx)| (format!("functions.{name}:{call_idx}"), tool_idx)).collect();
        ids.sort();
        Self { ids, written: Vec::new(), tokens: Vec::new() }
    }

    /// The tool whose id is complete.
    pub(super) fn tool(&self) -> Option<usize> {
        self.ids.iter().find(|(id, _)| id.as_bytes() == self.written).map(|(_, tool_idx)| *tool_idx)
    }

    /// Allows the tokens that go on; the caller adds the argument marker where [`Self::tool`] is complete.
    pub(super) fn fill(&self, trie: &TokTrie, mask: &mut [u32]) {
        allow(trie, trie.root(), &self.open(), self.written.len(), mask);
    }

    /// Goes on by the bytes of `id`; false if no declared id goes on so.
    pub(super) fn accept(&mut self, id: u32, bytes: &[u8]) -> bool {
        let n_written = self.written.len();
        self.written.extend_from_slice(bytes);
        let fits = !bytes.is_empty() && !self.open().is_empty();
        if fits {
            self.tokens.push(id);
        } else {
            self.written.truncate(n_written);
        }
        fits
    }

    /// Tokens that every id still open goes on with, in the tokenizer's own cut.
    pub(super) fn forced(&self, vocab: &Vocab) -> Vec<u32> {
        let cuts = self.open().iter().map(|id| vocab.tokenizer.encode_ordinary(id)).collect::<Vec<_>>();
        let Some((first, others)) = cuts.split_first() else { return Vec::new() };
        if !cuts.iter().all(|cut| cut.starts_with(&self.tokens)) {
            return Vec::new();
        }
        let is_shared = |(idx, id): &(usize, &u32)| others.iter().all(|cut| cut.get(*idx) == Some(id));
        first.iter().enumerate().skip(self.tokens.len()).take_while(is_shared).map(|(_, id)| *id).collect()
    }

    /// Whether an id is complete after `tokens` and no other goes on from there.
    pub(super) fn ends_after(&self, tokens: &[u32], vocab: &Vocab) -> bool {
        let mut ahead = self.clone();
        tokens.iter().all(|id| ahead.accept(*id, vocab.trie().token(*id)))
            && ahead.tool().is_some()
            && ahead.open().len() == 1
    }

    /// Ids that begin with what is written, sorted.
    fn open(&self) -> Vec<&str> {
        let begins = |id: &&str| id.as_bytes().starts_with(&self.written);
        self.ids.iter().map(|(id, _)| id.as_str()).filter(begins).collect()
    }
}

/// Allows every token on the way from `node` along `ids`, which agree up to byte `at`.
fn allow(trie: &TokTrie, node: &TrieNode, ids: &[&str], at: usize, mask: &mut [u32]) {
    let byte = |id: &str| id.as_bytes().get(at).copied();
    for group in ids.chunk_by(|a, b| byte(a) == byte(b)) {
        let Some(child) = byte(group[0]).and_then(|byte| trie.child_at_byte(node, byte)) else { continue };
        if let Some(id) = child.token_id() {
            set(mask, id);
        }
        allow(trie, child, group, at + 1, mask);
    }
}
