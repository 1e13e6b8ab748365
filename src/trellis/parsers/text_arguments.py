# SPDX-License-Identifier: Apache-2.0
"""A JSON object made of arguments that a model writes as plain text, one after another.

>>> written = []
>>> arguments = TextArguments(None, written.append)
>>> arguments.begin("city"); arguments.add("Par"); arguments.add("is"); arguments.end_value()
>>> arguments.end(); "".join(written)
'{"city": "Paris"}'

Each separator is a comma or colon and a space; letters of all scripts are written as they are.
"""

import json
from collections.abc import Callable, Sequence

from trellis.parsers.argument_types import ArgumentTypes
from trellis.parsers.format import Tool
from trellis.parsers.json_scan import JsonScanner
from trellis.parsers.reader import Steps, fail
from trellis.parsers.stepped import SteppedParser


class TextArguments:
    """Gives `sink` a JSON object as its arguments come."""

    def __init__(self, tool: Tool | None, sink: Callable[[str], None]) -> None:
        """`tool`: whose schema says of which types the arguments are."""
        self.types = ArgumentTypes(tool)
        self.names: set[str] = set()  # of the arguments so far
        self._sink = sink
        self._name = ""
        self._is_plain = False  # whether the value is given as it comes
        self._held: list[str] = []  # of a value that is not
        self._json: JsonScanner | None = None  # of an object or an array

    def begin(self, name: str) -> None:
        """An argument begins."""
        self._sink(("{" if not self.names else ", ") + _quoted(name) + ": ")
        self.names.add(name)
        self._name = name
        self._is_plain = self.types.is_plain_string(name)
        self._json = JsonScanner() if self.types.is_nested(name) else None
        if self._is_plain:
            self._sink('"')

    def add(self, text: str) -> None:
        """More of the argument's text."""
        if self._is_plain:
            self._sink(_quoted(text)[1:-1])
            return
        self._held.append(text)
        if self._json is not None:
            self._json.scan(text if self._json.is_begun else text.lstrip(" \t\n\r"), 0)

    @property
    def is_open(self) -> bool:
        """Whether the value is an object or an array so far, and not at its end."""
        return self._json is not None and self._json.depth > 0 and not self._json.broken

    def end_value(self) -> None:
        """The argument is complete."""
        value = '"' if self._is_plain else self.types.to_json(self._name, "".join(self._held))
        self._sink(value)
        self._held.clear()

    def end(self) -> None:
        """All arguments are complete."""
        self._sink("}" if self.names else "{}")


def closed_before(
    parser: SteppedParser, arguments: TextArguments, closing: str, *following: str
) -> Steps[str]:
    """Skip `closing` and which of `following` is behind it, with white space between them.

    "" if none of them is: then `closing` was no tag but a part of the value, as in the text of a
    file, and was added to it. A constraint has it only in the strings of an object or an array.
    """
    reader = parser.reader
    if parser.setup.constrained:
        is_tag = not arguments.is_open
    else:
        is_tag = bool((yield from reader.ahead(len(closing), *following)))
    if not is_tag:
        arguments.add(reader.take(len(closing)))
        return ""
    reader.take(len(closing))
    yield from reader.space()
    return (yield from reader.first_of(*following)) or fail()


def named(tools: Sequence[Tool], name: str) -> Tool | None:
    """The tool of this name, if it was offered."""
    return next((tool for tool in tools if tool.name == name), None)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
