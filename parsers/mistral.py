# SPDX-License-Identifier: Apache-2.0
"""Calls of Mistral's models, behind [TOOL_CALLS].

[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Lima"}}]     tokenizers up to v7
[TOOL_CALLS]weather[CALL_ID]VvvODy9mT[ARGS]{"city": "Lima"}          v11
[TOOL_CALLS]weather[ARGS]{"city": "Lima"}                            v13; some leave out [ARGS]

Up to v7 several calls are in one list, from v11 on each has its own marker. The markers are special
tokens, which no engine can be held to; so an answer that must be calls is the list alone, and such
a list at the beginning of an answer is calls of those functions that there are.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from trellis.parsers import Format, ToolUse
from trellis.parsers.json_call import JsonCall
from trellis.parsers.markers import Markers
from trellis.parsers.python_literal import read_separated, read_word
from trellis.parsers.reader import NotACallError, Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import arguments, call_tags, tag, tags_between, text_with

OPEN, CALL_ID, ARGS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
BEGINNINGS = Markers(OPEN)
KEY = "arguments"
WORD = re.compile(r"[^\s\[\]{}\x00-\x1f\x7f]+")  # of a name or an id


class MistralParser(SteppedParser):
    """See Parser."""

    def read(self) -> Steps[None]:
        """See SteppedParser.read."""
        yield from self.attempt(self._bare(), 0)
        while opening := (yield from self.reader.until(BEGINNINGS, self.text)):
            yield from self.attempt(self._calls(len(opening)), len(opening))

    def _calls(self, opening: int) -> Steps[None]:
        self.reader.take(opening)
        yield from self.reader.space()
        if (yield from self.reader.follows("[")):
            yield from self._list()
        else:
            yield from self._named()

    def _bare(self) -> Steps[None]:
        yield from self.reader.expect("[")
        yield from self._list({tool.name for tool in self.setup.tools})

    def _list(self, names: Collection[str] | None = None) -> Steps[None]:
        yield from self.reader.space()
        if (yield from self.reader.peek()) != "{":
            raise NotACallError
        yield from read_separated(self.reader, "]", lambda: self._item(names))

    def _item(self, names: Collection[str] | None) -> Steps[None]:
        yield from JsonCall(self, KEY, names=names).read()
        yield from self.reader.space()
        if (yield from self.reader.peek()) not in (",", "]", ""):
            raise NotACallError
        self.end_call()

    def _named(self) -> Steps[None]:
        name = yield from read_word(self.reader, WORD)
        call_id = ""
        if (yield from self.reader.follows(CALL_ID)):
            call_id = yield from read_word(self.reader, WORD)
            yield from self.reader.expect(ARGS)
        else:
            yield from self.reader.follows(ARGS)
        yield from self.reader.space()
        if not name or (yield from self.reader.peek()) != "{":
            raise NotACallError
        self.begin_call(name, call_id)
        yield from self.reader.json(self.add_arguments)
        self.end_call()


def structure(use: ToolUse, prompt: str) -> Mapping[str, Any] | None:
    """See Format.structure: the model chooses between the forms, since its tokenizer decides."""
    if not use.tools:
        return None
    one = not use.parallel
    items = call_tags(use, lambda name: f'{{"name": {name}, "{KEY}": ', end="}")
    listed = tags_between(items, ", ", one=one)
    if use.required:
        return tag("[", listed, "]")
    lists = [tag(f"{OPEN}{space}[", listed, "]") for space in ("", " ")]
    named = [tag(f"{OPEN}{tool.name}{ARGS}", arguments(tool), "") for tool in use.tools]
    return text_with([*lists, *named], OPEN, one=one)


def recognises(source: str) -> bool:
    """See Format.recognises."""
    return OPEN in source


def load() -> Format:
    """The format."""
    return Format(
        name="mistral",
        parser=MistralParser,
        shown=frozenset({OPEN, CALL_ID, ARGS}),
        calls=True,
        structure=structure,
        recognises=recognises,
    )
