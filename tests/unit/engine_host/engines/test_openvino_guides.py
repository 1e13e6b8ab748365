"""Guides of the OpenVINO engine: the demo's model at temperature 1 is held to each kind."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.waiting import wait_for
from trellis.engine_host.engines import openvino_guides
from trellis.engine_host.engines.engine import EngineSettings, Failure, Sampling
from trellis.engine_host.engines.openvino import OpenVinoEngine
from trellis.errors import RequestError
from trellis.guides.translate import translate

pytestmark = pytest.mark.slow  # the demo's model makes every token

PROMPT = [504, 3575, 282, 4649]
END = 2  # <|im_end|>, which ends the model's own answers


@pytest.fixture(scope="module")
def engine(demo_engine: tuple[Path, Path]) -> Iterator[OpenVinoEngine]:
    folder, _ = demo_engine
    made = OpenVinoEngine(EngineSettings(folder, max_batch_size=8))
    yield made
    made.close()


def ask(engine: OpenVinoEngine, key: int, kind: str, guide: str = "", **more: Any) -> None:
    asked = {"max_tokens": 200, "end_id": END, "temperature": 1.0, "sample": True, "seed": key}
    if kind:
        kind, guide = translate(kind, guide)
    sampling = Sampling(**asked | {"guide_type": kind, "guide": guide} | more)
    engine.refuse(sampling)
    engine.add(key, np.array(PROMPT), sampling)


def run(engine: OpenVinoEngine) -> tuple[dict[int, list[int]], dict[int, str]]:
    """The ids of each key, and how it ended: a finish reason, or an error."""
    ids: dict[int, list[int]] = {}
    ends: dict[int, str] = {}
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Failure):
                ends[event.key] = event.message
            else:
                ids.setdefault(event.key, []).extend(event.ids)
                ends[event.key] = event.finish or ""
    return ids, ends


def text(engine: OpenVinoEngine, ids: list[int]) -> str:
    assert ids[-1] == END
    return str(engine._pipeline.get_tokenizer().decode(ids[:-1]))


TAG = {
    "type": "structural_tag",
    "format": {
        "type": "sequence",
        "elements": [
            {"type": "const_string", "value": "<f>"},
            {"type": "regex", "pattern": "[ab]c"},
        ],
    },
}
HELD = {
    "regex": ("[a-c]{2,5}x", "[a-c]{2,5}x"),
    "ebnf_grammar": ('root ::= "x" [0-9]{1,3} | "y"', "x[0-9]{1,3}|y"),
    "structural_tag": (json.dumps(TAG), "<f>[ab]c"),
}


@pytest.mark.parametrize("kind", HELD)
def test_an_answer_is_what_its_guide_says(engine: OpenVinoEngine, kind: str) -> None:
    guide, expression = HELD[kind]
    for key in (1, 2, 3):
        ask(engine, key, kind, guide)
    ids, ends = run(engine)
    assert set(ends.values()) == {"stop"}
    assert all(re.fullmatch(expression, text(engine, made)) for made in ids.values())


def test_a_guide_ends_an_answer_that_no_token_ends(engine: OpenVinoEngine) -> None:
    ask(engine, 1, "regex", "[a-c]{2}", end_id=-1)
    ids, ends = run(engine)
    assert ends == {1: "stop"}
    assert END not in ids[1]


def test_a_guide_that_is_none_fails_its_own_request_alone(engine: OpenVinoEngine) -> None:
    nothing = Sampling(max_tokens=9, guide_type="ebnf_grammar", guide="root ::= nothing")
    engine.add(1, np.array(PROMPT), nothing)
    ask(engine, 2, "regex", "[a-c]{2}")
    ids, ends = run(engine)
    assert ends[1].startswith("guided_decoding_guide: ")
    assert ends[2] == "stop"
    assert 1 not in ids


def test_a_request_is_cancelled_while_its_guide_compiles(engine: OpenVinoEngine) -> None:
    ask(engine, 1, "regex", "[a-f]{2,300}")
    engine.cancel(1)
    assert not engine.busy


def test_a_guide_that_takes_too_long_fails_its_own_request_alone(
    engine: OpenVinoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_guides, "GUIDE_SECONDS", 0)
    ask(engine, 1, "regex", "[^a]{90}")
    ask(engine, 2, "", max_tokens=5)
    _, ends = run(engine)
    assert ends[1].startswith("guided_decoding_guide: not compiled within")
    assert ends[2] in ("stop", "length")


def test_others_step_on_while_a_guide_compiles(engine: OpenVinoEngine) -> None:
    ask(engine, 1, "json", max_tokens=100)
    run(engine)  # it is known now
    ask(engine, 1, "json_schema", '{"type": "string", "maxLength": 128}')
    ask(engine, 2, "", max_tokens=30, end_id=-1)
    steps_of: list[int] = []
    while engine.busy:
        steps_of += [event.key for event in engine.step()]
    assert steps_of.index(1) > 2, "the other one waited"


def test_the_pipeline_is_loaded_anew_when_it_keeps_too_much(
    engine: OpenVinoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_guides, "KEPT_ELEMENTS", 1)
    ask(engine, 1, "regex", "anew[0-9]{2}")
    run(engine)
    before = engine._pipeline
    ask(engine, 2, "regex", "anew[0-9]{2}")  # it is kept
    ask(engine, 3, "regex", "other[0-9]{2}")
    ask(engine, 4, "", max_tokens=3, end_id=-1)
    ask(engine, 5, "regex", "third[0-9]{2}")
    engine.cancel(5)
    assert set(engine._held) == {3, 4}
    ids, ends = run(engine)
    assert ends == {2: "stop", 3: "stop", 4: "length"}
    assert engine._pipeline is not before
    assert text(engine, ids[3]).startswith("other")


def test_what_is_compiled_for_nobody_counts_among_what_is_kept(engine: OpenVinoEngine) -> None:
    """Else clients that leave could fill the memory."""
    guides = engine._guides
    before, compiled = guides._elements, guides.compiled
    ask(engine, 1, "regex", "nobody[0-9]{2}")
    wait_for(lambda: bool(guides._waiting[1].begun))
    done = guides._waiting[1].done
    engine.cancel(1)
    done.exception()
    assert (guides.compiled, engine.busy) == (compiled + 1, False)
    assert guides._elements > before
    assert guides.is_ready(translate("regex", "nobody[0-9]{2}"))
    ask(engine, 2, "regex", "nobody[0-9]{2}")  # it is kept
    run(engine)
    assert guides.compiled == compiled + 1


REFUSED: dict[str, dict[str, Any]] = {
    "min_tokens": {"min_tokens": 2},
    "bad_words": {"bad_words": ("no",)},
    "num_return_sequences": {"num_return_sequences": 2},
    "beam_width": {"beam_width": 2, "sample": False},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_guide_excludes_is_rejected_by_name(engine: OpenVinoEngine, name: str) -> None:
    with pytest.raises(RequestError, match=f"^{name}: "):
        ask(engine, 1, "regex", "a", **REFUSED[name])
