"""The texts, id sequences and conversations that every family is compared on."""

import random
from collections.abc import Sequence

SCRIPTS = [
    "The quick brown fox jumps over the lazy dog, doesn't it? It's 3.14 or 2,000; e-mail me.",
    "Tiếng Việt: người Đường phở những nghiêng",
    "Η γλώσσα ελληνική, ἄνθρωπος ΣΟΦΙΑ ς",
    "Быстрая коричневая лиса, їжак і Ёлка №5",
    "اللغة العربية مرحبًا ١٢٣ سَلَام لا",
    "שָׁלוֹם עולם, עברית",
    "नमस्ते दुनिया क्षत्रिय हिन्दी १२३",
    "বাংলা ভাষা, தமிழ் உலகம், తెలుగు",
    "สวัสดีชาวโลก ภาษาไทย น้ำ",
    "გამარჯობა მსოფლიო, Հայերեն",
    "안녕하세요 세계, 한국어 각 가나다",
    "こんにちは世界。カタカナ ﾊﾝｶｸ ー「引用」",
    "你好，世界！漢字 简体字 𠮷野家 〇 一二三",
    "ሰላም ልዑል, សួស្តី ពិភពលោក, བོད་སྐད",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒜 𐍈 𓀀 🂡 ｆｕｌｌｗｉｄｔｈ ﬁ Å ẞ İ ı ſ",
]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇰🇷", "🧑🏿‍🚀", "❤️", "#️⃣", "🤷🏻‍♂️", "🫠"]
CODE = [
    "def f(x: int) -> str:\n    if x:\n        return f'{x!r}'\n\n    return ''\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "\tif err != nil {\n\t\treturn nil, err\n\t}",
    "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x%';",
    '<div class="a">&nbsp;</div><!-- x -->',
    '{"key": [1, 2.5e-10, null, true], "s": "\\u00e9\\n"}',
    "#include <stdio.h>\r\n\r\nint main(void){return 0;}",
    "$$\\int_0^\\infty e^{-x^2}\\,dx$$",
    "https://example.org/a?b=c&d=%20#e",
    "        deep\n            deeper\n                deepest\n\n\n\nend",
]
SPACES = [
    " ",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\v",
    "\f",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\u200b",
    "\u0085",
]
MARKS = [
    "e\u0301",
    "é",
    "A\u030a",
    "가",
    "\u1100\u1161",
    "q\u0307\u0323",
    "ộ",
    "o\u0302\u0323",
    "ﬀ",
]
ODD = [
    "\ufffd",
    "\ufeff",
    "\u200d",
    "\u200e",
    "\u202e",
    "\u2581",
    "\u2581\u2581a",
    "\x00",
    "\x1b[0m",
]
NUMBERS = [
    "7",
    "12",
    "123",
    "1234",
    "12345678901234567890",
    "1,234.50",
    "３４５",
    "²³",
    "٣٤٥",
    "1 000 000",
]
ENDS = [
    "text\ufffd",
    "\ufffd",
    "a\ufffd\ufffd",
    " \ufffd",
    "日本\ufffd",
    "x ",
    "x  ",
    "x\n",
    "x\n\n",
]
STARTS = [" x", "  x", "   x", "    x", " ", "  ", "   ", "", "\nx", " \nx", "▁x", " ▁x", "\tx"]

LONG = 100_000
"""Characters of the one long text, the last of the lines."""


def lines(special: Sequence[str], seed: int = 1) -> tuple[list[str], int]:
    """The texts, and where those with special tokens inside begin.

    special: some of the family's special and added tokens.
    """
    rng = random.Random(seed)
    made = [*STARTS, *ENDS, *SCRIPTS, *EMOJI, *CODE, *MARKS, *ODD, *NUMBERS]
    made += [space * n for space in SPACES for n in (1, 2, 3, 4, 8, 17)]
    made += [space * n + "x" + space * n for space in SPACES for n in (1, 2, 3, 7)]
    made += [chr(code) for code in (*range(1, 0x30), *range(0x7F, 0xC0))]
    made += [_mixed(rng) for _ in range(200)]
    made += [_planes(rng) for _ in range(40)]
    made.append(_long(rng))
    plain = len(made)
    for token in special:
        made += [token, f"a{token}b", f"Hello {token} world", f" {token}", f"{token} x", token * 2]
        made += [f"{token}\n{token}x", f"  {token}  {token}  "]
    made += ["".join(rng.choice([*special, " ", "a", " b", "\n", "é"]) for _ in range(12))] * (
        1 if special else 0
    )
    return made, plain


def id_sequences(known: Sequence[int], full_stop: Sequence[int], seed: int = 2) -> list[list[int]]:
    """Random ids; each sequence ends in `full_stop`, the ids of '.', so in whole characters."""
    rng = random.Random(seed)
    return [[*rng.choices(known, k=rng.randint(1, 24)), *full_stop] for _ in range(150)]


def conversations() -> list[list[dict[str, str]]]:
    """Short conversations, with and without a system message."""
    system = {"role": "system", "content": "Answer very seriously.\n\n  And briefly."}
    turns = [
        {"role": "user", "content": "Hello, who are you?"},
        {"role": "assistant", "content": " I am a model. 你好 👩‍👩‍👧‍👦 "},
        {"role": "user", "content": "  Write code:\n\n    x = 1\n"},
        {"role": "assistant", "content": "x = 1"},
        {"role": "user", "content": "e\u0301 <b>&amp;</b> \"quotes\" 'and' {{ braces }}"},
    ]
    made = [turns[:1], turns[:3], turns, turns[:2]]
    return made + [[system, *each] for each in made]


def _mixed(rng: random.Random) -> str:
    pools = [[word for line in SCRIPTS for word in line.split()], EMOJI, MARKS, ODD, NUMBERS, CODE]
    text = ""
    for _ in range(rng.randint(1, 14)):
        text += rng.choice(rng.choices(pools, weights=[12, 2, 1, 1, 2, 1])[0])
        text += rng.choice(["", " ", " ", " ", "  ", rng.choice(SPACES) * rng.randint(1, 9)])
    return text


def _planes(rng: random.Random) -> str:
    codes = [rng.randrange(0x10000) | rng.choice([0, 0, 0, *range(17)]) << 16 for _ in range(12)]
    return "".join(chr(code) for code in codes if not 0xD800 <= code <= 0xDFFF)


def _long(rng: random.Random) -> str:
    text = ""
    while len(text) < LONG:
        text += rng.choice(SCRIPTS) if rng.random() < 0.9 else rng.choice(CODE)
        text += rng.choice([" ", "\n", "  ", ". "])
    return text[:LONG]
