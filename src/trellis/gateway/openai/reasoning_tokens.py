# SPDX-License-Identifier: Apache-2.0
"""How many tokens of an answer are reasoning: those of whose text the parser gave any as that.

Marks, and line ends that are a format's own, are none; a token that has a mark and thoughts in it
is one.

>>> tokens = ReasoningTokens()
>>> for text in ("<think>", "I", " think", ".</think>", "Yes"):
...     tokens.add(text)
>>> tokens.take([(7, 15)])
>>> tokens.count
3
"""

from collections import deque
from collections.abc import Iterable

from trellis.parsers import Span


class ReasoningTokens:
    """Counts those of one sequence."""

    def __init__(self) -> None:
        self.count = 0
        self._at = 0  # characters of the text so far
        self._tokens: deque[Span] = deque()  # which characters they have; of those not yet read
        self._counted = False  # whether the first of these was

    def add(self, text: str) -> None:
        """A token with the text that it adds, before the parser gets that.

        One that adds none has a part of the character that comes next.
        """
        begin = self._at
        self._at += len(text)
        self._tokens.append((begin, max(self._at, begin + 1)))

    def take(self, reasoned: Iterable[Span], read: int = 0) -> None:
        """Which characters the parser gave as reasoning, in their order, none twice.

        `read`: no more will be told of the characters before.
        """
        for begin, end in reasoned:
            while self._tokens and self._tokens[0][0] < end:
                if self._tokens[0][1] > begin and not self._counted:
                    self.count += 1
                    self._counted = True
                if self._tokens[0][1] > end:
                    break
                self._forget()
        while self._tokens and self._tokens[0][1] <= read:
            self._forget()

    def _forget(self) -> None:
        self._tokens.popleft()
        self._counted = False
