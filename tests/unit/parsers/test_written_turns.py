# SPDX-License-Identifier: Apache-2.0
"""What each format's parser reads of random turns is what was written, however it is cut."""

import json
import random

import pytest

from support.parser_calls import TOOLS, random_turn
from support.parser_readings import read
from support.parser_writers import PROMPTS, WRITERS, written
from support.parsing import cut
from trellis.parsers import Setup
from trellis.parsers.registry import known_formats, load


def test_each_format_of_calls_has_a_writer() -> None:
    assert set(WRITERS) == {name for name in known_formats() if load(name).calls}


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("form", WRITERS)
def test_what_is_written_is_read(form: str, constrained: bool) -> None:
    source = random.Random(form)
    setup = Setup(PROMPTS.get(form, ""), TOOLS, constrained)
    calls = 0
    for _ in range(100):
        turn = written(form, random_turn(source))
        text = WRITERS[form](turn)
        reading = read(load(form), cut(text, source), setup)
        found = [(call.name, json.loads(call.arguments)) for call in reading.calls]
        assert (reading.reasoning, reading.text, found) == (
            turn.reasoning,
            turn.text,
            list(turn.calls),
        ), text
        assert all(call.complete for call in reading.calls)
        calls += len(found)
    assert calls > 50
