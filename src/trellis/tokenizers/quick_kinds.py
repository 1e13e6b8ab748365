# SPDX-License-Identifier: Apache-2.0
"""Which tokenizers fastokens has the ids of: what was compared, and nothing else.

    Split(Llama 3's pattern), ByteLevel      yes
    Split(a pattern of one's own), ByteLevel no: other libraries of regular expressions differ
    an added token that takes white space along, and one that is white space     no
    an added token that must be a word of its own    no: their letters and ends of texts differ

The two libraries were compared on the characters of Unicode at each place in a word (of large
blocks that are all alike on one in 61), for every pattern here, and on fuzzed texts
(tests/fuzz/test_quick_fuzz.py).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tokenizers

from trellis.tokenizers.decoding import BYTE_LETTERS, state_of

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _words(letters: str, marks: str, digits: str) -> str:
    return (
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}"
        rf"| ?[^\s\p{{L}}{marks}\p{{N}}]+[\r\n]*|{_ENDS}"
    )


def _cased(end: str, digits: str) -> str:
    return (
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{end}"
        rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{end}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_ENDS}"
    )


_DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + _ENDS,
)
_PATTERNS = {
    (_words(r"\p{L}", "", r"\p{N}{1,3}"),),  # Llama 3, cl100k
    (_words(r"\p{L}", "", r"\p{N}"),),  # Qwen to 3
    (_words(r"[\p{L}\p{M}]", r"\p{M}", r"\p{N}"),),  # Qwen from 3.5 on
    (_cased(_CONTRACTIONS + "?", r"\p{N}{1,3}"),),  # Llama 4, o200k
    (_cased("", r"\p{N}"),),  # tekken
    _DEEPSEEK,
}
# What cuts a text into words, one after the other; GPT-2's pattern is ByteLevel's own.
_KEEPS_ALL = {("Isolated", False), ("Removed", True)}
_DIFFERENT = "\u017f\u180e"
"""Characters that the two take for others: the long s for s, and a separator for a space."""


def differs_on(text: str) -> bool:
    """Whether a text has a character that fastokens takes for another than `tokenizers` does."""
    return not text.isascii() and any(letter in text for letter in _DIFFERENT)


def why_not(backend: tokenizers.Tokenizer) -> str:
    """Why fastokens may not encode for a tokenizer; "" if it may."""
    return (
        _why_not_model(backend)
        or _why_not_normalizer(_steps(backend.normalizer, "normalizers"))
        or _why_not_words(_steps(backend.pre_tokenizer, "pretokenizers"))
        or _why_not_added(list(backend.get_added_tokens_decoder().values()))
    )


def _steps(part: Any, steps: str) -> list[dict[str, Any]]:
    """The settings of each step of a normalizer or a pre-tokenizer."""

    def flat(state: dict[str, Any]) -> Iterable[dict[str, Any]]:
        if state.get("type") == "Sequence":
            for step in state[steps]:
                yield from flat(step)
        elif state:
            yield state

    return list(flat(state_of(part)))


def _why_not_model(backend: tokenizers.Tokenizer) -> str:
    model = backend.model
    if type(model).__name__ != "BPE":
        return f"its model is {type(model).__name__}, not BPE"
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if getattr(model, name, None):
            return f"its model has a {name}"
    if model.byte_fallback:
        return "its model writes bytes as tokens such as <0x0A>"
    if model.unk_token and any(model.token_to_id(letter) is None for letter in BYTE_LETTERS):
        return "its model has one token for all bytes that it lacks"
    return ""


def _why_not_normalizer(steps: Sequence[dict[str, Any]]) -> str:
    kinds = [step["type"] for step in steps]
    return "" if kinds in ([], ["NFC"]) else f"its normalizer is {', '.join(kinds)}"


def _why_not_words(steps: Sequence[dict[str, Any]]) -> str:
    kinds = [step["type"] for step in steps]
    if not kinds or kinds[-1] != "ByteLevel":
        return f"its pre-tokenizer is {', '.join(kinds) or 'none'}, not ByteLevel"
    last = steps[-1]
    if last.get("add_prefix_space"):
        return "it puts a space before a text"
    if last.get("use_regex", True):
        known = kinds in (["ByteLevel"], ["Digits", "ByteLevel"])
        return "" if known else f"its pre-tokenizer is {', '.join(kinds)}"
    splits = steps[:-1]
    if any(kind != "Split" for kind in kinds[:-1]):
        return f"its pre-tokenizer is {', '.join(kinds)}"
    if any((step["behavior"], step["invert"]) not in _KEEPS_ALL for step in splits):
        return "its pre-tokenizer drops or joins words"
    if tuple(_pattern(step) for step in splits) not in _PATTERNS:
        return "it cuts words by a pattern that was not compared"
    return ""


def _pattern(step: dict[str, Any]) -> str:
    """A regular expression, with line ends as files mostly write them."""
    pattern = str(step["pattern"].get("Regex", ""))
    return pattern.replace("\r", r"\r").replace("\n", r"\n")


def _why_not_added(added: Sequence[tokenizers.AddedToken]) -> str:
    words = (str(token.content) for token in added if token.single_word)
    if (word := next(words, None)) is not None:
        return f"its added token {word!r} must be a word of its own"
    if any(token.lstrip or token.rstrip for token in added):
        spaced = (str(t.content) for t in added if str(t.content) != str(t.content).strip())
        if (space := next(spaced, None)) is not None:
            return f"an added token takes white space along, and {space!r} is one of white space"
    raw, normalized = (
        [str(token.content) for token in added if bool(token.normalized) is kind]
        for kind in (False, True)
    )
    for one in normalized:
        if any(_overlap(one, other) for other in raw):
            return f"its added token {one!r} overlaps with one that is found before it"
    return ""


def _overlap(one: str, other: str) -> bool:
    """Whether a text may hold both at places that have a letter in common."""
    if one in other or other in one:
        return True
    sizes = range(1, min(len(one), len(other)))
    return any(one[-size:] == other[:size] or other[-size:] == one[:size] for size in sizes)


def first_difference(
    slow: Callable[[Sequence[str]], list[list[int]]], quick: Any, backend: tokenizers.Tokenizer
) -> str | None:
    """The first text of a built-in corpus that fastokens has other ids for, None if there is none.

    Args:
        slow: the ids of texts, by `tokenizers`.
        quick: fastokens' tokenizer.
    """
    added = backend.get_added_tokens_decoder()
    contents = [str(added[token].content) for token in sorted(added)]
    shown = [*contents[:_ADDED], *contents[-_ADDED:]]
    texts = [*_CORPUS, *(form.format(token) for token in shown for form in _PLACES)]
    letters = bool(backend.encode_special_tokens)
    for text, ids in zip(texts, slow(texts), strict=True):
        if quick.encode(text, False, letters).ids != ids:
            return text
    return None


_ADDED = 48  # added tokens that are tried, from each end
_PLACES = ("{0}", "a{0}b", " {0} ", "{0}{0}\n", "é{0}가")
_CORPUS = (
    "The quick, brown fox jumps over the lazy dog.  It's 1,234.50 € -- isn't it?\n\n",
    " They'LL say we'Ve   done I'd: 'tis SOMEcamelCase HTTPServer2x_y snake_case 12345678",
    "\tdef f(x: int) -> str:\r\n        return f'{x!r}'  # 0x1F\r\n\r\n\tif err != nil {\n\t\t}\n",
    'SELECT * FROM "t" WHERE a >= 10 AND b LIKE \'%x%\'; {"k": [1, 2.5e-10, null], "s": "\\u00e9"}',
    "https://example.org/a?b=c&d=%20#e $$\\int_0^\\infty e^{-x^2}\\,dx$$ </div>&nbsp;<!-- x -->",
    "안녕하세요 세계! 한국어 문장은 띄어쓰기를 합니다. 각",
    "こんにちは世界。カタカナとﾊﾝｶｸ、１２３ー",
    "你好，世界！汉字和漢字，𠮷野家〇三",
    "नमस्ते दुनिया क्षत्रिय १२३ हिन्दी। வணக்கம் உலகம்",
    "مرحبًا بالعالم ١٢٣ سَلَام؟ שָׁלוֹם עולם",
    "Привет, мир! Ёлка №5. Γειά σου ΣΟΦΙΑ ς ἄνθρωπος",
    "สวัสดีชาวโลก น้ำ ភាសាខ្មែរ ሰላም ልዑል გამარჯობა",
    "tiếng Việt người Łódź Straße naïve œuvre İstanbul ẞ ǅ ﬁ Å",
    "e\u0301 e\u0301\u0302 \u0301x a\u20dd ᄒ\u1161\u11ab ½ ² Ⅷ ⅷ Ⓐ 𝟙𝟚 𝐀𝐛 ª ʰ",
    "😀👩‍👩‍👧‍👦👍🏽 🏳️‍🌈🇰🇷🇰 ❤️ #️⃣ 🧑🏿‍🚀",
    "a\u00a0b\u3000c\u2028d\u200be\u200df\u202eg\ufeffh\u0085i\x1cj\x00k\x7f",
    "    x\n     y\n\n\n   \n \t \n" + " " * 40 + "z" + "\n" * 9 + " ",
    "!!! ??? ... --- === ### ``` ~~~ *** ___ <<< >>> |||'''\"\"\"",
    "<|im_start|>user\nHi<|im_end|>\n<|eot_id|></s>[INST] x [/INST]<s><|endoftext|>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ababababababab",
    "\ud7a3\ue000\uffff\U0001f9ff\U00020000\U000e0061\U0010ffff",
    "",
)
