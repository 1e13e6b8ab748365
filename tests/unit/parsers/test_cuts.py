# SPDX-License-Identifier: Apache-2.0
"""What a parser gives depends on the text alone, however it is cut, and none of it is lost."""

import itertools
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.parser_texts import ANSWERS, MARKUP, PLAIN, TOOLS, accounts_for, setups
from support.parsing import check_cuts, parse
from trellis.parsers import Event, Reasoning, Setup, Span, TellsReasoning, Text
from trellis.parsers.registry import load

TEXTS, CUTS = 100, 100
PIECE = 10  # characters
MEGABYTE = 1_000_000
quick = settings(max_examples=TEXTS, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", ANSWERS)
def test_ten_thousand_cuts_give_what_the_whole_text_gives(name: str) -> None:
    format = load(name)

    @quick
    @given(ANSWERS[name], setups(name), st.randoms(use_true_random=False))
    def check(text: str, setup: Setup, dice: random.Random) -> None:
        check_cuts(format, text, CUTS, dice, setup)

    check()


@pytest.mark.parametrize("name", [name for name in ANSWERS if load(name).reasoning])
def test_reasoning_is_where_the_parser_says_however_the_text_is_cut(name: str) -> None:
    format = load(name)

    @quick
    @given(ANSWERS[name], setups(name), st.lists(st.integers(0, 200), max_size=8))
    def check(text: str, setup: Setup, cuts: list[int]) -> None:
        parser = format.parser(setup)
        assert isinstance(parser, TellsReasoning)
        ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
        events: list[Event] = []
        told: list[Span] = []
        read = 0
        for a, b in itertools.pairwise([0, *ends]):
            events += parser.feed(text[a:b])
            spans, before = parser.take_reasoned()
            assert all(begin >= read for begin, _ in spans)
            told, read = told + spans, max(read, before)
        events += parser.end()
        told += parser.take_reasoned()[0]
        assert told == sorted(told)
        thoughts = "".join(each.text for each in events if isinstance(each, Reasoning))
        assert "".join(text[begin:end] for begin, end in told) == thoughts

    check()


@pytest.mark.parametrize("name", MARKUP)
def test_nothing_of_a_text_is_lost(name: str) -> None:
    format = load(name)

    @quick
    @given(ANSWERS[name])
    def check(text: str) -> None:
        events = parse(format, [text], Setup(tools=TOOLS))
        assert accounts_for(name, text, events), events

    check()


@pytest.mark.parametrize("name", [name for name in ANSWERS if "think" not in name])
@given(text=PLAIN)
def test_text_without_a_call_is_given_as_it_is(name: str, text: str) -> None:
    assert parse(load(name), [text]) == ([Text(text)] if text else [])


BEGINNINGS = {
    "hermes": '<tool_call>\n{"name": "f", "arguments": ',
    "llama3_json": '<|python_tag|>{"name": "f", "parameters": ',
    "llama4_pythonic": "<|python_start|>[f(a=",
    "mistral": '[TOOL_CALLS][{"name": "f", "arguments": ',
    "think": "<think>",
    "qwen3_coder": "<tool_call>\n<function=f>\n<parameter=c>\n",
    "glm": "<tool_call>f<arg_key>c</arg_key><arg_value>",
    "deepseek_v3": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>",
    "harmony": "<|channel|>commentary to=functions.f json<|message|>",
    "think+hermes": "<think></think><tool_call>",
}


NESTED = '{B}{{"a": [1, '
HOSTILE = [NESTED, "{B}", "x", "\n", '{B}{{"', '{B}{{"a": "x"', '{B}{{"a": "\\n{B}']


def long_text(name: str, filler: str, length: int = MEGABYTE) -> str:
    """A call's beginning, and then the filler again and again."""
    repeated = filler.format(B=BEGINNINGS[name]) if "{" in filler else filler
    return (BEGINNINGS[name] + repeated * (length // len(repeated)))[:length]


def in_pieces(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def seconds(name: str, pieces: list[str]) -> float:
    began = time.process_time()
    parse(load(name), pieces, Setup(tools=TOOLS))
    return time.process_time() - began


@pytest.mark.parametrize("name", ANSWERS)
def test_a_megabyte_in_a_hundred_thousand_pieces_takes_seconds(name: str) -> None:
    assert seconds(name, in_pieces(long_text(name, NESTED))) < 20


@pytest.mark.slow
@pytest.mark.parametrize("filler", HOSTILE)
@pytest.mark.parametrize("name", ANSWERS)
def test_no_text_takes_longer(name: str, filler: str) -> None:
    text = long_text(name, filler, MEGABYTE // 4)

    assert seconds(name, in_pieces(text)) < 5
    assert seconds(name, [text]) < 5
