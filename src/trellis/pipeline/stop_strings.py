# SPDX-License-Identifier: Apache-2.0
"""Ending a text before a stop string, however it falls on token borders.

The matcher sees ids one at a time and lets them pass only when no stop string can begin in their
text. At a match it lets pass the ids up to the one in which the stop string begins, and says how
many characters of that one's text do not belong to the answer.

A client's text mostly leaves special tokens out. A stop string that holds one's letters, alone
(`<|im_end|>`) or among others (`Bye<|im_end|>`), is looked for in the text that shows them, too.

Bad words are watched for as well. Engines never make one, but tokens without a text (special ones)
may stand inside a word and hide it from them, or end what the engine watches: then the text ends
before it.
"""

from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from trellis.panics import guarded

if TYPE_CHECKING:
    from trellis.tokenizers import StreamDecoder, Tokenizer


_Held = tuple[int, int, int]  # an id that waits, its visible characters, those with special tokens


class _Place(NamedTuple):
    """Where a stop string begins; of several the smallest is the first."""

    seen: int  # visible characters before it, of the tail
    ids: int  # held ids before the one that it begins in
    kept: int  # visible characters of that one before it


class _Text:
    """A text of the answer, with or without its special tokens, and the words it must not hold."""

    __slots__ = ("_bad_words", "_decoder", "_letters", "_longest", "_passed", "_words", "tail")

    def __init__(
        self, decoder: "StreamDecoder", words: list[str], bad_words: frozenset[str]
    ) -> None:
        self._decoder = decoder
        self._words = words
        self._bad_words = bad_words
        self._letters = frozenset("".join(words))
        self._longest = max(map(len, words))
        self._passed = 0  # characters of the tail in which none may end: they came too early
        self.tail = ""  # the text of the held ids

    def push(self, token: int, early: bool) -> int:
        """Append an id's text; how many characters it has. `early`: no stop string counts yet."""
        text = guarded(self._decoder.push, [token])
        self.tail += text
        if early:
            self._passed = len(self.tail)
        return len(text)

    def match(self) -> int | None:
        """Where the first stop string begins in the tail, if one ends in it late enough."""
        starts = [self.tail.find(word, self._from(word)) for word in self._words]
        return min((start for start in starts if start >= 0), default=None)

    def included(self) -> int | None:
        """How much of the tail an answer keeps that ends behind its first stop string.

        None where a bad word begins first, which no answer holds.
        """
        found = [
            (start, word in self._bad_words, start + len(word))
            for word in self._words
            if (start := self.tail.find(word, self._from(word))) >= 0
        ]
        _, bad, end = min(found, default=(0, True, 0))
        return None if bad else end

    def _from(self, word: str) -> int:
        """Where in the tail a word may begin: a stop string not too early."""
        return 0 if word in self._bad_words else max(self._passed - len(word) + 1, 0)

    def safe(self) -> int:
        """How much of the tail can no longer be part of a stop string."""
        if self.tail[-1:] not in self._letters:  # what most texts end in, and "" does
            return len(self.tail)
        limit = min(len(self.tail), self._longest - 1)
        for length in range(limit, 0, -1):
            end = self.tail[-length:]
            if any(word.startswith(end) for word in self._words):
                return len(self.tail) - length
        return len(self.tail)

    def drop(self, length: int) -> None:
        """Forget the first characters of the tail: their id has left."""
        self._passed = max(self._passed - length, 0)
        self.tail = self.tail[length:]


class StopMatcher:
    """One sequence's watch for its stop strings.

    `push` returns the ids that may leave; `stopped` and `cut` (characters to drop from the end)
    are set once a stop string is complete.
    """

    __slots__ = ("_early", "_held", "_include", "_shown", "_visible", "cut", "stopped")

    def __init__(
        self,
        tokenizer: "Tokenizer",
        words: list[str],
        min_tokens: int = 0,
        prompt: list[int] | None = None,
        bad_words: tuple[str, ...] = (),
        skip_special_tokens: bool | None = None,
        include: bool = False,
    ) -> None:
        """`prompt`: the ids that stand before the answer in the client's text, if any do.

        `bad_words` count from the first id on, whatever `min_tokens` is. `skip_special_tokens`:
        whether the client's text leaves special tokens out; None: as the tokenizer was loaded.
        `include`: whether the text ends behind its stop string.
        """
        every, bad = [*words, *bad_words], frozenset(bad_words)
        skip = tokenizer.skip_special_tokens if skip_special_tokens is None else skip_special_tokens
        self._visible = _Text(_decoder(tokenizer, skip_special_tokens, prompt), every, bad)
        self._shown: _Text | None = None  # with the special tokens that the client does not see
        special = [word for word in every if _holds_special(tokenizer, word)] if skip else []
        if special:
            self._shown = _Text(_decoder(tokenizer, False, prompt), special, bad)
        self._include = include
        self._early = min_tokens  # ids still to come before a stop string counts
        self._held: deque[_Held] = deque()
        self.stopped = False
        self.cut = 0

    def push(self, ids: list[int]) -> list[int]:
        """Take new ids; return those whose text can no longer be part of a stop string."""
        out: list[int] = []
        for token in ids:
            self._early -= 1
            visible = shown = self._visible.push(token, self._early > 0)
            if self._shown is not None:
                shown = self._shown.push(token, self._early > 0)
            self._held.append((token, visible, shown))
            place = self._match()
            if place is not None:
                kept = self._kept() if self._include else None
                if kept is None:
                    self._stop(place, out)
                else:
                    self.stopped, self.cut = True, len(self._visible.tail) - kept
                    out += self.end()
                return out
            self._release(out)
        return out

    def end(self) -> list[int]:
        """The generation is over without a stop string: everything held may leave."""
        ids = [token for token, _, _ in self._held]
        self._held.clear()
        return ids

    def _kept(self) -> int | None:
        """How many visible characters of the tail are kept with the stop string; None: without."""
        if self._visible.match() is not None:
            return self._visible.included()
        # It is complete with special tokens alone: the text that leaves them out ends here, too.
        whole = self._shown is not None and self._shown.included() is not None
        return len(self._visible.tail) if whole else None

    def _match(self) -> _Place | None:
        """Where the first stop string begins, if one is complete."""
        start = self._visible.match()
        place = None if start is None else self._place(start, shown=False)
        if self._shown is not None and (start := self._shown.match()) is not None:
            hidden = self._place(start, shown=True)
            place = hidden if place is None else min(place, hidden)
        return place

    def _place(self, start: int, shown: bool) -> _Place:
        """The place of character `start` of a tail.

        Where an id's two texts differ (a space or a character that a special token broke off), it
        is counted from their ends.
        """
        seen = 0
        for index, (_, visible, length) in enumerate(self._held):
            length = length if shown else visible
            if start < length:
                kept = max(visible - (length - start), 0)
                return _Place(seen + kept, index, kept)
            start -= length
            seen += visible
        raise AssertionError("a stop string begins in the text of an id that is held")

    def _release(self, out: list[int]) -> None:
        """Let ids pass whose text no stop string can begin in."""
        safe = self._visible.safe()
        shown = safe if self._shown is None else self._shown.safe()
        gone = gone_shown = 0
        while self._held:
            token, visible, length = self._held[0]
            if gone + visible > safe or gone_shown + length > shown:
                break
            self._held.popleft()
            out.append(token)
            gone += visible
            gone_shown += length
        self._visible.drop(gone)
        if self._shown is not None:
            self._shown.drop(gone_shown)

    def _stop(self, place: _Place, out: list[int]) -> None:
        """Let ids pass up to a place, the last one perhaps only in part."""
        self.stopped = True
        out.extend(self._held.popleft()[0] for _ in range(place.ids))
        if place.kept:
            token, visible, _ = self._held.popleft()
            out.append(token)
            self.cut = visible - place.kept
        self._held.clear()


def _decoder(
    tokenizer: "Tokenizer", skip_special_tokens: bool | None, prompt: list[int] | None
) -> "StreamDecoder":
    if skip_special_tokens is None:  # as a type of somebody's own may have it
        decoder = guarded(tokenizer.stream_decoder)
    else:
        decoder = guarded(tokenizer.stream_decoder, skip_special_tokens)
    if prompt:
        guarded(decoder.prime, prompt)
    return decoder


@lru_cache(4096)
def _holds_special(tokenizer: "Tokenizer", word: str) -> bool:
    """Whether the letters of a special token stand in a word."""
    letters = word.encode()
    return any(special in letters for special in tokenizer.special_tokens.values() if special)
