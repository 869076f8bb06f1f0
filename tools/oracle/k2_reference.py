"""Kimi K2's tokenizer on Python tiktoken: the outside implementation our tokenizer is held against.

Needs: pip install tiktoken
"""

import base64

import tiktoken

# The eight alternatives of the published pre-tokenisation pattern, in order.
PATTERN = "|".join([
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
])

SLICE_CHARS = 400_000
RUN_CHARS = 25_000

# Published names by offset from the number of ranks; the other special ids are reserved.
NAMES = {
    0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>",
    6: "<|start_header_id|>", 7: "<|end_header_id|>", 9: "[EOT]", 10: "<|im_system|>",
    11: "<|tool_calls_section_begin|>", 12: "<|tool_calls_section_end|>", 13: "<|tool_call_begin|>",
    14: "<|tool_call_argument_begin|>", 15: "<|tool_call_end|>", 17: "<|im_middle|>",
    18: "<|media_begin|>", 19: "<|media_content|>", 20: "<|media_end|>", 21: "<|media_pad|>",
    22: "<think>", 23: "</think>", 254: "[UNK]", 255: "[PAD]",
}


def read_ranks(path):
    """{token bytes: rank} of a rank file."""
    with open(path, "rb") as file:
        lines = (line.split() for line in file if line.strip())
        return {base64.b64decode(token): int(rank) for token, rank in lines}


def special_ids(n_ranks):
    """{name: id} of the 256 special ids."""
    return {NAMES.get(i, f"<|reserved_token_{n_ranks + i}|>"): n_ranks + i for i in range(256)}


def encoding(ranks):
    """Python tiktoken under the K2 pattern."""
    return tiktoken.Encoding("k2", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special_ids(len(ranks)))


def parts(text):
    """The independently encoded parts of a text: slices, then no run of one kind longer than RUN_CHARS."""
    for slice_start in range(0, len(text), SLICE_CHARS):
        piece = text[slice_start:slice_start + SLICE_CHARS]
        start, run, kind = 0, 0, None
        for at, char in enumerate(piece):
            if char.isspace() != kind:
                run, kind = 1, char.isspace()
            elif run == RUN_CHARS:
                yield piece[start:at]
                start, run = at, 1
            else:
                run += 1
        yield piece[start:]


def encode(k2, text, with_specials):
    """Ids of a text of any length, special names as special ids or as text."""
    ids = []
    for part in parts(text):
        ids += k2.encode(part, allowed_special="all") if with_specials else k2.encode_ordinary(part)
    return ids
