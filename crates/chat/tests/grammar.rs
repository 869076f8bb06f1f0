//! Forced completions, walks through the tool envelope, masks against brute force, and hostile schemas.

#[path = "support/costly.rs"]
mod costly;
#[allow(dead_code)] // Shared with other tests.
#[path = "support/forced.rs"]
mod forced;
#[path = "support/random_schema.rs"]
mod random_schema;
#[allow(dead_code)] // Shared with other tests.
#[path = "support/vocab.rs"]
mod vocab;

use costly::{Outcome, costly, nested};
use forced::{Judge, Rng, allowed, bounded_tools, choose, complete, read_section};
use perilune_chat::grammar::{
    Constraint, ConstraintSpec, GrammarError, ResponseFormat, StartsIn, ToolChoice, ToolSpec, Tools,
};
use perilune_chat::tokenizer::{SpecialText, Tokenizer};
use random_schema::random_schema;
use serde_json::{Value, json};
use vocab::Vocab;

/// Tokens after which a completion counts as failed.
const N_TOKENS_MAX: usize = 8_192;

fn specs(tools: &[(&str, Value)]) -> Vec<ToolSpec> {
    tools
        .iter()
        .map(|(name, schema)| ToolSpec {
            name: (*name).into(),
            parameters: Some(schema.clone()),
            strict: false,
        })
        .collect()
}

/// Tools for the walks: one name begins with the other.
fn two_tools() -> Tools {
    let weather = json!({"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 14}}, "required": ["city"]});
    let nothing = json!({"type": "object", "properties": {}});
    Tools {
        specs: specs(&[("get_weather", weather), ("get", nothing)]),
        next_call_idx: 7,
        ..Tools::default()
    }
}

// --- Forced completions -----------------------------------------------------------------------------------------

fn soak(vocab: &Vocab, n_completions: u64, seed: u64) {
    let tools = bounded_tools();
    let judges: Vec<Judge> = tools.iter().map(|(_, schema)| Judge::new(schema)).collect();
    for completion in 0..n_completions {
        let mut rng = Rng(seed + completion);
        let next_call_idx = rng.below(100) as u32;
        let request =
            Tools { specs: specs(&tools), choice: ToolChoice::Required, next_call_idx, ..Tools::default() };
        let mut constraint = vocab.factory.tool_calls(request, StartsIn::Answer).expect("the tools compile");
        let context = format!("seed {}", seed + completion);
        assert!(
            constraint.reports().iter().all(|report| report.bytes_max.is_some()),
            "a tool is not bounded"
        );
        let ids = complete(&mut constraint, &mut rng, N_TOKENS_MAX)
            .unwrap_or_else(|error| panic!("{context}: {error}"))
            .unwrap_or_else(|| panic!("{context}: more than {N_TOKENS_MAX} tokens"));
        let calls = read_section(&vocab.tokenizer, &ids).unwrap_or_else(|error| panic!("{context}: {error}"));
        for (nth, call) in calls.iter().enumerate() {
            let tool = tools.iter().position(|(name, _)| *name == call.name);
            let tool = tool.unwrap_or_else(|| panic!("{context}: undeclared {:?}", call.name));
            assert_eq!(call.idx, next_call_idx + nth as u32, "{context}: {call:?}");
            let value: Value = serde_json::from_str(&call.arguments)
                .unwrap_or_else(|error| panic!("{context}: {error} in {}", call.arguments));
            judges[tool]
                .check(&value)
                .unwrap_or_else(|error| panic!("{context}: {error} in {}", call.arguments));
        }
    }
}

#[test]
fn forced_completions_parse_and_validate() {
    soak(vocab::small(), 150, 1);
}

#[test]
fn forced_completions_parse_and_validate_on_the_published_vocabulary() {
    if let Some(vocab) = vocab::published("forced completions on the published vocabulary") {
        soak(&vocab, 30, 10_000);
    }
}

#[test]
fn forced_json_answers_validate() {
    let vocab = vocab::small();
    for (tool, (name, schema)) in bounded_tools().into_iter().enumerate() {
        let judge = Judge::new(&schema);
        for seed in 0..4 {
            let mut rng = Rng(1_000 * tool as u64 + seed);
            let mut constraint =
                vocab.factory.json_schema(&schema, true, StartsIn::Answer).expect("the schema compiles");
            let ids = complete(&mut constraint, &mut rng, N_TOKENS_MAX).expect("no limit is met");
            let ids = ids.unwrap_or_else(|| panic!("{name} seed {seed}: too many tokens"));
            let (end, body) = ids.split_last().expect("the turn has an end");
            assert_eq!(*end, vocab.tokenizer.markers().im_end);
            let value =
                serde_json::from_slice(&vocab.tokenizer.decode_bytes(body)).expect("the answer is JSON");
            judge.check(&value).unwrap_or_else(|error| panic!("{name} seed {seed}: {error}"));
        }
    }
}

// --- Walks ------------------------------------------------------------------------------------------------------

/// A constraint being fed text with markers, as `<|tool_call_begin|>functions.get:7`.
struct Walk {
    constraint: Constraint,
    tokenizer: &'static Tokenizer,
}

impl Walk {
    fn new(spec: &ConstraintSpec) -> Self {
        let vocab = vocab::small();
        let constraint = vocab.factory.constraint(spec).expect("the request compiles");
        Self { constraint, tokenizer: &vocab.tokenizer }
    }

    fn tools(tools: Tools, starts_in: StartsIn) -> Self {
        Self::new(&ConstraintSpec { tools, starts_in, ..ConstraintSpec::default() })
    }

    fn allows(&mut self, id: u32) -> bool {
        let mut mask = vec![0; self.constraint.n_mask_words()];
        self.constraint.fill_mask(&mut mask).expect("the state has a mask");
        allowed(&mask).contains(&id)
    }

    /// Every token of `text` is allowed and accepted, in the tokenizer's own cut.
    fn takes(mut self, text: &str) -> Self {
        for id in self.tokenizer.encode(text, SpecialText::AsTokens) {
            let token =
                String::from_utf8_lossy(self.tokenizer.token_bytes(id).expect("a token")).into_owned();
            assert!(self.allows(id), "{token:?} of {text:?} is masked");
            self.constraint.accept(id).unwrap_or_else(|error| panic!("{token:?} of {text:?}: {error}"));
        }
        self
    }

    /// The first token of each text is masked and refused, and the refusal changes nothing.
    fn refuses(mut self, texts: &[&str]) -> Self {
        for text in texts {
            let id = self.tokenizer.encode(text, SpecialText::AsTokens)[0];
            assert!(!self.allows(id), "{text:?} is allowed");
            assert_eq!(self.constraint.accept(id), Err(GrammarError::NotAllowed { id }), "{text:?}");
        }
        self
    }

    /// Only these markers may follow.
    fn only(mut self, markers: &[&str]) -> Self {
        let mut mask = vec![0; self.constraint.n_mask_words()];
        self.constraint.fill_mask(&mut mask).expect("the state has a mask");
        let mut expect: Vec<u32> =
            markers.iter().map(|name| self.tokenizer.special_id(name).expect("a marker")).collect();
        expect.sort_unstable();
        assert_eq!(allowed(&mask), expect, "expected only {markers:?}");
        self
    }

    fn forces(mut self, text: &str) -> Self {
        let expect = self.tokenizer.encode(text, SpecialText::AsTokens);
        assert_eq!(self.constraint.forced(), expect, "expected {text:?} to be forced");
        self
    }

    fn completes(self, expect: bool) -> Self {
        assert_eq!(self.constraint.is_complete(), expect);
        self
    }
}

const SECTION: &str = "<|tool_calls_section_begin|>";
const SECTION_END: &str = "<|tool_calls_section_end|>";
const CALL: &str = "<|tool_call_begin|>";
const ARGUMENTS: &str = "<|tool_call_argument_begin|>";
const CALL_END: &str = "<|tool_call_end|>";

#[test]
fn auto_leaves_text_free_and_makes_the_section_exact() {
    Walk::tools(two_tools(), StartsIn::Turn)
        .takes("<think>Which city? {\"a\"</think>I look it up.")
        .refuses(&[CALL, ARGUMENTS, CALL_END, SECTION_END])
        .takes(SECTION)
        .only(&[CALL])
        .forces(CALL)
        .takes(CALL)
        .refuses(&["a", "F", "{", ARGUMENTS, "<|im_end|>"])
        .takes("functions.get")
        .refuses(&["x", ARGUMENTS, " "])
        .takes("_weather:")
        .refuses(&["8", "0", ARGUMENTS])
        .takes("7")
        .only(&[ARGUMENTS])
        .takes(ARGUMENTS)
        .refuses(&["[", "\"", "}", " ", CALL_END, "<|im_end|>"])
        .takes("{\"city\": \"Beijing\"")
        .refuses(&["]", CALL_END])
        .takes("}")
        .only(&[CALL_END])
        .takes(CALL_END)
        .only(&[CALL, SECTION_END])
        .takes(CALL)
        .takes("functions.get:8")
        .takes(ARGUMENTS)
        .takes("{}")
        .takes(CALL_END)
        .takes(SECTION_END)
        .only(&["<|im_end|>"])
        .forces("<|im_end|>")
        .completes(false)
        .takes("<|im_end|>")
        .completes(true)
        .only(&["<|im_end|>"]);
}

#[test]
fn arguments_follow_the_schema() {
    let at_arguments = || {
        Walk::tools(two_tools(), StartsIn::Answer)
            .takes(&format!("{SECTION}{CALL}functions.get_weather:7{ARGUMENTS}"))
    };
    at_arguments().takes("{").refuses(&["}", "city", "1", "{"]).takes("\"").refuses(&["x", "days"]);
    at_arguments().takes("{\"city\":").refuses(&["1", "null", "[", "{"]).takes("\"a\"").refuses(&["\""]);
    at_arguments()
        .takes("{\"city\":\"a\",")
        .refuses(&["}"])
        .takes("\"")
        .refuses(&["city", "x"])
        .takes("days\":");
    at_arguments()
        .takes("{\"city\":\"a\",\"days\":1")
        .refuses(&["5", "e", "."])
        .takes("4")
        .refuses(&["0"])
        .takes("}");
    at_arguments().takes("{\n  \"city\": \"a\",\n  \"days\": 3\n}").only(&[CALL_END]);
    at_arguments()
        .takes("{    \"city\"\n\t")
        .refuses(&["\n"])
        .takes(": \"\\n\\u00e9\"    ")
        .refuses(&[" ", "\n"]);
}

#[test]
fn calls_may_open_inside_thinking() {
    Walk::tools(two_tools(), StartsIn::Turn)
        .takes("<think>I need it now")
        .takes(&format!("{SECTION}{CALL}functions.get:7{ARGUMENTS}{{}}{CALL_END}{SECTION_END}<|im_end|>"))
        .completes(true);
}

#[test]
fn auto_may_end_without_a_call() {
    Walk::tools(two_tools(), StartsIn::Turn).takes("<think></think>Sunny.<|im_end|>").completes(true);
    Walk::tools(two_tools(), StartsIn::Turn).takes("Sunny.[EOS]").completes(true).refuses(&["a", SECTION]);
}

#[test]
fn required_calls_before_the_end() {
    let tools = || Tools { choice: ToolChoice::Required, ..two_tools() };
    Walk::tools(tools(), StartsIn::Turn)
        .only(&["<think>", SECTION])
        .takes("<think>Hm.")
        .refuses(&["<|im_end|>", "[EOS]", "[EOT]", CALL, "<|im_user|>"])
        .takes("</think>")
        .only(&[SECTION])
        .forces(&format!("{SECTION}{CALL}"))
        .takes(SECTION)
        .refuses(&[SECTION_END, "<|im_end|>"]);
    Walk::tools(tools(), StartsIn::Thinking).takes("Hm.").takes(SECTION).only(&[CALL]);
    Walk::tools(tools(), StartsIn::Answer).only(&[SECTION]);
}

#[test]
fn a_named_tool_is_called_once() {
    let tools = Tools { choice: ToolChoice::Named("get_weather".into()), ..two_tools() };
    Walk::tools(tools, StartsIn::Answer)
        .takes(&format!("{SECTION}{CALL}"))
        .forces(&format!("functions.get_weather:7{ARGUMENTS}"))
        .takes("functions.get")
        .refuses(&[":"])
        .takes(&format!("_weather:7{ARGUMENTS}{{\"city\":\"\"}}{CALL_END}"))
        .only(&[SECTION_END])
        .forces(&format!("{SECTION_END}<|im_end|>"));
}

#[test]
fn without_parallel_calls_there_is_one() {
    let tools = Tools { parallel: false, ..two_tools() };
    Walk::tools(tools, StartsIn::Answer)
        .takes(&format!("{SECTION}{CALL}functions.get:7{ARGUMENTS}{{}}{CALL_END}"))
        .only(&[SECTION_END]);
}

#[test]
fn choice_none_closes_the_section() {
    let tools = Tools { choice: ToolChoice::None, ..two_tools() };
    Walk::tools(tools, StartsIn::Turn)
        .takes("<think>x</think>y")
        .refuses(&[SECTION, CALL])
        .takes("<|im_end|>");
}

#[test]
fn json_answers_follow_thinking() {
    let spec =
        |tools| ConstraintSpec { tools, response_format: ResponseFormat::JsonObject, ..Default::default() };
    Walk::new(&spec(Tools::default()))
        .refuses(&["a", "[", "<|im_end|>", SECTION])
        .takes("<think>Free [text].")
        .refuses(&["<|im_end|>", SECTION])
        .takes("</think>")
        .refuses(&["a", "[", "<think>", "<|im_end|>"])
        .takes("{\"a\": [1, -2.5e3, true, null, {\"b\": \"c\"}]}")
        .only(&["<|im_end|>"])
        .takes("<|im_end|>")
        .completes(true);
    Walk::new(&spec(two_tools())).takes("<think>x</think>").takes(SECTION).only(&[CALL]);
    Walk::new(&spec(two_tools())).takes("{\"k\":1}").only(&["<|im_end|>"]);
}

#[test]
fn numbers_and_depth_cannot_run_away() {
    let spec = ConstraintSpec {
        response_format: ResponseFormat::JsonSchema { schema: json!({}), strict: true },
        starts_in: StartsIn::Answer,
        ..Default::default()
    };
    let digits = "3".repeat(40);
    Walk::new(&spec).takes(&format!("0.{digits}")).refuses(&["3", "33"]).takes("e+12").refuses(&["3"]);
    Walk::new(&spec).takes(&digits).refuses(&["3"]).takes(".5");
    Walk::new(&spec).takes(&"[".repeat(100)).refuses(&["[", "{"]).takes("1").takes(&"]".repeat(100));
    let schema = json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1});
    let spec =
        ConstraintSpec { response_format: ResponseFormat::JsonSchema { schema, strict: true }, ..spec };
    // Nothing but digits can follow, so that the limit gives way.
    Walk::new(&spec)
        .takes(&format!("0.{}", "000".repeat(13)))
        .refuses(&["000"])
        .takes("0")
        .refuses(&["}", "<|im_end|>"])
        .takes("000")
        .takes("1<|im_end|>");
}

// --- Masks against brute force ----------------------------------------------------------------------------------

/// Checks at every position of random completions that the mask is what can be accepted and gone on from.
fn compare_with_brute_force(vocab: &Vocab, tools: &[(&str, Value)], seed: u64, every: usize) {
    let mut rng = Rng(seed);
    let request = Tools { specs: specs(tools), choice: ToolChoice::Required, ..Tools::default() };
    let mut constraint = vocab.factory.tool_calls(request, StartsIn::Turn).expect("the tools compile");
    let n_vocab = vocab.tokenizer.n_vocab() as u32;
    let mut mask = vec![0; constraint.n_mask_words()];
    let mut beyond = vec![0; constraint.n_mask_words()];
    for position in 0..400 {
        if constraint.is_complete() {
            break;
        }
        constraint.fill_mask(&mut mask).expect("the state has a mask");
        let masked = allowed(&mask);
        if position % every == 0 {
            let forced = constraint.forced();
            let alive: Vec<u32> = (0..n_vocab)
                .filter(|id| {
                    let mut ahead = constraint.clone();
                    ahead.accept(*id).is_ok()
                        && ahead.fill_mask(&mut beyond).is_ok()
                        && beyond.iter().any(|word| *word != 0)
                })
                .collect();
            // Inside JSON, where the text goes on in one way only, the mask keeps to the tokenizer's own cut.
            let is_cut = masked.len() == 1 && forced.first() == masked.first() && alive.contains(&masked[0]);
            assert!(masked == alive || is_cut, "seed {seed}, position {position}: {masked:?}, {alive:?}");
        }
        constraint.accept(choose(&mask, &mut rng)).expect("an allowed token is accepted");
    }
}

#[test]
fn masks_are_what_can_be_accepted() {
    for seed in 0..6 {
        compare_with_brute_force(vocab::small(), &bounded_tools(), seed, 7);
    }
}

#[test]
fn masks_are_what_can_be_accepted_on_the_published_vocabulary() {
    if let Some(vocab) = vocab::published("masks by brute force on the published vocabulary") {
        compare_with_brute_force(&vocab, &bounded_tools(), 1, 40);
    }
}

/// Texts of a finite language, by enumeration, against the masks of its grammar: no code in common.
#[test]
fn masks_are_exact_on_a_finite_language() {
    let vocab = vocab::small();
    let schema = json!({"enum": ["a", "ab", "abc\"", "日本", "日本語", 12, 120, true, null]});
    let texts: Vec<Vec<u8>> =
        schema["enum"].as_array().expect("an array").iter().map(|v| v.to_string().into_bytes()).collect();
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let mut constraint =
            vocab.factory.json_schema(&schema, true, StartsIn::Answer).expect("the enum compiles");
        let mut mask = vec![0; constraint.n_mask_words()];
        let mut written: Vec<u8> = Vec::new();
        // The first position also allows opening a think block in other starts; here it is the value's own.
        while !constraint.is_complete() {
            constraint.fill_mask(&mut mask).expect("the state has a mask");
            let goes_on = |id: &u32| {
                let bytes = vocab.tokenizer.token_bytes(*id).unwrap_or_default();
                texts
                    .iter()
                    .any(|text| text.strip_prefix(&written[..]).is_some_and(|rest| rest.starts_with(bytes)))
            };
            let mut expect: Vec<u32> = (0..vocab.tokenizer.n_ranks() as u32).filter(goes_on).collect();
            if texts.contains(&written) {
                expect.push(vocab.tokenizer.markers().im_end);
            }
            let found = allowed(&mask);
            let forced = constraint.forced();
            if forced.is_empty() {
                assert_eq!(found, expect, "seed {seed} after {:?}", String::from_utf8_lossy(&written));
            } else {
                assert!(found == expect || found == forced[..1], "seed {seed}: {found:?}, {expect:?}");
            }
            let id = choose(&mask, &mut rng);
            constraint.accept(id).expect("an allowed token is accepted");
            if (id as usize) < vocab.tokenizer.n_ranks() {
                written.extend_from_slice(vocab.tokenizer.token_bytes(id).expect("a token"));
            }
        }
        assert!(texts.contains(&written), "seed {seed}");
    }
}

#[test]
fn forced_tokens_are_allowed_in_turn() {
    let vocab = vocab::small();
    let (mut n_forced, mut n_chosen) = (0, 0);
    for seed in 0..20 {
        let mut rng = Rng(seed);
        let tools =
            Tools { specs: specs(&bounded_tools()), choice: ToolChoice::Required, ..Tools::default() };
        let mut constraint = vocab.factory.tool_calls(tools, StartsIn::Answer).expect("the tools compile");
        let mut mask = vec![0; constraint.n_mask_words()];
        let mut ids = Vec::new();
        while !constraint.is_complete() {
            for id in constraint.forced() {
                constraint.fill_mask(&mut mask).expect("the state has a mask");
                assert!(allowed(&mask).contains(&id), "seed {seed}: forced {id} is masked");
                constraint.accept(id).expect("a forced token is accepted");
                ids.push(id);
                n_forced += 1;
            }
            if !constraint.is_complete() {
                constraint.fill_mask(&mut mask).expect("the state has a mask");
                let id = choose(&mask, &mut rng);
                constraint.accept(id).expect("an allowed token is accepted");
                ids.push(id);
                n_chosen += 1;
            }
        }
        read_section(&vocab.tokenizer, &ids).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    assert!(n_forced * 10 > n_chosen, "{n_forced} forced, {n_chosen} chosen");
}

#[test]
fn a_clone_goes_its_own_way() {
    let walk = Walk::tools(two_tools(), StartsIn::Answer)
        .takes(&format!("{SECTION}{CALL}functions.get_weather:7{ARGUMENTS}{{\"city\""));
    let other = Walk { constraint: walk.constraint.clone(), tokenizer: walk.tokenizer };
    walk.takes(": \"a\"}").only(&[CALL_END]);
    other.refuses(&["}"]).takes(":\"b\",").takes("\"days\":3}").only(&[CALL_END]);
}

fn is_send<T: Send>(_: &T) {}

#[test]
fn constraints_and_factories_cross_threads() {
    let vocab = vocab::small();
    is_send(&vocab.factory.json_object(StartsIn::Answer).expect("it compiles"));
    std::thread::scope(|scope| {
        for seed in 0..2 {
            scope.spawn(move || soak(vocab, 5, 500 + seed));
        }
    });
}

// --- Requests that are refused ----------------------------------------------------------------------------------

fn refusal(schema: &Value) -> String {
    let result = vocab::small().factory.json_schema(schema, false, StartsIn::Answer);
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn hostile_schemas_are_refused_with_a_sentence() {
    let wide: serde_json::Map<String, Value> =
        (0..400_000).map(|idx| (format!("property_{idx}"), json!({"type": "string"}))).collect();
    let many: Vec<Value> = (0..6_000).map(Value::from).collect();
    let patterns: serde_json::Map<String, Value> =
        (0..101).map(|idx| (format!("^p{idx}$"), json!({}))).collect();
    let grow = |schema: Value| json!({"type": "array", "items": schema, "minItems": 1000});
    let cases = [
        ("remote", json!({"$ref": "https://example.org/x.json#/a"}), "copy its target under $defs"),
        ("file", json!({"properties": {"a": {"$ref": "other.json"}}}), "copy its target under $defs"),
        ("missing", json!({"$ref": "#/$defs/nope"}), "names nothing in the schema"),
        ("self", json!({"$ref": "#"}), "leads back to itself"),
        (
            "cycle",
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}}),
            "leads back to itself",
        ),
        (
            "infinite",
            json!({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}),
            "no finite value",
        ),
        (
            "infinite items",
            json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
            "no finite value",
        ),
        ("10 MB", json!({"type": "object", "properties": wide}), "above the limit of 262144"),
        ("10 MB of text", json!({"const": "x".repeat(10_000_000)}), "above the limit of 262144"),
        ("enum", json!({"enum": many}), "enum values above the limit of 5000"),
        ("patterns", json!({"patternProperties": patterns}), "patterns above the limit of 100"),
        ("long pattern", json!({"pattern": "a".repeat(2_000)}), "bytes in a pattern above the limit"),
        ("deep", nested(200, json!({}), |inner| json!({"not": inner})), "nests deeper than 100"),
        ("minItems", json!({"type": "array", "minItems": 1_000_000_000_000_u64}), "shortest value"),
        ("minItems product", nested(3, json!({"type": "null"}), grow), "shortest value"),
        ("minLength", json!({"type": "string", "minLength": 10_000_000}), "shortest value"),
        ("type", json!({"type": "dict"}), "one or more of null, boolean"),
        ("properties", json!({"properties": ["a"]}), "an object of schemas"),
        ("number for a schema", json!({"items": 5}), "a schema (an object, true or false)"),
        ("count", json!({"maxLength": -1}), "an integer of at least 0"),
        ("false", json!(false), "no value can satisfy"),
        ("contradiction", json!({"type": "integer", "minimum": 5, "maximum": 4}), "no value can satisfy"),
        (
            "empty pattern",
            json!({"type": "string", "pattern": "^a$", "minLength": 3}),
            "no value can satisfy",
        ),
    ];
    for (name, schema, expect) in cases {
        let found = refusal(&schema);
        assert!(found.contains(expect), "{name}: {found:?}");
        assert!(found.len() < 600 && !found.contains('\n'), "{name}: {found:?} is not one sentence");
    }
}

/// Each of these is refused or enforced; the work is bounded.
#[test]
fn costly_schemas_are_enforced_or_refused() {
    enforce_or_refuse(vocab::small());
}

#[test]
fn costly_schemas_are_enforced_or_refused_on_the_published_vocabulary() {
    if let Some(vocab) = vocab::published("costly schemas on the published vocabulary") {
        enforce_or_refuse(&vocab);
    }
}

fn enforce_or_refuse(vocab: &Vocab) {
    for (name, expect, schema) in costly() {
        let (outcome, detail) = match vocab.factory.json_schema(&schema, false, StartsIn::Answer) {
            Err(error) => (Outcome::Refused, error.to_string()),
            Ok(mut constraint) => match complete(&mut constraint, &mut Rng(1), 300) {
                Err(error) => (Outcome::MeetsLimit, error.to_string()),
                Ok(_) if constraint.reports()[0].unenforced.is_empty() => (Outcome::Enforced, String::new()),
                Ok(_) => (Outcome::Looser, format!("{:?}", constraint.reports()[0].unenforced)),
            },
        };
        let as_expected = outcome == expect || (outcome, expect) == (Outcome::Enforced, Outcome::MeetsLimit);
        assert!(as_expected, "{name}: {outcome:?}, expected {expect:?}: {detail}");
        assert!(!detail.contains('\n'), "{name}: {detail} is more than a sentence");
    }
}

#[test]
fn bad_tools_are_refused_with_a_sentence() {
    let object = || json!({"type": "object"});
    let check = |tools: Tools, expect: &str| {
        let found = vocab::small().factory.tool_calls(tools, StartsIn::Turn).err();
        let found = found.map(|error| error.to_string()).unwrap_or_default();
        assert!(found.contains(expect), "expected {expect:?}, found {found:?}");
    };
    let with = |specs: Vec<ToolSpec>| Tools { specs, ..Tools::default() };
    for name in ["", "a b", "a:1", "<|im_end|>", "名", "functions\n", &"x".repeat(129)] {
        check(with(specs(&[(name, object())])), "tool name");
    }
    check(with(specs(&[("a", object()), ("a", object())])), "two tools are named \"a\"");
    check(with(specs(&[("a", json!({"type": "string"}))])), "tool \"a\": the parameters of a tool must be");
    check(with(specs(&[("a", json!({"$ref": "http://x/y"}))])), "tool \"a\": the $ref");
    check(Tools { choice: ToolChoice::Named("b".into()), ..with(specs(&[("a", object())])) }, "not among");
    check(Tools { choice: ToolChoice::Required, ..Tools::default() }, "declares no tools");
    let negation = ToolSpec { name: "a".into(), parameters: Some(json!({"not": {}})), strict: true };
    check(with(vec![negation]), "strict mode cannot enforce not at #");
    let many: Vec<ToolSpec> =
        (0..129).map(|idx| ToolSpec { name: format!("t{idx}"), parameters: None, strict: false }).collect();
    check(with(many), "129 tools, above the limit of 128");
    let large = json!({"type": "object", "description": "d".repeat(200_000)});
    let many: Vec<ToolSpec> = (0..6)
        .map(|idx| ToolSpec { name: format!("t{idx}"), parameters: Some(large.clone()), strict: false })
        .collect();
    check(with(many), "all tools has bytes above the limit");
}

#[test]
fn a_tool_without_parameters_takes_none() {
    let tools = Tools {
        specs: vec![ToolSpec { name: "ping".into(), parameters: None, strict: false }],
        ..Tools::default()
    };
    Walk::tools(tools, StartsIn::Answer)
        .takes(&format!("{SECTION}{CALL}functions.ping:0{ARGUMENTS}{{"))
        .refuses(&["\""])
        .takes("}")
        .only(&[CALL_END]);
}

#[test]
fn an_object_without_properties_is_open_unless_it_is_all_a_tool_takes() {
    let nested = json!({"type": "object", "properties": {"filter": {"type": "object", "properties": {}}}});
    let nothing = json!({"$schema": "x", "type": "object", "properties": {}, "required": []});
    let tools = |schema: &Value| Tools { specs: specs(&[("t", schema.clone())]), ..Tools::default() };
    let begin = format!("{SECTION}{CALL}functions.t:0{ARGUMENTS}{{");
    Walk::tools(tools(&nested), StartsIn::Answer)
        .takes(&begin)
        .takes("\"filter\": {\"x\": 1}}")
        .only(&[CALL_END]);
    Walk::tools(tools(&nothing), StartsIn::Answer).takes(&begin).refuses(&["\""]).takes("}");
    Walk::tools(tools(&json!({"type": "object"})), StartsIn::Answer)
        .takes(&begin)
        .takes("\"x\": 1}")
        .only(&[CALL_END]);
}

#[test]
fn an_escaped_name_cannot_dodge_a_declared_one() {
    let schema = |more: Value| json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": more});
    let walk = |schema| {
        Walk::new(&ConstraintSpec {
            response_format: ResponseFormat::JsonSchema { schema, strict: true },
            starts_in: StartsIn::Answer,
            ..Default::default()
        })
    };
    // Were U+0061 allowed here, {"\u0061": "x"} would give the property "a" a text.
    walk(schema(json!({"type": "string"}))).takes("{\"\\").refuses(&["u"]).takes("n\": \"\\").refuses(&["u"]);
    walk(json!({"type": "object"})).takes("{\"\\u0061\": \"\\ud83d\\ude42\\").refuses(&["x", "/"]);
    walk(json!({"type": "string"})).takes("\"\\ud83d").refuses(&["x", "\""]).takes("\\ude42\"");
}

fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(map) => map.values().any(has_float),
        _ => false,
    }
}

/// What is generated under a random schema is valid by it, keyword for keyword.
#[test]
fn random_schemas_give_valid_values() {
    let vocab = vocab::small();
    let (mut n_judged, mut n_refused) = (0, 0);
    for seed in 0..400 {
        let mut rng = Rng(seed);
        let schema = random_schema(&mut rng);
        let mut constraint = match vocab.factory.json_schema(&schema, false, StartsIn::Answer) {
            Ok(constraint) => constraint,
            Err(error) => {
                let is_known = matches!(
                    error,
                    GrammarError::Unsatisfiable { .. }
                        | GrammarError::CyclicRef { .. }
                        | GrammarError::InfiniteValue { .. }
                        | GrammarError::SchemaTooLarge { .. }
                );
                assert!(is_known, "seed {seed}: {error}: {schema}");
                n_refused += 1;
                continue;
            }
        };
        if constraint.reports()[0].unenforced.iter().any(|entry| entry.is_assertion) {
            continue;
        }
        let judge = Judge::new(&schema);
        for round in 0..3 {
            let ids = complete(&mut constraint.clone(), &mut rng, 1_000);
            let ids = ids.unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}: {schema}"));
            let Some((_, body)) = ids.as_ref().and_then(|ids| ids.split_last()) else { continue };
            let text = vocab.tokenizer.decode(body);
            let context = || format!("seed {seed}, round {round}: {text} by {schema}");
            let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", context()));
            judge.check(&value).unwrap_or_else(|error| panic!("{error}: {}", context()));
            n_judged += 1;
            // The same value in other layouts; a float could come back in a form that the grammar does not write.
            let pretty = serde_json::to_string_pretty(&value).expect("a value is JSON");
            let is_shallow = !pretty.contains(&" ".repeat(41));
            for text in std::iter::once(value.to_string()).chain(is_shallow.then_some(pretty)) {
                let mut again = constraint.clone();
                let ids = vocab.tokenizer.encode_ordinary(&text);
                let takes = |id: &u32| again.accept(*id).is_ok();
                assert!(has_float(&value) || ids.iter().all(takes), "{text:?} is refused: {}", context());
            }
        }
        constraint.forced();
    }
    println!("{n_judged} values judged, {n_refused} schemas refused");
    assert!(n_judged > 500 && n_refused < 150, "{n_judged} values judged, {n_refused} schemas refused");
}

#[test]
fn open_schemas_never_lead_into_a_dead_end() {
    let vocab = vocab::small();
    for (seed, schema) in
        (0..40).zip([json!({}), json!({"type": "object"}), json!({"items": {}})].iter().cycle())
    {
        let mut rng = Rng(seed);
        let mut constraint = vocab.factory.json_schema(schema, true, StartsIn::Answer).expect("it compiles");
        let ids =
            complete(&mut constraint, &mut rng, 600).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let Some((_, body)) = ids.as_ref().and_then(|ids| ids.split_last()) else { continue };
        let text = vocab.tokenizer.decode_bytes(body);
        serde_json::from_slice::<Value>(&text).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[test]
fn a_schema_cannot_set_options_of_the_parser() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}},
        "x-guidance": {"whitespace_flexible": false, "key_separator": "=", "lenient": true}});
    let spec = ConstraintSpec {
        response_format: ResponseFormat::JsonSchema { schema, strict: true },
        starts_in: StartsIn::Answer,
        ..Default::default()
    };
    Walk::new(&spec).takes("{\"a\" ").refuses(&["="]).takes(": 1}");
}

#[test]
fn reports_name_the_place_in_the_schema_that_came() {
    let schema = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/x~1y"}, "b": {"$ref": "#/$defs/x~1y"}},
        "$defs": {"x/y": {"type": "object", "properties": {
            "id": {"type": "string", "format": "int64", "pattern": "(?!x)"},
            "both": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
            "set": {"type": "array", "items": {"type": "integer"}, "uniqueItems": true}}}}});
    let constraint =
        vocab::small().factory.json_schema(&schema, false, StartsIn::Answer).expect("it compiles");
    let found: Vec<(&str, &str, bool)> = constraint.reports()[0]
        .unenforced
        .iter()
        .map(|entry| (entry.at.as_str(), entry.keyword.as_str(), entry.is_assertion))
        .collect();
    let id = "#/$defs/x~1y/properties/id";
    let expect = [
        (id, "format", false),
        (id, "pattern", true),
        ("#/$defs/x~1y/properties/set", "uniqueItems", true),
        ("#/$defs/x~1y/properties/both", "oneOf", true),
    ];
    assert_eq!(found, expect);
}

#[test]
fn reports_say_what_is_bounded() {
    let factory = &vocab::small().factory;
    let bytes_max = |schema: Value| {
        let constraint = factory.json_schema(&schema, true, StartsIn::Answer).expect("the schema compiles");
        constraint.reports()[0].bytes_max
    };
    let closed = |properties: Value| json!({"type": "object", "properties": properties});
    assert!(
        bytes_max(closed(json!({"a": {"type": "string", "maxLength": 10}, "b": {"type": "number"}})))
            .is_some()
    );
    assert!(
        bytes_max(closed(json!({"a": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3}})))
            .is_some()
    );
    assert_eq!(bytes_max(closed(json!({"a": {"type": "string"}}))), None);
    assert_eq!(bytes_max(closed(json!({"a": {"type": "array", "items": {"enum": [1, 2]}}}))), None);
    assert_eq!(bytes_max(json!({"type": "object"})), None);
    assert_eq!(bytes_max(closed(json!({"a": {"$ref": "#"}}))), None);
}

#[test]
fn long_strings_with_a_limit_reach_it() {
    let vocab = vocab::small();
    let n_chars_max = 32_768;
    let schema = json!({"type": "string", "maxLength": n_chars_max});
    for unit in ["The quick brown fox jumps. ", "请确认酒店预订和会议时间，谢谢。", "🙂🙃🎉"]
    {
        let mut constraint = vocab.factory.json_schema(&schema, true, StartsIn::Answer).expect("it compiles");
        let n_units = n_chars_max / unit.chars().count();
        let padding = "x".repeat(n_chars_max % unit.chars().count());
        let text = format!("\"{}{padding}", unit.repeat(n_units));
        let mut mask = vec![0; constraint.n_mask_words()];
        for id in vocab.tokenizer.encode_ordinary(&text) {
            constraint.fill_mask(&mut mask).unwrap_or_else(|error| panic!("{unit}: {error}"));
            constraint.accept(id).unwrap_or_else(|error| panic!("{unit}: {error}"));
        }
        let mut walk = Walk { constraint, tokenizer: &vocab.tokenizer };
        walk = walk.refuses(&["x", "\\"]);
        walk.takes("\"<|im_end|>").completes(true);
    }
}

#[test]
fn a_short_mask_is_refused() {
    let mut constraint = vocab::small().factory.json_object(StartsIn::Answer).expect("it compiles");
    let needed = constraint.n_mask_words();
    let error = constraint.fill_mask(&mut vec![0; needed - 1]).err();
    assert_eq!(error, Some(GrammarError::MaskTooShort { n_words: needed - 1, needed }));
    let mut long = vec![u32::MAX; needed + 2];
    constraint.fill_mask(&mut long).expect("a longer mask is fine");
    assert_eq!(long[needed..], [0, 0]);
}
