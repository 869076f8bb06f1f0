//! The scanner's twin: parses a whole id list in the plainest way. It shares no code with the scanner
//! but the types it is compared in, and has no limit on undecided text.
//!
//! Three passes: ids to marks and text runs; runs to a tree of texts and calls; labels by looking ahead.

use perilune_chat::scanner::{
    Call, Closing, Ending, Finish, Open, Opening, Reply, ScannerOptions, Summary, tool_name,
};
use perilune_chat::tokenizer::Tokenizer;

/// A token run or a mark.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    Run { text: String, n_tokens: usize },
    Mark(String),
}

/// What stands in the reply, in order.
#[derive(Debug)]
enum Node {
    /// Text outside calls; `free` when outside sections, and whether a tool mark came just before.
    Text {
        text: String,
        n_tokens: usize,
        after_tools: bool,
    },
    ThinkOpens,
    ThinkCloses,
    /// A section or a call begins.
    Tools,
    /// Another tool mark: whitespace after it is layout.
    Layout,
    Call(Call),
    DroppedCall,
}

const ENDS: [&str; 8] = [
    "<|im_end|>",
    "[EOS]",
    "[EOT]",
    "[BOS]",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_system|>",
    "<|im_middle|>",
];
const TOOL_MARKS: [&str; 5] = [
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
];

pub fn parse(
    tokenizer: &Tokenizer,
    ids: &[u32],
    options: &ScannerOptions,
    ending: Ending,
) -> (Reply, Summary) {
    let (items, ended) = items(tokenizer, without_header(tokenizer, ids));
    let cut = !ended && ending == Ending::Cut;
    let mut tree =
        Tree { items: &items, at: 0, nodes: Vec::new(), n_calls: 0, after_tools: false, cut, options };
    let left_open = tree.outside();
    let nodes = tree.nodes;
    let (mut reply, n_reasoning_tokens, thinking) = label(&nodes, options.opening);
    let mut n_dropped_calls = 0;
    for node in nodes {
        match node {
            Node::Call(call) => reply.tool_calls.push(call),
            Node::DroppedCall => n_dropped_calls += 1,
            _ => {}
        }
    }
    let n_calls = reply.tool_calls.len();
    let finish = match n_calls {
        _ if cut => Finish::Length,
        0 => Finish::Stop,
        _ => Finish::ToolCalls,
    };
    let left_open = left_open.or(thinking.then_some(Open::Thinking));
    (reply, Summary { finish, left_open, n_calls, n_dropped_calls, n_reasoning_tokens })
}

/// Ids after an assistant header at the very start; a header without its middle leaves what ended it.
fn without_header<'i>(tokenizer: &Tokenizer, ids: &'i [u32]) -> &'i [u32] {
    let name = |id: &u32| tokenizer.special_name(*id).unwrap_or_default();
    match ids {
        [first, rest @ ..] if name(first) == "<|im_assistant|>" => {
            let end = rest.iter().position(|id| ENDS.contains(&name(id))).unwrap_or(rest.len());
            let is_whole = rest.get(end).is_some_and(|id| name(id) == "<|im_middle|>");
            &rest[end + usize::from(is_whole)..]
        }
        _ => ids,
    }
}

/// Ids up to the end mark, equal neighbours joined; true when there was an end mark.
fn items(tokenizer: &Tokenizer, ids: &[u32]) -> (Vec<Item>, bool) {
    let mut items = Vec::new();
    let mut bytes: Vec<u8> = Vec::new();
    let mut n_tokens = 0;
    let flush = |bytes: &mut Vec<u8>, n_tokens: &mut usize, items: &mut Vec<Item>| {
        if *n_tokens > 0 {
            let text = String::from_utf8_lossy(bytes).into_owned();
            items.push(Item::Run { text, n_tokens: *n_tokens });
            bytes.clear();
            *n_tokens = 0;
        }
    };
    for &id in ids {
        match tokenizer.special_name(id) {
            Some(name) if ENDS.contains(&name) => {
                flush(&mut bytes, &mut n_tokens, &mut items);
                return (items, true);
            }
            Some(name) if TOOL_MARKS.contains(&name) || name == "<think>" || name == "</think>" => {
                flush(&mut bytes, &mut n_tokens, &mut items);
                items.push(Item::Mark(name.to_owned()));
            }
            Some(_) => {}
            None => {
                if let Some(token) = tokenizer.token_bytes(id) {
                    bytes.extend_from_slice(token);
                    n_tokens += 1;
                }
            }
        }
    }
    flush(&mut bytes, &mut n_tokens, &mut items);
    (items, false)
}

struct Tree<'i> {
    items: &'i [Item],
    at: usize,
    nodes: Vec<Node>,
    n_calls: usize,
    after_tools: bool,
    cut: bool,
    options: &'i ScannerOptions,
}

impl Tree<'_> {
    fn mark(&self) -> Option<&str> {
        match self.items.get(self.at) {
            Some(Item::Mark(name)) => Some(name),
            _ => None,
        }
    }

    /// Texts and think marks outside sections; what was left open inside one at the end.
    fn outside(&mut self) -> Option<Open> {
        while let Some(item) = self.items.get(self.at).cloned() {
            self.at += 1;
            match item {
                Item::Run { text, n_tokens } => {
                    self.nodes.push(Node::Text { text, n_tokens, after_tools: self.after_tools });
                }
                Item::Mark(name) => match name.as_str() {
                    "<think>" => self.think(Node::ThinkOpens),
                    "</think>" => self.think(Node::ThinkCloses),
                    "<|tool_calls_section_begin|>" => {
                        if let Some(open) = self.section() {
                            return Some(open);
                        }
                    }
                    "<|tool_call_begin|>" => {
                        self.at -= 1;
                        if let Some(open) = self.section() {
                            return Some(open);
                        }
                    }
                    "<|tool_calls_section_end|>" => self.layout(),
                    _ => {}
                },
            }
        }
        None
    }

    fn layout(&mut self) {
        self.after_tools = true;
        self.nodes.push(Node::Layout);
    }

    fn think(&mut self, node: Node) {
        self.after_tools = false;
        self.nodes.push(node);
    }

    /// From behind the section's begin to behind its end (or to a `<think>` that breaks it off).
    fn section(&mut self) -> Option<Open> {
        self.nodes.push(Node::Tools);
        self.after_tools = true;
        loop {
            let Some(item) = self.items.get(self.at).cloned() else { return Some(Open::Section) };
            self.at += 1;
            match item {
                Item::Run { text, .. } => {
                    // Joined with what follows across nothing: runs are never neighbours.
                    if self.mark() == Some("<|tool_call_argument_begin|>") {
                        self.at += 1;
                        if let Some(open) = self.call_body(&text) {
                            return Some(open);
                        }
                    } else if !text.trim().is_empty() {
                        let text = text.trim().to_owned();
                        self.nodes.push(Node::Text { text, n_tokens: 0, after_tools: self.after_tools });
                    }
                }
                Item::Mark(name) => match name.as_str() {
                    "<think>" => {
                        self.think(Node::ThinkOpens);
                        return None;
                    }
                    "</think>" => self.think(Node::ThinkCloses),
                    "<|tool_calls_section_begin|>" => self.layout(),
                    "<|tool_calls_section_end|>" => {
                        self.layout();
                        return None;
                    }
                    "<|tool_call_begin|>" => {
                        if let Some(open) = self.call() {
                            return Some(open);
                        }
                        self.after_tools = true;
                    }
                    "<|tool_call_argument_begin|>" => {
                        if let Some(open) = self.call_body("") {
                            return Some(open);
                        }
                    }
                    _ => {}
                },
            }
        }
    }

    /// Joins runs across marks that mean nothing inside a call.
    fn inner_text(&mut self, ignored: &[&str]) -> String {
        let mut text = String::new();
        loop {
            match self.items.get(self.at) {
                Some(Item::Run { text: run, .. }) => text.push_str(run),
                Some(Item::Mark(name)) if ignored.contains(&name.as_str()) => {}
                _ => return text,
            }
            self.at += 1;
        }
    }

    fn call(&mut self) -> Option<Open> {
        let id = self.inner_text(&["<think>", "</think>", "<|tool_calls_section_begin|>"]);
        match self.mark().map(str::to_owned).as_deref() {
            Some("<|tool_call_argument_begin|>") => {
                self.at += 1;
                self.call_body(&id)
            }
            end => {
                let closing = match end {
                    Some("<|tool_call_end|>") => Closing::Marker,
                    None if self.cut => Closing::Cut,
                    _ => Closing::Implied,
                };
                if end == Some("<|tool_call_end|>") {
                    self.at += 1;
                }
                match id.find('{') {
                    None if end.is_none() => self.nodes.push(Node::DroppedCall),
                    Some(brace) => self.push_call(&id[..brace], &id[brace..], closing),
                    None => self.push_call(&id, "", closing),
                }
                end.is_none().then_some(Open::CallId)
            }
        }
    }

    fn call_body(&mut self, id: &str) -> Option<Open> {
        let ignored = ["<think>", "</think>", "<|tool_calls_section_begin|>", "<|tool_call_argument_begin|>"];
        let arguments = self.inner_text(&ignored);
        let end = self.mark().map(str::to_owned);
        let closing = match end.as_deref() {
            Some("<|tool_call_end|>") => Closing::Marker,
            None if self.cut => Closing::Cut,
            _ => Closing::Implied,
        };
        if closing == Closing::Marker {
            self.at += 1;
        }
        self.push_call(id, &arguments, closing);
        self.after_tools = true;
        end.is_none().then_some(Open::CallArguments)
    }

    fn push_call(&mut self, id: &str, arguments: &str, closing: Closing) {
        let id = id.trim().to_owned();
        match tool_name(&id, &self.options.tool_names) {
            Some(name) => {
                let arguments = arguments.trim().to_owned();
                self.nodes.push(Node::Call(Call { id, name, arguments, closing: Some(closing) }));
                self.n_calls += 1;
            }
            None => self.nodes.push(Node::DroppedCall),
        }
    }
}

/// Texts by label; reasoning tokens; whether a think block was left open.
fn label(nodes: &[Node], opening: Opening) -> (Reply, usize, bool) {
    let mut reply = Reply::default();
    let mut n_reasoning = 0;
    let mut state = match opening {
        Opening::Unknown => "undecided",
        Opening::Thinking => "thinking",
        Opening::Answer => "answer",
    };
    let mut fresh = true;
    let mut at = 0;
    while at < nodes.len() {
        match (&nodes[at], state) {
            (Node::Text { text, n_tokens, .. }, "thinking") => {
                reply.reasoning.push_str(text);
                n_reasoning += n_tokens;
            }
            (Node::Text { text, after_tools, .. }, "answer") => {
                let text = if *after_tools && fresh { text.trim_start() } else { text };
                if !text.is_empty() {
                    fresh = false;
                }
                reply.content.push_str(text);
            }
            (Node::ThinkOpens, _) => state = "thinking",
            (Node::ThinkCloses, _) => state = "answer",
            (Node::Tools, "thinking") => state = "undecided",
            (Node::Text { .. } | Node::Tools | Node::Layout, "undecided") => {
                let until =
                    nodes[at..].iter().position(|n| matches!(n, Node::ThinkOpens | Node::ThinkCloses));
                let until = until.map_or(nodes.len(), |n| at + n);
                let reasoning = matches!(nodes.get(until), Some(Node::ThinkCloses));
                n_reasoning += stretch(&nodes[at..until], reasoning, &mut reply);
                at = until;
                continue;
            }
            _ => {}
        }
        if matches!(nodes[at], Node::Tools | Node::Layout | Node::Call(_) | Node::DroppedCall) {
            fresh = true;
        }
        at += 1;
    }
    (reply, n_reasoning, state == "thinking")
}

/// Joins a stretch of undecided texts and labels it; its reasoning tokens.
fn stretch(nodes: &[Node], reasoning: bool, reply: &mut Reply) -> usize {
    let mut joined = String::new();
    let (mut n, mut layout_first) = (0, None);
    for node in nodes {
        if let Node::Text { text, n_tokens, after_tools } = node {
            joined.push_str(text);
            n += n_tokens;
            if !text.is_empty() {
                layout_first.get_or_insert(*after_tools);
            }
        }
    }
    if joined.trim().is_empty() {
        return 0;
    }
    if reasoning {
        reply.reasoning.push_str(&joined);
        return n;
    }
    reply.content.push_str(if layout_first == Some(true) { joined.trim_start() } else { &joined });
    0
}
