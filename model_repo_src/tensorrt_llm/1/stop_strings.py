"""Ending a text before a stop string, however it falls on token borders.

The matcher sees ids one at a time and lets them pass only when no stop string can begin in their
text. At a match it lets pass the ids up to the one in which the stop string begins, and says how
many characters of that one's text do not belong to the answer.

Bad words are watched for as well. Engines never make one, but tokens without a text (special ones)
may stand inside a word and hide it from them, or end what the engine watches: then the text ends
before it.
"""

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizer_registry.core import Tokenizer


class StopMatcher:
    """One sequence's watch for its stop strings.

    `push` returns the ids that may leave; `stopped` and `cut` (characters to drop from the end)
    are set once a stop string is complete.
    """

    __slots__ = (
        "_bad_words",
        "_decoder",
        "_early",
        "_held",
        "_longest",
        "_passed",
        "_tail",
        "_words",
        "cut",
        "stopped",
    )

    def __init__(
        self,
        tokenizer: "Tokenizer",
        words: list[str],
        min_tokens: int = 0,
        prompt: list[int] | None = None,
        bad_words: tuple[str, ...] = (),
    ) -> None:
        """`prompt`: the ids that stand before the answer in the client's text, if any do.

        `bad_words` count from the first id on, whatever `min_tokens` is.
        """
        self._decoder = tokenizer.stream_decoder()
        if prompt:
            self._decoder.prime(prompt)
        self._words = [*words, *bad_words]
        self._bad_words = frozenset(bad_words)
        self._longest = max(map(len, self._words))
        self._early = min_tokens  # ids still to come before a stop string counts
        self._passed = 0  # characters of the tail in which none may end: they came too early
        self._tail = ""  # the text of the held ids
        self._held: deque[tuple[int, int]] = deque()  # (id, characters of its text)
        self.stopped = False
        self.cut = 0

    def push(self, ids: list[int]) -> list[int]:
        """Take new ids; return those whose text can no longer be part of a stop string."""
        out: list[int] = []
        for token in ids:
            text = self._decoder.push([token])
            self._held.append((token, len(text)))
            self._tail += text
            self._early -= 1
            if self._early > 0:
                self._passed = len(self._tail)
            start = self._match()
            if start is not None:
                self._stop(start, out)
                return out
            self._release(len(self._tail) - self._overhang(), out)
        return out

    def end(self) -> list[int]:
        """The generation is over without a stop string: everything held may leave."""
        ids = [token for token, _ in self._held]
        self._held.clear()
        self._tail = ""
        return ids

    def _match(self) -> int | None:
        """Where the first stop string begins in the tail, if one ends in it late enough."""
        starts = [
            self._tail.find(
                word, 0 if word in self._bad_words else max(self._passed - len(word) + 1, 0)
            )
            for word in self._words
        ]
        return min((start for start in starts if start >= 0), default=None)

    def _overhang(self) -> int:
        """Length of the longest end of the tail that begins a stop string."""
        limit = min(len(self._tail), self._longest - 1)
        for length in range(limit, 0, -1):
            end = self._tail[-length:]
            if any(word.startswith(end) for word in self._words):
                return length
        return 0

    def _release(self, safe: int, out: list[int]) -> int:
        """Let ids pass whose text ends within the first `safe` characters; return what is left."""
        while self._held and self._held[0][1] <= safe:
            token, length = self._held.popleft()
            out.append(token)
            safe -= length
            self._passed = max(self._passed - length, 0)
            self._tail = self._tail[length:]
        return safe

    def _stop(self, start: int, out: list[int]) -> None:
        """Let ids pass up to character `start` of the tail, the last one perhaps only in part."""
        self.stopped = True
        kept = self._release(start, out)
        if kept:
            token, length = self._held.popleft()
            out.append(token)
            self.cut = length - kept
        self._held.clear()
        self._tail = ""
