# SPDX-License-Identifier: Apache-2.0
"""What a format of tool calls or reasoning is made of, and the events of a parser."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Text(NamedTuple):
    """What the user is shown."""

    text: str


class Reasoning(NamedTuple):
    """What the model thinks before it answers."""

    text: str


class CallBegin(NamedTuple):
    """A tool is called; its arguments follow."""

    number: int  # of the calls of this answer: 0, 1, ...
    name: str
    call_id: str = ""  # as the model said it; "": formats mostly have none


class CallArguments(NamedTuple):
    """A piece of a call's arguments; all of them joined are one JSON object."""

    number: int
    text: str


class CallEnd(NamedTuple):
    """A call is complete."""

    number: int


Event = Text | Reasoning | CallBegin | CallArguments | CallEnd
Span = tuple[int, int]  # characters of an answer's text, from one to before another


class Parser(Protocol):
    """Reads one answer. What it gives depends on all the text it was fed, not on how it was cut.

    Joined by kind, the events of `feed` for any pieces of a text, then of `end`, are the same.
    It never raises: what is not as the format wants it is Text, and none of it is lost.
    """

    def feed(self, text: str) -> list[Event]:
        """What a piece of text adds."""

    def end(self) -> list[Event]:
        """What is left when the text is over: a call that is not complete is Text."""


@runtime_checkable
class TellsReasoning(Protocol):
    """A Parser that knows where the reasoning stood in the text it was fed."""

    def take_reasoned(self) -> tuple[list[Span], int]:
        """The places of the reasoning since it was asked last, in their order.

        And before which character none will follow. All the text of the places is Reasoning, and
        they are the same however the text was cut, but for one being told as two.
        """


@dataclass(frozen=True)
class Tool:
    """A function that may be called."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)  # JSON schema of its arguments
    strict: bool = False  # whether the arguments are held to the schema by all means


@dataclass(frozen=True)
class ToolUse:
    """How tools are to be used."""

    tools: Sequence[Tool]
    required: bool = False  # whether at least one is called, and nothing else is said
    parallel: bool = True  # whether several may be called


@dataclass(frozen=True)
class Setup:
    """What a parser knows of its request."""

    prompt: str = ""  # its end says whether the answer begins inside of the model's thoughts
    tools: Sequence[Tool] = ()  # whose schemas say of which type an argument is
    # Whether a constraint holds calls to the format: then arguments are given as they come.
    # Without, a call is given when it is complete, since only then it is known to be one.
    constrained: bool = False


@dataclass(frozen=True)
class Format:
    """One format of tool calls, of reasoning, or of both."""

    name: str
    parser: Callable[[Setup], Parser]
    # Special tokens whose text the parser has to see; all others are left out of the text.
    shown: frozenset[str] = frozenset()
    reasoning: bool = False  # whether it tells reasoning from text
    calls: bool = False  # whether it tells calls from text
    # From a request's tools, and its prompt, to the format object of a structural tag of xgrammar
    # that constrains calls; None where this format can't be constrained so.
    structure: Callable[[ToolUse, str], Mapping[str, Any] | None] = lambda use, prompt: None
    # For models whose chat template knows no tools: what tells the model how to call one, and from
    # a call's name and arguments (JSON) to how it stands in an earlier answer.
    instructions: str = ""
    written: Callable[[str, str], str] | None = None
    # From a prompt to the format object of a structural tag for the thoughts in front of an answer,
    # be it text, a document or calls; None where none may be there.
    thoughts: Callable[[str], Mapping[str, Any] | None] = lambda prompt: None
    # Whether a chat template's source is of a model that uses this format.
    recognises: Callable[[str], bool] = lambda template: False
