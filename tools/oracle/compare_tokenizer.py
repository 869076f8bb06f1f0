"""Compares our tokenizer with Python tiktoken: ids on seeded mixed text, speed side by side, hostile lengths.

    pip install tiktoken
    cargo build --release -p perilune-chat --example encode
    python tools/oracle/compare_tokenizer.py RANK_FILE [--encode target/release/examples/encode] [--seed 1]
        [--mb 6] [--rounds 7] [--code-points] [--hostile]

Exits with 1 when an id differs. Speeds are medians of interleaved rounds, one thread each; ours includes
cutting long text, Python's does not.
"""

import argparse
import array
import importlib
import inspect
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

import k2_reference

LATIN = """the of and to in a is that for it as was with be by on not he his but at are this have from or had an they
which one you were all her she there would their we him been has when who will no more if out so up said what its about
than into them can only other time new some could these two may first then do any like my now over such our man even most
made after also did many off before must well back through years much where your way down should because long each just
state people those too little good world make very year still see own work men day get here between both life being under
three never know same last another while us might great go come since against right came take used himself few house use
during without again place American around however home small found Mrs thought went say part once general high upon school
every don't isn't we're they've I'll she'd naïve café façade Größe über Straße mañana señor garçon déjà élève œuvre Zürich
Łódź Ångström İstanbul ſoft""".split()
HAN = "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运"
KANA = "あいうえおかがきぎくぐけげこごさざしじすずせぜそぞただちぢっつづてでとどなにぬねのはばぱひびぴふぶぷへべぺほぼぽまみむめもゃやゅゆょよらりるれろわをんアイウエオカガキギクグケゲコゴサザシジスズセゼソゾタダチヂッツヅテデトドナニヌネノハバパヒビピフブプヘベペホボポマミムメモャヤュユョヨラリルレロワヲンー々〆ヶ"
ARABIC = "ابتثجحخدذرزسشصضطظعغفقكلمنهويءآأؤإئةىًٌٍَُِّْـ"
EMOJI = ["🙂", "🙃", "😀", "❤️", "👍🏽", "👩‍👩‍👧", "🇩🇪", "🏳️‍🌈", "🚀", "✨", "☃", "🤖", "1️⃣", "©", "™"]
SPACES = [" ", "\t", "\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2028", "\u2009", "\u0085", "\x0b", "\x0c", "\x1c", "\x1f"]
MODULES = ["argparse", "json.decoder", "typing", "inspect", "ast", "email.message", "http.client", "logging", "subprocess",
           "decimal", "_pydecimal", "tarfile", "zipfile", "pathlib", "unittest.mock", "asyncio.events", "difflib", "doctest"]
# Pools that meet the pattern's corners: every general category in play, Han that is no letter, case folding.
FUZZ = [
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x2B0, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF),
    (0x900, 0x97F), (0xE00, 0xE7F), (0x10A0, 0x10FF), (0x1C80, 0x1CFF), (0x1E00, 0x1FFF), (0x2000, 0x206F),
    (0x20D0, 0x218F), (0x2460, 0x24FF), (0x2E80, 0x303F), (0x3040, 0x33FF), (0x4E00, 0x4EFF), (0xA640, 0xA69F),
    (0xAC00, 0xACFF), (0xF900, 0xFAFF), (0xFE00, 0xFFEF), (0x10140, 0x1018F), (0x1D400, 0x1D7FF), (0x1F300, 0x1F6FF),
    (0x20000, 0x200FF), (0x16FE0, 0x16FFF), (0xE0100, 0xE01EF),
]
CORNERS = ["'s", "'S", "'ſ", "'re", "'LL", "'Ve", "ǅ", "ʰ", "\u0301", "\u20dd", "〇", "〡", "⺀", "々", "ª", "Ⅷ", "\r\n", " \n", "  ", "ſ", "K"]


def latin(rng):
    word = rng.choices(LATIN, weights=[1 / (i + 3) for i in range(len(LATIN))])[0]
    word = rng.choice([word, word, word, word, word.capitalize(), word.upper()])
    return word + rng.choices([" ", ", ", ". ", "; ", "\n", f" {rng.randrange(10000)} ", "'s "], [80, 6, 6, 1, 2, 3, 2])[0]


def chars(pool, stops):
    return lambda rng: "".join(rng.choices(pool, k=rng.randrange(1, 12))) + rng.choice(stops)


def code(rng):
    source = inspect.getsource(importlib.import_module(rng.choice(MODULES)))
    at = rng.randrange(len(source))
    return source[at:at + 4000]


def whitespace(rng):
    length = rng.choice([1, 2, 3, 4, 8, 16, 40, 400, 4000])
    unit = rng.choice([[" "], ["\n"], [" ", "\n"], ["\t"], SPACES])
    return "".join(rng.choices(unit, k=length)) + rng.choice(["", "x", "if", "1", ".", "漢"])


def random_bytes(rng):
    return rng.randbytes(300).decode("utf-8", errors="replace")


def fuzz(rng):
    if rng.random() < 0.25:
        return rng.choice(CORNERS)
    first, last = rng.choice(FUZZ)
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randrange(1, 5)))


SECTIONS = {
    "latin": latin,
    "han": chars(HAN, ["，", "。", "", "", "！", "\n", "《", "2025年"]),
    "kana": chars(KANA, ["、", "。", "", "漢字", "\n"]),
    "arabic": chars(ARABIC, [" ", " ", "، ", "؟ ", "\n", " ١٢٣ "]),
    "emoji": lambda rng: "".join(rng.choices(EMOJI, k=rng.randrange(1, 5))) + rng.choice(["", " ", " wow ", "\n"]),
    "code": code,
    "whitespace": whitespace,
    "random bytes": random_bytes,
    "fuzz": fuzz,
}


def section(make, rng, n_bytes):
    made, size = [], 0
    while size < n_bytes:
        made.append(make(rng))
        size += len(made[-1].encode())
    return "".join(made)


def code_points():
    """Every code point in contexts that show each of its character sets."""
    valid = (chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000)
    return "".join(f"A{c}a{c}'s 1{c}2 {c}\n{c}A .{c}" for c in valid)


class Ours:
    """Runs the `encode` example."""

    def __init__(self, binary, ranks, folder):
        self.binary, self.ranks, self.folder = binary, ranks, folder

    def run(self, text, *flags):
        """Ids and seconds spent encoding."""
        paths = [os.path.join(self.folder, name) for name in ("text", "ids")]
        with open(paths[0], "wb") as file:
            file.write(text.encode())
        out = subprocess.run([self.binary, self.ranks, *paths, *flags], check=True, capture_output=True, text=True).stdout
        ids = array.array("I")
        with open(paths[1], "rb") as file:
            ids.frombytes(file.read())
        return ids.tolist(), float(out.split()[0])


def check(name, k2, ours, text):
    """Compares ids of one text, with special names as text and as tokens; true when equal."""
    equal = True
    for flags, with_specials in (((), False), (("--special",), True)):
        expected, (got, _) = k2_reference.encode(k2, text, with_specials), ours.run(text, *flags)
        if got != expected:
            at = next((i for i, (a, b) in enumerate(zip(expected, got)) if a != b), min(len(expected), len(got)))
            around = k2.decode(expected[max(0, at - 5):at + 5])
            print(f"DIFFERS {name} {flags}: id {at} of {len(expected)}, around {around!r}")
            equal = False
    print(f"{'equal' if equal else 'NOT EQUAL':9} {name:14} {len(text.encode()):>9} bytes {len(expected):>9} ids")
    return equal


def speed(name, k2, ours, text, rounds):
    """Interleaved rounds: MB/s of Python tiktoken and of ours, and the ratio of the medians; that of the best rounds is
    steadier on a busy machine."""
    parts, mb = list(k2_reference.parts(text)), len(text.encode()) / 1e6
    theirs_s, ours_s = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        for part in parts:
            k2.encode_ordinary(part)
        theirs_s.append(time.perf_counter() - start)
        ours_s.append(ours.run(text)[1])
    theirs, mine = statistics.median(theirs_s), statistics.median(ours_s)
    print(f"{name:14} {mb:6.2f} MB  tiktoken {mb / theirs:6.1f} MB/s  ours {mb / mine:6.1f} MB/s  ratio {theirs / mine:5.2f}"
          f"  of the best rounds {min(theirs_s) / min(ours_s):5.2f}")


def hostile(ours, seed):
    """Seconds for n, 2n and 4n bytes of input made to be slow."""
    rng = random.Random(seed)
    base64ish = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    inputs = {
        "a repeated": lambda n: "a" * n,
        "upper then one": lambda n: ("A" * 999 + "ʰ") * (n // 1000),
        "base64": lambda n: "".join(rng.choices(base64ish, k=n)),
        "letters": lambda n: "".join(rng.choices(base64ish[:52], k=n)),
        "spaces": lambda n: " " * n,
        "newline spaces": lambda n: ("\n" + " " * 99) * (n // 100),
        "symbols": lambda n: "".join(rng.choices("!#$%&*+-/<=>?@^_|~", k=n)),
        "marks": lambda n: "\u0301" * (n // 2),
        "mixed unicode": lambda n: section(fuzz, rng, n),
        "half specials": lambda n: "<|tool_call" * (n // 11),
    }
    for name, make in inputs.items():
        times = [min(ours.run(make(n), "--special")[1] for _ in range(3)) for n in (1 << 20, 1 << 21, 1 << 22)]
        shown = "  ".join(f"{t * 1e3:8.1f} ms" for t in times)
        print(f"{name:15} 1, 2, 4 MiB: {shown}   4n/n = {times[2] / times[0]:.2f}   {4.194304 / times[2]:.1f} MB/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rank_file")
    parser.add_argument("--encode", default="target/release/examples/encode")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mb", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--code-points", action="store_true")
    parser.add_argument("--hostile", action="store_true")
    args = parser.parse_args()
    k2 = k2_reference.encoding(k2_reference.read_ranks(args.rank_file))
    rng = random.Random(args.seed)
    texts = {name: section(make, rng, args.mb * 1e6 / len(SECTIONS)) for name, make in SECTIONS.items()}
    pieces = [text[at:at + 2000] for text in texts.values() for at in range(0, len(text), 2000)]
    specials = list(k2_reference.special_ids(len(k2._mergeable_ranks)))
    rng.shuffle(pieces)
    texts["mixed"] = "".join(piece + (rng.choice(specials) if rng.random() < 0.1 else "") for piece in pieces)
    texts["long runs"] = "".join(rng.choice("a漢 \n😀") * rng.randrange(1, 60_000) for _ in range(40))
    if args.code_points:
        texts["code points"] = code_points()
    print(f"seed {args.seed}")
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(args.encode, args.rank_file, folder)
        equal = all([check(name, k2, ours, text) for name, text in texts.items()])
        texts.pop("code points", None)
        for name, text in texts.items() if args.rounds else ():
            speed(name, k2, ours, text, args.rounds)
        if args.hostile:
            hostile(ours, args.seed)
    sys.exit(not equal)


if __name__ == "__main__":
    main()
