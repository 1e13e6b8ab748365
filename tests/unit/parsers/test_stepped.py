# SPDX-License-Identifier: Apache-2.0
"""What all parsers share: what is held of a call, and what becomes of one that is none."""

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
    join_events,
)
from trellis.parsers.markers import Markers
from trellis.parsers.reader import Steps
from trellis.parsers.stepped import SteppedParser

OPEN = Markers("<")


class Calls(SteppedParser):
    """`<name{...}{...}>` is a call with each of the objects."""

    def read(self) -> Steps[None]:
        while opening := (yield from self.reader.until(OPEN, self.text)):
            yield from self.attempt(self._calls(len(opening)), len(opening))

    def _calls(self, opening: int) -> Steps[None]:
        self.reader.take(opening)
        name = yield from self.reader.first_of("f", "g")
        while not (yield from self.reader.follows(">")):
            self.begin_call(name)
            yield from self.reader.json(self.add_arguments)
            self.end_call()


CALLS = Format("calls", Calls)
HELD, GIVEN = Setup(), Setup(constrained=True)


def test_a_call_is_given_when_it_is_complete() -> None:
    parser = Calls(HELD)

    assert parser.feed('a <f{"a') == [Text("a ")]
    assert parser.feed('": 1') == []
    assert parser.feed("}") == [CallBegin(0, "f"), CallArguments(0, '{"a": 1}'), CallEnd(0)]
    assert parser.feed("{}> b") == [
        CallBegin(1, "f"),
        CallArguments(1, "{}"),
        CallEnd(1),
        Text(" b"),
    ]
    assert parser.end() == []


def test_a_constrained_call_is_given_as_it_comes() -> None:
    parser = Calls(GIVEN)

    assert parser.feed("a <f{") == [Text("a "), CallBegin(0, "f"), CallArguments(0, "{")]
    assert parser.feed('"a": ') == [CallArguments(0, '"a": ')]
    assert parser.feed("1}>") == [CallArguments(0, "1}"), CallEnd(0)]


def test_what_follows_a_complete_call_is_text_if_it_is_none() -> None:
    call: list[Event] = [CallBegin(0, "f"), CallArguments(0, "{}"), CallEnd(0)]

    assert parse(CALLS, ["<f{}{x"]) == [*call, Text("{x")]
    assert parse(CALLS, ["<f{}{x<g{}>"]) == [
        *call,
        Text("{x"),
        CallBegin(1, "g"),
        CallArguments(1, "{}"),
        CallEnd(1),
    ]


def test_a_call_that_was_given_and_broke_off_keeps_its_number() -> None:
    assert parse(CALLS, ["<f{x<g{}>"], GIVEN) == [
        CallBegin(0, "f"),
        CallArguments(0, "{"),
        Text("x"),
        CallBegin(1, "g"),
        CallArguments(1, "{}"),
        CallEnd(1),
    ]
    assert parse(CALLS, ["<f{x<g{}>"], HELD)[0] == Text("<f{x")


def test_events_of_a_kind_that_follow_each_other_are_one() -> None:
    events: list[Event] = [Reasoning("a"), Reasoning("b"), Text("c"), Text("d"), Reasoning("e")]
    calls: list[Event] = [
        CallArguments(0, "{"),
        CallArguments(0, "}"),
        CallArguments(1, "{}"),
        CallEnd(1),
    ]

    assert join_events([*events, *calls]) == [
        Reasoning("ab"),
        Text("cd"),
        Reasoning("e"),
        CallArguments(0, "{}"),
        CallArguments(1, "{}"),
        CallEnd(1),
    ]
