# SPDX-License-Identifier: Apache-2.0
"""Calls of Llama 4, and of Llama 3.2 where its template says so: a list of Python's calls.

[weather(city="Lima", days=3), time()]

The arguments become one JSON object, {"city": "Lima", "days": 3}, given a value at a time. Without
<|python_start|> only the beginning of an answer can be a list of calls, and only of functions that
there are: anything else is a list that the user asked for.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trellis.parsers import Format, Setup, Tool, ToolUse
from trellis.parsers.markers import Markers
from trellis.parsers.python_literal import read_literal, read_separated, read_word, to_json
from trellis.parsers.reader import NotACallError, Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import Structure, constant, one_of, sequence, tag, tags_between
from trellis.parsers.tagged_structure import json_value

OPEN, CLOSE = "<|python_start|>", "<|python_end|>"
BEGINNINGS = Markers(OPEN)
FUNCTION = re.compile(r"[\w.-]+")
SEPARATOR = ", "
OF_AN_OBJECT = frozenset(  # what a schema of arguments may have beside values
    {"type", "properties", "required", "additionalProperties", "title", "description"}
    | {"$defs", "definitions", "$schema"}
)
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


def structure(use: ToolUse, prompt: str) -> Mapping[str, Any] | None:
    """See Format.structure: a list of calls with values as JSON has them.

    Only where one must be called: a text that may be one is not held to anything.
    """
    made = [_held(tool) for tool in use.tools]
    held = [each for each in made if each is not None]
    if not use.required or not held or len(held) < len(made):
        return None
    return tag("[", tags_between(held, SEPARATOR, one=not use.parallel), "]")


def _held(tool: Tool) -> Structure | None:
    """A call of the tool, with arguments of its schema; None for a schema that can't be held so."""
    root = tool.parameters
    properties, required = root.get("properties", {}), set(root.get("required", ()))
    known = root.keys() <= OF_AN_OBJECT and required <= properties.keys()
    if not known or not re.fullmatch(r"[^\W\d][\w.-]*", tool.name):
        return None
    first: list[Structure] = []
    rest: list[Structure] = []
    for name, schema in properties.items():
        value = json_value(schema, root) if isinstance(schema, Mapping) else None
        if value is None or not name.isidentifier():
            return None
        (first if name in required else rest).append(sequence(constant(f"{name}="), value))
    return tag(f"{tool.name}(", _arguments(first, rest), ")")


def _arguments(required: Sequence[Structure], rest: Sequence[Structure]) -> Structure:
    """All that are required, and then any of the rest, in their order."""
    comma, nothing = constant(SEPARATOR), constant("")
    more = [one_of(sequence(comma, each), nothing) for each in rest]
    if required:
        behind = [sequence(comma, each) for each in required[1:]]
        return sequence(required[0], *behind, *more)
    begun = [sequence(each, *more[at + 1 :]) for at, each in enumerate(rest)]
    return one_of(*begun, nothing)


def recognises(source: str) -> bool:
    """See Format.recognises."""
    return ASKED_FOR in source


def load() -> Format:
    """The format."""
    return Format(
        name="llama4_pythonic",
        parser=Llama4PythonicParser,
        shown=frozenset({OPEN, CLOSE}),
        calls=True,
        structure=structure,
        recognises=recognises,
    )
