# SPDX-License-Identifier: Apache-2.0
"""Finding a format's markers in a text that comes in pieces."""

import re
from typing import NamedTuple


class Found(NamedTuple):
    """What is known of a text: up to `at` there is no marker, and there `marker` begins."""

    at: int
    marker: str  # "": none is known yet; what follows `at` may be the beginning of one


class Markers:
    """The strings that end a plain text: the first counts, of those at one place the longest.

    >>> Markers("<tool_call>").find("Yes <tool", 0, final=False)
    Found(at=4, marker='')
    """

    def __init__(self, *texts: str) -> None:
        self._pattern = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))))
        self._beginnings = {text[:end] for text in texts for end in range(1, len(text))}
        self._longest = max(map(len, texts))

    def find(self, text: str, start: int, final: bool) -> Found:
        """The first marker in `text` from `start` on. `final`: whether no text follows."""
        match = self._pattern.search(text, start)
        found = Found(match.start(), match[0]) if match else Found(len(text), "")
        if final:
            return found
        for at in range(max(start, len(text) - self._longest + 1), len(text)):
            if at > found.at:
                break
            if text[at:] in self._beginnings:
                return Found(at, "")
        return found
