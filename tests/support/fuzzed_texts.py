# SPDX-License-Identifier: Apache-2.0
"""Texts that look for differences between two tokenizers of the same files.

Made of what tokenizers trip over: scripts, marks, emoji with joiners, white space of all kinds,
digits, contractions, controls, runs, any code point, and the added tokens of a vocabulary, whole,
cut, doubled and with white space around.
"""

import random
import string
from collections.abc import Sequence

_BLOCKS = (
    *((0x20, 0x7F), (0, 0x20), (0x7F, 0x180), (0x180, 0x250), (0x300, 0x370), (0x370, 0x530)),
    *((0x590, 0x700), (0x900, 0xD80), (0xE00, 0x1000), (0x1100, 0x1200), (0x1E00, 0x2100)),
    *((0x2000, 0x2070), (0x2150, 0x2190), (0x2460, 0x2500), (0x3000, 0x3130), (0x4E00, 0x5200)),
    *((0xAC00, 0xAF00), (0xFB00, 0xFE70), (0xFF00, 0xFFF0), (0x1D400, 0x1D800)),
    *((0x1F1E6, 0x1F200), (0x1F300, 0x1FA00), (0xE0000, 0xE0200), (0x10000, 0x11000)),
)
_SPACES = (
    *(" ", "  ", "   ", "\t", "\n", "\r", "\r\n", "\n\n", "\n\r", "\x85", "\u00a0", "\u3000"),
    *("\u2028", "\u2029", "\u200b", "\u1680", "\u180e", "\ufeff", "\v", "\f", "\x1c", "\x1f"),
    *(" \n", " \r\n", "\n ", "\t "),
)
_CONTRACTIONS = (
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'vE", "'M", "'LL", "'D"),
    *("'ſ", "’s", "'", "''", "'x", "'ſ's"),
)
_NUMBERS = (
    *("0", "12", "123", "1234", "12345", "1,000", "3.14", "٣٤", "१२३", "Ⅷ", "½", "²", "๑"),
    *("１２", "𝟙𝟚", "1st", "1a2b"),
)
_MARKS: tuple[str, ...] = (
    *string.punctuation,
    "...",
    "!!",
    "--",
    "::",
    "//",
    "```",
    "</",
    "<|",
    "|>",
    "«",
    "—",
    "¿",
)
_WORDS = (
    *("a", "b", "A", "the", "Hello", "WORLD", "camelCase", "HTTPServer", "ß", "ſ", "K", "İ", "ı"),
    *("é", "e\u0301", "한", "글", "안녕", "हिन्दी", "क्ष", "العربية", "你好", "世界", "日本語"),
    *("ひらがな", "ไทย", "𠮷", "ǅ", "ʰ", "ª", "ᾳ", "ﬁ", "Ⓐ", "𝐀", "\u0301", "\u0308", "\u093c"),
    *("\u0301\u0301", "\u20dd", "\u0345", "\u1161", "\u11a8", "ᄒ", "ᅡ", "ᆫ"),
)
_EMOJI = (
    *("😀", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇰🇷", "❤️", "#️⃣", "\u200d", "\ufe0f", "\u200c", "🏽", "🇰"),
)
_RUNS = ("a", "ab", " ", "x\n", "哈", "A", "1", "'s", "=")


def line(rng: random.Random, added: Sequence[str] = ()) -> str:
    """A text of up to 24 parts, now and then of some hundred.

    added: contents of added tokens.
    """
    parts = rng.choice((1, 2, 3, 4, 6, 8, 12, 16, 24))
    if rng.random() < 0.015:
        parts = rng.randint(50, 400)
    return "".join(_part(rng, added) for _ in range(parts))


def long_line(rng: random.Random, added: Sequence[str] = ()) -> str:
    """A text of some 100,000 characters."""
    return "".join(line(rng, added) for _ in range(2_000))


def _part(rng: random.Random, added: Sequence[str]) -> str:
    kind = rng.random()
    if kind < 0.36:
        return _word(rng) if kind > 0.18 else rng.choice(_SPACES) * rng.choice((1, 1, 1, 2, 3, 7))
    if kind < 0.44:
        return rng.choice(_CONTRACTIONS)
    if kind < 0.52:
        return rng.choice(_NUMBERS)
    if kind < 0.62:
        return rng.choice(_MARKS) * rng.choice((1, 1, 2, 5))
    if kind < 0.67:
        return rng.choice(_EMOJI)
    if kind < 0.77:
        block = range(*rng.choice(_BLOCKS))
        return "".join(chr(rng.choice(block)) for _ in range(rng.randint(1, 6)))
    if kind < 0.8:
        code = rng.randrange(0x110000)
        return "" if 0xD800 <= code <= 0xDFFF else chr(code)
    if kind < 0.92 and added:
        return _added(rng, rng.choice(added))
    return rng.choice(_RUNS) * rng.randint(1, 40)


def _word(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return rng.choice(_WORDS)
    return "".join(rng.choices(string.ascii_letters, k=rng.randint(1, 20)))


def _added(rng: random.Random, token: str) -> str:
    cut = rng.randint(0, len(token))
    ends = (" ", "\n", "x", "  ")
    ways = (token, token, token, token[:cut], token[cut:], token.upper(), token + token)
    return rng.choice((*ways, rng.choice(ends) + token + rng.choice(ends)))
