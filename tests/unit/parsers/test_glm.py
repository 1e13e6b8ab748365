# SPDX-License-Identifier: Apache-2.0
"""Calls with a tag for each argument's name and value, as GLM writes them."""

import json

import pytest

from support.parser_calls import TOOLS
from support.parser_readings import Called, Reading, read
from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, Setup, Text, ToolUse
from trellis.parsers.registry import load

GLM = load("glm")
SETUP = Setup(tools=TOOLS)
STRICT = Setup(tools=TOOLS, constrained=True)


def write(name: str, line: str = "\n", **arguments: str) -> str:
    """A call as GLM 4.5's chat template writes it; with `line` "" as GLM 4.7's does."""
    tags = "".join(
        f"<arg_key>{key}</arg_key>{line}<arg_value>{text}</arg_value>{line}"
        for key, text in arguments.items()
    )
    return f"<tool_call>{name}{line}{tags}</tool_call>"


CALL = write("get_weather", city="Paris")
PARIS = Called("get_weather", '{"city": "Paris"}')


@pytest.mark.parametrize("setup", [SETUP, STRICT])
@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        (CALL, "", [PARIS]),
        (write("get_weather", "", city="Paris"), "", [PARIS]),
        (f"Well.\n{CALL}\n{CALL}", "Well.", [PARIS, PARIS]),
        (f"Well. {CALL} and\n\n{CALL}\n", "Well.  and\n\n", [PARIS, PARIS]),
        (CALL.replace("get_weather", " get_weather  "), "", [PARIS]),
        (write("get_time"), "", [Called("get_time", "{}")]),
        (write("get_time", ""), "", [Called("get_time", "{}")]),
        (write("nobody", a="5"), "", [Called("nobody", '{"a": "5"}')]),
        (
            write("set_alarm", hour="7", volume="0.50", repeat="true", label="null"),
            "",
            [Called("set_alarm", '{"hour": 7, "volume": 0.50, "repeat": true, "label": null}')],
        ),
    ],
)
def test_calls_and_text_are_told_apart(
    text: str, shown: str, calls: list[Called], setup: Setup
) -> None:
    assert read(GLM, [text], setup) == Reading("", shown, tuple(calls))


@pytest.mark.parametrize("line", ["\n", ""])
@pytest.mark.parametrize(
    "value",
    ["", "\n", "  two  spaces\n", "<b>", "<tool_call> and </tool_call>", "<arg_key>a</arg_key>",
     "closed by </arg_value>, then"],
)  # fmt: skip
def test_a_value_is_kept_character_by_character(value: str, line: str) -> None:
    call = write("write_file", line, path="x", content=value)
    arguments = read(GLM, [call], SETUP).calls[0].arguments
    assert json.loads(arguments) == {"path": "x", "content": value}


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "<tool_call></tool_call>",
        "Between <tool_call> and </tool_call>.",
        '<tool_call>{"name": "f", "arguments": {}}</tool_call>',
        "<tool_call>f<arg_key>a</arg_key></tool_call>",
        "<tool_call>f<arg_key></arg_key><arg_value>1</arg_value></tool_call>",
        "<tool_call>f<arg_value>1</arg_value></tool_call>",
        "<tool_call>f<arg_key>a<arg_key></arg_key><arg_value>1</arg_value></tool_call>",
        write("f", a="1").replace("</tool", "<arg_key>a</arg_key><arg_value>2</arg_value></tool"),
        "<tool_call>f<arg_key>a</arg_key><arg_value>1</tool_call>",
        CALL[:30],
        CALL.removesuffix("</tool_call>"),
    ],
)
def test_a_malformed_call_is_text_exactly_as_written(text: str) -> None:
    assert parse(GLM, [text], SETUP) == [Text(text)]


def test_a_call_behind_a_malformed_one_is_read() -> None:
    assert read(GLM, [f"<tool_call>f\n:{CALL}"], SETUP) == Reading("", "<tool_call>f\n:", (PARIS,))


def test_thoughts_are_those_of_the_format_think() -> None:
    form = load("think+glm")
    answer = f"\n<think>Paris, then.</think>\nWell.\n{CALL}"
    assert read(form, [answer], SETUP) == Reading("Paris, then.", "Well.", (PARIS,))
    begun = Setup("<|assistant|><think>", TOOLS)
    compact = write("get_weather", "", city="Paris")
    answer = f"Paris, then.</think>Well.{compact}"
    assert read(form, [answer], begun) == Reading("Paris, then.", "Well.", (PARIS,))


def test_a_constrained_call_is_given_as_it_comes() -> None:
    parser = GLM.parser(STRICT)
    begun, more, _ = (parser.feed(piece) for piece in CALL.partition("aris"))
    assert begun[0] == CallBegin(0, "get_weather")
    assert more == [CallArguments(0, "aris")]


def test_a_structure_has_a_tag_for_each_tool() -> None:
    structure = GLM.structure(ToolUse(TOOLS[:2], required=True), "")
    assert structure is not None
    assert [tag["begin"] for tag in structure["tags"]] == [
        f"<tool_call>{tool.name}" for tool in TOOLS[:2]
    ]
    assert structure["at_least_one"]
    assert structure["separator"] == "\n"
    for end in ("<|assistant|><think>", "<|assistant|></think>"):
        compact = GLM.structure(ToolUse(TOOLS[:2], required=True), end)
        assert compact is not None
        assert compact["separator"] == ""
    assert GLM.structure(ToolUse(()), "") is None
