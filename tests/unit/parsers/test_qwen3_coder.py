# SPDX-License-Identifier: Apache-2.0
"""Calls with a tag for each argument, as Qwen3-Coder writes them."""

import json

import pytest

from support.parser_calls import TOOLS
from support.parser_readings import Called, Reading, read
from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, Setup, Text, ToolUse
from trellis.parsers.registry import load

QWEN = load("qwen3_coder")
SETUP = Setup(tools=TOOLS)
STRICT = Setup(tools=TOOLS, constrained=True)


def write(name: str, **arguments: str) -> str:
    """A call as the models' chat templates write it."""
    tags = "".join(f"<parameter={key}>\n{text}\n</parameter>\n" for key, text in arguments.items())
    return f"<tool_call>\n<function={name}>\n{tags}</function>\n</tool_call>"


CALL = write("get_weather", city="Paris")
PARIS = Called("get_weather", '{"city": "Paris"}')


@pytest.mark.parametrize("setup", [SETUP, STRICT])
@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        (CALL, "", [PARIS]),
        (f"Well.\n\n{CALL}", "Well.", [PARIS]),
        (f"Well.{CALL}\n{CALL}", "Well.", [PARIS, PARIS]),
        (f"{CALL} and\n\n\n{CALL}\n", " and\n\n", [PARIS, PARIS]),
        (CALL.removesuffix("</tool_call>"), "", [PARIS]),
        (CALL.removesuffix("call>"), "", [PARIS]),
        (CALL.replace("\n", ""), "", [PARIS]),
        (CALL.replace(">\n<", ">\n\n  <"), "", [PARIS]),
        (write("get_time"), "", [Called("get_time", "{}")]),
        (write("nobody", a="5"), "", [Called("nobody", '{"a": "5"}')]),
        (
            "<tool_call><function=get_time></function><function=f></function></tool_call>",
            "",
            [Called("get_time", "{}"), Called("f", "{}")],
        ),
        (
            write("set_alarm", hour="7", volume="0.50", repeat="True", label="null"),
            "",
            [Called("set_alarm", '{"hour": 7, "volume": 0.50, "repeat": true, "label": null}')],
        ),
        (
            write("search", query='{"a": 1}', filters='{"tags": ["a"],\n "limit": 1}'),
            "",
            [
                Called(
                    "search", '{"query": "{\\"a\\": 1}", "filters": {"tags": ["a"],\n "limit": 1}}'
                )
            ],
        ),
    ],
)
def test_calls_and_text_are_told_apart(
    text: str, shown: str, calls: list[Called], setup: Setup
) -> None:
    assert read(QWEN, [text], setup) == Reading("", shown, tuple(calls))


@pytest.mark.parametrize(
    "value",
    ["", "\n", "  indented\n\ttwice\n", "<b>bold</b>", "a <parameter=x> b", "\n\n", "</tool_call>",
     "Close with </parameter> or </function>; open with <function=x>.", "<tool_call>"],
)  # fmt: skip
def test_a_value_is_kept_character_by_character(value: str) -> None:
    arguments = read(QWEN, [write("write_file", path="x", content=value)], SETUP).calls[0].arguments
    assert json.loads(arguments) == {"path": "x", "content": value}


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("<parameter=city>\nRome\n<parameter=unit>\ncelsius\n</parameter>\n",
         {"city": "Rome", "unit": "celsius"}),
        ("<parameter=city>\nRome\n", {"city": "Rome"}),
        ("<parameter=city>\nRome\n<parameter=unit>\ncelsius\n",
         {"city": "Rome", "unit": "celsius"}),
        ("<parameter=city>\nRome\n<parameter=other>\n</parameter>\n",
         {"city": "Rome\n<parameter=other>"}),
        ("<parameter=city>\nRome\n<parameter=city>\n</parameter>\n",
         {"city": "Rome\n<parameter=city>"}),
    ],
)  # fmt: skip
def test_an_argument_need_not_be_closed(text: str, arguments: dict[str, str]) -> None:
    reading = read(
        QWEN, [f"<tool_call>\n<function=get_weather>\n{text}</function>\n</tool_call>"], SETUP
    )
    assert [json.loads(call.arguments) for call in reading.calls] == [arguments]
    assert not reading.text


def test_a_call_of_a_tool_that_was_offered_may_lack_its_first_tag() -> None:
    bare = CALL.removeprefix("<tool_call>\n")
    assert read(QWEN, [f"Well.\n\n{bare}"], SETUP) == Reading("", "Well.", (PARIS,))
    assert read(QWEN, [bare.removesuffix("\n</tool_call>") + "\nWell."], SETUP) == Reading(
        "", "\nWell.", (PARIS,)
    )
    assert parse(QWEN, [bare], Setup()) == [Text(bare)]
    assert parse(QWEN, [bare], STRICT) == [Text(bare)]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "<tool_call></tool_call>",
        '\n<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>',
        "<tool_call><function=></function></tool_call>",
        "<tool_call><function=f></tool_call>",
        "<tool_call><function=f\n></function></tool_call>",
        "<tool_call><function=f>text</function></tool_call>",
        "<tool_call><function=f><parameter=>1</parameter></function></tool_call>",
        "<tool_call><function=f><parameter=a>1</parameter> and</function></tool_call>",
        write("f", a="1").replace("</function>", "<parameter=a>\n2\n</parameter>\n</function>"),
        "Use <function=get_weather> for it.",
        CALL[:50],
        CALL.removesuffix("</function>\n</tool_call>"),
    ],
)
def test_a_malformed_call_is_text_exactly_as_written(text: str) -> None:
    assert parse(QWEN, [text], SETUP) == [Text(text)]


def test_a_call_behind_a_malformed_one_is_read() -> None:
    broken = "<tool_call>\n<function=f>\nI mean"
    assert read(QWEN, [f"{broken}\n{CALL}"], SETUP) == Reading("", broken, (PARIS,))


def test_a_constrained_call_is_given_as_it_comes() -> None:
    parser = QWEN.parser(STRICT)
    begun, more, _ = (parser.feed(piece) for piece in CALL.partition("aris"))
    assert begun[0] == CallBegin(0, "get_weather")
    assert more == [CallArguments(0, "aris")]


def test_a_structure_has_a_tag_for_each_tool() -> None:
    structure = QWEN.structure(ToolUse(TOOLS[:2], parallel=False), "")
    assert structure is not None
    assert structure["triggers"] == ["<tool_call>"]
    assert structure["stop_after_first"]
    assert [tag["begin"] for tag in structure["tags"]] == [
        f"<tool_call>\n<function={tool.name}>" for tool in TOOLS[:2]
    ]
    assert QWEN.structure(ToolUse(()), "") is None
