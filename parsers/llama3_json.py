# SPDX-License-Identifier: Apache-2.0
"""Calls of Llama 3.1 and 3.2, and of Llama 4 with its own template: JSON that is the whole answer.

{"name": "weather", "parameters": {"city": "Lima"}}; {"name": "time", "parameters": {}}

Without a marker only the beginning of an answer can be a call, and only one of a function that
there is: anything else is JSON that the user asked for. After <|python_tag|> (Llama 4:
<|python_start|>, and <|python_end|> behind the calls) it is a call anywhere, of any function.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from trellis.parsers import Format, Setup, ToolUse
from trellis.parsers.json_call import JsonCall
from trellis.parsers.markers import Markers
from trellis.parsers.reader import Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import (
    call_tags,
    constant,
    one_of,
    regex,
    sequence,
    tags_between,
    text_with,
)

OPENINGS = ("<|python_tag|>", "<|python_start|>")
BEGINNINGS = Markers(*OPENINGS)
CLOSE = "<|python_end|>"
SEPARATOR = ";"
BEGIN = '{"name": '
KEYS = ("parameters", "arguments")


class Llama3JsonParser(SteppedParser):
    """See Parser."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._names = {tool.name for tool in setup.tools}

    def read(self) -> Steps[None]:
        """See SteppedParser.read."""
        yield from self.attempt(self._calls(self._names), 0)
        while opening := (yield from self.reader.until(BEGINNINGS, self.text)):
            yield from self.attempt(self._marked(len(opening)), len(opening))

    def _marked(self, opening: int) -> Steps[None]:
        self.reader.take(opening)
        yield from self._calls(None)
        yield from self.reader.follows(CLOSE)

    def _calls(self, names: Collection[str] | None) -> Steps[None]:
        yield from self.reader.space()
        while True:
            yield from JsonCall(self, *KEYS, names=names).read()
            self.end_call()
            yield from self.reader.space()
            if not (yield from self.reader.follows(SEPARATOR)):
                self.reader.back()  # the white space is of the text that follows
                return
            yield from self.reader.space()


def structure(use: ToolUse, prompt: str) -> Mapping[str, Any] | None:
    """See Format.structure: a text is free where it does not begin as a call does."""
    if not use.tools:
        return None
    bare = call_tags(use, partial(_begin, ""), end="}")
    called = tags_between(bare, f"{SEPARATOR} ", one=not use.parallel)
    if use.required:
        return called
    marked = [
        tag for opening in OPENINGS for tag in call_tags(use, partial(_begin, opening), end="}")
    ]
    text = {**text_with(marked, OPENINGS[0], one=not use.parallel), "triggers": list(OPENINGS)}
    behind = sequence(regex(not_beginning_with(BEGIN, *OPENINGS)), text)
    return one_of(called, {**text, "at_least_one": True}, behind, constant(""))


def _begin(opening: str, name: str) -> str:
    return f'{opening}{BEGIN}{name}, "{KEYS[0]}": '


def not_beginning_with(*texts: str) -> str:
    r"""A regular expression of the shortest texts that none of `texts` can begin with.

    >>> not_beginning_with("ab", "c")
    '([^ac]|[a][^b])'
    """
    beginnings = sorted({text[:at] for text in texts for at in range(len(text))})
    parts = []
    for beginning in beginnings:
        after = sorted({text[len(beginning)] for text in texts if text.startswith(beginning)})
        parts.append("".join(f"[{char}]" for char in beginning) + f"[^{''.join(after)}]")
    return f"({'|'.join(parts)})"


def recognises(source: str) -> bool:
    """See Format.recognises."""
    return '{"name": function name, "parameters": ' in source


def load() -> Format:
    """The format."""
    return Format(
        name="llama3_json",
        parser=Llama3JsonParser,
        shown=frozenset({*OPENINGS, CLOSE}),
        calls=True,
        structure=structure,
        recognises=recognises,
    )
