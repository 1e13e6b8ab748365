# SPDX-License-Identifier: Apache-2.0
"""Messages on channels, as gpt-oss writes them."""

import json
from typing import Any

import pytest

from support.harmony_reference import GOLDEN
from support.parser_readings import Called, Reading, read
from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, Reasoning, Setup, Text, Tool, ToolUse
from trellis.parsers.registry import load

HARMONY = load("harmony")
START, END = "<|start|>assistant", "<|end|>"
THOUGHT = f"<|channel|>analysis<|message|>So.{END}"
FINAL = "<|channel|>final<|message|>Well."
ARGUMENTS = '{"a": 1.50, "b": "\\u00e9 é <|call|><|end|>"}'
CALLED = Called("f", ARGUMENTS)
HEADERS = [
    "<|channel|>commentary to=functions.f <|constrain|>json",
    "<|channel|>commentary to=functions.f<|constrain|>json",
    "<|channel|>commentary to=functions.f json",
    "<|channel|>commentary to=functions.f",
    "<|channel|>analysis to=functions.f code",
    " to=functions.f<|channel|>commentary <|constrain|>json",
    " to=functions.f<|channel|>commentary json",
    " to=functions.f<|channel|>analysis<|constrain|>json",
    " to=functions.f<|channel|>final",
    " to=functions.f json",
]
PROMPT = Setup(f"<|start|>user<|message|>Go.{END}{START}")


@pytest.mark.parametrize("setup", [PROMPT, Setup(), Setup(constrained=True)])
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("end", ["", "<|call|>", END, "<|return|>", "\n"])
def test_a_call_has_many_headers_and_ends(header: str, end: str, setup: Setup) -> None:
    call = f"{header}<|message|>{ARGUMENTS}{end}"
    assert read(HARMONY, [call], setup) == Reading("", "", (CALLED,))
    assert read(HARMONY, [f"{THOUGHT}{START}{call}"], setup) == Reading("So.", "", (CALLED,))


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        (f"{THOUGHT}{START}{FINAL}", Reading("So.", "Well.", ())),
        (FINAL, Reading("", "Well.", ())),
        (FINAL + END, Reading("", "Well.", ())),
        (f"<|channel|>commentary<|message|>Now.{END}{START}{FINAL}", Reading("", "Now.Well.", ())),
        (f"{THOUGHT}{START}{THOUGHT}{START}{FINAL}", Reading("So.So.", "Well.", ())),
        (THOUGHT.removesuffix(END), Reading("So.", "", ())),
        (f"{THOUGHT.removesuffix(END)}{START}{FINAL}", Reading("So.", "Well.", ())),
        ("<|channel|>analysis<|message|>no <|call|> yet", Reading("no <|call|> yet", "", ())),
        (f"{THOUGHT}{START} to=python code<|message|>1+1", Reading("So.1+1", "", ())),
        ("<|channel|>final <|constrain|>json<|message|>[1]", Reading("", "[1]", ())),
    ],
)
def test_channels_tell_thoughts_from_text(text: str, reading: Reading) -> None:
    assert read(HARMONY, [text], PROMPT) == reading


def test_several_calls_and_text_are_told_apart() -> None:
    call = f"{HEADERS[0]}<|message|>{ARGUMENTS}<|call|>"
    text = f"{call}{START}{call}{START}{FINAL}"
    assert read(HARMONY, [text], PROMPT) == Reading("", "Well.", (CALLED, CALLED))


def test_a_tool_of_the_request_is_called_by_its_whole_name() -> None:
    setup = Setup(tools=[Tool("browser.search")])
    text = "<|channel|>commentary to=browser.search code<|message|>{}"
    assert read(HARMONY, [text], setup) == Reading("", "", (Called("browser.search", "{}"),))


@pytest.mark.parametrize(
    ("begun", "answer", "reading"),
    [
        ("<|channel|>final<|message|>", "Well.", Reading("", "Well.", ())),
        ("<|channel|>final<|message|>We", "ll.", Reading("", "ll.", ())),
        ("<|channel|>analysis<|message|>", f"So.{END}{START}{FINAL}", Reading("So.", "Well.", ())),
        ("<|channel|>final", "<|message|>Well.", Reading("", "Well.", ())),
        ("<|channel|>comm", f"entary to=functions.f<|message|>{ARGUMENTS}",
         Reading("", "", (CALLED,))),
    ],
)  # fmt: skip
def test_a_prompt_may_have_begun_the_message(begun: str, answer: str, reading: Reading) -> None:
    assert read(HARMONY, [answer], Setup(PROMPT.prompt + begun)) == reading


@pytest.mark.parametrize(
    "text",
    [
        "Well.",
        "Well.<|end|>",
        "<|message|>Well.",
        "<|channel|>comment<|message|>Well.<|end|>",
        "<|channel|>??<|end|>",
        '<|channel|>final {"a": 1}',
        "<|channel|>final\n<|message|>Well.",
        "<|channel|>commentary to=assistant<|channel|>analysis<|message|>So.",
        " to=functions.f<|channel|>commentary to=functions.f<|message|>{}",
        " to=functions.<|channel|>commentary<|message|>{}",
        f"{HEADERS[0]}<|message|>",
        f"{HEADERS[0]}<|message|>[]",
        f"{HEADERS[0]}<|message|>{{",
        f"{HEADERS[0]}<|message|>{ARGUMENTS[:-1]}<|call|>",
        f"{HEADERS[0]}<|message|>{ARGUMENTS} and",
        HEADERS[0],
    ],
)
def test_what_is_malformed_is_text_exactly_as_written(text: str) -> None:
    assert parse(HARMONY, [text], PROMPT) == [Text(text)]
    assert parse(HARMONY, [f"{THOUGHT}{START}{text}"], PROMPT) == [
        Reasoning("So."),
        Text(START + text),
    ]
    assert parse(HARMONY, [f"{text}{START}{THOUGHT}"], PROMPT) == [Text(text), Reasoning("So.")]


def test_a_constrained_call_is_given_as_it_comes() -> None:
    parser = HARMONY.parser(Setup(PROMPT.prompt, constrained=True))
    call = f"{HEADERS[0]}<|message|>{ARGUMENTS}"
    begun, more, _ = (parser.feed(piece) for piece in call.partition("1.5"))
    assert begun == [CallBegin(0, "f"), CallArguments(0, '{"a": ')]
    assert more == [CallArguments(0, "1.5")]


def test_text_is_given_as_it_comes() -> None:
    parser = HARMONY.parser(PROMPT)
    assert parser.feed(FINAL) == [Text("Well.")]
    assert HARMONY.parser(PROMPT).feed("No channel at all") == [Text("No channel at all")]


def test_a_structure_needs_a_prompt_that_begins_a_message() -> None:
    use = ToolUse([Tool("f")], required=True)
    required = HARMONY.structure(use, PROMPT.prompt)
    assert required is not None
    begins = [tag["begin"] for tag in required["elements"][-1]["elements"]]
    assert begins == [HEADERS[place] + "<|message|>" for place in (0, 2, 5, 6)]
    auto = HARMONY.structure(ToolUse([Tool("f")]), PROMPT.prompt)
    assert auto is not None
    assert auto["elements"][-1]["elements"][-1]["elements"][0]["value"] == FINAL[:-5]
    assert HARMONY.structure(use, "") is None
    assert HARMONY.structure(ToolUse(()), PROMPT.prompt) is None
    assert HARMONY.thoughts("") is None
    assert HARMONY.thoughts(PROMPT.prompt) is not None


@pytest.mark.parametrize("noted", json.loads(GOLDEN.read_text(encoding="utf-8")), ids=lambda _: "")
def test_openais_own_library_reads_the_same(noted: dict[str, Any]) -> None:
    """Its messages by support/harmony_reference.py; what becomes of which is ours."""
    reasoning, text, calls = "", "", []
    for channel, recipient, content in noted["messages"]:
        if recipient.startswith("<|constrain|>"):
            recipient = ""  # release 0.0.11 takes a content's type for one, behind a space
        if recipient.startswith("functions."):
            calls.append(Called(recipient.removeprefix("functions."), content))
        elif recipient or channel == "analysis":
            reasoning += content
        else:
            text += content
    assert read(HARMONY, noted["text"], PROMPT) == Reading(reasoning, text, tuple(calls))
