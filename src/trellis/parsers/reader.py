# SPDX-License-Identifier: Apache-2.0
"""Reading a text that comes in pieces as if it were whole.

What reads is a generator: it yields where it needs more text, and goes on when that is there. So a
format is written down as a plain sequence of steps, and what it gives can't depend on the pieces.
"""

import re
from collections.abc import Callable, Generator
from typing import NoReturn, TypeVar

from trellis.errors import TrellisError
from trellis.parsers.json_scan import JsonScanner
from trellis.parsers.markers import Markers

T = TypeVar("T")
Steps = Generator[None, None, T]
"""Yields where more text is needed; returns what was read."""

_SPACE = re.compile(r"[ \t\n\r]*")
_AHEAD = 64


class NotACallError(TrellisError):
    """What is read is not as the format has it; Reader.rewind goes back to where it began."""


def fail() -> NoReturn:
    """Raise NotACallError, where a statement can't stand."""
    raise NotACallError


class Reader:
    """The unread text, and from `mark` on the text that was read, so that it can be read again."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0  # where the unread text begins in `_text`
        self._before = 0  # characters before `_text`
        self._mark: int | None = None  # where the marked text begins in `_text`
        self._kept: list[str] = []  # marked text before `_text`
        self._closed = False

    def push(self, text: str) -> None:
        """Add a piece."""
        if self._mark is not None:
            self._kept.append(self._text[self._mark : self._at])
            self._mark = 0
        self._text = self._text[self._at :] + text
        self._before += self._at
        self._at = 0

    @property
    def at(self) -> int:
        """How many characters were read."""
        return self._before + self._at

    @property
    def marked(self) -> bool:
        """Whether what was read may be read again."""
        return self._mark is not None

    def close(self) -> None:
        """No text follows."""
        self._closed = True

    def mark(self) -> None:
        """Remember this place."""
        self._mark = self._at
        self._kept.clear()

    def unmark(self) -> None:
        """Forget the place that `mark` remembered."""
        self._mark = None
        self._kept.clear()

    def rewind(self) -> None:
        """Go back to where `mark` was called, and remember that place no longer."""
        if self._kept:
            kept = "".join(self._kept)
            self._text = kept + self._text
            self._before -= len(kept)
            self._mark = 0
        self._at = self._mark or 0
        self.unmark()

    def back(self) -> None:
        """Go back to where `mark` was called, and keep remembering that place."""
        self.rewind()
        self.mark()

    def release(self) -> str:
        """What was read since `mark` was called; that place is remembered no longer."""
        read = "".join(self._kept) + self._text[self._mark or 0 : self._at]
        self.unmark()
        return read

    def more(self) -> Steps[bool]:
        """Whether any text is unread; waits for some."""
        while self._at == len(self._text):
            if self._closed:
                return False
            yield
        return True

    def peek(self) -> Steps[str]:
        """The next character; "" at the end."""
        return self._text[self._at] if (yield from self.more()) else ""

    def take(self, count: int) -> str:
        """So many characters, which are known to be there."""
        self._at += count
        return self._text[self._at - count : self._at]

    def until(self, markers: Markers, sink: Callable[[str], None]) -> Steps[str]:
        """Give `sink` the text before the first marker; that marker, unread, or "" at the end."""
        while True:
            found = markers.find(self._text, self._at, self._closed)
            if found.at > self._at:
                sink(self.take(found.at - self._at))
            if found.marker or self._closed:
                return found.marker
            yield

    def rest(self, sink: Callable[[str], None]) -> Steps[None]:
        """Give `sink` all that comes."""
        while (yield from self.more()):
            sink(self.take(len(self._text) - self._at))

    def matching(self, pattern: re.Pattern[str], sink: Callable[[str], None]) -> Steps[None]:
        """Give `sink` the text as long as `pattern`, a repeated class of characters, matches it."""
        while (yield from self.more()):
            match = pattern.match(self._text, self._at)
            if match is None or match.end() == self._at:
                return
            sink(self.take(match.end() - self._at))

    def space(self) -> Steps[None]:
        """Skip JSON's white space."""
        yield from self.matching(_SPACE, lambda text: None)

    def ahead(self, skip: int, *texts: str) -> Steps[str]:
        """Which of `texts` is behind the next `skip` characters and white space; "" if none is.

        Nothing is skipped. White space of more than _AHEAD characters is not looked through.
        """
        start = self._at + skip
        while True:
            match = _SPACE.match(self._text, start, start + _AHEAD)
            at = match.end() if match else start
            for text in texts:
                if self._text.startswith(text, at):
                    return text
            left = self._text[at : at + _AHEAD]  # no more: the whole text may be there
            if self._closed or not any(text.startswith(left) for text in texts):
                return ""
            yield
            start = self._at + skip  # a new piece moves the text

    def follows(self, text: str) -> Steps[bool]:
        """Skip `text` if it is next; else nothing is skipped."""
        while len(self._text) - self._at < len(text):
            if self._closed or not text.startswith(self._text[self._at :]):
                return False
            yield
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def first_of(self, *texts: str) -> Steps[str]:
        """Skip the one of `texts` that is next, and say which; "" if none is."""
        for text in texts:
            if (yield from self.follows(text)):
                return text
        return ""

    def expect(self, text: str) -> Steps[None]:
        """Skip `text`. Raises NotACallError if it is not next."""
        if not (yield from self.follows(text)):
            raise NotACallError

    def close_with(self, text: str) -> Steps[None]:
        """Skip the marker `text`, of which the end of the answer may have cut off any part.

        Raises NotACallError if anything else is next.
        """
        if (yield from self.follows(text)):
            return
        left = len(self._text) - self._at
        if not self._closed or left >= len(text) or not text.startswith(self._text[self._at :]):
            raise NotACallError
        self._at += left

    def json(self, sink: Callable[[str], None]) -> Steps[None]:
        """Give `sink` a JSON value as it is written.

        Raises NotACallError where it is malformed; `sink` has then got all that is before.
        """
        scanner = JsonScanner()
        while not scanner.done:
            if not (yield from self.more()):
                if scanner.end():
                    return
                raise NotACallError
            end = scanner.scan(self._text, self._at)
            if end > self._at:
                sink(self.take(end - self._at))
            if scanner.broken:
                raise NotACallError
