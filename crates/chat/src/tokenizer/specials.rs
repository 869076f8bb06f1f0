//! The 256 special ids after the ranks: names, flags, and finding their names in text.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::Deserialize;

use super::error::{ConfigProblem, TokenizerError};

/// Number of special ids after the ranks.
pub(super) const N_SPECIALS: usize = 256;

/// Names of the published K2 table, by offset from the number of ranks, with the `special` flag.
/// Source: the model's tokenizer_config.json; the other offsets are reserved.
const K2_NAMES: [(usize, &str, bool); 23] = [
    (0, "[BOS]", true),
    (1, "[EOS]", true),
    (2, "<|im_end|>", true),
    (3, "<|im_user|>", true),
    (4, "<|im_assistant|>", true),
    (6, "<|start_header_id|>", true),
    (7, "<|end_header_id|>", true),
    (9, "[EOT]", true),
    (10, "<|im_system|>", true),
    (11, "<|tool_calls_section_begin|>", false),
    (12, "<|tool_calls_section_end|>", false),
    (13, "<|tool_call_begin|>", false),
    (14, "<|tool_call_argument_begin|>", false),
    (15, "<|tool_call_end|>", false),
    (17, "<|im_middle|>", true),
    (18, "<|media_begin|>", true),
    (19, "<|media_content|>", true),
    (20, "<|media_end|>", true),
    (21, "<|media_pad|>", true),
    (22, "<think>", false),
    (23, "</think>", false),
    (254, "[UNK]", true),
    (255, "[PAD]", true),
];

/// Ids of the special tokens the chat format is built on (names: the model's tokenizer_config.json).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// `[BOS]`; no prompt has it.
    pub bos: u32,
    /// `[EOS]`, which ends a reply as `<|im_end|>` does.
    pub eos: u32,
    /// `<|im_end|>`, the end of a message.
    pub im_end: u32,
    /// `<|im_user|>`.
    pub im_user: u32,
    /// `<|im_assistant|>`.
    pub im_assistant: u32,
    /// `<|im_system|>`.
    pub im_system: u32,
    /// `<|im_middle|>`, between a message's name and its body.
    pub im_middle: u32,
    /// `[EOT]`.
    pub eot: u32,
    /// `<|tool_calls_section_begin|>`.
    pub section_begin: u32,
    /// `<|tool_calls_section_end|>`.
    pub section_end: u32,
    /// `<|tool_call_begin|>`.
    pub call_begin: u32,
    /// `<|tool_call_argument_begin|>`.
    pub call_argument_begin: u32,
    /// `<|tool_call_end|>`.
    pub call_end: u32,
    /// `<think>`.
    pub think_begin: u32,
    /// `</think>`.
    pub think_end: u32,
}

/// Name and hidden flag by offset from the number of ranks.
type Names = BTreeMap<usize, (String, bool)>;

/// Names and flags of the special ids.
pub(super) struct Specials {
    /// First special id, the number of ranks.
    first: u32,
    /// Name and hidden flag of each special id.
    names: Vec<(String, bool)>,
    by_name: FxHashMap<String, u32>,
    finder: Finder,
}

/// The part of tokenizer_config.json that is read.
#[derive(Deserialize)]
struct TokenizerConfig {
    added_tokens_decoder: Option<BTreeMap<String, AddedToken>>,
}

/// One entry of `added_tokens_decoder`.
#[derive(Deserialize)]
struct AddedToken {
    content: String,
    #[serde(default)]
    special: bool,
}

impl Specials {
    /// Special ids from `n_ranks` on, named by the configuration, or by the K2 table where it names none.
    pub(super) fn new(n_ranks: usize, config: Option<&str>) -> Result<Self, TokenizerError> {
        let first = n_ranks as u32;
        let named = match config {
            Some(json) => configured_names(json, first).map_err(TokenizerError::Config)?,
            None => None,
        };
        let mut named = named.unwrap_or_else(k2_names);
        let names: Vec<(String, bool)> = (0..N_SPECIALS)
            .map(|i| {
                let reserved = || (format!("<|reserved_token_{}|>", n_ranks + i), true);
                named.remove(&i).unwrap_or_else(reserved)
            })
            .collect();
        let mut by_name = FxHashMap::default();
        for (id, (name, _)) in (first..).zip(&names) {
            if let Some(earlier) = by_name.insert(name.clone(), id) {
                let problem = ConfigProblem::DuplicateName { name: name.clone(), first: earlier, second: id };
                return Err(TokenizerError::Config(problem));
            }
        }
        let finder = Finder::new((first..).zip(names.iter().map(|(name, _)| name.as_str())));
        Ok(Self { first, names, by_name, finder })
    }

    /// Ids of the chat format's tokens; an error names the first that has none.
    pub(super) fn markers(&self) -> Result<Markers, TokenizerError> {
        let id = |name| self.id(name).ok_or(TokenizerError::Config(ConfigProblem::MissingMarker(name)));
        Ok(Markers {
            bos: id("[BOS]")?,
            eos: id("[EOS]")?,
            im_end: id("<|im_end|>")?,
            im_user: id("<|im_user|>")?,
            im_assistant: id("<|im_assistant|>")?,
            im_system: id("<|im_system|>")?,
            im_middle: id("<|im_middle|>")?,
            eot: id("[EOT]")?,
            section_begin: id("<|tool_calls_section_begin|>")?,
            section_end: id("<|tool_calls_section_end|>")?,
            call_begin: id("<|tool_call_begin|>")?,
            call_argument_begin: id("<|tool_call_argument_begin|>")?,
            call_end: id("<|tool_call_end|>")?,
            think_begin: id("<think>")?,
            think_end: id("</think>")?,
        })
    }

    pub(super) fn id(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(super) fn name(&self, id: u32) -> Option<&str> {
        self.get(id).map(|(name, _)| name.as_str())
    }

    pub(super) fn is_hidden(&self, id: u32) -> bool {
        self.get(id).is_some_and(|&(_, hidden)| hidden)
    }

    fn get(&self, id: u32) -> Option<&(String, bool)> {
        self.names.get(id.checked_sub(self.first)? as usize)
    }

    /// The first special name in `text` from byte `from`: (start, end, id).
    pub(super) fn find(&self, text: &str, from: usize) -> Option<(usize, usize, u32)> {
        self.finder.find(text.as_bytes(), from)
    }
}

fn k2_names() -> Names {
    K2_NAMES.iter().map(|&(offset, name, hidden)| (offset, (name.to_owned(), hidden))).collect()
}

/// Names by offset from `first` that the configuration gives; `None` where it has no `added_tokens_decoder`.
fn configured_names(json: &str, first: u32) -> Result<Option<Names>, ConfigProblem> {
    let config: TokenizerConfig =
        serde_json::from_str(json).map_err(|error| ConfigProblem::Json(error.to_string()))?;
    let Some(added) = config.added_tokens_decoder else { return Ok(None) };
    let mut names = BTreeMap::new();
    for (key, token) in added {
        let Ok(id) = key.parse::<u32>() else { return Err(ConfigProblem::BadId(key)) };
        let offset = id.wrapping_sub(first) as usize;
        if offset >= N_SPECIALS {
            return Err(ConfigProblem::IdOutOfRange { id, first, last: first + N_SPECIALS as u32 - 1 });
        }
        if token.content.is_empty() {
            return Err(ConfigProblem::EmptyName(id));
        }
        if names.insert(offset, (token.content, token.special)).is_some() {
            return Err(ConfigProblem::DuplicateId(id));
        }
    }
    Ok(Some(names))
}

/// A byte trie of the special names: leftmost, then longest.
struct Finder {
    /// The root first.
    nodes: Vec<Node>,
    /// Whether some name begins with the byte.
    begins: [bool; 256],
}

/// A prefix of some special name.
#[derive(Default)]
struct Node {
    /// Next byte and index of the node it leads to.
    children: Vec<(u8, u32)>,
    /// Id of the name that ends here.
    id: Option<u32>,
}

impl Finder {
    fn new<'n>(names: impl Iterator<Item = (u32, &'n str)>) -> Self {
        let mut finder = Self { nodes: vec![Node::default()], begins: [false; 256] };
        for (id, name) in names {
            finder.begins[name.as_bytes()[0] as usize] = true;
            let node = name.bytes().fold(0, |node, byte| finder.child_or_new(node, byte));
            finder.nodes[node].id = Some(id);
        }
        finder
    }

    fn child(&self, node: usize, byte: u8) -> Option<usize> {
        self.nodes[node].children.iter().find(|(b, _)| *b == byte).map(|&(_, child)| child as usize)
    }

    fn child_or_new(&mut self, node: usize, byte: u8) -> usize {
        self.child(node, byte).unwrap_or_else(|| {
            let child = self.nodes.len();
            self.nodes[node].children.push((byte, child as u32));
            self.nodes.push(Node::default());
            child
        })
    }

    fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize, u32)> {
        (from..text.len())
            .filter(|&at| self.begins[text[at] as usize])
            .find_map(|at| self.longest_at(&text[at..]).map(|(len, id)| (at, at + len, id)))
    }

    /// Length and id of the longest name that `text` begins with.
    fn longest_at(&self, text: &[u8]) -> Option<(usize, u32)> {
        let (mut node, mut longest) = (0, None);
        for (i, &byte) in text.iter().enumerate() {
            let Some(child) = self.child(node, byte) else { break };
            node = child;
            longest = self.nodes[node].id.map(|id| (i + 1, id)).or(longest);
        }
        longest
    }
}
