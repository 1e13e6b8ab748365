# SPDX-License-Identifier: Apache-2.0
"""Calls of DeepSeek V3, R1 and V3.1: JSON objects between special tokens.

V3 and R1 write a kind, the name and a block of code, V3.1 the name and the object alone:

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
    ```json
    {"city": "Paris"}
    ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}...

Each call says by itself which of the two it is. A call whose object is complete is a call even if
the end of the answer cuts off what closes it. V3.2 and later, which write XML, are not this format.
"""

from collections.abc import Mapping
from typing import Any

from trellis.parsers import Format, ToolUse
from trellis.parsers.markers import Markers
from trellis.parsers.reader import NotACallError, Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import arguments, tag, tags_between, text_with

_CALLS, _END_CALLS = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _END_CALL = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
_SEPARATOR = "<｜tool▁sep｜>"
_KIND = "function"
_BEGINS = Markers(_CALLS)
_BEGINS_OR_CALL = Markers(_CALLS, _CALL)  # a call behind one that was malformed
_HEAD_END = Markers(_SEPARATOR, "\n", _END_CALL, _CALL)
_LINE_END = Markers("\n", "<")
_BLOCK, _END_BLOCK = "\n```json\n", "\n```"


class _Parser(SteppedParser):
    def read(self) -> Steps[None]:
        begins = _BEGINS if self.setup.constrained else _BEGINS_OR_CALL
        while opening := (yield from self.reader.until(begins, self.text)):
            yield from self.attempt(self._section(opening))

    def _section(self, opening: str) -> Steps[None]:
        if opening == _CALLS:
            self.reader.take(len(opening))
            yield from self.reader.space()
        yield from self.reader.expect(_CALL)
        yield from self._call()
        yield from self.reader.space()
        while (yield from self.reader.follows(_CALL)):
            yield from self._call()
            yield from self.reader.space()
        yield from self.reader.close_with(_END_CALLS)

    def _call(self) -> Steps[None]:
        head = yield from self._line(_HEAD_END)
        yield from self.reader.expect(_SEPARATOR)
        if (yield from self.reader.peek()) == "{":
            yield from self._object(head)
        elif head == _KIND:
            name = yield from self._line(_LINE_END)
            yield from self.reader.expect(_BLOCK)
            yield from self._object(name)
            yield from self.reader.close_with(_END_BLOCK)
        else:
            raise NotACallError
        yield from self.reader.close_with(_END_CALL)
        self.end_call()

    def _line(self, end: Markers) -> Steps[str]:
        pieces: list[str] = []
        yield from self.reader.until(end, pieces.append)
        return "".join(pieces)

    def _object(self, name: str) -> Steps[None]:
        if not name or (yield from self.reader.peek()) != "{":
            raise NotACallError
        self.begin_call(name)
        yield from self.reader.json(self.add_arguments)


def _structure(use: ToolUse, prompt: str) -> Mapping[str, Any] | None:
    """V3.1's prompts end with a tag of its thoughts, V3's and R1's with none or a line end."""
    if not use.tools:
        return None
    if prompt.endswith(("<think>", "</think>")):
        before, behind, between = _CALL + "{}" + _SEPARATOR, _END_CALL, ""
    else:
        before = _CALL + _KIND + _SEPARATOR + "{}" + _BLOCK
        behind, between = _END_BLOCK + _END_CALL, "\n"
    tags = [tag(before.format(tool.name), arguments(tool), behind) for tool in use.tools]
    section = tag(_CALLS, tags_between(tags, between, one=not use.parallel), _END_CALLS)
    return section if use.required else text_with([section], _CALLS, one=True)


def load() -> Format:
    """The format."""
    return Format(
        name="deepseek_v3",
        parser=_Parser,
        shown=frozenset({_CALLS, _END_CALLS, _CALL, _END_CALL, _SEPARATOR}),
        calls=True,
        structure=_structure,
        recognises=lambda template: _CALLS in template and _SEPARATOR in template,
    )
