# SPDX-License-Identifier: Apache-2.0
"""Calls between <tool_call> tags."""

import pytest

from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, CallEnd, Event, Setup, Text
from trellis.parsers.registry import load

HERMES = load("hermes")
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1.50, "b": "\\u00e9 é"}}\n</tool_call>'
ARGUMENTS = '{"a": 1.50, "b": "\\u00e9 é"}'
EVENTS: list[Event] = [CallBegin(0, "f"), CallArguments(0, ARGUMENTS), CallEnd(0)]


def numbered(number: int, name: str, arguments: str) -> list[Event]:
    return [CallBegin(number, name), CallArguments(number, arguments), CallEnd(number)]


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(
    ("text", "events"),
    [
        (CALL, EVENTS),
        (f"Well.\n{CALL}", [Text("Well."), *EVENTS]),
        (f"Well.\n\n{CALL}\n", [Text("Well.\n"), *EVENTS, Text("\n")]),
        (f"{CALL}\n{CALL}", [*EVENTS, *numbered(1, "f", ARGUMENTS)]),
        (f"{CALL} and {CALL}", [*EVENTS, Text(" and "), *numbered(1, "f", ARGUMENTS)]),
        ('<tool_call>{"name":"f","arguments":{}}</tool_call>', numbered(0, "f", "{}")),
        (
            '<tool_call>{"arguments": { }, "type": "function", "name": "f"}</tool_call>',
            numbered(0, "f", "{ }"),
        ),
        ('<tool_call>{"name": "\\u00e9", "arguments": {}}</tool_call>', numbered(0, "é", "{}")),
        (CALL.removesuffix("\n</tool_call>"), EVENTS),  # its end was a stop word
        (CALL.removesuffix("call>"), EVENTS),
    ],
)
def test_calls_and_text_are_told_apart(text: str, events: list[Event], constrained: bool) -> None:
    assert parse(HERMES, [text], Setup(constrained=constrained)) == events


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "<tool_call></tool_call>",
        "\n<tool_call>\nf(1)\n</tool_call>",
        '<tool_call>{"name": "f"}</tool_call>',
        '<tool_call>{"arguments": {}}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "{}"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": []}</tool_call>',
        '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}, "name": "g"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}, "more": 1}</tool_call>',
        '<tool_call>{"name": "f", "type": "tool", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {}}</tool>',
        '<tool_call>{"name": "f", "arguments": {}} x</tool_call>',
        '<tool_call>[{"name": "f", "arguments": {}}]</tool_call>',
        CALL[:40],
        CALL.removesuffix("}\n</tool_call>"),
    ],
)
def test_a_malformed_call_is_text_exactly_as_written(text: str) -> None:
    assert parse(HERMES, [text]) == [Text(text)]
    assert parse(HERMES, [f"{text}\n{CALL}"]) == [Text(text), *EVENTS]
