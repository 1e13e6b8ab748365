# SPDX-License-Identifier: Apache-2.0
"""What a parser made of an answer, joined, so that it can be compared with another's."""

from collections.abc import Iterable
from typing import NamedTuple

from support.parsing import parse
from trellis.parsers import (
    CallArguments,
    CallBegin,
    CallEnd,
    Event,
    Format,
    Reasoning,
    Setup,
    Text,
)


class Called(NamedTuple):
    """A call, as a client gets it."""

    name: str
    arguments: str  # joined
    complete: bool = True


class Reading(NamedTuple):
    """An answer, joined by kind."""

    reasoning: str
    text: str
    calls: tuple[Called, ...]


def join(events: Iterable[Event]) -> Reading:
    """All events of an answer. Raises AssertionError where calls are not numbered 0, 1, ..."""
    reasoning, text = [], []
    names: list[str] = []
    arguments: list[list[str]] = []
    ended: set[int] = set()
    for event in events:
        match event:
            case Text(piece):
                text.append(piece)
            case Reasoning(piece):
                reasoning.append(piece)
            case CallBegin(number, name):
                assert number == len(names), "calls are numbered in turn"
                names.append(name)
                arguments.append([])
            case CallArguments(number, piece):
                assert number not in ended, "arguments after the end of their call"
                arguments[number].append(piece)
            case CallEnd(number):
                assert number == len(ended), "a call ended out of turn"
                ended.add(number)
    calls = tuple(
        Called(name, "".join(pieces), number in ended)
        for number, (name, pieces) in enumerate(zip(names, arguments, strict=True))
    )
    return Reading("".join(reasoning), "".join(text), calls)


def read(form: Format, pieces: Iterable[str], setup: Setup | None = None) -> Reading:
    """What the format's parser makes of an answer that comes in these pieces."""
    return join(parse(form, pieces, setup))
