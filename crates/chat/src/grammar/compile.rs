//! From a schema to a parser, within limits, and remembered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};
use serde_json::Value;
use toktrie::{InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::error::GrammarError;
use super::guard::{Guard, SPACE_PATTERN};
use super::loosen::{LAST_STEP, loosen, report_one_of};
use super::schema::{Prepared, Unenforced, prepare, shorten};
use crate::tokenizer::Tokenizer;

/// Most compiled schemas that a factory remembers.
pub const CACHE_ENTRIES_MAX: usize = 256;
/// Most bytes of the schemas (as JSON text) that a factory remembers.
pub const CACHE_BYTES_MAX: usize = 4 << 20;

/// Stack of the thread that compiles, of which only what is used is ever backed by memory: the work recurses once per
/// subschema along a chain of references, and the longest chain within the limits takes between 32 and 64 MiB.
const STACK_BYTES: usize = 256 << 20;

/// Escapes that the grammar allows after a backslash; `u` is added where it is safe.
const ESCAPES: &str = "nrbtf\\\"";

/// Limits of the constraint library. Fuel is counted in its own units (about 50,000 a millisecond when compiling,
/// 14,000 when masking).
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 10_000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 500_000,
        max_lexer_states: 250_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// Classes of tokens whose masks are made once: white space, and string content by length. The short lengths serve
/// strings that near their `maxLength`; without them such a mask visits the whole vocabulary.
fn slices() -> Vec<String> {
    const LENGTHS: [u32; 6] = [1, 2, 4, 7, 12, 30];
    let content = r#"[^"\\\x00-\x1F\x7F]"#;
    let mut slices = vec![r"[\x20\x0A\x0D\x09]+".to_owned()];
    slices.extend(LENGTHS.map(|n_chars| format!("{content}{{1,{n_chars}}}")));
    slices.push(format!("{content}+"));
    slices
}

/// What of a schema is not enforced, and how long its values can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The tool whose parameters this is about; `None` for a `response_format`.
    pub tool: Option<String>,
    /// Keywords that generated values may violate.
    pub unenforced: Vec<Unenforced>,
    /// Most bytes of a value with all white space; `None` for a schema that bounds no length. A schema with a bound
    /// is called *bounded*: its strings have `maxLength` (or `enum`, `const`, or a format of fixed length), its arrays
    /// `maxItems`, its objects no further properties, and it does not recurse.
    pub bytes_max: Option<u64>,
}

/// A compiled schema, fresh.
pub(super) struct Template {
    pub(super) matcher: Matcher,
    pub(super) unenforced: Vec<Unenforced>,
    pub(super) bytes_max: Option<u64>,
}

/// Compiles constraints for one vocabulary; make it once and share it.
pub struct GrammarFactory {
    pub(super) vocab: Arc<Vocab>,
    parsers: ParserFactory,
    cache: Mutex<Cache>,
}

/// The vocabulary as the parsers see it.
pub(super) struct Vocab {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) env: TokEnv,
    pub(super) guard: Guard,
}

impl Vocab {
    pub(super) fn trie(&self) -> &TokTrie {
        self.env.tok_trie()
    }

    /// Words of 32 bits that a mask needs.
    pub(super) fn n_words(&self) -> usize {
        self.tokenizer.n_vocab().div_ceil(32)
    }

    /// First special id; all below are text.
    pub(super) fn n_ranks(&self) -> u32 {
        self.tokenizer.n_ranks() as u32
    }
}

/// The tokenizer behind the constraint library's trait.
struct Env {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
}

impl TokenizerEnv for Env {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| self.tokenizer.encode_ordinary(text))
    }
}

impl GrammarFactory {
    /// Prepares the vocabulary: about half a second for 163,840 tokens.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] when the tokenizer's vocabulary cannot carry a grammar.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Result<Self, GrammarError> {
        let vocabulary =
            |error: &dyn std::fmt::Display| GrammarError::Vocabulary { reason: error.to_string() };
        let n_vocab = u32::try_from(tokenizer.n_vocab()).map_err(|error| vocabulary(&error))?;
        let words: Vec<Vec<u8>> = (0..n_vocab).map(|id| word(&tokenizer, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(n_vocab, tokenizer.markers().im_end), &words);
        let guard = Guard::new(&trie, tokenizer.n_ranks() as u32);
        let env: TokEnv = Arc::new(Env { tokenizer: Arc::clone(&tokenizer), trie });
        let capabilities = InferenceCapabilities { ff_tokens: true, ..Default::default() };
        let mut parsers =
            ParserFactory::new(&env, capabilities, &slices()).map_err(|error| vocabulary(&error))?;
        parsers.quiet();
        *parsers.limits_mut() = limits();
        let vocab = Arc::new(Vocab { tokenizer, env, guard });
        Ok(Self { vocab, parsers, cache: Mutex::default() })
    }

    /// The parser of a schema's values; `object_only` for tool arguments, `is_strict` refuses what cannot be enforced.
    pub(super) fn template(
        &self,
        schema: &Value,
        object_only: bool,
        is_strict: bool,
    ) -> Result<Arc<Template>, GrammarError> {
        let key = (object_only, schema.to_string());
        let cached = self.cache().get(&key);
        let template = match cached {
            Some(template) => template,
            None => {
                let template = Arc::new(self.compile(schema, object_only)?);
                self.cache().put(key, Arc::clone(&template));
                template
            }
        };
        match template.unenforced.iter().find(|entry| is_strict && entry.is_assertion) {
            None => Ok(template),
            Some(Unenforced { at, keyword, reason, .. }) => Err(GrammarError::Unenforceable {
                at: shorten(at),
                keyword: keyword.clone(),
                reason: reason.clone(),
            }),
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        // A cache is whole between calls, whatever the thread that held it did.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, schema: &Value, object_only: bool) -> Result<Template, GrammarError> {
        std::thread::scope(|scope| {
            let work = || self.compile_looser(prepare(schema, object_only)?);
            let thread = std::thread::Builder::new().name("grammar".into()).stack_size(STACK_BYTES);
            let no_thread = |reason: String| GrammarError::TooComplex { reason };
            let handle = thread.spawn_scoped(scope, work).map_err(|error| no_thread(error.to_string()))?;
            handle.join().unwrap_or_else(|_| Err(no_thread("the compiler stopped".into())))
        })
    }

    /// Tries the schema as prepared, then ever looser ones until one compiles.
    fn compile_looser(&self, mut prepared: Prepared) -> Result<Template, GrammarError> {
        let escapes = prepared.unicode_escapes;
        let mut coerce_one_of = false;
        let mut step = 0;
        loop {
            let error = match self.parser(&prepared.schema, escapes, coerce_one_of) {
                Ok(matcher) => {
                    let Prepared { mut unenforced, max_bytes, .. } = prepared;
                    let mut seen = HashSet::new();
                    unenforced.retain(|entry| seen.insert((entry.at.clone(), entry.keyword.clone())));
                    return Ok(Template { matcher, unenforced, bytes_max: max_bytes });
                }
                Err(reason) => reason,
            };
            refusal(&error)?;
            if error.contains("oneOf") && !coerce_one_of {
                coerce_one_of = true;
                report_one_of(&mut prepared);
                continue;
            }
            let reason = first_line(&error);
            let compiles = |part: &Value| self.parser(part, escapes, coerce_one_of).is_ok();
            let Some(done) = (step..=LAST_STEP).find(|step| loosen(&mut prepared, *step, &reason, compiles))
            else {
                return Err(GrammarError::TooComplex { reason });
            };
            prepared.max_bytes = None;
            step = done + 1;
        }
    }

    fn parser(&self, schema: &Value, unicode_escapes: bool, coerce_one_of: bool) -> Result<Matcher, String> {
        let mut escapes = ESCAPES.to_owned();
        if unicode_escapes {
            escapes.push('u');
        }
        let options = JsonCompileOptions {
            whitespace_pattern: Some(SPACE_PATTERN.to_owned()),
            coerce_one_of,
            json_allowed_escapes: Some(escapes),
            json_allow_general_unicode_escapes: unicode_escapes,
            ..JsonCompileOptions::default()
        };
        let mut schema = schema.clone();
        options.apply_to(&mut schema);
        let parser = self.parsers.create_parser(TopLevelGrammar::from_json_schema(schema));
        Ok(Matcher::new(Ok(parser.map_err(|error| format!("{error:#}"))?)))
    }
}

/// The bytes of a token for the trie; special ids get a prefix that no text has.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let mut word = if tokenizer.is_special(id) { vec![TokTrie::SPECIAL_TOKEN_MARKER] } else { Vec::new() };
    word.extend_from_slice(tokenizer.token_bytes(id).unwrap_or_default());
    word
}

/// Errors that no looser schema mends.
fn refusal(error: &str) -> Result<(), GrammarError> {
    let reason = first_line(error);
    if error.contains("Unsatisfiable") {
        return Err(GrammarError::Unsatisfiable { reason });
    }
    let over_limit = ["too big", "too large", "fuel", "stack level", "limits."];
    if over_limit.iter().any(|words| error.contains(words)) {
        return Err(GrammarError::TooComplex { reason });
    }
    Ok(())
}

fn first_line(error: &str) -> String {
    shorten(error.lines().next().unwrap_or_default().trim())
}

/// Compiled schemas by source, oldest out first.
#[derive(Default)]
struct Cache {
    entries: HashMap<(bool, String), Arc<Template>>,
    order: VecDeque<(bool, String)>,
    n_bytes: usize,
}

impl Cache {
    fn get(&self, key: &(bool, String)) -> Option<Arc<Template>> {
        self.entries.get(key).cloned()
    }

    fn put(&mut self, key: (bool, String), template: Arc<Template>) {
        if key.1.len() > CACHE_BYTES_MAX || self.entries.contains_key(&key) {
            return;
        }
        self.n_bytes += key.1.len();
        self.order.push_back(key.clone());
        self.entries.insert(key, template);
        while self.entries.len() > CACHE_ENTRIES_MAX || self.n_bytes > CACHE_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            self.n_bytes -= oldest.1.len();
            self.entries.remove(&oldest);
        }
    }
}
