# SPDX-License-Identifier: Apache-2.0
"""Calls of GLM 4.5 and later, which have a tag for each argument's name and value.

    <tool_call>get_weather
    <arg_key>city</arg_key>
    <arg_value>Paris</arg_value>
    </tool_call>

GLM 4.7 writes the same without line ends. A value is plain text, every character of it;
trellis.parsers.argument_types says of which type it is. Without a constraint an argument that comes
twice is malformed, and a call without arguments is one only of a tool that was offered: else
`<tool_call>` and `</tool_call>` in a sentence would be one. Thoughts are those of the format think.
"""

from trellis.parsers import Format, ToolUse
from trellis.parsers.markers import Markers
from trellis.parsers.reader import NotACallError, Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import Structure, calls, constant, sequence, tag
from trellis.parsers.tagged_structure import Tags, arguments_in_tags
from trellis.parsers.text_arguments import TextArguments, closed_before, named

_CALL, _END_CALL = "<tool_call>", "</tool_call>"
_KEY, _END_KEY = "<arg_key>", "</arg_key>"
_VALUE, _END_VALUE = "<arg_value>", "</arg_value>"
_BEGINS = Markers("\n" + _CALL, _CALL)  # 4.5 and 4.6 write a line end
_NAME_END = Markers("<", "\n", "{", '"')
_KEY_END = Markers("<", "\n")
_VALUE_END = Markers(_END_VALUE)


class _Parser(SteppedParser):
    def read(self) -> Steps[None]:
        while opening := (yield from self.reader.until(_BEGINS, self.text)):
            yield from self.attempt(self._call(opening))

    def _call(self, opening: str) -> Steps[None]:
        self.reader.take(len(opening))
        name = yield from self._name()
        tool = named(self.setup.tools, name)
        self.begin_call(name)
        arguments = TextArguments(tool, self.add_arguments)
        yield from self.reader.space()
        found = yield from self.reader.first_of(_KEY, _END_CALL)
        if found == _END_CALL and not (tool or self.setup.constrained):
            raise NotACallError
        while found == _KEY:
            found = yield from self._argument(arguments)
        if not found:
            raise NotACallError
        arguments.end()
        self.end_call()

    def _name(self) -> Steps[str]:
        pieces: list[str] = []
        yield from self.reader.space()
        end = yield from self.reader.until(_NAME_END, pieces.append)
        name = "".join(pieces).rstrip()
        if end not in ("<", "\n") or not name:
            raise NotACallError
        return name

    def _argument(self, arguments: TextArguments) -> Steps[str]:
        """Read one; the tag behind it."""
        pieces: list[str] = []
        yield from self.reader.until(_KEY_END, pieces.append)
        yield from self.reader.expect(_END_KEY)
        yield from self.reader.space()
        yield from self.reader.expect(_VALUE)
        name = "".join(pieces).strip()
        if not name or (name in arguments.names and not self.setup.constrained):
            raise NotACallError
        arguments.begin(name)
        found = ""
        while not found:
            yield from self.reader.until(_VALUE_END, arguments.add)
            if not (yield from self.reader.more()):
                raise NotACallError
            found = yield from closed_before(self, arguments, _END_VALUE, _KEY, _END_CALL)
        arguments.end_value()
        return found


def _structure(use: ToolUse, prompt: str) -> Structure | None:
    """See Format.structure.

    GLM 4.7 writes no line ends: neither in its prompts before a tag of thoughts, nor in calls.
    """
    is_compact = prompt.endswith(("<|assistant|><think>", "<|assistant|></think>"))
    line = "" if is_compact else "\n"
    written = Tags(_KEY, _END_KEY + line + _VALUE, _END_VALUE, behind=line)
    tags = []
    for tool in use.tools:
        arguments = arguments_in_tags(tool, written)
        if arguments is None:
            return None
        inside = sequence(constant(line), arguments) if line else arguments
        tags.append(tag(_CALL + tool.name, inside, _END_CALL))
    return calls(use, _CALL, tags, separator=line) if tags else None


def load() -> Format:
    """The format."""
    return Format(
        name="glm",
        parser=_Parser,
        shown=frozenset({_CALL, _END_CALL, _KEY, _END_KEY, _VALUE, _END_VALUE}),
        calls=True,
        structure=_structure,
        recognises=lambda template: _KEY in template and _VALUE in template,
    )
