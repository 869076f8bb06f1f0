//! What holds for every text, every id list and every split.

use perilune_chat::tokenizer::{Detokenizer, SpecialText};

use super::{CORPUS, Rng, small};

/// Text of characters from every plane in use, with corpus lines and special names among them.
fn random_text(rng: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..rng.below(30) {
        match rng.below(6) {
            0 => text.push_str(CORPUS.lines().nth(rng.below(80)).unwrap_or_default()),
            1 => text.push_str(
                ["<|im_end|>", "<think>", "[BOS]", "<|im_", "<|reserved_token_1800|>"][rng.below(5)],
            ),
            2 => text.extend(std::iter::repeat_n(
                ['a', ' ', '\n', 'A', '漢', '\u{301}'][rng.below(6)],
                rng.below(300),
            )),
            _ => {
                let limit = [0x80, 0x800, 0x3000, 0x1_0000, 0x11_0000][rng.below(5)];
                text.extend((0..rng.below(20)).filter_map(|_| char::from_u32(rng.below(limit) as u32)));
            }
        }
    }
    text
}

#[test]
fn decoding_gives_back_the_text_and_as_text_has_no_special_id() {
    let small = small();
    for seed in 0..400 {
        let text = random_text(&mut Rng(seed));
        let plain = small.encode(&text, SpecialText::AsText);
        assert!(plain.iter().all(|&id| !small.is_special(id)), "seed {seed}");
        assert_eq!(small.decode(&plain), text, "seed {seed}");
        assert_eq!(small.decode(&small.encode(&text, SpecialText::AsTokens)), text, "seed {seed}");
    }
}

#[test]
fn as_tokens_leaves_no_special_name_as_text() {
    let small = small();
    for id in small.n_ranks() as u32..small.n_vocab() as u32 {
        let name = small.special_name(id).unwrap();
        let ids = small.encode(&format!("a {name}漢{name}{name}\n"), SpecialText::AsTokens);
        assert_eq!(ids.iter().filter(|&&i| i == id).count(), 3, "{name}");
        assert_eq!(small.special_id(name), Some(id));
    }
}

/// Bytes that are often, not always, UTF-8.
fn random_bytes(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = random_text(rng).into_bytes();
    for _ in 0..rng.below(20) {
        if !bytes.is_empty() {
            let at = rng.below(bytes.len());
            bytes[at] = rng.next() as u8;
        }
    }
    bytes
}

#[test]
fn any_split_detokenizes_to_the_whole() {
    for seed in 0..400 {
        let rng = &mut Rng(seed);
        let bytes = random_bytes(rng);
        let mut detokenizer = Detokenizer::new();
        let (mut text, mut rest) = (String::new(), bytes.as_slice());
        while !rest.is_empty() {
            let (next, after) = rest.split_at(rng.below(rest.len().min(9) + 1));
            text += &detokenizer.push(next);
            rest = after;
        }
        text += &detokenizer.finish();
        assert_eq!(text, String::from_utf8_lossy(&bytes), "seed {seed}");
    }
}

#[test]
fn a_character_is_held_back_until_it_is_whole() {
    let mut detokenizer = Detokenizer::new();
    let pushed = "a🙂é".bytes().map(|byte| detokenizer.push(&[byte])).collect::<Vec<_>>();
    assert_eq!(pushed, ["a", "", "", "", "🙂", "", "é"]);
    assert_eq!(detokenizer.push(&[0xE6, 0xBC]), "");
    assert_eq!(detokenizer.finish(), "\u{fffd}");
    assert_eq!(detokenizer.finish(), "");
}

#[test]
fn a_tokenizer_is_shared_between_threads() {
    let small = std::sync::Arc::new(small());
    let expected = small.encode_ordinary(CORPUS);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let small = small.clone();
            std::thread::spawn(move || small.encode_ordinary(CORPUS))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
}
