# SPDX-License-Identifier: Apache-2.0
"""Calls of Llama 3: JSON at the beginning of an answer, or behind a marker."""

import pytest

from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, CallEnd, Event, Setup, Text, Tool
from trellis.parsers.registry import load

LLAMA3 = load("llama3_json")
TOOLS = (Tool("f"), Tool("g"))
F = '{"name": "f", "parameters": {"a": 1.50}}'
G = '{"name": "g", "parameters": {}}'
OTHER = '{"name": "h", "parameters": {}}'


def call(number: int, name: str, arguments: str) -> list[Event]:
    return [CallBegin(number, name), CallArguments(number, arguments), CallEnd(number)]


FIRST, SECOND = call(0, "f", '{"a": 1.50}'), call(1, "g", "{}")


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(
    ("text", "events"),
    [
        (F, FIRST),
        (f"\n\n{F}", FIRST),
        (f"{F}; {G}", [*FIRST, *SECOND]),
        (f"{F};\n{G} ", [*FIRST, *SECOND, Text(" ")]),
        (f"{F} is the call", [*FIRST, Text(" is the call")]),
        (f"{F}; {OTHER}", [*FIRST, Text(f"; {OTHER}")]),
        (F.replace("parameters", "arguments"), FIRST),
        (f"<|python_tag|>{F}; {G}", [*FIRST, *SECOND]),
        (f"Well. <|python_tag|>{F}", [Text("Well. "), *FIRST]),
        (f"<|python_tag|>{OTHER}", call(0, "h", "{}")),
        (f"<|python_start|>{F}<|python_end|>.", [*FIRST, Text(".")]),
        (f"{F}<|python_tag|>{G}", [*FIRST, *SECOND]),
    ],
)
def test_calls_and_text_are_told_apart(text: str, events: list[Event], constrained: bool) -> None:
    assert parse(LLAMA3, [text], Setup(tools=TOOLS, constrained=constrained)) == events


@pytest.mark.parametrize(
    "text",
    [
        f"Well. {F}",  # an example in a text
        OTHER,  # JSON that was asked for
        '{"name": "Ada", "parameters": null}',
        '{"name": "f", "parameters": {}, "more": 1}',
        f"[{F}]",
        '<|python_tag|>brave_search.call(query="weather")',
        "<|python_tag|>",
        F[:-1],
        "<|python_tag|>" + F[:-9],
    ],
)
def test_what_is_no_call_is_text_exactly_as_written(text: str) -> None:
    assert parse(LLAMA3, [text], Setup(tools=TOOLS)) == [Text(text)]
