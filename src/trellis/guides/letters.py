# SPDX-License-Identifier: Apache-2.0
"""The characters of a translated guide that a vocabulary may have no tokens for."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache

from trellis.guides.characters import is_text
from trellis.guides.translate import KEPT, Guide

_PART = re.compile(r'"((?:[^"\\]|\\.)*)"|\[([^\]]*)\]')  # a text, or a class as it is written here
_ESCAPE = re.compile(r"\\(?:U([0-9a-f]{8})|.)")
_PIECE = re.compile(r"(?:\\U([0-9a-f]{8})|(.))(?:-(?:\\U([0-9a-f]{8})|(.)))?")
TRIED = 64  # characters of a range of a class, besides its last

Letters = tuple[str, ...]  # of which one can be written, or the guide cannot be held


@lru_cache(KEPT)
def rare_letters(guide: Guide) -> frozenset[Letters]:
    r"""What is not printable ASCII in its texts, and classes of nothing else: some of each.

    Kept as the translated guides are: one is sent with many requests.

    >>> text = 'root ::= "a\\U000000e9" [\\U00000004-\\U00000005] [a\\U00000006] "\\""'
    >>> sorted(rare_letters(Guide("ebnf_grammar", text)))
    [('\x04', '\x05'), ('é',)]
    """
    if guide.kind != "structural_tag":
        return frozenset(_of_grammar(guide.text))
    found: set[Letters] = set()
    todo = [("", json.loads(guide.text))]
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            todo += [item for item in value.items() if item[0] != "excludes"]
        elif isinstance(value, list):
            todo += [(key, each) for each in value]
        elif isinstance(value, str) and key == "grammar":
            found.update(_of_grammar(value))
        elif isinstance(value, str):
            found.update((letter,) for letter in value if not " " <= letter <= "~")
    return frozenset(found)


def _of_grammar(text: str) -> Iterator[Letters]:
    for part in _PART.finditer(text):
        if part[1] is None:
            yield from _of_class(part[2])
            continue
        for escape in _ESCAPE.finditer(part[1]):
            if escape[1]:
                yield (chr(int(escape[1], 16)),)


def _of_class(text: str) -> Iterator[Letters]:
    letters: list[str] = []
    for piece in _PIECE.finditer(text):
        first = int(piece[1], 16) if piece[1] else ord(piece[2])
        last = int(piece[3], 16) if piece[3] else ord(piece[4]) if piece[4] else first
        if first <= ord("~") and last >= ord(" "):
            return  # every vocabulary has those
        letters += map(chr, {*range(first, min(first + TRIED, last)), last})
    if letters := list(filter(is_text, letters)):
        yield tuple(sorted(letters))
