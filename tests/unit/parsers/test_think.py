# SPDX-License-Identifier: Apache-2.0
"""Thoughts in front of an answer, alone and in front of calls."""

import pytest

from support.parsing import parse
from trellis.parsers import CallArguments, CallBegin, CallEnd, Event, Reasoning, Setup, Text
from trellis.parsers.registry import load

THINK = load("think")
THOUGHT, ANSWER = Reasoning("Hm.\nWell"), Text("Yes.")


@pytest.mark.parametrize(
    ("prompt", "text", "events"),
    [
        ("", "<think>\nHm.\nWell\n</think>\n\nYes.", [THOUGHT, ANSWER]),
        ("", "<think>Hm.\nWell</think>Yes.", [THOUGHT, ANSWER]),
        ("", "\n<think>\n\n</think>\n\nYes.", [ANSWER]),
        ("", "[THINK]Hm.\nWell[/THINK]Yes.", [THOUGHT, ANSWER]),
        ("", "<think>\nHm.\nWell\n</think>\n\n\n Yes.", [THOUGHT, Text("\n Yes.")]),
        ("<think>\n", "Hm.\nWell\n</think>\n\nYes.", [THOUGHT, ANSWER]),
        ("<think>", "\nHm.\nWell\n</think>\n\nYes.", [THOUGHT, ANSWER]),
        ("<think>\n", "Hm.\nWell", [THOUGHT]),
        ("<think>\n", "Hm. <think></think>Yes.", [Reasoning("Hm. <think>"), ANSWER]),
        ("", "<think>[/THINK]</think>Yes.", [Reasoning("[/THINK]"), ANSWER]),
        ("", "<think>Hm.\nWell</thin", [Reasoning("Hm.\nWell</thin")]),
        ("<think>\n\n</think>\n\n", "Yes.", [ANSWER]),
        ("What does <think> mean?", "Yes.", [ANSWER]),
        ("", "Yes. <think>Hm.</think>", [Text("Yes. <think>Hm.</think>")]),
        ("", " \n Yes.", [Text(" \n Yes.")]),
        ("", "<thin", [Text("<thin")]),
        ("", "", []),
    ],
)
def test_thoughts_and_the_answer_are_told_apart(
    prompt: str, text: str, events: list[Event]
) -> None:
    assert parse(THINK, [text], Setup(prompt=prompt)) == events
    assert parse(THINK, text, Setup(prompt=prompt)) == events


def test_thoughts_are_given_as_they_come_but_for_what_may_end_them() -> None:
    parser = THINK.parser(Setup())

    assert parser.feed("<think>\nHm") == [Reasoning("Hm")]
    assert parser.feed(". \n</") == [Reasoning(". ")]
    assert parser.feed("b>") == [Reasoning("\n</b>")]
    assert parser.feed("\n</think>\nYes") == [Text("Yes")]
    assert parser.end() == []


def test_a_call_in_thoughts_is_thought_and_a_call_behind_them_is_one() -> None:
    called = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'

    assert parse(load("think+hermes"), [f"<think>\n{called}\n</think>\n\nSo.\n{called}"]) == [
        Reasoning(called),
        Text("So."),
        CallBegin(0, "f"),
        CallArguments(0, "{}"),
        CallEnd(0),
    ]
