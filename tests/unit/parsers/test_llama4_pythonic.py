# SPDX-License-Identifier: Apache-2.0
"""Calls of Llama 4: a list of Python's calls, with arguments as JSON."""

import ast
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from support.parser_texts import VALUES
from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, CallEnd, Event, Setup, Text, Tool
from trellis.parsers.json_scan import MAX_DEPTH
from trellis.parsers.registry import load

LLAMA4 = load("llama4_pythonic")
TOOLS = (Tool("f"), Tool("ns.get-weather"))


def call(number: int, name: str, arguments: str) -> list[Event]:
    return [CallBegin(number, name), CallArguments(number, arguments), CallEnd(number)]


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("[f()]", call(0, "f", "{}")),
        ("[f(a=1)]", call(0, "f", '{"a": 1}')),
        ("\n[ f( a = 1.50 , b = 'x' , ) , ]", call(0, "f", '{"a": 1.50, "b": "x"}')),
        ("[f(a=1), ns.get-weather(b=-2e5)]", call(0, "f", '{"a": 1}')
         + call(1, "ns.get-weather", '{"b": -2e5}')),
        ("[f(a=[True, None, {'k': false}])]", call(0, "f", '{"a": [true, null, {"k": false}]}')),
        ("[f(a='it\\'s \\u00e9 \"')]", call(0, "f", '{"a": "it\'s é \\""}')),
        ("[f(a=1)] and more", [*call(0, "f", '{"a": 1}'), Text(" and more")]),
        ("[f(a=1), oops]", [*call(0, "f", '{"a": 1}'), Text(", oops]")]),
        ("<|python_start|>[g()]<|python_end|>", call(0, "g", "{}")),
        ("Well. <|python_start|>[g()]", [Text("Well. "), *call(0, "g", "{}")]),
    ],
)  # fmt: skip
def test_calls_and_text_are_told_apart(text: str, events: list[Event], constrained: bool) -> None:
    assert parse(LLAMA4, [text], Setup(tools=TOOLS, constrained=constrained)) == events


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[f]",
        "[g()]",  # a list that was asked for
        "Well. [f()]",
        "[f(1)]",
        "[f(a=1, a=2)]",
        "[f(a=g())]",
        "[f(a=__import__('os').system('true'))]",
        "[f(a=b'x')]",
        "[f(a='''x''')]",
        "[f(a='x' 'y')]",
        "[f(a=(1, 2))]",
        "[f(a={1: 2})]",
        "[f(a=0x10)]",
        "[f(a=1_000)]",
        "[f(a=1+1)]",
        "[f(a='\\N{BULLET}')]",
        "[f(a='\n')]",
        "[f(a=*b)]",
        "[f(**a)]",
        "[f(a=1",
        f"[f(a={'[' * (MAX_DEPTH + 1)}{']' * (MAX_DEPTH + 1)})]",
    ],
)
def test_what_is_no_call_is_text_exactly_as_written(text: str) -> None:
    assert parse(LLAMA4, [text], Setup(tools=TOOLS)) == [Text(text)]


@given(st.dictionaries(st.text("abc_", min_size=1, max_size=4), VALUES, max_size=3))
def test_arguments_are_what_python_reads(arguments: dict[str, Any]) -> None:
    written = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    assume("inf" not in written)  # which Python has no literal of
    events = parse(LLAMA4, [f"[f({written})]"], Setup(tools=TOOLS))

    assert [type(event) for event in events] == [CallBegin, CallArguments, CallEnd]
    given = events[1]
    assert isinstance(given, CallArguments)
    assert json.loads(given.text) == arguments


@given(st.text(max_size=20), st.sampled_from("\"'"))
def test_a_string_is_what_python_reads(text: str, quote: str) -> None:
    written = f"{quote}{text}{quote}"
    try:
        tree: Any = ast.parse(written, mode="eval").body
        value = tree.value if isinstance(tree, ast.Constant) else None
    except (SyntaxError, ValueError):
        value = None
    events = parse(LLAMA4, [f"[f(a={written})]"], Setup(tools=TOOLS))

    if isinstance(value, str) and "\\" not in text:
        assert events == call(0, "f", f'{{"a": {json.dumps(value, ensure_ascii=False)}}}')
    elif value is None:
        assert not isinstance(events[0], CallBegin)
