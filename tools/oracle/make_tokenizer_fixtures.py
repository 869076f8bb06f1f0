"""Makes the tokenizer fixtures in crates/chat/tests/data from corpus.txt there.

    pip install tiktoken tokenizers
    python tools/oracle/make_tokenizer_fixtures.py

small.tiktoken    ranks trained by Hugging Face tokenizers under the K2 pattern
digits.tiktoken   the same, ASCII digits single
tokenizer.json    texts and their ids from Python tiktoken under the K2 pattern, on small.tiktoken
"""

import base64
import json
import os
import random
import struct

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

import compare_tokenizer
import k2_reference

DATA = os.path.join(os.path.dirname(__file__), "..", "..", "crates", "chat", "tests", "data")
N_RANKS = 1792
SEED = 20251106
# One code point in contexts that show each of its character sets, for the vocabulary of all pairs of bytes.
CONTEXT = "A{c}a{c}'s 1{c}2 {c}\n{c}A .{c}\n"
CODE_POINTS_PER_HASH = 2048


def train(text, single_digits):
    """{token bytes: rank} of a byte-level BPE trained by Hugging Face tokenizers."""
    split = pre_tokenizers.Split(tokenizers.Regex(k2_reference.PATTERN), behavior="isolated")
    digits = [pre_tokenizers.Split(tokenizers.Regex("[0-9]"), behavior="isolated")] if single_digits else []
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, *digits, byte_level])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=N_RANKS, min_frequency=1, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator([text], trainer)
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    byte_of = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    return {bytes(byte_of[c] for c in token): rank for token, rank in bpe.get_vocab().items()}


def write_ranks(name, ranks):
    assert sorted(ranks.values()) == list(range(N_RANKS)), f"the corpus gives {len(ranks)} ranks only"
    with open(os.path.join(DATA, name), "wb") as file:
        for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
            file.write(base64.b64encode(token) + f" {rank}\n".encode())


def digest(ids):
    """FNV-1a, 64 bits, of the ids as little-endian u32."""
    h = 0xCBF29CE484222325
    for byte in struct.pack(f"<{len(ids)}I", *ids):
        h = (h ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def short_texts(rng, specials):
    """Hand-picked corners, seeded text of every kind, and text with special names in it."""
    corners = [
        "", " ", "  ", "\n", "\r\n \n x", "Hello, world!", "  indented\n\n\tcode();", "x  ", "x \n ", " \n\n  y",
        "don't STOP'LL naïve café", "it'ſ IT'S it'S 'S x'Re x'vE x'mx x'd' x'l x'r",
        "ABCdef ABC ABCʰ ABCʰD ʰA ʰAB aʰA ABʰ'll", "ABC\u0301D \u0301ABC \u0301 !\u0301a !!\u0301 \u20ddX\u20dd",
        "ǅungla ǅǅ ǄA ªb ªB 1ª", "〇一〡1〇 1〡a ⺀ ⺀a !⺀ a々b 漢a漢 a漢 A漢 漢'll 漢字'字", "12345 1²3 ⅧⅧⅧⅧ ١٢٣٤",
        "a\u00a0b\u3000c \u2028d\u0085e\u200bf\x1cg", "tab\there \t x\t\t\ty", "!!!\r\n\r\n!\n", " !\n x", "日本語のテキスト",
        "Kimi K2 能写代码吗？123456", "🙂🙃👩‍👩‍👧🏳️‍🌈1️⃣", "\ufffd\ufffd\x00\x01\x7f", "functions.get_weather:0",
    ]
    made = [make(rng) for make in compare_tokenizer.SECTIONS.values() for _ in range(24)]
    mixed = ["".join(compare_tokenizer.fuzz(rng) for _ in range(12)) for _ in range(160)]
    joints = ["", " ", "\n", "  ", "a", "'s", "<", "<|", "[", "漢"]
    named = ["".join(rng.choice(joints) + rng.choice(specials) + rng.choice(joints) for _ in range(3)) for _ in range(40)]
    broken = ["<think", "<|im_end|", "<|im_end|>>", "<<think>>", "[[BOS]]", "[BOS", "<|tool_call_<|tool_call_end|>", "<THINK>"]
    return corners + [text[:120] for text in made] + mixed + named + broken


def long_specs(rng):
    """Long texts as [unit, times] lists: whole runs about the cut at 25,000, slices about 400,000."""
    runs = [[[unit, n]] for unit in ("a", " ", "漢", "\n", "é", "\u3000") for n in (24_999, 25_000, 25_001, 50_001)]
    mixes = [[[rng.choice(["ab", "  ", "漢字", "\t", "😀", "!?", "9", "\x1c"]), rng.randrange(1, 30_000)] for _ in range(6)]
             for _ in range(12)]
    slices = [[["word 漢 ", 57_142], ["abcdefgh", 2], [" tail<think>", 3]], [["a b", 133_333], ["<think>", 20_000]],
              [[" ", 24_990], ["x", 25_020], ["yz ", 125_000]], [["x" * 7 + "\n", 50_000], ["<think>", 2], [" ", 60_000]]]
    return runs + mixes + slices


def code_point_hashes():
    """Digests of the ids of every code point of the planes with letters, in CONTEXT, on all pairs of bytes."""
    singles = [bytes([a]) for a in range(256)]
    tokens = singles + [a + b for a in singles for b in singles]
    pairs = k2_reference.encoding({token: rank for rank, token in enumerate(tokens)})
    hashes = []
    for first in [*range(0, 0x40000, CODE_POINTS_PER_HASH), *range(0xE0000, 0xF0000, CODE_POINTS_PER_HASH)]:
        chars = (chr(c) for c in range(first, first + CODE_POINTS_PER_HASH) if not 0xD800 <= c < 0xE000)
        text = "".join(CONTEXT.replace("{c}", c) for c in chars)
        hashes.append([first, digest(pairs.encode_ordinary(text))])
    return hashes


def byte_strings(rng):
    """Byte strings, most of them broken UTF-8, and what Python decodes them to with replacement."""
    made = [bytes.fromhex(h) for h in ("", "f09f99", "f09f9982", "e4b8", "c080", "eda080", "f4908080", "fff09f", "e282c3a9", "f0e4b8ad")]
    whole = "aé漢🙂\u0301".encode()
    made += [bytes(b if rng.random() > 0.2 else rng.randrange(256) for b in whole[: rng.randrange(len(whole))]) for _ in range(60)]
    return [[data.hex(), data.decode("utf-8", errors="replace")] for data in made]


def main():
    rng = random.Random(SEED)
    with open(os.path.join(DATA, "corpus.txt"), encoding="utf-8", newline="") as file:
        corpus = file.read()
    ranks = train(corpus, single_digits=False)
    write_ranks("small.tiktoken", ranks)
    write_ranks("digits.tiktoken", train(corpus, single_digits=True))
    k2 = k2_reference.encoding(ranks)
    specials = [name for name in k2_reference.special_ids(N_RANKS) if "reserved" not in name] + ["<|reserved_token_1800|>"]
    texts = []
    for text in short_texts(rng, specials):
        plain, with_specials = (k2_reference.encode(k2, text, flag) for flag in (False, True))
        texts.append([text, plain] if plain == with_specials else [text, plain, with_specials])
    longs = []
    for spec in long_specs(rng):
        text = "".join(unit * times for unit, times in spec)
        longs.append([spec, *(digest(k2_reference.encode(k2, text, flag)) for flag in (False, True))])
    fixtures = {
        "texts": texts,
        "longs": longs,
        "code_points": {"context": CONTEXT, "per_hash": CODE_POINTS_PER_HASH, "hashes": code_point_hashes()},
        "byte_strings": byte_strings(rng),
    }
    with open(os.path.join(DATA, "tokenizer.json"), "w", encoding="utf-8") as file:
        parts = (f"{json.dumps(name)}:{json.dumps(value, separators=(',', ':'))}" for name, value in fixtures.items())
        file.write("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main()
