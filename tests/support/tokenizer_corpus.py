"""The lines that every tokenizer is compared on: 5,400, the same ones on every machine.

Twelve scripts and more, code, runs of white space, control characters, emoji with joiners and
skin tones, and characters of every Unicode plane. Special tokens' texts are kept out of it:
libraries disagree about those on purpose, so they have tests of their own.
"""

import random

_WORDS = {
    "latin": "the quick brown fox it's don't WHERE naïve Straße œuvre Łódź 3.14 2,000 e-mail",
    "vietnamese": "tiếng Việt người Đường phở những nghiêng",
    "greek": "Η γλώσσα ελληνική ἄνθρωπος ΣΟΦΙΑ ς",
    "cyrillic": "Быстрая коричневая лиса їжак Ёлка №5",
    "arabic": "اللغة العربية مرحبًا ١٢٣ سَلَام لا",
    "hebrew": "שָׁלוֹם עולם עברית",
    "devanagari": "नमस्ते दुनिया क्षत्रिय हिन्दी १२३",
    "tamil": "வணக்கம் உலகம் தமிழ்",
    "thai": "สวัสดีชาวโลก ภาษาไทย น้ำ",
    "georgian": "გამარჯობა მსოფლიო",
    "hangul": "안녕하세요 세계 한국어 각 가나다",
    "kana": "こんにちは 世界 カタカナ ﾊﾝｶｸ ー",
    "han": "你好世界 漢字 简体字 𠮷野家 〇",
    "amharic": "ሰላም ልዑል",
    "khmer": "សួស្តី ពិភពលោក",
}
_EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇰🇷", "🧑🏿‍🚀", "❤️", "#️⃣", "🤷🏻‍♂️", "🫠"]
_CODE = [
    "def f(x: int) -> str:\n    return f'{x!r}'",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "\tif err != nil {\n\t\treturn nil, err\n\t}",
    "SELECT * FROM t WHERE a >= 10 AND b LIKE '%x%';",
    '<div class="a">&nbsp;</div><!-- x -->',
    '{"key": [1, 2.5e-10, null, true], "s": "\\u00e9\\n"}',
    "#include <stdio.h>\r\n\r\nint main(void){return 0;}",
    "$$\\int_0^\\infty e^{-x^2}\\,dx$$",
    "https://example.org/a?b=c&d=%20#e",
]
_SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\u200b"]
_SPACES += ["\v", "\f"]
_MARKS = ["\u0301", "\u0308", "\u20dd", "\u0345", "\u0f71", "\u1dce"]
_ODD = [
    "\ufffd",
    "\ufeff",
    "\u200d",
    "\u200e",
    "\u202e",
    "\u2581",
    "\ufb01",
    "\u212b",
    "\u1e9e",
    "İ",
]


def lines(seed: int = 20240229) -> list[str]:
    """The corpus. Another seed gives another of the same kinds."""
    rng = random.Random(seed)
    made = [""]
    made += map(chr, range(1, 0x180))
    made += [space * n for space in _SPACES for n in (1, 2, 3, 4, 5, 8, 17, 33)]
    made += [space * n + "x" + space * n for space in _SPACES for n in (1, 2, 3, 7)]
    made += _CODE + _EMOJI + _ODD
    kinds = [_sentence, _sentence, _mixed, _mixed, _spaced, _code, _planes, _controls, _marked]
    while len(made) < 5_400:
        made.append(rng.choice(kinds)(rng))
    return made


def long_text(length: int = 200_000, seed: int = 7) -> str:
    """Running text of about that many characters, mostly words, for throughput."""
    rng = random.Random(seed)
    parts: list[str] = []
    size = 0
    while size < length:
        parts.append(_sentence(rng) if rng.random() < 0.9 else rng.choice(_CODE))
        size += len(parts[-1]) + 1
    return "\n".join(parts)


def _sentence(rng: random.Random) -> str:
    words = _WORDS[rng.choice(list(_WORDS))].split()
    text = " ".join(rng.choices(words, k=rng.randint(1, 24)))
    return (
        rng.choice(["", "", "", " ", "\n"]) + text + rng.choice([".", "!?", "...", "", " ", "。"])
    )


def _mixed(rng: random.Random) -> str:
    pool = [word for words in _WORDS.values() for word in words.split()] + _EMOJI + _ODD
    return "".join(rng.choice(pool) + rng.choice(["", " ", " "]) for _ in range(rng.randint(1, 16)))


def _spaced(rng: random.Random) -> str:
    words = _WORDS["latin"].split()
    return "".join(
        rng.choice(words) + rng.choice(_SPACES) * rng.choice([1, 1, 2, 3, 4, 8, 11])
        for _ in range(rng.randint(1, 10))
    )


def _code(rng: random.Random) -> str:
    return "\n".join(" " * rng.choice([0, 2, 4, 8]) + rng.choice(_CODE) for _ in range(3))


def _planes(rng: random.Random) -> str:
    text = ""
    for _ in range(rng.randint(1, 12)):
        code = rng.randrange(0x10000) | rng.choice([0, 0, 0, *range(17)]) << 16
        text += "" if 0xD800 <= code <= 0xDFFF else chr(code)
    return text


def _controls(rng: random.Random) -> str:
    codes = [*range(0x20), 0x7F, *range(0x80, 0xA0)]
    return "".join(chr(rng.choice(codes)) + rng.choice(["", "a", " b"]) for _ in range(8))


def _marked(rng: random.Random) -> str:
    letters = "aeiouяक가א"
    return "".join(
        rng.choice(letters) + "".join(rng.choices(_MARKS, k=rng.randint(0, 3))) for _ in range(9)
    )
