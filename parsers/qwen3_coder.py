# SPDX-License-Identifier: Apache-2.0
"""Calls of Qwen3-Coder and of Qwen3.5 and later, which have a tag for each argument.

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Paris
    </parameter>
    </function>
    </tool_call>

An argument is plain text between two line breaks; trellis.parsers.argument_types says of which type
it is. These models leave tags out, so without a constraint a call is also read

- without `<tool_call>`, if its function is one of the request's tools;
- with an argument that has no `</parameter>`: it ends at a line that begins with `<parameter=` and
  another argument of the tool, or at the lines `</function>` and `</tool_call>`.

An argument that comes twice is malformed.
"""

from trellis.parsers import Format, Setup, ToolUse
from trellis.parsers.markers import Markers
from trellis.parsers.reader import NotACallError, Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import Structure, calls, constant, sequence, tag
from trellis.parsers.tagged_structure import Tags, arguments_in_tags
from trellis.parsers.text_arguments import TextArguments, closed_before, named

_CALL, _END_CALL = "<tool_call>", "</tool_call>"
_FUNCTION, _END_FUNCTION = "<function=", "</function>"
_ARGUMENT, _END_ARGUMENT = "<parameter=", "</parameter>"
_LAST = f"\n{_END_FUNCTION}\n{_END_CALL}"
_LINES = ("\n\n", "\n", "")  # before a call: the templates', not the model's
_BEGINS = Markers(*(lines + _CALL for lines in _LINES))
_BEGINS_OR_BARE = Markers(*(lines + tag for lines in _LINES for tag in (_CALL, _FUNCTION)))
_TAGS = Tags(_ARGUMENT, ">", _END_ARGUMENT, frame="\n", behind="\n")
_NAME_END = Markers(">", "<", "\n")
_CLOSED = Markers("\n" + _END_ARGUMENT, _END_ARGUMENT)
_CLOSED_OR_NOT = Markers("\n" + _END_ARGUMENT, _END_ARGUMENT, "\n" + _ARGUMENT, _LAST)


class _Parser(SteppedParser):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        strict = setup.constrained
        self._begins = _BEGINS if strict else _BEGINS_OR_BARE
        self._ends = _CLOSED if strict else _CLOSED_OR_NOT

    def read(self) -> Steps[None]:
        while opening := (yield from self.reader.until(self._begins, self.text)):
            yield from self.attempt(self._call(opening))

    def _call(self, opening: str) -> Steps[None]:
        """One function or several; what closes the last one may be cut off."""
        self.reader.take(len(opening))
        if opening.endswith(_FUNCTION):
            yield from self._function(is_bare=True)
            if not (yield from self.reader.ahead(0, _END_CALL)):
                return
        else:
            yield from self._functions()
        yield from self.reader.space()
        yield from self.reader.close_with(_END_CALL)

    def _functions(self) -> Steps[None]:
        yield from self.reader.space()
        yield from self.reader.expect(_FUNCTION)
        yield from self._function()
        yield from self.reader.space()
        while (yield from self.reader.follows(_FUNCTION)):
            yield from self._function()
            yield from self.reader.space()

    def _function(self, is_bare: bool = False) -> Steps[None]:
        name = yield from self._name()
        tool = named(self.setup.tools, name)
        if is_bare and tool is None:
            raise NotACallError
        self.begin_call(name)
        arguments = TextArguments(tool, self.add_arguments)
        yield from self.reader.space()
        found = yield from self.reader.first_of(_END_FUNCTION, _ARGUMENT)
        while found == _ARGUMENT:
            found = yield from self._argument(arguments, (yield from self._name()))
        if not found:
            raise NotACallError
        arguments.end()
        self.end_call()

    def _argument(self, arguments: TextArguments, name: str) -> Steps[str]:
        """Read one, and those that begin before it was closed; the tag behind it."""
        if name in arguments.names and not self.setup.constrained:
            raise NotACallError
        arguments.begin(name)
        yield from self.reader.follows("\n")
        found = ""
        while not found:
            closing = yield from self.reader.until(self._ends, arguments.add)
            if closing == _LAST:
                self.reader.take(len("\n" + _END_FUNCTION))
                found = _END_FUNCTION
            elif closing == "\n" + _ARGUMENT:
                self.reader.take(len(closing))
                found = yield from self._other_argument(arguments)
            elif closing:
                found = yield from closed_before(self, arguments, closing, _END_FUNCTION, _ARGUMENT)
            else:
                raise NotACallError
        arguments.end_value()
        if found.startswith("="):
            found = yield from self._argument(arguments, found[1:])
        return found

    def _other_argument(self, arguments: TextArguments) -> Steps[str]:
        """`=` and the name of an argument of the tool that begins here; "" if none does, and what
        is here is part of a value."""
        pieces: list[str] = []
        end = yield from self.reader.until(_NAME_END, pieces.append)
        name = "".join(pieces)
        if end == ">" and arguments.types.declares(name) and name not in arguments.names:
            self.reader.take(1)
            return "=" + name
        arguments.add("\n" + _ARGUMENT + name)
        return ""

    def _name(self) -> Steps[str]:
        pieces: list[str] = []
        if (yield from self.reader.until(_NAME_END, pieces.append)) != ">" or not pieces:
            raise NotACallError
        self.reader.take(1)
        return "".join(pieces)


def _structure(use: ToolUse, prompt: str) -> Structure | None:
    """See Format.structure."""
    tags = []
    for tool in use.tools:
        arguments = arguments_in_tags(tool, _TAGS)
        if arguments is None:
            return None
        inside = sequence(constant("\n"), arguments, constant(_END_FUNCTION))
        tags.append(tag(f"{_CALL}\n{_FUNCTION}{tool.name}>", inside, "\n" + _END_CALL))
    return calls(use, _CALL, tags, separator="\n") if tags else None


def load() -> Format:
    """The format."""
    return Format(
        name="qwen3_coder",
        parser=_Parser,
        shown=frozenset({_CALL, _END_CALL}),
        calls=True,
        structure=_structure,
        recognises=lambda template: _FUNCTION in template and _ARGUMENT in template,
    )
