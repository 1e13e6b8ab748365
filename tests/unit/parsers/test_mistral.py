# SPDX-License-Identifier: Apache-2.0
"""Calls of Mistral's models, in the forms of all their tokenizers."""

import pytest

from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, CallEnd, Event, Setup, Text, Tool
from trellis.parsers.registry import load

MISTRAL = load("mistral")
A = '{"name": "f", "arguments": {"a": 1.50}}'
B = '{"name": "g", "arguments": {}, "id": "VvvODy9mT"}'


def call(number: int, name: str, arguments: str, call_id: str = "") -> list[Event]:
    return [CallBegin(number, name, call_id), CallArguments(number, arguments), CallEnd(number)]


F = call(0, "f", '{"a": 1.50}')


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (f"[TOOL_CALLS][{A}]", F),
        (f"[TOOL_CALLS] [{A}, {B}]", [*F, *call(1, "g", "{}", "VvvODy9mT")]),
        (f"Well.[TOOL_CALLS][{A}]\nDone.", [Text("Well."), *F, Text("\nDone.")]),
        (f"[TOOL_CALLS][{A}", F),
        (f"[TOOL_CALLS][{A}, oops]", [*F, Text(", oops]")]),
        ('[TOOL_CALLS]f[ARGS]{"a": 1.50}', F),
        ('[TOOL_CALLS]f{"a": 1.50}', F),
        (
            '[TOOL_CALLS]f[CALL_ID]VvvODy9mT[ARGS]{"a": 1.50}',
            call(0, "f", '{"a": 1.50}', "VvvODy9mT"),
        ),
        ('[TOOL_CALLS]f[ARGS]{"a": 1.50}[TOOL_CALLS]g[ARGS]{}', [*F, *call(1, "g", "{}")]),
        ('[TOOL_CALLS]f[ARGS]{"a": 1.50} Done.', [*F, Text(" Done.")]),
        (f"[TOOL_CALLS]oops [TOOL_CALLS][{A}]", [Text("[TOOL_CALLS]oops "), *F]),
    ],
)
def test_calls_and_text_are_told_apart(text: str, events: list[Event]) -> None:
    assert parse(MISTRAL, [text]) == events


@pytest.mark.parametrize(
    "text",
    [
        "[TOOL_CALLS]",
        "[TOOL_CALLS][]",
        "[TOOL_CALLS]f",
        "[TOOL_CALLS]f[ARGS]",
        "[TOOL_CALLS]f[ARGS][1]",
        "[TOOL_CALLS][ARGS]{}",
        "[TOOL_CALLS]f[CALL_ID]x{}",
        '[TOOL_CALLS]f[ARGS]{"a": 1',
        '[TOOL_CALLS]{"name": "f", "arguments": {}}',
        "[TOOL_CALLS][[]]",
        f"[TOOL_CALLS][{A[:-1]}]",
        f"[TOOL_CALLS][{A} {B}",
        "[TOOL_CALL",
        A,
    ],
)
def test_what_is_no_call_is_text_exactly_as_written(text: str) -> None:
    assert parse(MISTRAL, [text]) == [Text(text)]


def test_constrained_arguments_come_before_their_call_is_complete() -> None:
    parser = MISTRAL.parser(Setup(constrained=True))

    assert parser.feed('[TOOL_CALLS]f[ARGS]{"a') == [CallBegin(0, "f"), CallArguments(0, '{"a')]
    assert parser.feed('": 1}') == [CallArguments(0, '": 1}'), CallEnd(0)]
    assert parser.feed('[TOOL_CALLS]g[ARGS]{"a') == [CallBegin(1, "g"), CallArguments(1, '{"a')]
    assert parser.feed('"} oops') == [CallArguments(1, '"'), Text("} oops")]
    assert parser.feed("[TOOL_CALLS]h[ARGS]{}") == [
        CallBegin(2, "h"),
        CallArguments(2, "{}"),
        CallEnd(2),
    ]
    assert parser.end() == []


def test_a_list_that_begins_an_answer_is_calls_of_the_functions_that_there_are() -> None:
    both = [*F, *call(1, "g", "{}", "VvvODy9mT")]

    assert parse(MISTRAL, [f"[{A}, {B}]"], Setup(tools=(Tool("f"), Tool("g")))) == both
    assert parse(MISTRAL, [f"[{A}, {B}]"], Setup(tools=(Tool("f"),))) == [*F, Text(f", {B}]")]
    for text in (f"[{A}, {B}]", f"Well. [{A}]", "[1]", "["):
        assert parse(MISTRAL, [text], Setup(tools=(Tool("h"),))) == [Text(text)]
