# SPDX-License-Identifier: Apache-2.0
"""Calls between special tokens, as DeepSeek V3, R1 and V3.1 write them."""

import pytest

from support.parser_calls import TOOLS
from support.parser_readings import Called, Reading, read
from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, Setup, Text, ToolUse
from trellis.parsers.registry import load

DEEPSEEK = load("deepseek_v3")
CALL, END, SEPARATOR = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
ARGUMENTS = '{"a": 1.50, "b": "\\u00e9 é ```"}'
CALLED = Called("f", ARGUMENTS)


def section(*calls: str, between: str = "") -> str:
    return f"<｜tool▁calls▁begin｜>{between.join(calls)}<｜tool▁calls▁end｜>"


OLD = f"{CALL}function{SEPARATOR}f\n```json\n{ARGUMENTS}\n```{END}"
NEW = f"{CALL}f{SEPARATOR}{ARGUMENTS}{END}"


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("call", [OLD, NEW], ids=["V3", "V3.1"])
def test_calls_and_text_are_told_apart(call: str, constrained: bool) -> None:
    setup = Setup(constrained=constrained)
    assert read(DEEPSEEK, [section(call)], setup) == Reading("", "", (CALLED,))
    text = f"Well.\n{section(call, call, between=chr(10))} So.{section(call)}"
    assert read(DEEPSEEK, [text], setup) == Reading("", "Well.\n So.", (CALLED,) * 3)
    for cut_off in ("<｜tool▁calls▁end｜>", "▁calls▁end｜>", f"{END}<｜tool▁calls▁end｜>"):
        cut = section(call).removesuffix(cut_off)
        assert read(DEEPSEEK, [cut], setup) == Reading("", "", (CALLED,))


def test_a_function_may_be_named_as_the_kind_is() -> None:
    text = section(NEW.replace("f<", "function<", 1))
    assert read(DEEPSEEK, [text]).calls == (Called("function", ARGUMENTS),)


@pytest.mark.parametrize(
    "text",
    [
        "<｜tool▁calls▁begin｜>",
        section(),
        section(f"function{SEPARATOR}f\n```json\n{{}}\n```"),
        section(OLD.replace("function", "tool", 1)),
        section(OLD.replace("f\n", "\n")),
        section(OLD.replace("```json", "```")),
        section(OLD.replace("}", "", 1)),
        section(OLD.replace(ARGUMENTS, "[]")),
        section(OLD.replace(ARGUMENTS, "")),
        section(NEW.replace("f<", "<", 1)),
        section(NEW.replace(ARGUMENTS, "1")),
        section(NEW.replace(END, "")),
        section(NEW.replace(SEPARATOR, "")),
        section(NEW)[:-60],
    ],
)
def test_a_malformed_call_is_text_exactly_as_written(text: str) -> None:
    assert parse(DEEPSEEK, [text]) == [Text(text)]


def test_a_call_behind_a_malformed_one_is_read() -> None:
    broken = NEW.replace(ARGUMENTS, "{")
    text = section(NEW, broken, NEW)
    assert read(DEEPSEEK, [text]) == Reading("", broken, (CALLED, CALLED))


def test_a_constrained_call_is_given_as_it_comes() -> None:
    parser = DEEPSEEK.parser(Setup(constrained=True))
    begun, more, _ = (parser.feed(piece) for piece in section(NEW).partition("1.5"))
    assert begun == [CallBegin(0, "f"), CallArguments(0, '{"a": ')]
    assert more == [CallArguments(0, "1.5")]


@pytest.mark.parametrize(
    ("prompt", "begin"),
    [
        ("<｜Assistant｜>", f"{CALL}function{SEPARATOR}get_weather\n```json\n"),
        ("<｜Assistant｜><think>\n", f"{CALL}function{SEPARATOR}get_weather\n```json\n"),
        ("<｜Assistant｜></think>", f"{CALL}get_weather{SEPARATOR}"),
        ("<｜Assistant｜><think>", f"{CALL}get_weather{SEPARATOR}"),
    ],
)
def test_a_structure_is_of_the_form_that_the_prompt_tells(prompt: str, begin: str) -> None:
    required = DEEPSEEK.structure(ToolUse(TOOLS, required=True, parallel=False), prompt)
    auto = DEEPSEEK.structure(ToolUse(TOOLS, parallel=False), prompt)
    assert required is not None
    assert auto is not None
    assert auto["tags"] == [required]
    assert required["content"]["tags"][0]["begin"] == begin
    assert required["content"]["stop_after_first"]
    assert DEEPSEEK.structure(ToolUse(()), prompt) is None
