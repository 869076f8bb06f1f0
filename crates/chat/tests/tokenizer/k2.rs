//! The tokenizer on the published rank file, which is not in this repository: `PERILUNE_K2_RANKS` names it.

use std::path::Path;

use perilune_chat::tokenizer::{SpecialText, Tokenizer};

/// The published tokenizer, or a printed line that says why the test is skipped.
fn k2() -> Option<Tokenizer> {
    let Some(path) = std::env::var_os("PERILUNE_K2_RANKS") else {
        eprintln!("skipped: PERILUNE_K2_RANKS does not name the tiktoken.model of Kimi K2");
        return None;
    };
    Some(Tokenizer::from_rank_file(Path::new(&path)).expect("PERILUNE_K2_RANKS names a readable rank file"))
}

/// Ids made with Python tiktoken 0.14 on the published file.
#[test]
fn id_vectors() {
    let Some(k2) = k2() else { return };
    let vectors: [(&str, &[u32]); 14] = [
        ("Hello, world!", &[19180, 11, 2695, 0]),
        ("Kimi K2 能写代码吗？123456", &[42, 30223, 1040, 17, 220, 518, 2283, 15590, 2678, 864, 6694, 12972]),
        ("  indented\n\n\tcode();", &[220, 155238, 382, 81897, 5788]),
        ("don't STOP'LL naïve café", &[88709, 81609, 6, 5847, 7915, 44187, 367, 70591]),
        ("functions.get_weather:0", &[41937, 1150, 21055, 2800, 25, 15]),
        (r#"{"city": "Beijing"}"#, &[8264, 37666, 1289, 414, 4396, 39556, 16934]),
        ("日本語のテキスト", &[4546, 63011, 4663, 25875, 32045, 33360]),
        ("\r\n \n x", &[462, 1420, 1288]),
        ("🙂🙃", &[5885, 46813, 5885, 247, 225]),
        ("system", &[14062]),
        ("user", &[2482]),
        ("assistant", &[69702]),
        ("tool", &[20960]),
        ("tool_declare", &[20960, 35556, 677]),
    ];
    for (text, ids) in vectors {
        assert_eq!(k2.encode_ordinary(text), ids, "{text:?}");
        assert_eq!(k2.try_decode(ids).unwrap(), text);
    }
}

/// The default system prompt, `hi` and the generation prompt: the 26 tokens a published engine run reports.
#[test]
fn worked_example_of_26_tokens() {
    let Some(k2) = k2() else { return };
    let text = "<|im_system|>system<|im_middle|>You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>\
                <|im_user|>user<|im_middle|>hi<|im_end|><|im_assistant|>assistant<|im_middle|>";
    let ids = [
        163594, 14062, 163601, 3900, 554, 24980, 72, 11, 519, 22572, 26626, 5232, 673, 30218, 10065, 22572,
        13, 163586, 163587, 2482, 163601, 9663, 163586, 163588, 69702, 163601,
    ];
    assert_eq!(k2.encode(text, SpecialText::AsTokens), ids);
    assert_eq!(k2.decode(&ids), text);
    let as_text = k2.encode(text, SpecialText::AsText);
    assert!(as_text.iter().all(|&id| !k2.is_special(id)));
    assert_eq!(k2.decode(&as_text), text);
}

/// Sizes and flags of the published file and its special ids.
#[test]
fn vocabulary() {
    let Some(k2) = k2() else { return };
    assert_eq!((k2.n_ranks(), k2.n_vocab()), (163_584, 163_840));
    let single = |text: &str| k2.encode_ordinary(text);
    assert_eq!(
        (single("!"), single(" "), single("\n"), single("\0")),
        (vec![0], vec![220], vec![198], vec![188])
    );
    let markers = k2.markers();
    assert_eq!((markers.eos, markers.im_end, markers.think_end), (163_585, 163_586, 163_607));
    assert_eq!(k2.special_name(163_589), Some("<|reserved_token_163589|>"));
    assert!(k2.is_hidden(markers.im_end) && !k2.is_hidden(markers.think_end));
}
