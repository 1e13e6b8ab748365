# SPDX-License-Identifier: Apache-2.0
"""Calls of Llama 3.1 and 3.2, and of Llama 4 with its own template: JSON that is the whole answer.

{"name": "weather", "parameters": {"city": "Lima"}}; {"name": "time", "parameters": {}}

Without a marker only the beginning of an answer can be a call, and only one of a function that
there is: anything else is JSON that the user asked for. After <|python_tag|> (Llama 4:
<|python_start|>, and <|python_end|> behind the calls) it is a call anywhere, of any function.
"""

from collections.abc import Collection, Mapping
from typing import Any

from trellis.parsers import Format, Setup, ToolUse
from trellis.parsers.json_call import JsonCall
from trellis.parsers.markers import Markers
from trellis.parsers.reader import Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import (
    any_text,
    call_tags,
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
    """See Format.structure: calls come first, or a text that does not begin as a call does.

    The markers are special tokens, which no text is held to. OpenVINO's release of xgrammar takes
    alternatives only if all of them may go on for ever, or none.
    """
    if not use.tools:
        return None
    one = not use.parallel
    tags = call_tags(use, lambda name: f'{BEGIN}{name}, "{KEYS[0]}": ', end="}")
    if use.required:
        return tags_between(tags, f"{SEPARATOR} ", one=one)
    called = {**text_with(tags, BEGIN, one=one), "at_least_one": True}
    return one_of(called, sequence(regex(not_beginning_with(BEGIN)), any_text()))


def not_beginning_with(text: str) -> str:
    """A regular expression of the shortest texts that can't become one that begins with `text`.

    >>> not_beginning_with("ab")
    '([^a]|[a][^b])'
    """
    befores = ["".join(f"[{char}]" for char in text[:at]) for at in range(len(text))]
    return f"({'|'.join(f'{a}[^{char}]' for a, char in zip(befores, text, strict=True))})"


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
