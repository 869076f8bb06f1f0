use thiserror::Error;

/// Why a constraint could not be built or could not go on; each sentence says what its reader can change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GrammarError {
    /// The schema is larger than a written limit.
    #[error("the JSON Schema at {at} has {what} above the limit of {limit}: split it or remove parts")]
    SchemaTooLarge {
        /// JSON Pointer of the place, as a fragment (`#/properties/x`).
        at: String,
        /// What was counted.
        what: &'static str,
        /// The written limit.
        limit: usize,
    },
    /// The schema's keywords nest deeper than [`super::SCHEMA_DEPTH_MAX`], in JSON levels.
    #[error(
        "the JSON Schema nests deeper than {limit} levels at {at}: move inner parts to $defs or flatten them"
    )]
    SchemaTooDeep {
        /// JSON Pointer of the place.
        at: String,
        /// The written limit.
        limit: usize,
    },
    /// A `$ref` names a document outside the schema.
    #[error(
        "the $ref \"{reference}\" at {at} leaves the schema: copy its target under $defs and write #/$defs/NAME"
    )]
    RemoteRef {
        /// JSON Pointer of the place.
        at: String,
        /// The reference, shortened.
        reference: String,
    },
    /// A `$ref` names a place that the schema does not have.
    #[error(
        "the $ref \"{reference}\" at {at} names nothing in the schema: add the definition or correct the path"
    )]
    UnresolvedRef {
        /// JSON Pointer of the place.
        at: String,
        /// The reference, shortened.
        reference: String,
    },
    /// References lead back to themselves without entering a property or an item.
    #[error(
        "the $ref at {at} leads back to itself without entering a property or an item: break the cycle or remove it"
    )]
    CyclicRef {
        /// JSON Pointer of a place on the cycle.
        at: String,
    },
    /// Every value of the schema would be infinitely deep.
    #[error(
        "no finite value can satisfy the JSON Schema at {at}: make the recursive property optional or allow null there"
    )]
    InfiniteValue {
        /// JSON Pointer of the place.
        at: String,
    },
    /// The shortest value of the schema is longer than a completion should be.
    #[error(
        "the shortest value of the JSON Schema takes {bytes} bytes, above the limit of {limit}: lower minItems, minLength or the number of required properties"
    )]
    ValueTooLarge {
        /// Least bytes of a value.
        bytes: u64,
        /// The written limit.
        limit: u64,
    },
    /// A keyword has a value that JSON Schema does not allow there.
    #[error("the JSON Schema keyword at {at} is not usable: it should be {expected}")]
    BadKeyword {
        /// JSON Pointer of the keyword.
        at: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// A strict schema has an assertion that cannot be enforced while generating.
    #[error(
        "strict mode cannot enforce {keyword} at {at} ({reason}): remove it, or send strict = false and validate the answer"
    )]
    Unenforceable {
        /// JSON Pointer of the schema that has it.
        at: String,
        /// The keyword.
        keyword: String,
        /// Why, and what would be enforced instead.
        reason: String,
    },
    /// Tool arguments are JSON objects; this tool's schema allows none.
    #[error("the parameters of a tool must be a schema for an object: set \"type\": \"object\" at its root")]
    NotAnObject,
    /// No value at all satisfies the schema.
    #[error("no value can satisfy the JSON Schema ({reason}): relax the contradicting keywords")]
    Unsatisfiable {
        /// What contradicts.
        reason: String,
    },
    /// The schema needs more work than the written limits allow.
    #[error("the JSON Schema is too complex to enforce ({reason}): shorten patterns, enums or nesting")]
    TooComplex {
        /// Which limit was met.
        reason: String,
    },
    /// A tool's name cannot stand in a tool-call id.
    #[error(
        "the tool name {name:?} cannot be used: write 1 to {limit} of the characters A-Z a-z 0-9 _ - . $ (no space, no colon)"
    )]
    ToolName {
        /// The name, shortened.
        name: String,
        /// The written limit in bytes.
        limit: usize,
    },
    /// Two tools have the same name.
    #[error("two tools are named {name:?}: rename one of them")]
    DuplicateTool {
        /// The name.
        name: String,
    },
    /// `tool_choice` names a tool that the request does not declare.
    #[error(
        "tool_choice names {name:?}, which is not among the request's tools: declare it or choose another"
    )]
    UnknownTool {
        /// The name, shortened.
        name: String,
    },
    /// A call was asked for, but the request declares no tools.
    #[error(
        "tool_choice asks for a call, but the request declares no tools: add tools or set tool_choice to none"
    )]
    NoTools,
    /// The request declares more tools than [`super::TOOLS_MAX`].
    #[error("the request declares {n_tools} tools, above the limit of {limit}: send fewer")]
    TooManyTools {
        /// Tools in the request.
        n_tools: usize,
        /// The written limit.
        limit: usize,
    },
    /// The problem lies in one tool's `parameters`.
    #[error("tool {name:?}: {source}")]
    Tool {
        /// The tool.
        name: String,
        /// The problem.
        source: Box<GrammarError>,
    },
    /// The token may not come next.
    #[error("token {id} is not allowed here: choose one that the mask allows")]
    NotAllowed {
        /// The token id.
        id: u32,
    },
    /// The mask handed in is shorter than the vocabulary.
    #[error("the mask has {n_words} words of 32 bits, the vocabulary needs {needed}: pass a longer slice")]
    MaskTooShort {
        /// Words handed in.
        n_words: usize,
        /// Words needed.
        needed: usize,
    },
    /// The vocabulary cannot carry a grammar.
    #[error("the tokenizer cannot carry a grammar ({reason}): check the rank file")]
    Vocabulary {
        /// What is wrong.
        reason: String,
    },
    /// The parser met a written limit in the middle of a completion.
    #[error("the grammar became too complex while generating ({reason}): simplify the schema")]
    Generation {
        /// Which limit was met.
        reason: String,
    },
}
