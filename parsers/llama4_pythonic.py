# SPDX-License-Identifier: Apache-2.0
"""Calls of Llama 4, and of Llama 3.2 where its template says so: a list of Python's calls.

[weather(city="Lima", days=3), time()]

The arguments become one JSON object, {"city": "Lima", "days": 3}, given a value at a time. Without
<|python_start|> only the beginning of an answer can be a list of calls, and only of functions that
there are: anything else is a list that the user asked for.
"""

import re
from collections.abc import Collection

from trellis.parsers import Format, Setup
from trellis.parsers.markers import Markers
from trellis.parsers.python_literal import read_literal, read_separated, read_word, to_json
from trellis.parsers.reader import NotACallError, Steps
from trellis.parsers.stepped import SteppedParser

OPEN, CLOSE = "<|python_start|>", "<|python_end|>"
BEGINNINGS = Markers(OPEN)
FUNCTION = re.compile(r"[\w.-]+")
ASKED_FOR = "[func_name1("  # how templates describe the format


class Llama4PythonicParser(SteppedParser):
    """See Parser."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._names = {tool.name for tool in setup.tools}

    def read(self) -> Steps[None]:
        """See SteppedParser.read."""
        yield from self.attempt(self._list(self._names), 0)
        while opening := (yield from self.reader.until(BEGINNINGS, self.text)):
            yield from self.attempt(self._marked(len(opening)), len(opening))

    def _marked(self, opening: int) -> Steps[None]:
        self.reader.take(opening)
        yield from self._list(None)
        yield from self.reader.follows(CLOSE)

    def _list(self, names: Collection[str] | None) -> Steps[None]:
        yield from self.reader.space()
        yield from self.reader.expect("[")
        yield from self.reader.space()
        if (yield from self.reader.peek()) in ("]", ""):
            raise NotACallError
        yield from read_separated(self.reader, "]", lambda: self._call(names))

    def _call(self, names: Collection[str] | None) -> Steps[None]:
        name = yield from read_word(self.reader, FUNCTION)
        if not name or name[0] in "0123456789.-" or (names is not None and name not in names):
            raise NotACallError
        yield from self.reader.expect("(")
        self.begin_call(name)
        self.add_arguments("{")
        given: set[str] = set()
        yield from read_separated(self.reader, ")", lambda: self._argument(given))
        yield from self.reader.space()
        if (yield from self.reader.peek()) not in (",", "]", ""):
            raise NotACallError
        self.add_arguments("}")
        self.end_call()

    def _argument(self, given: set[str]) -> Steps[None]:
        name = yield from read_word(self.reader)
        yield from self.reader.space()
        yield from self.reader.expect("=")
        yield from self.reader.space()
        if not name.isidentifier() or name in given:
            raise NotACallError
        value: list[str] = []
        yield from read_literal(self.reader, value.append)
        separator = ", " if given else ""
        self.add_arguments(f"{separator}{to_json(name)}: {''.join(value)}")
        given.add(name)


def recognises(source: str) -> bool:
    """See Format.recognises."""
    return ASKED_FOR in source


def load() -> Format:
    """The format; xgrammar has no form of it that could be constrained."""
    return Format(
        name="llama4_pythonic",
        parser=Llama4PythonicParser,
        shown=frozenset({OPEN, CLOSE}),
        calls=True,
        recognises=recognises,
    )
