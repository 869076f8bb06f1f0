//! Walks through the tool envelope and JSON answers, token by token.

use perilune_chat::grammar::{Constraint, ConstraintSpec, GrammarError, ToolSpec, Tools};
use perilune_chat::message::{ResponseFormat, ToolChoice};
use perilune_chat::scanner::Opening;
use perilune_chat::tokenizer::{SpecialText, Tokenizer};
use serde_json::{Value, json};

use crate::forced::allowed;
use crate::{specs, vocab};

/// A strict `response_format` of a schema that is an object.
fn json_schema(schema: Value) -> ResponseFormat {
    let Value::Object(schema) = schema else { panic!("a request's schema is an object") };
    ResponseFormat::JsonSchema { name: "answer".into(), strict: true, schema }
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

/// A constraint being fed text with markers, as `<|tool_call_begin|>functions.get:7`.
pub(crate) struct Walk {
    pub(crate) constraint: Constraint,
    pub(crate) tokenizer: &'static Tokenizer,
}

impl Walk {
    fn new(spec: &ConstraintSpec) -> Self {
        let vocab = vocab::small();
        let constraint = vocab.factory.constraint(spec).expect("the request compiles");
        Self { constraint, tokenizer: &vocab.tokenizer }
    }

    fn tools(tools: Tools, opening: Opening) -> Self {
        Self::new(&ConstraintSpec { tools, opening, ..ConstraintSpec::default() })
    }

    fn allows(&mut self, id: u32) -> bool {
        let mut mask = vec![0; self.constraint.n_mask_words()];
        self.constraint.fill_mask(&mut mask).expect("the state has a mask");
        allowed(&mask).contains(&id)
    }

    /// Every token of `text` is allowed and accepted, in the tokenizer's own cut.
    pub(crate) fn takes(mut self, text: &str) -> Self {
        for id in self.tokenizer.encode(text, SpecialText::AsTokens) {
            let token =
                String::from_utf8_lossy(self.tokenizer.token_bytes(id).expect("a token")).into_owned();
            assert!(self.allows(id), "{token:?} of {text:?} is masked");
            self.constraint.accept(id).unwrap_or_else(|error| panic!("{token:?} of {text:?}: {error}"));
        }
        self
    }

    /// The first token of each text is masked and refused, and the refusal changes nothing.
    pub(crate) fn refuses(mut self, texts: &[&str]) -> Self {
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

    pub(crate) fn completes(self, expect: bool) -> Self {
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
    Walk::tools(two_tools(), Opening::Unknown)
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
        Walk::tools(two_tools(), Opening::Answer)
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
    Walk::tools(two_tools(), Opening::Unknown)
        .takes("<think>I need it now")
        .takes(&format!("{SECTION}{CALL}functions.get:7{ARGUMENTS}{{}}{CALL_END}{SECTION_END}<|im_end|>"))
        .completes(true);
}

#[test]
fn auto_may_end_without_a_call() {
    Walk::tools(two_tools(), Opening::Unknown).takes("<think></think>Sunny.<|im_end|>").completes(true);
    Walk::tools(two_tools(), Opening::Unknown).takes("Sunny.[EOS]").completes(true).refuses(&["a", SECTION]);
}

#[test]
fn required_calls_before_the_end() {
    let tools = || Tools { choice: ToolChoice::Required, ..two_tools() };
    Walk::tools(tools(), Opening::Unknown)
        .only(&["<think>", SECTION])
        .takes("<think>Hm.")
        .refuses(&["<|im_end|>", "[EOS]", "[EOT]", CALL, "<|im_user|>"])
        .takes("</think>")
        .only(&[SECTION])
        .forces(&format!("{SECTION}{CALL}"))
        .takes(SECTION)
        .refuses(&[SECTION_END, "<|im_end|>"]);
    Walk::tools(tools(), Opening::Thinking).takes("Hm.").takes(SECTION).only(&[CALL]);
    Walk::tools(tools(), Opening::Answer).only(&[SECTION]);
}

#[test]
fn a_named_tool_is_called_once() {
    let tools = Tools { choice: ToolChoice::Named("get_weather".into()), ..two_tools() };
    Walk::tools(tools, Opening::Answer)
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
    Walk::tools(tools, Opening::Answer)
        .takes(&format!("{SECTION}{CALL}functions.get:7{ARGUMENTS}{{}}{CALL_END}"))
        .only(&[SECTION_END]);
}

#[test]
fn choice_none_closes_the_section() {
    let tools = Tools { choice: ToolChoice::None, ..two_tools() };
    Walk::tools(tools, Opening::Unknown)
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
        response_format: json_schema(json!({})),
        opening: Opening::Answer,
        ..Default::default()
    };
    let digits = "3".repeat(40);
    Walk::new(&spec).takes(&format!("0.{digits}")).refuses(&["3", "33"]).takes("e+12").refuses(&["3"]);
    Walk::new(&spec).takes(&digits).refuses(&["3"]).takes(".5");
    Walk::new(&spec).takes(&"[".repeat(100)).refuses(&["[", "{"]).takes("1").takes(&"]".repeat(100));
    let schema = json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1});
    let spec = ConstraintSpec { response_format: json_schema(schema), ..spec };
    // Nothing but digits can follow, so that the limit gives way.
    Walk::new(&spec)
        .takes(&format!("0.{}", "000".repeat(13)))
        .refuses(&["000"])
        .takes("0")
        .refuses(&["}", "<|im_end|>"])
        .takes("000")
        .takes("1<|im_end|>");
}

#[test]
fn a_clone_goes_its_own_way() {
    let walk = Walk::tools(two_tools(), Opening::Answer)
        .takes(&format!("{SECTION}{CALL}functions.get_weather:7{ARGUMENTS}{{\"city\""));
    let other = Walk { constraint: walk.constraint.clone(), tokenizer: walk.tokenizer };
    walk.takes(": \"a\"}").only(&[CALL_END]);
    other.refuses(&["}"]).takes(":\"b\",").takes("\"days\":3}").only(&[CALL_END]);
}

#[test]
fn a_tool_without_parameters_takes_none() {
    let tools = Tools {
        specs: vec![ToolSpec { name: "ping".into(), parameters: None, strict: false }],
        ..Tools::default()
    };
    Walk::tools(tools, Opening::Answer)
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
    Walk::tools(tools(&nested), Opening::Answer)
        .takes(&begin)
        .takes("\"filter\": {\"x\": 1}}")
        .only(&[CALL_END]);
    Walk::tools(tools(&nothing), Opening::Answer).takes(&begin).refuses(&["\""]).takes("}");
    Walk::tools(tools(&json!({"type": "object"})), Opening::Answer)
        .takes(&begin)
        .takes("\"x\": 1}")
        .only(&[CALL_END]);
}

#[test]
fn an_escaped_name_cannot_dodge_a_declared_one() {
    let schema = |more: Value| json!({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": more});
    let walk = |schema| {
        Walk::new(&ConstraintSpec {
            response_format: json_schema(schema),
            opening: Opening::Answer,
            ..Default::default()
        })
    };
    // Were U+0061 allowed here, {"\u0061": "x"} would give the property "a" a text.
    walk(schema(json!({"type": "string"}))).takes("{\"\\").refuses(&["u"]).takes("n\": \"\\").refuses(&["u"]);
    walk(json!({"type": "object"})).takes("{\"\\u0061\": \"\\ud83d\\ude42\\").refuses(&["x", "/"]);
    walk(json!({"type": "string"})).takes("\"\\ud83d").refuses(&["x", "\""]).takes("\\ude42\"");
}

#[test]
fn a_schema_cannot_set_options_of_the_parser() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}},
        "x-guidance": {"whitespace_flexible": false, "key_separator": "=", "lenient": true}});
    let spec = ConstraintSpec {
        response_format: json_schema(schema),
        opening: Opening::Answer,
        ..Default::default()
    };
    Walk::new(&spec).takes("{\"a\" ").refuses(&["="]).takes(": 1}");
}

#[test]
fn a_short_mask_is_refused() {
    let mut constraint = vocab::small().factory.json_object(Opening::Answer).expect("it compiles");
    let needed = constraint.n_mask_words();
    let error = constraint.fill_mask(&mut vec![0; needed - 1]).err();
    assert_eq!(error, Some(GrammarError::MaskTooShort { n_words: needed - 1, needed }));
    let mut long = vec![u32::MAX; needed + 2];
    constraint.fill_mask(&mut long).expect("a longer mask is fine");
    assert_eq!(long[needed..], [0, 0]);
}
