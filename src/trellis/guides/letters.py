# SPDX-License-Identifier: Apache-2.0
"""The characters of a translated guide that a vocabulary may have no tokens for."""

import json
import re
from collections.abc import Iterator

from trellis.guides.translate import Guide

_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(?:U([0-9a-f]{8})|.)")


def rare_letters(guide: Guide) -> set[str]:
    r"""What is not printable ASCII in its texts; classes have other characters, too.

    >>> sorted(rare_letters(Guide("ebnf_grammar", 'root ::= "a\\U000000e9" [\\U00000004] "\\n"')))
    ['é']
    """
    if guide.kind != "structural_tag":
        return set(_of_grammar(guide.text))
    found: set[str] = set()
    todo = [("", json.loads(guide.text))]
    while todo:
        key, value = todo.pop()
        if isinstance(value, dict):
            todo += value.items()
        elif isinstance(value, list):
            todo += [(key, each) for each in value]
        elif isinstance(value, str) and key == "grammar":
            found.update(_of_grammar(value))
        elif isinstance(value, str):
            found.update(letter for letter in value if not " " <= letter <= "~")
    return found


def _of_grammar(text: str) -> Iterator[str]:
    for literal in _LITERAL.finditer(text):
        for escape in _ESCAPE.finditer(literal[1]):
            if escape[1]:
                yield chr(int(escape[1], 16))
