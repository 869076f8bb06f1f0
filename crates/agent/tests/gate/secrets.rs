//! Secret values are found in every form that is promised.

use crate::support::{call, told};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use perilune_agent::gate::{Gate, PolicyGate};
use perilune_agent::policy::{Policy, Workspace};
use perilune_agent::secrets::{SECRET_BYTES_MIN, Secrets, values_of_file};
use serde_json::json;
use std::sync::Arc;

const VALUE: &str = "s3cr3t/+\"quote\" ünd ~tail?";

#[test]
fn every_encoding_is_redacted_and_nothing_else() {
    let secrets = Secrets::new([("KEY", VALUE)]).unwrap();
    let hex: String = VALUE.bytes().map(|byte| format!("{byte:02x}")).collect();
    let url: String = url::form_urlencoded::byte_serialize(VALUE.as_bytes()).collect();
    let mut forms = vec![
        VALUE.to_owned(),
        serde_json::to_string(VALUE).unwrap(),
        hex.to_uppercase(),
        hex,
        url.to_lowercase(),
        url,
        VALUE.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        VALUE.chars().rev().collect(),
    ];
    for before in ["", "a", "ab", "abc", "abcd", "user:"] {
        for after in ["", "z", "zz", "zzz"] {
            let text = format!("{before}{VALUE}{after}");
            forms.extend([STANDARD.encode(&text), URL_SAFE.encode(&text)]);
        }
    }
    for form in forms {
        let clean = secrets.redact(&form);
        assert!(clean.contains("[secret KEY]"), "{form} became {clean}");
        assert!(clean.len() < form.len() / 2 + 16, "{form} became {clean}");
    }
    for text in ["", "s3cr3t", "ordinary text of some length", "[secret KEY]", "c2VjcmV0"] {
        assert_eq!(secrets.redact(text), text);
    }
}

#[test]
fn every_offset_of_base64_hides_every_secret() {
    for seed in 0..200_u64 {
        let mut random = crate::support::Random(seed);
        let length = SECRET_BYTES_MIN + 2 + random.below(40);
        let value: String = (0..length).map(|_| char::from(b'!' + random.below(94) as u8)).collect();
        let secrets = Secrets::new([("K", &value)]).unwrap();
        let noise = |random: &mut crate::support::Random| -> Vec<u8> {
            (0..random.below(50)).map(|_| random.below(256) as u8).collect()
        };
        let whole = [noise(&mut random), value.clone().into_bytes(), noise(&mut random)].concat();
        for text in [STANDARD.encode(&whole), URL_SAFE.encode(&whole)] {
            assert!(secrets.is_in(&text), "seed {seed}: {value:?} in {text}");
        }
    }
}

#[test]
fn json_is_redacted_in_values_keys_and_numbers() {
    let secrets = Secrets::new([("PIN", "123456789"), ("KEY", "hunter2hunter2")]).unwrap();
    let mut value = json!({"a": ["x hunter2hunter2 y", 123456789], "hunter2hunter2": {"b": true}, "c": 5});
    assert!(secrets.redact_value(&mut value));
    assert_eq!(
        value,
        json!({"a": ["x [secret KEY] y", "[secret PIN]"], "[secret KEY]": {"b": true}, "c": 5})
    );
    assert!(!secrets.redact_value(&mut value));
}

#[test]
fn environments_and_files_of_secrets() {
    let text = "# keys\nexport API_KEY=\"abcdefgh\"\nSHORT=a\nOTHER='long-enough'\n";
    let values = values_of_file("keys", text);
    assert_eq!(values, [("API_KEY".into(), "abcdefgh".into()), ("OTHER".into(), "long-enough".into())]);
    for token in ["tokentoken", "c2VjcmV0LXRva2Vu==", "c2VjcmV0LXRva2VuMQ=", "db://me:pass@host/?tls=on"] {
        let values = values_of_file("token", &format!(" {token}\n"));
        assert_eq!(values, [("token".to_owned(), token.to_owned())]);
    }
    let secrets = Secrets::new(values).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let environment = [pair("PATH", "/bin"), pair("API_KEY", "other"), pair("COPY", "x-long-enough-y")];
    assert_eq!(secrets.keep_clean(environment), [pair("PATH", "/bin")]);
    assert!(!format!("{secrets:?}").contains("abcdefgh"));
    let error = Secrets::new([("PIN", "1234")]).unwrap_err().to_string();
    assert!(error.contains("\"PIN\" has 4 bytes") && !error.contains("1234"), "{error}");
}

#[test]
fn each_line_of_a_long_secret_is_secret() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----";
    let secrets = Secrets::new([("PEM", key)]).unwrap();
    assert_eq!(secrets.redact("x hkiG9w0BAQEFAASC y"), "x [secret PEM] y");
}

#[test]
fn no_tool_takes_a_secret_whatever_policy_says() {
    let secrets = Arc::new(Secrets::new([("KEY", "hunter2hunter2")]).unwrap());
    let gate = PolicyGate::new(Policy::standard(), Workspace::imagined(), secrets);
    let encoded = STANDARD.encode("key=hunter2hunter2");
    for input in ["hunter2hunter2", "a/hunter2hunter2.txt", encoded.as_str()] {
        let decision = gate.decide(&call("write_file", &format!("write {input}")));
        assert_eq!(told(&decision), "deny secret-in-arguments", "{input}");
    }
}
