//! Wrong rank files, configurations and ids: typed errors that name the place and the next step.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use perilune_chat::tokenizer::{SpecialText, Tokenizer, TokenizerError};

use super::{SMALL_RANKS, small};

/// Lines of the small rank file.
fn lines() -> Vec<String> {
    String::from_utf8(SMALL_RANKS.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

fn error_of(lines: &[String]) -> String {
    Tokenizer::from_ranks(lines.join("\n").as_bytes(), None).unwrap_err().to_string()
}

/// The message after line 300 (counted from 1, rank 299) is replaced by `line`.
fn check_line(line: &str, expected: &str) {
    let mut lines = lines();
    lines[299] = line.to_owned();
    let error = error_of(&lines);
    assert!(error.starts_with("rank file line 300: ") && error.contains(expected), "{error}");
}

#[test]
fn one_wrong_line() {
    let token = lines()[299].split(' ').next().unwrap().to_owned();
    check_line(&token, "the rank is missing");
    check_line("299", "the rank is missing");
    check_line(&format!("{token} 299 x"), "unexpected text after the rank");
    check_line("a*b= 299", "not valid base64");
    check_line("YWJj= 299", "not valid base64");
    check_line(&format!("{token} -1"), "the rank `-1` is not a whole number");
    check_line(&format!("{token} +299"), "the rank `+299` is not a whole number");
    check_line(&format!("{token} 4294967296"), "the rank `4294967296` is not a whole number");
    check_line(&format!("{token} 17"), "rank 17 already stands on line 18");
    check_line(&lines()[40].replace(" 40", " 299"), "the same token already stands on line 41");
    check_line(
        &format!("{} 299", STANDARD.encode(vec![b'x'; 70_000])),
        "the token has 70000 bytes; the limit is 65535",
    );
    check_line("= 299", "not valid base64");
}

#[test]
fn a_gap_names_the_line_after_it_and_the_missing_rank() {
    let mut lines = lines();
    lines.remove(299);
    let error = error_of(&lines);
    assert!(error.starts_with("rank file line 300: rank 300 leaves a gap: no line has rank 299"), "{error}");
}

#[test]
fn a_whole_file_that_lacks_something() {
    assert!(error_of(&[]).contains("it holds no tokens"));
    let mut lines = lines();
    lines[7] = format!("{} 7", STANDARD.encode("not a single byte"));
    assert!(error_of(&lines).contains("no line holds the single byte 0x28"), "{}", error_of(&lines));
    let html = "<!DOCTYPE html>\n<html>";
    assert!(error_of(&[html.to_owned()]).starts_with("rank file line 1: "));
    let binary = Tokenizer::from_ranks(&[0xFF, 0xFE, b' ', b'1', b'\n'], None).unwrap_err();
    assert!(binary.to_string().starts_with("rank file line 1: the token is not valid base64"), "{binary}");
}

#[test]
fn empty_lines_carriage_returns_and_any_order_are_fine() {
    let mut lines = lines();
    lines.reverse();
    let file = format!("\n{}\r\n\r\n", lines.join("\r\n"));
    let reversed = Tokenizer::from_ranks(file.as_bytes(), None).unwrap();
    let text = super::CORPUS;
    assert_eq!(reversed.encode_ordinary(text), small().encode_ordinary(text));
}

/// All names the chat format needs, from id `first` on, and `more` entries.
fn config(first: usize, more: &str) -> String {
    let names = "[BOS] [EOS] <|im_end|> <|im_user|> <|im_assistant|> <|im_system|> <|im_middle|> [EOT] \
                 <|tool_calls_section_begin|> <|tool_calls_section_end|> <|tool_call_begin|> \
                 <|tool_call_argument_begin|> <|tool_call_end|> <think> </think>";
    let entry = |(i, name)| format!(r#""{}":{{"content":"{name}","special":{}}}"#, first + i, i < 8);
    let entries: Vec<String> = names.split_whitespace().enumerate().map(entry).collect();
    format!(r#"{{"added_tokens_decoder":{{{}{more}}},"model_max_length":1000}}"#, entries.join(","))
}

fn config_error(config: &str) -> String {
    Tokenizer::from_ranks(SMALL_RANKS, Some(config)).unwrap_err().to_string()
}

#[test]
fn a_configuration_names_the_special_ids() {
    let config = config(1800, r#","2047":{"content":"<extra>","special":true}"#);
    let tokenizer = Tokenizer::from_ranks(SMALL_RANKS, Some(&config)).unwrap();
    assert_eq!(tokenizer.markers().bos, 1800);
    assert_eq!(tokenizer.markers().think_end, 1814);
    assert_eq!(tokenizer.special_name(1792), Some("<|reserved_token_1792|>"));
    assert_eq!(tokenizer.special_name(2047), Some("<extra>"));
    assert_eq!(tokenizer.special_name(1791), None);
    assert_eq!(tokenizer.special_name(2048), None);
    assert!(tokenizer.is_hidden(1800) && !tokenizer.is_hidden(1814) && tokenizer.is_hidden(1792));
    assert_eq!(tokenizer.encode("<extra><|media_pad|>", SpecialText::AsTokens)[0], 2047);
    assert!(!tokenizer.is_special(tokenizer.encode("<|media_pad|>", SpecialText::AsTokens)[0]));
    assert_eq!(tokenizer.token_bytes(2047), Some("<extra>".as_bytes()));
}

#[test]
fn a_configuration_without_names_leaves_the_k2_table() {
    let tokenizer = Tokenizer::from_ranks(SMALL_RANKS, Some(r#"{"bos_token":"[BOS]"}"#)).unwrap();
    assert_eq!((tokenizer.markers().bos, tokenizer.markers().think_begin), (1792, 1792 + 22));
    assert_eq!(tokenizer.special_name(2047), Some("[PAD]"));
}

#[test]
fn wrong_configurations() {
    assert!(config_error("{").starts_with("tokenizer_config.json: it does not parse"));
    assert!(config_error(r#"{"added_tokens_decoder":[1]}"#).contains("does not parse"));
    assert!(
        config_error(r#"{"added_tokens_decoder":{"1792":{"special":true}}}"#)
            .contains("missing field `content`")
    );
    assert!(config_error(r#"{"added_tokens_decoder":{}}"#).contains("does not name `[BOS]`"));
    let cases = [
        (r#","x":{"content":"a"}"#, "key `x` is not a token id"),
        (
            r#","1791":{"content":"a"}"#,
            "id 1791 is not a special id: with this rank file they are 1792 to 2047",
        ),
        (r#","2048":{"content":"a"}"#, "id 2048 is not a special id"),
        (r#","1900":{"content":""}"#, "id 1900 has an empty content"),
        (r#","1900":{"content":"a"},"01900":{"content":"b"}"#, "names id 1900 twice"),
        (r#","1900":{"content":"<think>"}"#, "gives `<think>` to both id 1813 and id 1900"),
    ];
    for (more, expected) in cases {
        let error = config_error(&config(1800, more));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn files_are_named_in_errors() {
    let dir = std::env::temp_dir().join(format!("perilune-tokenizer-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let missing = Tokenizer::from_dir(&dir).unwrap_err();
    assert!(matches!(missing, TokenizerError::Read { .. }) && missing.to_string().contains("tiktoken.model"));
    std::fs::write(dir.join("tiktoken.model"), "IQ== zero\n").unwrap();
    let bad_ranks = Tokenizer::from_dir(&dir).unwrap_err().to_string();
    assert!(bad_ranks.contains("tiktoken.model: rank file line 1: the rank `zero`"), "{bad_ranks}");
    std::fs::write(dir.join("tiktoken.model"), SMALL_RANKS).unwrap();
    assert_eq!(Tokenizer::from_dir(&dir).unwrap().markers().bos, 1792);
    std::fs::write(dir.join("tokenizer_config.json"), config(1800, "")).unwrap();
    assert_eq!(Tokenizer::from_dir(&dir).unwrap().markers().bos, 1800);
    std::fs::write(dir.join("tokenizer_config.json"), [b'{', 0xFF]).unwrap();
    let bad_config = Tokenizer::from_dir(&dir).unwrap_err().to_string();
    assert!(bad_config.contains("tokenizer_config.json: it does not parse"), "{bad_config}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn ids_outside_the_vocabulary() {
    let small = small();
    let error = small.try_decode(&[5, 2047, 2048]).unwrap_err();
    assert!(matches!(error, TokenizerError::UnknownId { id: 2048, position: 2, n_vocab: 2048 }));
    assert!(error.to_string().contains("(0 to 2047)"), "{error}");
    assert_eq!(small.decode(&[2048, u32::MAX]), "\u{fffd}\u{fffd}");
    assert_eq!(small.token_bytes(2048), None);
    assert!(!small.is_special(2048) && !small.is_hidden(u32::MAX));
}
