# SPDX-License-Identifier: Apache-2.0
"""The answers of gpt-oss: messages on the channels analysis, commentary and final.

    <|channel|>analysis<|message|>The weather, then.<|end|><|start|>assistant<|channel|>commentary
    to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>

The prompt ends with `<|start|>assistant`. What is on `analysis` is thoughts, and so is a message to
one of the model's own tools (`to=python`) that was not offered; what is on `final`, or on
`commentary` to nobody, is text. A message to `functions.NAME` is a call on every channel, and one
to a tool of the request by its whole name. The recipient stands before the channel or behind it,
the content's type with or without `<|constrain|>`. A message with another header, and a call whose
content is no JSON object, is text as it is written.

`<|call|>` and `<|return|>` end an answer, so they are not seen: in thoughts and text they are text.
A call needs neither: its object says where it ends. Why not with openai-harmony: docs/decisions.md.
"""

import re

from trellis.parsers import Format, Setup, ToolUse
from trellis.parsers.markers import Markers
from trellis.parsers.reader import NotACallError, Steps
from trellis.parsers.stepped import SteppedParser
from trellis.parsers.structure import (
    Structure,
    any_text,
    arguments,
    constant,
    one_of,
    sequence,
    tag,
)

_START, _CHANNEL, _MESSAGE = "<|start|>assistant", "<|channel|>", "<|message|>"
_CONSTRAIN, _END, _CALL, _RETURN = "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"
_ENDS = (_CALL, _END, _RETURN)
_TO, _FUNCTIONS = " to=", "functions."
_FINAL = f"{_CHANNEL}final{_MESSAGE}"
_CALL_HEADERS = tuple(
    header + kind + _MESSAGE
    for header in (
        _CHANNEL + "commentary to=functions.{}",
        " to=functions.{}" + _CHANNEL + "commentary",
    )
    for kind in (f" {_CONSTRAIN}json", " json")
)
_NEXT = Markers(_START)
_HEADER_END = Markers(_MESSAGE, _START, *_ENDS, "\n")
_CONTENT_END = Markers(_END, _START + _CHANNEL)  # the model may leave the first out
_HEADER = re.compile(
    r"""
    (\ to=(?P<before>[^\s<]+))?
    (<\|channel\|>(?P<channel>analysis|commentary|final))?
    (\ to=(?P<behind>[^\s<]+))?
    (\ ?<\|constrain\|>\w+|\ \w+)?\ ?
    """,
    re.VERBOSE,
)


class _Parser(SteppedParser):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._names = {tool.name for tool in setup.tools}

    def read(self) -> Steps[None]:
        begun, is_content, _ = self.setup.prompt.rpartition(_START)[2].partition(_MESSAGE)
        if is_content:
            channel, recipient = _read_header(begun) or ("final", "")
            yield from self._content(channel, recipient)
        else:
            yield from self.attempt(self._message(begun))
        while (yield from self.reader.until(_NEXT, self.text)):
            yield from self.attempt(self._message())

    def _message(self, begun: str = "") -> Steps[None]:
        """One message. `begun`: what the prompt has of its header."""
        header = [begun]
        yield from self.reader.follows(_START)
        if not begun:  # else any text would be held until it is known to be no header
            header.append((yield from self.reader.first_of(_CHANNEL, _TO)))
            if not header[-1]:
                raise NotACallError
        yield from self.reader.until(_HEADER_END, header.append)
        yield from self.reader.expect(_MESSAGE)
        read = _read_header("".join(header))
        if read is None:
            raise NotACallError
        channel, recipient = read
        if recipient.startswith(_FUNCTIONS):
            yield from self._call(recipient.removeprefix(_FUNCTIONS))
        elif recipient in self._names:
            yield from self._call(recipient)
        else:
            self.reader.unmark()
            yield from self._content(channel, recipient)

    def _content(self, channel: str, recipient: str) -> Steps[None]:
        is_thought = channel == "analysis" or recipient
        sink = self.reasoning if is_thought else self.text
        if (yield from self.reader.until(_CONTENT_END, sink)) == _END:
            self.reader.take(len(_END))

    def _call(self, name: str) -> Steps[None]:
        yield from self.reader.space()
        if not name or (yield from self.reader.peek()) != "{":
            raise NotACallError
        self.begin_call(name)
        yield from self.reader.json(self.add_arguments)
        yield from self.reader.space()
        if (yield from self.reader.more()) and not (yield from self.reader.first_of(*_ENDS)):
            raise NotACallError
        self.end_call()


def _read_header(text: str) -> tuple[str, str] | None:
    """A header's channel and recipient, "" where it has none; None if it is malformed."""
    match = _HEADER.fullmatch(text)
    if match is None or (match["before"] and match["behind"]):
        return None
    recipient = match["before"] or match["behind"] or ""
    return (match["channel"] or "", recipient) if match["channel"] or recipient else None


def _message_before(channel: str) -> Structure:
    """A message on this channel to nobody and the beginning of the next, or nothing."""
    message = tag(f"{_CHANNEL}{channel}{_MESSAGE}", any_text(), _END)
    return one_of(sequence(message, constant(_START)), constant(""))


def _structure(use: ToolUse, prompt: str) -> Structure | None:
    """One call ends an answer: after <|call|> comes the tool's. It is an end id, which xgrammar
    lets the model give where the structure is over, so the structure does not have it."""
    if not use.tools or not prompt.endswith(_START):
        return None
    ends = [
        tag(header.format(tool.name), arguments(tool), "")
        for tool in use.tools
        for header in _CALL_HEADERS
    ]
    if not use.required:
        ends.append(sequence(constant(_FINAL), any_text()))
    return sequence(_message_before("analysis"), _message_before("commentary"), one_of(*ends))


def _thoughts(prompt: str) -> Structure | None:
    if not prompt.endswith(_START):
        return None
    return sequence(_message_before("analysis"), constant(_FINAL))


def load() -> Format:
    """The format."""
    return Format(
        name="harmony",
        parser=_Parser,
        shown=frozenset({"<|start|>", _CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS}),
        reasoning=True,
        calls=True,
        structure=_structure,
        thoughts=_thoughts,
        recognises=lambda template: _CHANNEL in template and _MESSAGE in template,
    )
