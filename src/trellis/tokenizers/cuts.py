# SPDX-License-Identifier: Apache-2.0
"""Where a text may be cut so that the ids of its parts, joined, are the ids of the whole.

    '<|im_start|>user\\nHello<|im_end|>\\n'  ->  '<|im_start|>user\\nHello' | '<|im_end|>\\n'

Libraries find added tokens in the raw text, from left to right, before they do anything else, and
then normalize, cut into words and encode what stands between two of them, each by itself. So a
text may be cut before an added token, if an occurrence of its letters always is that token and
takes nothing from what stands before it. It is not cut behind one: what follows a token would then
begin a text, and get the space that some types put there.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from string import punctuation
from typing import Any

import tokenizers

from trellis.tokenizers.decoding import state_of

MOST = 32
"""How many tokens are looked for in a text: each costs time, and a chat template has few."""
_LONGEST = 256  # characters of an added token

# Steps that act on a piece of text by itself, wherever in the whole text it stands.
_ACT_BY_PIECE = {
    *("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt"),
    *("Precompiled", "Prepend", "Replace", "Strip", "StripAccents"),
    *("BertPreTokenizer", "CharDelimiterSplit", "Digits", "Metaspace", "Punctuation", "Split"),
    *("UnicodeScripts", "Whitespace", "WhitespaceSplit"),
}
_MODELS = ("BPE", "Unigram", "WordPiece", "WordLevel")
_PARTS = ("", "a", " a", "a ", "  ", "\n\n", "\t", "▁", "é", "e\u0301", "안녕", "😀", "<", "it's")


def cut_tokens(
    found: Iterable[tokenizers.AddedToken], parses_special: bool, preferred: Sequence[str] = ()
) -> tuple[str, ...]:
    """The tokens before which a text may be cut, at most MOST of them.

    Args:
        found: all added tokens that are found in the raw text.
        parses_special: whether special tokens among them are tokens, not letters.
        preferred: contents that come first if there are more than MOST.
    """
    tokens = [token for token in found if token.content]
    contents = {str(token.content) for token in tokens}
    if any(len(content) > _LONGEST for content in contents):
        return ()
    safe = [
        str(token.content)
        for token in tokens
        if (parses_special or not token.special) and _is_whole(token)
    ]
    ends = {content[at:] for content in contents for at in range(1, len(content))}
    ranked = dict.fromkeys((*(content for content in preferred if content in safe), *safe))
    apart = (content for content in ranked if _is_apart(content, contents, ends))
    return tuple(islice(apart, MOST))


def _is_whole(token: tokenizers.AddedToken) -> bool:
    """Whether a token is found wherever its letters are, and changes nothing before them.

    It begins with a punctuation mark: a token before it that takes white space along, or that
    must not be followed by a letter, then ends the same as at the end of a text.
    """
    begins = str(token.content)[0]
    return not token.lstrip and not token.single_word and begins in punctuation and begins != "_"


def _is_apart(content: str, contents: set[str], ends: set[str]) -> bool:
    """Whether no added token overlaps with an occurrence of `content`, or is found in its place.

    Args:
        ends: the ends of all contents: each without one or more of its first letters.
    """
    if any(content[:size] in ends for size in range(1, len(content) + 1)):
        return False
    return not any(content in other for other in contents if other != content)


def acts_by_piece(backend: tokenizers.Tokenizer) -> bool:
    """Whether all steps of a tokenizer are known to act on each piece of a text by itself."""
    if type(backend.model).__name__ not in _MODELS or getattr(backend.model, "dropout", None):
        return False
    return all(
        part is None or _known(state_of(part), steps)
        for part, steps in (
            (backend.normalizer, "normalizers"),
            (backend.pre_tokenizer, "pretokenizers"),
        )
    )


def _known(state: dict[str, Any], steps: str) -> bool:
    if state["type"] == "Sequence":
        return all(_known(step, steps) for step in state[steps])
    return state["type"] in _ACT_BY_PIECE


def holds(encode: Callable[[str], list[int]], tokens: Sequence[str]) -> bool:
    """Whether texts of a built-in corpus are their parts, joined.

    Args:
        encode: the ids of a text, without BOS and the like.
    """
    parts = [*_PARTS, *(token[:-1] for token in tokens[:4]), *tokens[:4]]
    for token in tokens:
        for turn in (0, 3, 8):
            after = [token + part for part in parts[turn:] + parts[:turn]]
            pairs = zip(parts, after, strict=True)
            if any(encode(a + b) != encode(a) + encode(b) for a, b in pairs):
                return False
    return True
